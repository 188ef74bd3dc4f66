"""Mel to waveform (spec 11, 12)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from indextts.audio import to_pcm16
from indextts.errors import UndefinedValues
from indextts.models.bigvgan import BigVGAN


class VocoderStage:
    """A mel ``[1, n_mels, F]`` to 16-bit samples ``[256 F]``."""

    def __init__(self, vocoder: BigVGAN) -> None:
        self.vocoder = vocoder

    def __call__(self, mel: Tensor) -> np.ndarray:
        return to_pcm16(self.wave(mel))

    @torch.inference_mode()
    def wave(self, mel: Tensor) -> Tensor:
        """The samples in [-1, 1], ``[256 F]``. Raises ``UndefinedValues``."""
        wave = self.vocoder(mel.float())[0, 0].float()
        if not torch.isfinite(wave).all():
            raise UndefinedValues("the model computed a sound with undefined samples (NaN or infinity)")
        return wave
