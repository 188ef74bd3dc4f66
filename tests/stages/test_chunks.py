"""Speech, mel and waveform that grow chunk by chunk, against the whole."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from indextts.config import SamplingParams
from indextts.engine import Engine
from indextts.errors import ConfigError, SynthesisError
from indextts.stages.chunks import GrowingMel, GrowingWave
from indextts.types import ChunkSchedule, Conditioning, FromVoice, Segment, SpeechCodes, VoicePrompt

CHUNKS = ChunkSchedule(
    first_codes=8, growth=1.5, max_codes=16, lookahead_frames=6, stand_in_frames=10, context_frames=20, fade_frames=2
)
HOP = 8  # of the tiny model's vocoder


@pytest.fixture(scope="module")
def conditioning(tiny_engine: Engine, recordings: tuple[Path, Path]) -> Conditioning:
    return tiny_engine.stages.conditioning(VoicePrompt.from_path(recordings[0]), FromVoice(), "", 0)


@pytest.fixture(scope="module")
def segment(tiny_engine: Engine) -> Segment:
    return dataclasses.replace(tiny_engine.segment("Hello there, my friend. How are you today?")[0], index=3)


@pytest.fixture
def speech(tiny_engine: Engine, conditioning: Conditioning, segment: Segment) -> SpeechCodes:
    sampling = SamplingParams(max_mel_tokens=60, num_beams=1)
    generator = torch.Generator().manual_seed(4)
    (speech,) = tiny_engine.stages.speech([segment], conditioning, sampling, generator)
    assert len(speech.codes) > 30  # or there would not be several chunks
    return speech


def so_far(speech: SpeechCodes, codes: int) -> SpeechCodes:
    complete = codes >= len(speech.codes)
    return dataclasses.replace(speech, codes=speech.codes[:codes], latent=speech.latent[:codes], complete=complete)


def parts(speech: SpeechCodes) -> list[SpeechCodes]:
    found = []
    for count in CHUNKS.code_counts():
        found.append(so_far(speech, count))
        if found[-1].complete:
            return found
    raise AssertionError


def test_a_schedule_grows_to_its_limit() -> None:
    counts = CHUNKS.code_counts()
    assert [next(counts) for _ in range(5)] == [8, 20, 36, 52, 68]


@pytest.mark.parametrize(
    "wrong",
    [
        {"first_codes": 0}, {"growth": 0.5}, {"growth": float("nan")}, {"max_codes": 31}, {"stand_in_frames": -1},
        {"context_frames": -1}, {"fade_frames": 17}, {"fade_frames": -1}, {"lookahead_frames": 3},
    ],
)  # fmt: skip
def test_impossible_schedules_are_refused_by_name(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"first_codes|growth|max_codes|stand_in_frames|context_frames|fade_frames"):
        ChunkSchedule(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("num_beams", [1, 3])
def test_growing_speech_is_the_beginning_of_the_whole(
    tiny_engine: Engine, conditioning: Conditioning, segment: Segment, num_beams: int
) -> None:
    stage, sampling = tiny_engine.stages.speech, SamplingParams(max_mel_tokens=60, num_beams=num_beams)
    (whole,) = stage([segment], conditioning, sampling, torch.Generator().manual_seed(4))
    grown = list(stage.growing(segment, conditioning, sampling, CHUNKS, torch.Generator().manual_seed(4)))
    assert len(grown) > 2 and [part.complete for part in grown] == [False] * (len(grown) - 1) + [True]
    for part, wanted in zip(grown[:-1], CHUNKS.code_counts(), strict=False):
        assert len(part.codes) == wanted if num_beams == 1 else len(part.codes) >= wanted
        assert torch.equal(part.codes, whole.codes[: len(part.codes)])
        torch.testing.assert_close(part.latent, whole.latent[: len(part.codes)], rtol=1e-4, atol=1e-4)
    assert torch.equal(grown[-1].codes, whole.codes) and grown[-1].reached_limit == whole.reached_limit
    torch.testing.assert_close(grown[-1].latent, whole.latent)


def test_speech_without_codes_is_an_error(tiny_engine: Engine, conditioning: Conditioning, segment: Segment) -> None:
    stage, config = tiny_engine.stages.speech, tiny_engine.models.config.gpt
    bias = tiny_engine.models.gpt.mel_head.bias
    before = bias[config.stop_mel_token].item()
    bias[config.stop_mel_token] = 1e4
    try:
        with pytest.raises(SynthesisError, match="no speech for segment 4"):
            next(stage.growing(segment, conditioning, SamplingParams(), CHUNKS, torch.Generator()))
    finally:
        bias[config.stop_mel_token] = before


def test_a_mel_of_one_chunk_is_the_whole(tiny_engine: Engine, conditioning: Conditioning, speech: SpeechCodes) -> None:
    stage, generator = tiny_engine.stages.s2mel, torch.Generator().manual_seed(4)
    grown = GrowingMel(stage, conditioning.voice, CHUNKS, generator)
    grown.grow(speech)
    (whole,) = stage([speech], conditioning.voice, generator)
    assert torch.equal(grown.mel, whole) and grown.settled == whole.shape[2]


def test_settled_frames_of_a_mel_stay(
    tiny_engine: Engine, conditioning: Conditioning, speech: SpeechCodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And each chunk sees no more than the voice and the speech before it, a piece of the voice behind it, and starts
    from the noise of its frames."""
    stage, voice = tiny_engine.stages.s2mel, conditioning.voice
    contents, prompts, noises = [], [], []
    flow, target_frames = stage.flow, tiny_engine.models.s2mel.target_frames

    def watched(content: Tensor, count: Tensor, noise: list[Tensor], heard: object, check: object) -> list[Tensor]:
        assert int(count) == content.shape[1] == noise[0].shape[1]
        contents.append(content)
        prompts.append(heard.prompt_mel)  # type: ignore[attr-defined]
        noises.append(noise[0])
        return flow(content, count, noise, heard, check)  # type: ignore[arg-type]

    monkeypatch.setattr(stage, "flow", watched)
    generator = torch.Generator().manual_seed(4)
    grown, before = GrowingMel(stage, voice, CHUNKS, generator), voice.prompt_mel[..., :0]
    for part in parts(speech):
        begin, end = before.shape[2], target_frames(len(part.codes))
        grown.grow(part)
        assert grown.mel.shape[2] == end and grown.settled == end - (0 if part.complete else CHUNKS.lookahead_frames)
        assert torch.equal(grown.mel[..., :begin], before)
        stand_in = 0 if part.complete else CHUNKS.stand_in_frames
        assert contents[-1].shape[1] == end - begin + stand_in
        if stand_in:
            windows = voice.prompt_condition.unfold(1, stand_in, 1).transpose(2, 3)
            assert (contents[-1][:, None, -stand_in:] == windows).flatten(2).all(2).any()
        context = before[..., max(0, begin - CHUNKS.context_frames) :]
        assert torch.equal(prompts[-1], torch.cat((voice.prompt_mel, context), dim=2))
        noise = stage.draw_noise(speech.segment.index, 1000, generator)
        assert torch.equal(noises[-1], noise[:, begin : end + stand_in])
        before = grown.mel[..., : grown.settled]
    assert len(contents) > 2 and max(prompt.shape[2] for prompt in prompts) == voice.prompt_mel.shape[2] + 20


