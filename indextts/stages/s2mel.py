"""Speech codes to mel: length regulation, then flow matching behind the prompt's mel (spec 9)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from indextts.loading import Models
from indextts.models.flow_matching import join_rows
from indextts.types import SpeechCodes, Voice

NOISE_BLOCK_FRAMES = 256

NoiseSource = Callable[[int, int, torch.Generator], Tensor]


class S2MelStage:
    """``SpeechCodes`` of some segments and their ``Voice`` to a mel ``[1, n_mels, F]`` each.

    ``draw_noise`` gives the solver's start for the frames of one segment: of its index, their number F and the
    generator of the request, ``[n_mels, F]``.
    """

    def __init__(self, models: Models) -> None:
        self.models = models
        self.draw_noise: NoiseSource = self._gaussian

    @torch.inference_mode()
    def __call__(
        self,
        spoken: Sequence[SpeechCodes],
        voice: Voice,
        generator: torch.Generator,
        check: Callable[[], None] | None = None,
    ) -> list[Tensor]:
        """The mels of a batch of segments, each as it would be alone.

        ``check`` is called before every step of the solver, and raises to give up.
        """
        content, frames = self.content(spoken)
        noise = [
            self.draw_noise(speech.segment.index, count, generator)
            for speech, count in zip(spoken, frames.tolist(), strict=True)
        ]
        return self.flow(content, frames, noise, voice, check)

    @torch.inference_mode()
    def content(self, spoken: Sequence[SpeechCodes]) -> tuple[Tensor, Tensor]:
        """What is to be said at each mel frame, ``[B, F, C]``, and the number of frames of each segment ``[B]``."""
        net = self.models.s2mel
        embeddings = [self._embedding(speech) for speech in spoken]
        code_lens = torch.tensor([len(e) for e in embeddings], device=self.models.device)
        own_frames = [net.target_frames(len(s.codes)) if s.frames is None else s.frames for s in spoken]
        frames = torch.tensor(own_frames, device=self.models.device)
        return net.length_regulator(pad_sequence(embeddings, batch_first=True), frames, code_lens), frames

    @torch.inference_mode()
    def flow(
        self,
        content: Tensor,
        frames: Tensor,
        noise: Sequence[Tensor],
        voice: Voice,
        check: Callable[[], None] | None = None,
    ) -> list[Tensor]:
        """The mels of ``content``, each behind the prompt of ``voice``, which is cut off again.

        Args:
            content, frames: As of the method ``content``.
            noise: ``[n_mels, F]`` for each segment.
            check: As of a call.
        """
        config, net, device = self.models.config.s2mel, self.models.s2mel, self.models.device
        rows, prompt_frames = len(content), voice.prompt_mel.shape[-1]
        prompt_lens = torch.full((rows,), prompt_frames, device=device)
        totals = prompt_lens + frames
        mu = join_rows(voice.prompt_condition.expand(rows, -1, -1), prompt_lens, content, frames)
        start = torch.zeros(rows, config.DiT.in_channels, mu.shape[1], device=device)
        for row, own in zip(start, noise, strict=True):
            row[:, prompt_frames : prompt_frames + own.shape[1]] = own * config.temperature
        prompt, style = voice.prompt_mel.expand(rows, -1, -1), voice.style.expand(rows, -1)
        ragged = {} if rows == 1 else {"x_lens": totals, "prompt_lens": prompt_lens}
        mel = net.solve(
            net.estimator, start, mu, prompt, style,
            steps=config.steps, cfg_rate=config.cfg_rate, before_step=check, **ragged,
        )  # fmt: skip
        return [mel[i : i + 1, :, prompt_frames:total] for i, total in enumerate(totals.tolist())]

    def _gaussian(self, segment: int, frames: int, generator: torch.Generator) -> Tensor:
        """Depends on the seed of ``generator`` and on ``segment`` alone: a frame gets the same noise whatever else is
        drawn, in which batch, and with however many frames at a time."""
        seed = (generator.initial_seed() * 1_000_003 + segment + 1) % 2**63
        own = torch.Generator(self.models.device).manual_seed(seed)
        shape = (NOISE_BLOCK_FRAMES, self.models.config.s2mel.DiT.in_channels)
        blocks = [torch.randn(shape, generator=own, device=own.device) for _ in range(0, frames, NOISE_BLOCK_FRAMES)]
        return torch.cat(blocks)[:frames].T

    def _embedding(self, speech: SpeechCodes) -> Tensor:
        """What codes and latents say together, ``[M, D]``."""
        quantized = self.models.semantic_codec.vq2emb(speech.codes[None])[0].T
        return quantized + self.models.s2mel.gpt_layer(speech.latent.float())
