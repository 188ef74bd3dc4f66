"""Speech codes to mel: length regulation, then flow matching behind the prompt's mel (spec 9)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from indextts.loading import Models
from indextts.models.flow_matching import join_rows
from indextts.types import SpeechCodes, Voice

NoiseSource = Callable[[tuple[int, int], "torch.Generator | None"], Tensor]


class S2MelStage:
    """``SpeechCodes`` of some segments and their ``Voice`` to a mel ``[1, n_mels, F]`` each.

    ``draw_noise`` gives the solver's start for one segment, ``[n_mels, frames of prompt and speech]``.
    """

    def __init__(self, models: Models) -> None:
        self.models = models
        self.draw_noise: NoiseSource = self._gaussian

    def _gaussian(self, shape: tuple[int, int], generator: torch.Generator | None) -> Tensor:
        return torch.randn(shape, generator=generator, device=self.models.device)

    @torch.inference_mode()
    def __call__(
        self,
        spoken: Sequence[SpeechCodes],
        voice: Voice,
        generator: torch.Generator | None,
        check: Callable[[], None] | None = None,
    ) -> list[Tensor]:
        """The mels of a batch of segments, each as it would be alone; the prompt's part is cut off.

        ``check`` is called before every step of the solver, and raises to give up.
        """
        config, net, device = self.models.config.s2mel, self.models.s2mel, self.models.device
        embeddings = [self._embedding(speech) for speech in spoken]
        code_lens = torch.tensor([len(e) for e in embeddings], device=device)
        frames = net.target_frames(code_lens)
        content = net.length_regulator(pad_sequence(embeddings, batch_first=True), frames, code_lens)

        rows, prompt_frames = len(spoken), voice.prompt_mel.shape[-1]
        prompt_lens = torch.full((rows,), prompt_frames, device=device)
        totals = prompt_lens + frames
        mu = join_rows(voice.prompt_condition.expand(rows, -1, -1), prompt_lens, content, frames)
        noise = torch.zeros(rows, config.DiT.in_channels, mu.shape[1], device=device)
        for row, total in zip(noise, totals.tolist(), strict=True):
            row[:, :total] = self.draw_noise((len(row), total), generator)
        prompt, style = voice.prompt_mel.expand(rows, -1, -1), voice.style.expand(rows, -1)
        ragged = {} if rows == 1 else {"x_lens": totals, "prompt_lens": prompt_lens}
        mel = net.solve(
            net.estimator, noise, mu, prompt, style,
            steps=config.steps, cfg_rate=config.cfg_rate, before_step=check, **ragged,
        )  # fmt: skip
        return [mel[i : i + 1, :, prompt_frames:total] for i, total in enumerate(totals.tolist())]

    def _embedding(self, speech: SpeechCodes) -> Tensor:
        """What codes and latents say together, ``[M, D]``."""
        quantized = self.models.semantic_codec.vq2emb(speech.codes[None])[0].T
        return quantized + self.models.s2mel.gpt_layer(speech.latent.float())