def test_a_wave_in_chunks_equals_the_whole_where_it_can_look_ahead(
    tiny_engine: Engine, conditioning: Conditioning, speech: SpeechCodes
) -> None:
    """The vocoder sees as much on both sides of a frame as it feels, so nothing but rounding is left to fade over."""
    stages, reach = tiny_engine.stages, tiny_engine.models.vocoder.reach_frames
    chunks = dataclasses.replace(CHUNKS, lookahead_frames=reach + 2, fade_frames=2)
    whole = GrowingMel(stages.s2mel, conditioning.voice, chunks, torch.Generator().manual_seed(4))
    whole.grow(speech)
    mel, wave, waves = whole.mel, GrowingWave(stages.vocoder, chunks), []
    for end in (reach + 5, reach + 12, mel.shape[2]):
        whole.mel, whole.settled = mel[..., :end], end if end == mel.shape[2] else end - chunks.lookahead_frames
        waves.append(wave.grow(whole))
    assert [len(piece) for piece in waves[:2]] == [3 * HOP, 7 * HOP]
    expected = stages.vocoder.wave(mel)
    torch.testing.assert_close(torch.cat(waves), expected, rtol=0, atol=1e-5)
    assert expected.abs().max() > 1e-3


class Levels:
    """A vocoder whose every sample is the first band of its frame."""

    vocoder = SimpleNamespace(reach_frames=1, hop_samples=HOP)

    def wave(self, mel: Tensor) -> Tensor:
        return mel[0, 0].repeat_interleave(HOP)


def test_the_sound_goes_over_from_chunk_to_chunk() -> None:
    """From what the one would have gone on with to what the next one says."""
    wave: GrowingWave = GrowingWave(Levels(), CHUNKS)  # type: ignore[arg-type]
    levels = []
    for level, frames, settled in ((1.0, 12, 6), (0.0, 20, 14), (2.0, 15, 15)):
        mel = SimpleNamespace(mel=torch.full((1, 80, frames), level), settled=settled)
        levels.append(wave.grow(mel))  # type: ignore[arg-type]
    assert [len(piece) for piece in levels] == [6 * HOP, 8 * HOP, 1 * HOP]
    fade = 2 * HOP
    assert (levels[0] == 1).all() and (levels[1][fade:] == 0).all()
    down, up = levels[1][:fade], levels[2]  # the last piece is shorter than its fade
    assert ((down > 0) & (down < 1)).all() and torch.allclose(down.diff(), torch.tensor(-1 / (fade + 1)))
    assert ((up > 0) & (up < 2)).all() and torch.allclose(up.diff(), torch.tensor(2 / (HOP + 1)))


def test_noise_is_of_the_seed_and_the_segment_alone(tiny_engine: Engine) -> None:
    draw, generator = tiny_engine.stages.s2mel.draw_noise, torch.Generator().manual_seed(7)
    noise = draw(0, 700, generator)
    torch.rand(5, generator=generator)
    assert torch.equal(draw(0, 300, generator), noise[:, :300])
    for other in (draw(1, 700, generator), draw(0, 700, torch.Generator().manual_seed(8))):
        assert other.shape == noise.shape and abs(float((other * noise).mean())) < 0.02
    assert abs(float(noise.mean())) < 0.02 and abs(float(noise.std()) - 1) < 0.02
