"""The benchmark measures what it says, says what ran, and goes on when a configuration fails."""

from __future__ import annotations

import builtins
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from indextts.bench import machine, measure, output
from indextts.bench.machine import PeakMemory, describe_machine
from indextts.bench.measure import BenchReport, ConfigFigures, Plan, Repeated, measure_configs, text_of, waiting_stages
from indextts.config import EngineConfig
from indextts.engine import Engine
from indextts.errors import ConfigError, UnsupportedOption
from indextts.random_weights import random_engine
from indextts.types import ChunkSchedule, SynthesisRequest, VoicePrompt
from tests.pages import mapped

CPU = torch.device("cpu")
CONFIG = EngineConfig(device="cpu", qwen_emotion=False)
CONFIGS = {
    "fp32": CONFIG,
    "fp16": dataclasses.replace(CONFIG, fp16=True),
    "strict": dataclasses.replace(CONFIG, cuda_kernel=True, strict=True),
    "batch2": dataclasses.replace(CONFIG, batch_size=2),
}


@pytest.fixture(scope="module")
def voice(recordings: tuple[Path, Path]) -> VoicePrompt:
    return VoicePrompt.from_path(recordings[0])


@pytest.fixture(scope="module")
def plan(voice: VoicePrompt) -> Plan:
    return Plan(
        voice, characters=5, long_characters=30, beams=(2, 1), repetitions=2, long_repetitions=1, warm_ups=0,
        long_warm_ups=0, random_weights="tiny", codes_per_character=11,
    )  # fmt: skip


@pytest.fixture(scope="module")
def report(plan: Plan) -> BenchReport:
    seen: list[list[str]] = []

    def on_progress(figures: Sequence[ConfigFigures], model: str) -> None:
        assert model == "random weights"
        seen.append([found.name for found in figures])

    found = measure_configs(CONFIGS, plan, CPU, on_progress)
    assert seen == [list(CONFIGS)[: count + 1] for count in range(len(CONFIGS))]
    return BenchReport(describe_machine(CPU), "random weights", PeakMemory(CPU).kind, plan, tuple(found))


def test_figures_are_of_the_planned_work(report: BenchReport) -> None:
    fp32, fp16, strict, batch2 = report.configs
    for config in (fp32, fp16, batch2):
        assert config.error is None and [figures.beams for figures in config.beams] == [2, 1]
        assert config.load_s and config.first_run_s and config.voice_s
        assert config.voice_s < config.first_run_s
        assert config.flow_s is not None and len(config.flow_s.values) == 2 and min(config.flow_s.values) > 0
        for figures in config.beams:
            assert figures.long is not None and figures.long.segments > 1
            assert (figures.short.characters, figures.long.characters, figures.codes) == (5, 30, 55)
            assert figures.short.audio_s == pytest.approx(5 * 0.22, rel=0.02)
            assert figures.long.audio_s == pytest.approx(30 * 0.22, rel=0.02)
            assert len(figures.short.total_s.values) == len(figures.first_sound_s.values) == 2
            assert len(figures.first_chunk_s.values) == 2 and all(value > 0 for value in figures.first_chunk_s.values)
            assert len(figures.long.total_s.values) == 1
            assert all(value > 0 for stage in figures.stages_s.values() for value in stage.values)
            for text in (figures.short, figures.long):
                assert text.peak_memory_bytes is None or text.peak_memory_bytes > 10_000_000
    assert strict.error is not None and "cuda-kernel" in strict.error and not strict.beams


def test_what_was_asked_and_does_not_run_is_shown(report: BenchReport) -> None:
    text = output.as_text(report)
    assert "fp16: NOT HONOURED, fp16: fp32 (needs a CUDA device)" in text
    assert "strict: FAILED, UnsupportedOption: --cuda-kernel" in text
    assert "fp32: precision: fp32" in text and "*: not all that was asked for runs" in text
    heads = [line for line in text.splitlines() if line.startswith(("first load ", "2 beams ", "1 beam ", "flow, "))]
    assert [line.split("  ")[0] for line in heads] == ["first load", "2 beams", "1 beam", "flow, 2,000 frames"]
    for line in heads:
        assert "fp16 *" in line and "strict" not in line and "fp32 *" not in line


