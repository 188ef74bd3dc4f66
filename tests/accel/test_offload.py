"""Networks that rest: who is on the device when, and that nothing else changes.

On the CPU "the device" is a second copy in the same memory, so whoever computes with what rests is found out by
spoiling it.
"""

from __future__ import annotations

import dataclasses
import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from indextts.accel import offload
from indextts.checkpoints import without_allocating
from indextts.config import EngineConfig, ModelConfig, SamplingParams
from indextts.engine import Engine
from indextts.errors import UndefinedValues
from indextts.loading import Models, build_networks
from indextts.models.weight_norm import fold_weight_norm
from indextts.types import FromAudio, SynthesisRequest, VoicePrompt

SPEAKING = ("speech", "s2mel", "vocoder")


@pytest.fixture
def engine(tiny_model_dir: Path) -> Engine:
    return Engine.load(EngineConfig(model_dir=tiny_model_dir, device="cpu"))


@pytest.fixture
def request_of_two_recordings(recordings: tuple[Path, Path]) -> SynthesisRequest:
    voice, emotion = (VoicePrompt.from_path(path) for path in recordings)
    sampling = SamplingParams(max_mel_tokens=10, num_beams=2)
    return SynthesisRequest("Hello there.", voice, FromAudio(emotion), sampling, seed=3, repair=False)


def test_each_piece_visits_the_device_by_itself_and_nothing_changes(
    tiny_engine: Engine, engine: Engine, request_of_two_recordings: SynthesisRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = tiny_engine.synthesize(request_of_two_recordings)
    visitors = offload.apply_offload(engine.models)
    visits: list[list[str]] = []
    at_stages: list[tuple[str, list[str]]] = []

    def on_device() -> list[str]:
        return [visitor.name for visitor in visitors if visitor.is_on_device]

    def note(name: str, stage: Any) -> Any:
        def run(*arguments: Any) -> Any:
            at_stages.append((name, on_device()))
            return stage(*arguments)

        return run

    for visitor in visitors:
        visitor.module.register_forward_hook(lambda *_: visits.append(on_device()), prepend=True)
    stages = {name: note(name, getattr(engine.stages, name)) for name in ("conditioning", *SPEAKING)}
    engine.stages = dataclasses.replace(engine.stages, **stages)
    assert np.array_equal(engine.synthesize(request_of_two_recordings).samples, expected.samples)
    assert at_stages == [("conditioning", []), *((name, []) for name in SPEAKING)]
    assert all(len(visit) == 1 for visit in visits)
    assert {name for visit in visits for name in visit} == {visitor.name for visitor in visitors}
    heard = len(visits)
    assert np.array_equal(engine.synthesize(request_of_two_recordings).samples, expected.samples)
    assert len(visits) == heard  # the voice is cached


def test_speaking_does_without_what_rests(engine: Engine, request_of_two_recordings: SynthesisRequest) -> None:
    expected = engine.synthesize(request_of_two_recordings)
    for visitor in offload.apply_offload(engine.models):
        for tensor in offload.tensors_of(visitor.module):
            tensor.data.fill_(float("nan") if tensor.is_floating_point() else 0)
    assert np.array_equal(engine.synthesize(request_of_two_recordings).samples, expected.samples)
    engine.stages.conditioning.cache.held_bytes = 0
    engine.stages.conditioning.cache._entries.clear()
    with pytest.raises(UndefinedValues):  # or the test would show nothing
        engine.synthesize(request_of_two_recordings)


def test_whoever_fails_leaves_too(engine: Engine) -> None:
    visitors = offload.apply_offload(engine.models)
    with pytest.raises(RuntimeError):
        engine.models.style_encoder(torch.zeros(1, 3, 2, 1))
    assert not any(visitor.is_on_device for visitor in visitors)


def test_the_sums_of_the_released_model() -> None:
    """What the module's table says, for half precision."""
    with without_allocating():
        nets = build_networks(ModelConfig())
    for net in nets.values():
        fold_weight_norm(net)
    nothing = torch.zeros(0)
    models = Models(ModelConfig(), torch.device("meta"), **nets, speaker_matrix=nothing, emotion_matrix=nothing)  # type: ignore[arg-type]

    def gigabytes(weights: int) -> float:
        return round(2 * weights / 1e9, 2)

    resting = [sum(p.numel() for p in module.parameters()) for _, module in offload.listening(models)]
    everything = sum(p.numel() for net in nets.values() for p in net.parameters())
    assert gigabytes(everything) == 3.03
    assert gigabytes(everything - sum(resting)) == 1.48
    assert gigabytes(everything - sum(resting) + max(resting)) == 1.8


@pytest.mark.gpu
@pytest.mark.filterwarnings("default", "ignore:unclosed event loop:ResourceWarning")  # importing DeepSpeed warns
@pytest.mark.parametrize("options", [{}, {"fp16": True}, {"fp16": True, "deepspeed": True}])
def test_less_is_on_the_gpu_and_the_sound_is_the_same(
    tiny_model_dir: Path, request_of_two_recordings: SynthesisRequest, options: dict[str, Any]
) -> None:
    config = EngineConfig(model_dir=tiny_model_dir, device="cuda", strict=True, **options)

    def load(config: EngineConfig) -> tuple[Engine, int]:
        gc.collect()
        before = torch.cuda.memory_allocated()
        engine = Engine.load(config)
        return engine, torch.cuda.memory_allocated() - before

    whole, whole_bytes = load(config)
    engine, bytes_on_device = load(dataclasses.replace(config, cpu_offload=True))
    pieces = [module for _, module in offload.listening(engine.models)]
    tensors = [tensor for module in pieces for tensor in offload.tensors_of(module)]
    assert all(tensor.is_pinned() for tensor in tensors)
    assert whole_bytes - bytes_on_device >= 0.9 * sum(tensor.nbytes for tensor in tensors)
    expected, result = (each.synthesize(request_of_two_recordings) for each in (whole, engine))
    assert np.array_equal(result.samples, expected.samples)
