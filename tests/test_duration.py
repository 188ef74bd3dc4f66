"""Speech of a wanted length: exact where codes are stretched, and told to a model that has learnt to listen to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from indextts.config import GPTConfig, S2MelConfig, SamplingParams
from indextts.engine import Engine
from indextts.errors import ConfigError
from indextts.models.gpt import UnifiedVoice
from indextts.models.s2mel import S2Mel
from indextts.stages.duration import BY_CODES, BY_STRETCHING, at_length, far, share_frames, wanted_factors
from indextts.types import ChunkSchedule, Segment, SpeechCodes, SynthesisRequest, VoicePrompt


@pytest.fixture(scope="module")
def voice(recordings: tuple[Path, Path]) -> VoicePrompt:
    return VoicePrompt.from_path(recordings[0])


def spoken(codes: int, tokens: int = 3) -> SpeechCodes:
    return SpeechCodes(Segment(0, ("a",) * tokens, (5,) * tokens), torch.zeros(codes), torch.zeros(codes, 2), False)


@pytest.fixture(scope="module")
def flow() -> S2Mel:
    with torch.device("meta"):
        return S2Mel(S2MelConfig())


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.25, 2.0])
def test_the_speech_is_so_many_times_as_long(tiny_engine: Engine, voice: VoicePrompt, factor: float) -> None:
    def samples(**more: float) -> int:
        sampling = SamplingParams(max_mel_tokens=12, num_beams=1)
        request = SynthesisRequest("Hello there.", voice, sampling=sampling, seed=7, repair=False, **more)  # type: ignore[arg-type]
        return len(tiny_engine.synthesize(request).samples)

    free, frame = samples(), tiny_engine.models.vocoder.hop_samples
    assert free > 10 * frame
    assert abs(samples(duration_factor=factor) - free * factor) <= frame
    assert abs(samples(duration_s=factor * free / 22050) - free * factor) <= frame


def test_a_text_of_several_segments_keeps_to_the_seconds(tiny_engine: Engine, voice: VoicePrompt) -> None:
    text = "Hello there. " * 8
    sampling = SamplingParams(max_mel_tokens=10, num_beams=1)
    request = SynthesisRequest(
        text, voice, sampling=sampling, seed=7, max_text_tokens_per_segment=10, interval_silence_ms=1, repair=False
    )
    free = tiny_engine.synthesize(request)
    assert free.segments > 2
    wanted_s = 1.1 * len(free.samples) / 22050
    wanted = tiny_engine.synthesize(replace(request, duration_s=wanted_s))
    frames = free.segments / 2  # each is rounded to whole frames
    assert abs(len(wanted.samples) - wanted_s * 22050) <= frames * tiny_engine.models.vocoder.hop_samples


def test_only_a_model_that_listens_is_told(flow: S2Mel) -> None:
    told: list[Sequence[int]] = []

    def speak(hints: Sequence[int]) -> list[SpeechCodes]:
        told.append(hints)
        return [spoken(hint - 3) for hint in hints]

    batch = [spoken(100), spoken(50)]
    assert [s.frames for s in at_length(batch, [1.05, 0.95], flow, None)] == [181, 82]
    longer = at_length(batch, [1.5, 1.0], flow, speak)
    assert told == [[150, 50]]
    assert [len(s.codes) for s in longer] == [147, 47] and [s.frames for s in longer] == [258, 86]
    assert [len(s.codes) for s in at_length(batch, [1.5, 1.0], flow, None)] == [100, 50]


def test_what_is_far() -> None:
    assert not far([1.05, 0.95]) and far([1.0, 1.5]) and far([0.8, 1.0])


def test_seconds_are_shared_by_tokens_and_bounded(flow: S2Mel) -> None:
    batch = [spoken(100, tokens=10), spoken(100, tokens=30)]
    frames = share_frames([s.segment for s in batch], 40, 400.0)
    assert frames == [100.0, 300.0]
    assert wanted_factors(batch, flow, 1.0, frames) == [pytest.approx(100 / 172), pytest.approx(300 / 172)]
    assert wanted_factors(batch, flow, 1.0, [1.0, 9999.0]) == [0.5, 2.0]
    assert wanted_factors(batch, flow, 0.7, None) == [0.7, 0.7]


@pytest.mark.parametrize(
    "wrong", [{"duration_factor": 0.4}, {"duration_factor": float("nan")}, {"duration_s": 0.0}, {"duration_s": 1e9}]
)
def test_lengths_that_make_no_sense_are_refused(voice: VoicePrompt, wrong: dict[str, float]) -> None:
    (name,) = wrong
    with pytest.raises(ConfigError, match=name):
        SynthesisRequest("Hello.", voice, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="whole segments"):
        SynthesisRequest("Hello.", voice, duration_factor=1.2, chunks=ChunkSchedule())
    with pytest.raises(ConfigError, match="not both"):
        SynthesisRequest("Hello.", voice, duration_factor=1.2, duration_s=3.0)


def test_a_hint_is_heard_and_none_changes_nothing() -> None:
    torch.manual_seed(0)
    sizes = GPTConfig(
        model_dim=16, layers=1, heads=2, max_mel_tokens=40, max_text_tokens=10, number_text_tokens=20,
        number_mel_codes=12, start_mel_token=10, stop_mel_token=11, condition_num_latent=2, cond_input_dim=8,
        emo_perceiver_dim=8,
    )  # fmt: skip
    gpt = UnifiedVoice(sizes).eval()
    cond, emotion, text = torch.randn(1, 2, 16), torch.randn(1, 16), torch.tensor([[5, 6, 7]] * 3)
    plain, _ = gpt.prefix(cond, emotion, text)
    free, _ = gpt.prefix(cond, emotion, text, length_hints=torch.zeros(3, dtype=torch.long))
    told, _ = gpt.prefix(cond, emotion, text, length_hints=torch.tensor([0, 9, 20]))
    assert torch.equal(plain, free)
    assert torch.equal(told[0], plain[0])
    changed = (told != plain).any(-1)
    assert changed[1].nonzero().flatten().tolist() == changed[2].nonzero().flatten().tolist() == [3]
    torch.testing.assert_close(told[1, 3] - plain[1, 3], gpt.mel_pos_embedding.emb.weight[9])
    codes = torch.randint(10, (3, 4))
    assert not torch.equal(
        gpt.latents(cond, emotion, text, codes),
        gpt.latents(cond, emotion, text, codes, length_hints=torch.tensor([9] * 3)),
    )


def test_who_listens_gets_chunks_but_where_a_duration_is_wanted(voice: VoicePrompt) -> None:
    chunks = ChunkSchedule(first_codes=9)
    assert SynthesisRequest("Hello.", voice).in_chunks(chunks).chunks == chunks
    for wanted in ({"duration_factor": 0.9}, {"duration_s": 2.0}):
        assert SynthesisRequest("Hello.", voice, **wanted).in_chunks(chunks).chunks is None  # type: ignore[arg-type]


@pytest.mark.parametrize(("hints", "factor", "means"), [
    (False, 1.0, None), (False, 1.5, BY_STRETCHING),
    (True, 1.0, None), (True, 1.05, BY_STRETCHING), (True, 1.5, BY_CODES),
])  # fmt: skip
def test_the_result_tells_the_means(
    tiny_engine: Engine, voice: VoicePrompt, monkeypatch: pytest.MonkeyPatch, hints: bool, factor: float, means: str
) -> None:
    models = tiny_engine.models
    config = replace(models.config, gpt=replace(models.config.gpt, length_hints=hints))
    monkeypatch.setattr(tiny_engine, "models", replace(models, config=config))
    sampling = SamplingParams(max_mel_tokens=12, num_beams=1)
    for repair in (False, True):
        request = SynthesisRequest(
            "Hello there, my dear friend.", voice, sampling=sampling, seed=7, duration_factor=factor, repair=repair
        )
        assert tiny_engine.synthesize(request).duration_by == means