def test_the_machine_and_the_model_are_named(report: BenchReport) -> None:
    lines = output.as_text(report).splitlines()
    assert "random weights, size tiny, 11 codes a character" in lines[0]
    assert "device: cpu" in lines and f"torch: {torch.__version__}" in lines
    assert any(line.startswith("cpu: ") and len(line) > 6 for line in lines)


def test_json_has_everything(report: BenchReport) -> None:
    found = json.loads(output.as_json(report))
    assert found["plan"]["voice"] == {"name": "e2e_spk.wav", "sha256": report.plan.voice.key}
    assert found["machine"]["device"] == "cpu"
    fp32, fp16, strict, _ = found["configs"]
    assert [entry["honoured"] for entry in fp16["acceleration"]] == [False, True]
    assert strict["error"] and not strict["beams"]
    short, own = fp32["beams"][0]["short"], report.configs[0].beams[0].short
    assert short["total_s"]["values"] == list(own.total_s.values)
    assert short["total_s"]["median"] == own.total_s.median
    assert short["real_time_factor"] == own.real_time_factor == own.total_s.median / own.audio_s
    assert short["characters_per_s"] == own.characters_per_s == 5 / own.total_s.median


def test_runs_to_warm_up_are_not_measured(voice: VoicePrompt, monkeypatch: pytest.MonkeyPatch) -> None:
    spoken: list[int] = []
    plan = Plan(
        voice, characters=2, long_characters=4, beams=(1,), repetitions=2, long_repetitions=3, warm_ups=4,
        long_warm_ups=5, random_weights="tiny", codes_per_character=2,
    )  # fmt: skip
    real = Engine.synthesize

    def counted(engine: Engine, request: SynthesisRequest) -> Any:
        spoken.append(len(request.text))
        return real(engine, request)

    monkeypatch.setattr(Engine, "synthesize", counted)
    (found,) = measure_configs({"fp32": CONFIG}, plan, CPU, lambda *_: None)
    first, stages = 1, 2
    assert spoken == [2] * (first + 4 + 2 + stages) + [4] * (5 + 3)
    long = found.beams[0].long
    assert long is not None and len(long.total_s.values) == 3 and len(found.beams[0].short.total_s.values) == 2


def test_medians_and_spread() -> None:
    values = Repeated((0.2, 0.1, 0.6))
    assert (values.median, values.spread) == (0.2, (0.1, 0.6))
    assert output.repeated(values) == "200 ms (100 ms to 600 ms)"
    assert output.repeated(Repeated((1.5,))) == "1.5 s"
    assert [output.seconds(x) for x in (None, 0.0123, 0.9999, 123.4)] == ["-", "12.3 ms", "1 s", "123 s"]
    assert output.gigabytes(4_560_000_000) == "4.56 GB" and output.gigabytes(None) == "-"


@pytest.mark.parametrize("characters", [2, 3, 31, 32, 60, 61, 196, 197, 1000])
def test_texts_have_their_length(characters: int) -> None:
    text = text_of(characters)
    assert len(text) == characters and text.endswith("。") and text[-2] not in "，。"


