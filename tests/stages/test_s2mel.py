"""Codes to mel: what of the configuration reaches the solver."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import Tensor

from indextts.config import SamplingParams
from indextts.engine import Engine
from indextts.stages.s2mel import S2MelStage
from indextts.types import FromVoice, VoicePrompt


def test_the_temperature_is_a_factor_on_the_noise(tiny_engine: Engine, recordings: tuple[Path, Path]) -> None:
    conditioning = tiny_engine.stages.conditioning(VoicePrompt.from_path(recordings[0]), FromVoice(), "", 0)
    sampling = SamplingParams(max_mel_tokens=20, num_beams=1)
    generator = torch.Generator().manual_seed(4)
    speech = tiny_engine.stages.speech(tiny_engine.segment("Hello there.")[:1], conditioning, sampling, generator)
    config = tiny_engine.models.config

    def mel(temperature: float, factor: float) -> Tensor:
        changed = dataclasses.replace(config, s2mel=dataclasses.replace(config.s2mel, temperature=temperature))
        stage = S2MelStage(dataclasses.replace(tiny_engine.models, config=changed))
        draw = stage.draw_noise
        stage.draw_noise = lambda *known: draw(*known) * factor
        return stage(speech, conditioning.voice, torch.Generator().manual_seed(4))[0]

    assert config.s2mel.temperature == 1.0  # as released
    assert torch.equal(mel(0.5, 1.0), mel(1.0, 0.5))
    assert not torch.equal(mel(0.5, 1.0), mel(1.0, 1.0))
