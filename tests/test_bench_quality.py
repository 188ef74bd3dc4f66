"""The benchmark's quality: what is the same has no difference, what differs has one, and judges can listen."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path

import pytest
import soundfile
import torch

from indextts.accel.precision import apply_precision
from indextts.bench import measure, output
from indextts.bench.distances import distance_db, log_spectrum
from indextts.bench.measure import BenchReport, ConfigFigures, Plan, measure_configs
from indextts.bench.quality import PROMPTS, Difference, QualityFigures, QualityPlan, SoundDistance, write_prompts
from indextts.config import EngineConfig
from indextts.engine import Engine
from indextts.errors import ConfigError, UnsupportedOption
from indextts.types import VoicePrompt
from training import quality_table
from training.evaluate import read_clips

CPU = torch.device("cpu")
SENTENCES = ("Hello there.", "How are you?", "My friend.")


@pytest.fixture(scope="module")
def config(tiny_model_dir: Path) -> EngineConfig:
    return EngineConfig(model_dir=tiny_model_dir, device="cpu", qwen_emotion=False)


@pytest.fixture(scope="module")
def voices(recordings: tuple[Path, Path]) -> tuple[VoicePrompt, ...]:
    return tuple(map(VoicePrompt.from_path, recordings))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clips")


@pytest.fixture(scope="module")
def plan(voices: tuple[VoicePrompt, ...], folder: Path) -> Plan:
    return Plan(voices[0], beams=(), quality=QualityPlan(SENTENCES, voices, seed=3, folder=folder))


def measured(configs: Mapping[str, EngineConfig], plan: Plan) -> list[ConfigFigures]:
    return measure_configs(configs, plan, CPU, lambda *_: None)


@pytest.fixture(scope="module")
def figures(config: EngineConfig, plan: Plan) -> list[ConfigFigures]:
    """Of the same configuration under two names, in batches, and in half precision (which the name of one asks for)."""
    real = measure.load_engine

    def load(config: EngineConfig, plan: Plan) -> Engine:
        engine = real(dataclasses.replace(config, fp16=False), plan)
        for name, network in engine.models.networks().items() if config.fp16 else ():
            apply_precision(name, network, torch.bfloat16)  # what fp16 does on CUDA
        return engine

    configs = {
        "fp32": config,
        "again": config,
        "batch2": dataclasses.replace(config, batch_size=2),
        "half": dataclasses.replace(config, fp16=True),
        "strict": dataclasses.replace(config, cuda_graph=True, strict=True),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "load_engine", load)
        return measured(configs, plan)


def quality(figures: list[ConfigFigures], name: str) -> QualityFigures:
    (found,) = (config.quality for config in figures if config.name == name)
    assert found is not None
    return found


def difference(figures: list[ConfigFigures], name: str) -> Difference:
    found = quality(figures, name).difference
    assert found is not None
    return found


def test_the_same_has_no_difference(figures: list[ConfigFigures]) -> None:
    assert difference(figures, "again") == Difference(0.0, 1.0, 1.0, SoundDistance(0.0, 0.0))
    assert quality(figures, "again").audio_s == quality(figures, "fp32").audio_s > 0


def test_batches_differ_by_rounding_alone(figures: list[ConfigFigures]) -> None:
    found = difference(figures, "batch2")
    assert found.logit_error < 1e-5 and found.same_best_code == found.same_speech == 1
    assert found.sound.mel < 1e-3 and found.sound.spectrum_db < 0.1


def test_half_precision_makes_a_difference_smaller_than_other_noise(figures: list[ConfigFigures]) -> None:
    found, other = difference(figures, "half"), quality(figures, "fp32").other_noise
    assert 1e-4 < found.logit_error < 0.1 and 0.5 < found.same_best_code <= 1
    assert other is not None and quality(figures, "half").other_noise is None
    assert 1e-4 < found.sound.mel < other.mel and 1e-3 < found.sound.spectrum_db < other.spectrum_db


def test_one_that_fails_is_not_compared(figures: list[ConfigFigures]) -> None:
    assert figures[-1].error and figures[-1].quality is None


def test_perturbed_weights_are_found(config: EngineConfig, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    real, loaded = measure.load_engine, []

    def load(config: EngineConfig, plan: Plan) -> Engine:
        engine = real(config, plan)
        if loaded:
            engine.models.gpt.mel_head.weight.data.mul_(1.1)
        loaded.append(engine)
        return engine

    monkeypatch.setattr(measure, "load_engine", load)
    found = difference(measured({"a": config, "b": config}, plan), "b")
    assert 0.02 < found.logit_error < 0.11 and found.sound == SoundDistance(0.0, 0.0)


def test_recordings_are_for_the_evaluation(
    figures: list[ConfigFigures], plan: Plan, folder: Path, voices: tuple[VoicePrompt, ...]
) -> None:
    stems = [Path(voice.name).stem for voice in voices]
    for name in ("fp32", "half"):
        clips = read_clips(folder / name)
        assert [clip.text for clip in clips] == list(SENTENCES)
        assert [clip.voice for clip in clips] == [stems[0], stems[1], stems[0]]
        assert [clip.seed for clip in clips] == [3, 4, 5]
        files = [soundfile.info(folder / name / clip.file) for clip in clips]
        assert sum(file.frames / file.samplerate for file in files) == pytest.approx(quality(figures, name).audio_s)
    assert not (folder / "strict").exists()
    assert plan.quality is not None
    write_prompts(folder / PROMPTS, plan.quality)
    prompts = read_clips(folder / PROMPTS)
    assert [clip.voice for clip in prompts] == stems
    assert [(folder / PROMPTS / clip.file).read_bytes() for clip in prompts] == [voice.data for voice in voices]


def test_the_tables(figures: list[ConfigFigures], plan: Plan) -> None:
    report = BenchReport({"device": "cpu", "torch": "2"}, "tiny", "x", plan, tuple(figures))
    lines = {line[:25].strip(): line[25:] for line in output.as_text(report).splitlines()}
    assert "quality, 3 sentences in 2" in lines
    assert lines["same best code"].split()[:4] == ["-", "100.0", "%", "100.0"]
    assert "(other noise)" in lines["mel distance"] and "dB (other noise)" in lines["log-spectral distance"]
    found = json.loads(output.as_json(report))
    assert found["plan"]["quality"]["sentences"] == list(SENTENCES)
    own = found["configs"][3]["quality"]["difference"]
    assert own["logit_error"] == difference(figures, "half").logit_error
    summary = {
        "word_error_rate": 0.05, "mos_mean": 3.5,
        "voice": {name: {"own": 0.8, "others": 0.3, "margin": 0.5, "recognised": 1.0} for name in ("CAM++", "GE2E")},
    }  # fmt: skip
    table = quality_table.markdown(found, {"fp32": summary, "again": summary}).splitlines()
    assert table[2].startswith("| configuration | logit error | same best code % | mel distance | LSD dB | WER %")
    assert table[4].startswith("| fp32 | – | – | ") and table[5].startswith("| again | 0 | 100.00 | 0 | 0 | 5.0 | ")
    assert table[5].endswith("| 0.80 − 0.30 = 0.50, 100 % | 3.50 |")


def test_a_sentence_must_fit_into_one_segment(config: EngineConfig, voices: tuple[VoicePrompt, ...]) -> None:
    plan = Plan(voices[0], beams=(), quality=QualityPlan(("Fine.", "Hello there. " * 40), voices))
    with pytest.raises(ConfigError, match="sentence 2 is too long"):
        measured({"fp32": config}, plan)


def test_voices_take_turns_in_batches(voices: tuple[VoicePrompt, ...]) -> None:
    plan = QualityPlan(tuple("abcdefg"), voices)
    assert list(plan.batches(1)) == [[0], [2], [4], [6], [1], [3], [5]]
    assert list(plan.batches(3)) == [[0, 2, 4], [6], [1, 3, 5]]
    assert list(QualityPlan(("a",), voices).batches(3)) == [[0]]


def test_twice_as_loud_is_six_decibels() -> None:
    wave = torch.randn(4096, generator=torch.Generator().manual_seed(0)) / 4
    distance = distance_db(log_spectrum(2 * wave), log_spectrum(wave))
    torch.testing.assert_close(distance, torch.full_like(distance, 20 * math.log10(2)), atol=0.01, rtol=0)


def test_a_failed_first_configuration_leaves_the_comparison_to_the_next(config: EngineConfig, plan: Plan) -> None:
    strict = dataclasses.replace(config, cuda_graph=True, strict=True)
    found = measured({"strict": strict, "fp32": config, "again": config}, plan)
    assert found[0].error is not None and found[0].error.startswith(UnsupportedOption.__name__)
    assert quality(found, "fp32").other_noise is not None and difference(found, "again").logit_error == 0
