"""How long the flow takes, on one request of a fixed size: the same for whatever voice and codes."""

from __future__ import annotations

import time
from dataclasses import replace

import torch

from indextts.bench.machine import synchronize
from indextts.engine import Engine
from indextts.types import FromVoice, VoicePrompt

FRAMES = 2_000
"""Mel frames of prompt and speech together, 23 s of sound."""
PROMPT_FRAMES = 1_291
"""Those of the longest prompt, 15 s."""


def flow_times_s(engine: Engine, prompt: VoicePrompt, warm_ups: int, repetitions: int) -> list[float]:
    """Seconds from the content of ``FRAMES - PROMPT_FRAMES`` frames to their mel, behind a prompt of full length.

    Content and prompt are noise: how long the flow takes does not depend on what is said.
    """
    stage, device = engine.stages.s2mel, engine.models.device
    random = torch.Generator(device).manual_seed(0)
    heard = engine.stages.conditioning(prompt, FromVoice(), "", 0).voice

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=random, device=device)

    voice = replace(
        heard,
        prompt_condition=noise(1, PROMPT_FRAMES, heard.prompt_condition.shape[2]).to(heard.prompt_condition),
        prompt_mel=noise(1, heard.prompt_mel.shape[1], PROMPT_FRAMES).to(heard.prompt_mel),
    )
    frames = FRAMES - PROMPT_FRAMES
    content = noise(1, frames, heard.prompt_condition.shape[2]).to(heard.prompt_condition)
    start, lengths = [noise(heard.prompt_mel.shape[1], frames)], torch.tensor([frames], device=device)

    def timed_s() -> float:
        synchronize(device)
        began = time.perf_counter()
        stage.flow(content, lengths, start, voice)
        synchronize(device)
        return time.perf_counter() - began

    return [timed_s() for _ in range(warm_ups + repetitions)][warm_ups:]
