"""Speech codes to mel: length regulation, then flow matching behind the prompt's mel (spec 9)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from indextts.loading import Models
from indextts.models.flow_matching import solve
from indextts.types import SpeechCodes, Voice

NoiseSource = Callable[[tuple[int, ...], torch.Generator | None], Tensor]


class S2MelStage:
    """``SpeechCodes`` and a ``Voice`` to a mel ``[1, n_mels, F]``. ``draw_noise`` gives the solver's start."""

    def __init__(self, models: Models) -> None:
        self.models = models
        self.draw_noise: NoiseSource = self._gaussian

    def _gaussian(self, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
        return torch.randn(shape, generator=generator, device=self.models.device)

    @torch.inference_mode()
    def __call__(self, speech: SpeechCodes, voice: Voice, generator: torch.Generator | None) -> Tensor:
        """The mel of one segment; the prompt's part is cut off."""
        m, config = self.models, self.models.config.s2mel
        embedding = m.semantic_codec.vq2emb(speech.codes[None]).transpose(1, 2)
        embedding = embedding + m.s2mel.gpt_layer(speech.latent[None].float())
        frames = m.s2mel.target_frames(embedding.shape[1])
        condition = m.s2mel.length_regulator(embedding, torch.tensor([frames], device=m.device))
        condition = torch.cat([voice.prompt_condition, condition], dim=1)
        prompt_frames = voice.prompt_mel.shape[-1]
        noise = self.draw_noise((1, config.DiT.in_channels, condition.shape[1]), generator)
        mel = solve(
            m.s2mel.estimator, noise, condition, voice.prompt_mel, voice.style, steps=config.steps, cfg_rate=config.cfg_rate
        )
        return mel[..., prompt_frames:]