def test_stages_wait_only_while_they_are_timed(voice: VoicePrompt, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, waits = random_engine(CONFIG, "tiny", 3), []
    monkeypatch.setattr(measure, "synchronize", lambda device: waits.append(device))
    stages, request = engine.stages, SynthesisRequest("你好。", voice, seed=0, repair=False)
    with waiting_stages(engine) as codes:
        slow = engine.synthesize(request)
    assert waits == [CPU] * 3 and codes == [9] and engine.stages is stages
    assert (engine.synthesize(request).samples == slow.samples).all() and len(waits) == 3


def test_the_first_sound_does_not_wait_for_the_last(voice: VoicePrompt, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = random_engine(CONFIG, "tiny", 3)
    vocoder, calls = engine.stages.vocoder, []

    def slow(mel: torch.Tensor) -> Any:
        calls.append(time.perf_counter())
        return vocoder(mel)

    monkeypatch.setattr(engine, "stages", dataclasses.replace(engine.stages, vocoder=slow))
    request = SynthesisRequest("你好。" * 8, voice, seed=0, max_text_tokens_per_segment=6, repair=False)
    assert len(engine.segment(request.text, 6)) > 2
    started = time.perf_counter()
    took_s = measure._first_sound_s(engine, request)
    assert len(calls) == 1 and calls[0] - started < took_s < time.perf_counter() - started


def test_the_first_chunk_does_not_wait_for_its_segment(voice: VoicePrompt) -> None:
    engine, steps = random_engine(CONFIG, "tiny", 3), []
    hook = engine.models.gpt.mel_head.register_forward_hook(lambda *_: steps.append(1))
    request = SynthesisRequest("你好。" * 8, voice, seed=0, chunks=ChunkSchedule(first_codes=20), repair=False)
    sampling = dataclasses.replace(engine.sampling_defaults, num_beams=1)
    assert measure._first_sound_s(engine, dataclasses.replace(request, sampling=sampling)) > 0
    hook.remove()
    assert len(engine.segment(request.text)) == 1 and len(steps) == 20 < 24 * 3


def test_memory_of_a_gpu_is_not_asked_of_a_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    memory = PeakMemory(CPU)
    memory.reset()
    before = memory.read()
    if before is None:
        pytest.skip("this system does not tell")
    pages = mapped(200_000_000)
    peak = memory.read()
    pages.close()
    memory.reset()
    after = memory.read()
    assert peak is not None and after is not None
    assert peak - before > 150_000_000 and peak - after > 150_000_000
    monkeypatch.setattr(machine, "PROC", tmp_path)
    memory.reset()
    assert memory.read() is None


def test_a_real_model_has_its_own_pace(tiny_model_dir: Path, voice: VoicePrompt) -> None:
    plan = Plan(voice, characters=2, long_characters=0, beams=(1,), repetitions=1, warm_ups=0)
    names: list[str] = []
    config = dataclasses.replace(CONFIG, model_dir=tiny_model_dir)
    (found,) = measure_configs({"fp32": config}, plan, CPU, lambda _, model: names.append(model))
    assert found.error is None and names == ["IndexTTS-2"]
    assert found.beams[0].long is None
    text = output.as_text(BenchReport(describe_machine(CPU), names[0], "x", plan, (found,)))
    assert "model: IndexTTS-2;" in text and "2 characters" in text and "1000 characters" not in text


def test_too_many_codes_for_two_characters(voice: VoicePrompt) -> None:
    plan = Plan(voice, random_weights="tiny", codes_per_character=150, beams=(1,))
    with pytest.raises(ConfigError, match="150 codes a character are too many: a segment has no room for two"):
        measure_configs({"fp32": CONFIG}, plan, CPU, lambda *_: None)


def test_bugs_are_not_figures(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> Engine:
        raise KeyError("a bug")

    monkeypatch.setattr(measure, "random_engine", broken)
    with pytest.raises(KeyError):
        measure_configs({"fp32": CONFIG}, plan, CPU, lambda *_: None)


def test_a_picture_needs_matplotlib(report: BenchReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UnsupportedOption, match="pip install matplotlib"):
        output.plot(report, tmp_path / "x.png")
    assert not list(tmp_path.iterdir())


def test_a_picture(report: BenchReport, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    output.plot(report, tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_matplotlib_is_not_imported_for_tables(monkeypatch: pytest.MonkeyPatch, report: BenchReport) -> None:
    real = builtins.__import__

    def watched(name: str, *args: Any, **kwargs: Any) -> Any:
        assert not name.startswith("matplotlib")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", watched)
    assert output.as_text(report) and output.as_json(report)
