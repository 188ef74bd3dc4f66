"""Options on a machine without CUDA: what is applied, what is reported, what ``strict`` refuses."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from indextts.accel import accelerate, tensor_parallel
from indextts.accel.deepspeed import DeepSpeedBackend
from indextts.config import EngineConfig, SamplingParams
from indextts.decoding.backend import DecodeStep, EagerBackend
from indextts.decoding.graphs import GraphBackend
from indextts.engine import Engine
from indextts.errors import UnsupportedOption
from indextts.stages.speech import SpeechStage
from indextts.types import SynthesisRequest, VoicePrompt

OPTIONS: dict[str, dict[str, Any]] = {
    "fp16": {"fp16": True},
    "bf16": {"bf16": True},
    "cuda-kernel": {"cuda_kernel": True},
    "cuda-graph": {"cuda_graph": True},
    "cpu-offload": {"cpu_offload": True},
}


@pytest.fixture
def config(tiny_model_dir: Path) -> EngineConfig:
    return EngineConfig(model_dir=tiny_model_dir, device="cpu")


@pytest.mark.parametrize("option", OPTIONS)
def test_what_the_cpu_cannot_do_is_reported_with_a_reason(
    tiny_engine: Engine, config: EngineConfig, option: str
) -> None:
    config = dataclasses.replace(config, **OPTIONS[option])
    backend, report = accelerate(tiny_engine.models, config)
    assert type(backend) is EagerBackend
    (entry,) = [entry for entry in report.entries if not entry.honoured]
    assert entry.option == option and entry.reason and entry.running in ("off", "fp32")
    assert any(option in line and entry.reason in line for line in report.lines())
    assert tiny_engine.models.gpt.dtype == torch.float32
    with pytest.raises(UnsupportedOption, match=f"--{option}: "):
        accelerate(tiny_engine.models, dataclasses.replace(config, strict=True))


def test_strict_names_all_that_is_refused(config: EngineConfig) -> None:
    with pytest.raises(UnsupportedOption, match=r"--fp16: .*--cuda-kernel: "):
        Engine.load(dataclasses.replace(config, fp16=True, cuda_kernel=True, strict=True))


def test_nothing_asked_is_nothing_refused(tiny_engine: Engine, config: EngineConfig) -> None:
    _, report = accelerate(tiny_engine.models, dataclasses.replace(config, strict=True))
    assert all(entry.honoured for entry in report.entries)


def test_a_split_is_by_deepspeed_and_without_graphs(
    tiny_engine: Engine, config: EngineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(tensor_parallel, "TensorParallelBackend", lambda *arguments: calls.append(arguments))
    _, report = accelerate(tiny_engine.models, dataclasses.replace(config, ds_tp_size=2, strict=True))
    assert [arguments[:2] for arguments in calls] == [(tiny_engine.models.gpt, 2)]
    assert [(entry.option, entry.asked) for entry in report.entries[1:]] == [
        ("deepspeed", "with ds-tp-size"), ("ds-tp-size", "2"),
    ]  # fmt: skip
    assert "over 2 processes, without CUDA graphs" in report.lines()[-1]
    config = dataclasses.replace(config, ds_tp_size=2, deepspeed=True, cuda_graph=True, strict=True)
    with pytest.raises(UnsupportedOption, match="--cuda-graph: DeepSpeed has none for a model that is split"):
        accelerate(tiny_engine.models, config)


@pytest.mark.gpu
@pytest.mark.parametrize("num_beams", [1, 3])
def test_cuda_graphs_draw_the_same_codes(config: EngineConfig, recordings: tuple[Path, Path], num_beams: int) -> None:
    eager = Engine.load(dataclasses.replace(config, device="cuda"))
    graphed = Engine.load(dataclasses.replace(config, device="cuda", cuda_graph=True, strict=True))
    assert type(graphed.stages.speech.backend) is GraphBackend
    assert "cuda-graph: decoding and flow by CUDA graphs" in [str(entry) for entry in graphed.report.entries]
    sampling = SamplingParams(max_mel_tokens=40, num_beams=num_beams)
    request = SynthesisRequest("", VoicePrompt.from_path(recordings[0]))
    segments = eager.segment("Hello there, my friend. How are you?", 8)
    spoken = [
        engine.stages.speech(
            segments,
            engine.stages.conditioning(request.voice, request.emotion, "", 0),
            sampling,
            torch.Generator("cuda").manual_seed(0),
        )
        for engine in (eager, graphed)
    ]
    for one, other in zip(*spoken, strict=True):
        assert torch.equal(one.codes, other.codes)


@pytest.mark.filterwarnings("default", "ignore:unclosed event loop:ResourceWarning")  # importing DeepSpeed warns
@pytest.mark.parametrize("num_beams", [1, 3])
def test_deepspeed_draws_the_same_codes(
    tiny_engine: Engine, config: EngineConfig, recordings: tuple[Path, Path], num_beams: int
) -> None:
    backend, report = accelerate(tiny_engine.models, dataclasses.replace(config, deepspeed=True, strict=True))
    assert isinstance(backend, DeepSpeedBackend)
    from deepspeed.inference.engine import InferenceEngine

    assert isinstance(backend.engine, InferenceEngine) and isinstance(backend.engine.module, DecodeStep)
    assert [str(entry) for entry in report.entries if entry.option == "deepspeed"] == [
        "deepspeed: decoding through deepspeed.init_inference"
    ]
    calls: list[int] = []
    backend.engine.register_forward_hook(lambda *_: calls.append(1))
    sampling = SamplingParams(max_mel_tokens=12, num_beams=num_beams, do_sample=False)
    eager = tiny_engine.stages.speech
    conditioning = tiny_engine.stages.conditioning
    request = SynthesisRequest("", VoicePrompt.from_path(recordings[0]))
    condition = conditioning(request.voice, request.emotion, "", 0)
    fast = SpeechStage(tiny_engine.models.gpt, backend)
    for text in ("Hello there, my friend. How are you?", "Goodbye."):  # a second batch has another size
        segments = tiny_engine.segment(text, 8)
        before = len(calls)
        expected = eager(segments, condition, sampling, None)
        assert len(calls) == before
        spoken = fast(segments, condition, sampling, None)
        assert len(calls) - before >= max(len(speech.codes) for speech in spoken) - 1
        for one, other in zip(expected, spoken, strict=True):
            assert torch.equal(one.codes, other.codes)
