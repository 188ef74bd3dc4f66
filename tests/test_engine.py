"""The run as a whole, on the tiny model: order, silence, seeds, sharing between threads, stopping, refusals."""

from __future__ import annotations

import dataclasses
import itertools
import math
import shutil
import threading
import time
import wave
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from indextts import audio
from indextts.config import EngineConfig, SamplingParams
from indextts.emotion import QwenEmotion
from indextts.engine import Engine
from indextts.engine.engine import find_text_emotion
from indextts.errors import (
    AudioError,
    Cancelled,
    CheckpointError,
    ConfigError,
    EmotionError,
    IndexTTSError,
    SynthesisError,
    TextError,
)
from indextts.stages.conditioning import ConditioningStage, LockedCache, size_bytes
from indextts.stages.speech import SpeechStage
from indextts.text.glossary import Glossary
from indextts.text_emotion import BundledTextEmotion
from indextts.types import (
    ChunkSchedule,
    FromAudio,
    FromText,
    FromVector,
    Progress,
    ReadEmotion,
    SpeechCodes,
    SynthesisRequest,
    VoicePrompt,
)

TEXT = "Hello there, my friend. How are you today? It is raining again. Goodbye, then."
SHORT = SamplingParams(max_mel_tokens=10, num_beams=1)


@pytest.fixture(scope="session")
def voices(recordings: tuple[Path, Path]) -> tuple[VoicePrompt, VoicePrompt]:
    return VoicePrompt.from_path(recordings[0]), VoicePrompt.from_path(recordings[1])


@pytest.fixture
def ask(voices: tuple[VoicePrompt, VoicePrompt]) -> Callable[..., SynthesisRequest]:
    """A request of several segments; arguments replace what differs."""

    def make(**changes: Any) -> SynthesisRequest:
        usual = {"text": TEXT, "voice": voices[0], "sampling": SHORT, "max_text_tokens_per_segment": 12}
        usual |= {"seed": 7, "repair": False}  # all that untrained weights say is faults
        return SynthesisRequest(**{**usual, **changes})

    return make


@pytest.mark.parametrize("silence_ms", [200, 1, 0, -5])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_whole_is_its_chunks_with_silence_only_between(
    tiny_engine: Engine, ask: Callable[..., SynthesisRequest], silence_ms: int, batch_size: int
) -> None:
    request = ask(interval_silence_ms=silence_ms, batch_size=batch_size)
    chunks = list(tiny_engine.stream(request))
    whole = tiny_engine.synthesize(request)
    assert np.array_equal(np.concatenate([chunk.samples for chunk in chunks]), whole.samples)
    count = len(tiny_engine.segment(TEXT, 12))
    assert count >= 3 and whole.segments == count
    pauses = max(0, silence_ms) > 0
    expected = [(i, silent) for i in range(count) for silent in ((False, True) if pauses else (False,))]
    assert [(c.segment, c.is_silence) for c in chunks] == (expected[:-1] if pauses else expected)
    for chunk in chunks:
        assert chunk.samples.dtype == np.int16 and chunk.segments == count
        if chunk.is_silence:
            assert len(chunk.samples) == 22050 * silence_ms // 1000 and not chunk.samples.any()


def test_the_seed_decides(tiny_engine: Engine, ask: Callable[..., SynthesisRequest]) -> None:
    first, again, other = (tiny_engine.synthesize(ask(seed=seed)) for seed in (1, 1, 2))
    assert np.array_equal(first.samples, again.samples) and first.seed == 1
    assert not np.array_equal(first.samples, other.samples)


def test_without_a_seed_one_is_drawn_and_told(tiny_engine: Engine, ask: Callable[..., SynthesisRequest]) -> None:
    drawn = tiny_engine.synthesize(ask(seed=None))
    assert np.array_equal(drawn.samples, tiny_engine.synthesize(ask(seed=drawn.seed)).samples)
    assert tiny_engine.synthesize(ask(seed=None)).seed != drawn.seed


def test_other_random_numbers_do_not_matter(tiny_engine: Engine, ask: Callable[..., SynthesisRequest]) -> None:
    torch.manual_seed(1)
    first = tiny_engine.synthesize(ask()).samples
    torch.manual_seed(2)
    assert np.array_equal(first, tiny_engine.synthesize(ask()).samples)


def test_callers_in_threads_get_what_they_get_alone(
    tiny_model_dir: Path, ask: Callable[..., SynthesisRequest], voices: tuple[VoicePrompt, VoicePrompt]
) -> None:
    requests = [
        ask(voice=voice, emotion=emotion, batch_size=size, sampling=dataclasses.replace(SHORT, num_beams=beams))
        for voice, emotion, size, beams in [
            (voices[0], FromVector((0.6, *[0.0] * 7)), 1, 1),
            (voices[1], FromVector((0.6, *[0.0] * 7)), 2, 1),
            (voices[0], FromAudio(voices[1], 0.5), 4, 2),
            (voices[1], FromAudio(voices[0]), 1, 3),
        ]
    ]
    config = EngineConfig(model_dir=tiny_model_dir, device="cpu", voice_cache_bytes=300_000)
    engine = Engine.load(config)  # room for one voice: they push each other out all the time
    alone = [engine.synthesize(request).samples for request in requests]
    assert len({samples.tobytes() for samples in alone}) == len(requests)
    with ThreadPoolExecutor(len(requests)) as pool:
        together = list(pool.map(engine.synthesize, requests * 2))
    for expected, result in zip(alone * 2, together, strict=True):
        assert np.array_equal(expected, result.samples)


def test_callers_take_turns(tiny_engine: Engine, ask: Callable[..., SynthesisRequest]) -> None:
    """A short request that comes while a long one is under way does not wait for its end."""
    finished: list[str] = []
    under_way = threading.Event()

    def speak_long() -> None:
        for _ in tiny_engine.stream(ask(text=TEXT * 4)):
            under_way.set()
        finished.append("long")

    long = threading.Thread(target=speak_long)
    long.start()
    assert under_way.wait(60)
    tiny_engine.synthesize(ask(text="Goodbye."))
    finished.append("short")
    long.join()
    assert finished == ["short", "long"]


def test_progress_rises_to_one(tiny_engine: Engine, ask: Callable[..., SynthesisRequest]) -> None:
    steps: list[Progress] = []
    tiny_engine.synthesize(ask(), on_progress=steps.append)
    fractions = [step.fraction for step in steps]
    assert fractions == sorted(fractions) and fractions[0] == 0.0 and fractions[-1] == 1.0
    assert {step.segment for step in steps} == set(range(steps[-1].segments))


def test_what_was_cut_off_is_told(tiny_engine: Engine, ask: Callable[..., SynthesisRequest]) -> None:
    result = tiny_engine.synthesize(ask(text="Hello.", sampling=dataclasses.replace(SHORT, max_mel_tokens=3)))
    assert result.warnings == ("segment 1 was cut off at 3 codes",)
    assert result.timings.total_s >= result.timings.speech_s > 0 < result.timings.vocoder_s


def stop_after(calls: int) -> Callable[[], bool]:
    counter = itertools.count()
    return lambda: next(counter) >= calls


@pytest.mark.parametrize("calls", [0, 1, 5, 20])
def test_cancelling(tiny_engine: Engine, ask: Callable[..., SynthesisRequest], calls: int) -> None:
    with pytest.raises(Cancelled):
        tiny_engine.synthesize(ask(), should_stop=stop_after(calls))
    assert len(tiny_engine.synthesize(ask()).samples)


def test_cancelling_while_others_have_their_turn(tiny_engine: Engine, ask: Callable[..., SynthesisRequest]) -> None:
    with tiny_engine.turns.take(lambda: None), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(tiny_engine.synthesize, ask(), should_stop=stop_after(3))
        with pytest.raises(Cancelled):
            waiting.result(timeout=10)


def test_a_dropped_stream_frees_the_engine(tiny_engine: Engine, ask: Callable[..., SynthesisRequest]) -> None:
    stream = tiny_engine.stream(ask())
    assert isinstance(stream, Iterator)
    next(stream)
    with ThreadPoolExecutor(1) as pool:  # not even a stream that is held and not read keeps others waiting
        assert len(pool.submit(tiny_engine.synthesize, ask(text="Goodbye.")).result(timeout=60).samples)


@pytest.mark.parametrize("speech_takes_s", [0.0, 31.0])
def test_the_timeout_is_told_by_name(
    tiny_engine: Engine,
    ask: Callable[..., SynthesisRequest],
    monkeypatch: pytest.MonkeyPatch,
    speech_takes_s: float,
) -> None:
    """Time is pretended to leap when codes have been drawn for a while, or between two chunks."""
    leap = [0.0]
    clock = time.perf_counter
    monkeypatch.setattr("indextts.engine.run.time.perf_counter", lambda: clock() + leap[0])
    monkeypatch.setattr(tiny_engine, "config", dataclasses.replace(tiny_engine.config, inference_timeout_s=30.0))

    def look() -> bool:
        leap[0] = max(leap[0], speech_takes_s if counter["looks"] > 5 else 0.0)
        counter["looks"] += 1
        return False

    counter = {"looks": 0}
    stream = tiny_engine.stream(ask(), should_stop=look)
    with pytest.raises(SynthesisError, match="timeout of 30 s"):
        for _ in stream:
            leap[0] += 16.0


def recording(path: Path, samples: np.ndarray, rate_hz: int = 22050) -> bytes:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(samples.astype(np.int16).tobytes())
    return path.read_bytes()


@pytest.mark.parametrize("text", ["", "   \n", "?!... --", "，。！"])
def test_texts_without_speech(tiny_engine: Engine, ask: Callable[..., SynthesisRequest], text: str) -> None:
    with pytest.raises(TextError):
        next(tiny_engine.stream(ask(text=text)))


def test_unusable_recordings(tiny_engine: Engine, ask: Callable[..., SynthesisRequest], tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(-9000, 9000, 22050)
    for content, says in [
        (b"RIFF but no sound", "cannot decode"),
        (b"", "empty"),
        (recording(tmp_path / "short.wav", noise[:6000]), "too short"),
        (recording(tmp_path / "silent.wav", noise * 0), "silent"),
    ]:
        prompt = VoicePrompt(content, "mine.wav")
        for request in (ask(voice=prompt), ask(emotion=FromAudio(prompt))):
            with pytest.raises(AudioError, match=says) as caught:
                next(tiny_engine.stream(request))
            assert "mine.wav" in str(caught.value)
    with pytest.raises(AudioError, match=r"nowhere\.wav"):
        VoicePrompt.from_path(tmp_path / "nowhere.wav")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"emotion": lambda: FromVector((0.5,) * 7)}, EmotionError),
        ({"emotion": lambda: FromVector((math.nan,) * 8)}, EmotionError),
        ({"batch_size": lambda: 0}, ConfigError),
        ({"seed": lambda: -1}, ConfigError),
        ({"seed": lambda: 2**63}, ConfigError),
        ({"max_text_tokens_per_segment": lambda: 1}, TextError),
    ],
)
def test_unusable_requests(
    tiny_engine: Engine,
    ask: Callable[..., SynthesisRequest],
    changes: dict[str, Callable[[], Any]],
    error: type[IndexTTSError],
) -> None:
    with pytest.raises(error):
        next(tiny_engine.stream(ask(**{name: make() for name, make in changes.items()})))


def test_a_failure_leaves_the_engine_usable(
    tiny_engine: Engine, ask: Callable[..., SynthesisRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = tiny_engine.synthesize(ask()).samples
    bias = tiny_engine.models.gpt.mel_head.bias
    stop = tiny_engine.models.config.gpt.stop_mel_token
    before = bias[stop].item()
    bias[stop] = 1e4
    try:
        with pytest.raises(SynthesisError, match="no speech for segment 1"):
            tiny_engine.synthesize(ask())
    finally:
        bias[stop] = before
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(tiny_engine.stages.vocoder, "vocoder", lambda mel: 1 / 0)
        tiny_engine.synthesize(ask())
    assert np.array_equal(expected, tiny_engine.synthesize(ask()).samples)


@contextmanager
def undefined_logits(engine: Engine, calls: range, value: float = math.nan) -> Iterator[None]:
    """The language model's head computes ``value`` for one code at the calls numbered so."""
    counter = itertools.count()

    def spoil(module: torch.nn.Module, args: Any, logits: torch.Tensor) -> torch.Tensor:
        if next(counter) in calls:
            logits[..., 5] = value
        return logits

    hook = engine.models.gpt.mel_head.register_forward_hook(spoil)
    try:
        yield
    finally:
        hook.remove()


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(("beams", "call"), [(1, 0), (1, 4), (3, 0), (3, 4)])
def test_undefined_scores_are_tried_again_with_another_seed(
    tiny_engine: Engine, ask: Callable[..., SynthesisRequest], beams: int, call: int, value: float
) -> None:
    request = ask(text="Goodbye.", sampling=dataclasses.replace(SHORT, num_beams=beams))
    with undefined_logits(tiny_engine, range(call, call + 1), value):
        result = tiny_engine.synthesize(request)
    assert "tried again with seed 8" in result.warnings[0] and result.seed == 7
    expected = tiny_engine.synthesize(dataclasses.replace(request, seed=8))
    assert np.array_equal(result.samples, expected.samples)


def test_undefined_scores_without_end_are_a_clear_error(
    tiny_engine: Engine, ask: Callable[..., SynthesisRequest]
) -> None:
    expected = tiny_engine.synthesize(ask()).samples
    with undefined_logits(tiny_engine, range(10**6)), pytest.raises(SynthesisError, match="seed 7 and with seed 8"):
        tiny_engine.synthesize(ask())
    assert np.array_equal(expected, tiny_engine.synthesize(ask()).samples)


def test_undefined_samples_are_made_again_from_their_segment_on(
    tiny_engine: Engine, ask: Callable[..., SynthesisRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    request = ask(batch_size=10)
    plain, counter, vocoder = tiny_engine.synthesize(request), itertools.count(), tiny_engine.stages.vocoder.vocoder

    def spoil_the_second(mel: torch.Tensor) -> torch.Tensor:
        return vocoder(mel) * (math.nan if next(counter) == 1 else 1)

    with monkeypatch.context() as patch:
        patch.setattr(tiny_engine.stages.vocoder, "vocoder", spoil_the_second)
        chunks = [chunk for chunk in tiny_engine.stream(request) if not chunk.is_silence]
    assert [chunk.segment for chunk in chunks] == list(range(plain.segments))
    assert np.array_equal(chunks[0].samples, plain.samples[: len(chunks[0].samples)])  # heard already: stays
    with monkeypatch.context() as patch, pytest.raises(SynthesisError, match="NaN"):
        patch.setattr(tiny_engine.stages.vocoder, "vocoder", lambda mel: mel[:, :1] * math.nan)
        tiny_engine.synthesize(ask())


def test_cancelling_stops_the_flow_between_its_steps(
    tiny_engine: Engine, ask: Callable[..., SynthesisRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    estimator, steps = tiny_engine.models.s2mel.estimator, []
    velocity = estimator.velocity
    monkeypatch.setattr(estimator, "velocity", lambda *args: (steps.append(1), velocity(*args))[1])
    with pytest.raises(Cancelled):
        tiny_engine.synthesize(ask(), should_stop=lambda: len(steps) == 2)
    assert len(steps) == 2 < tiny_engine.models.config.s2mel.steps


def test_a_voice_is_heard_once_while_there_is_room(
    tiny_model_dir: Path, tiny_engine: Engine, voices: tuple[VoicePrompt, VoicePrompt]
) -> None:
    sizes = [size_bytes(tiny_engine.stages.conditioning._voice(voice)) for voice in voices]
    room = 2 * max(sizes)
    config = EngineConfig(model_dir=tiny_model_dir, device="cpu", voice_cache_bytes=room)
    stage, heard = Engine.load(config).stages.conditioning, []
    original = stage._voice
    stage._voice = lambda prompt: (heard.append(prompt.name), original(prompt))[1]  # type: ignore[method-assign]
    copy = VoicePrompt(voices[0].data, "a copy of it")  # known by its content
    for prompt in (voices[0], copy, voices[1], voices[1], voices[0]):
        stage.voice(prompt)
    assert heard == [voices[0].name, voices[1].name] and stage.cache.held_bytes == sum(sizes)
    third = VoicePrompt(voices[0].data + b"\0", "a third")  # pushes out the second, used least lately
    for prompt in (third, voices[0], voices[1]):
        stage.voice(prompt)
    assert heard[2:] == ["a third", voices[1].name]
    assert 0 < stage.cache.held_bytes <= room


def test_what_is_larger_than_the_cache_is_not_kept(
    tiny_engine: Engine, voices: tuple[VoicePrompt, VoicePrompt]
) -> None:
    cache, voice = LockedCache(100), tiny_engine.stages.conditioning.voice(voices[0])
    small = torch.zeros(20)
    assert cache.get(("emotion", "small"), lambda: small) is small and cache.held_bytes == 80
    assert cache.get(("voice", "large"), lambda: voice) is voice and cache.held_bytes == 0
    assert size_bytes(torch.zeros(1000)[:1]) == 4000  # a slice keeps all of it


def test_prompt_and_emotion_recording_are_resampled_differently(
    tiny_engine: Engine, voices: tuple[VoicePrompt, VoicePrompt]
) -> None:
    """Spec quirk 4: the voice goes through 22.05 kHz to 16 kHz, an emotion recording straight to 16 kHz."""
    stage = tiny_engine.stages.conditioning
    of_voice, of_emotion = stage.voice(voices[0]).emotion_vector, stage.recorded_emotion(voices[0])
    assert not torch.equal(of_voice, of_emotion)
    for wave_16k, expected in [
        (audio.resample_22k_to_16k(audio.load_prompt(voices[0].data, 22050)), of_voice),
        (audio.load_prompt(voices[0].data, 16000), of_emotion),
    ]:
        heard = stage.models.gpt.emotion_vector(*stage.gpt_input(stage.semantic_embedding(wave_16k)))
        assert torch.equal(heard, expected)


def test_an_emotion_vector_may_exceed_one(tiny_engine: Engine, voices: tuple[VoicePrompt, VoicePrompt]) -> None:
    """Spec quirk 13: neither bias nor cap; beyond a sum of one the voice's own emotion is subtracted."""
    stage = tiny_engine.stages.conditioning
    values = (0.9, 0.0, 0.8, *[0.0] * 5)
    got = stage(voices[0], FromVector(values), "", 0).emotion_vector
    own = stage.recorded_emotion(voices[0])
    rows = stage.emotions.mix(list(values), stage.voice(voices[0]).style, torch.zeros_like(own), None)
    torch.testing.assert_close(got, rows - 0.7 * own)


def test_incomplete_and_broken_model_folders(tiny_model_dir: Path, tmp_path: Path) -> None:
    def load_without(*names: str, **changed: str) -> None:
        folder = tmp_path / "-".join([*names, *changed])
        shutil.copytree(tiny_model_dir, folder)
        for name in names:
            (folder / name).unlink()
        for name, content in changed.items():
            (folder / name.replace("_", ".")).write_text(content)
        Engine.load(EngineConfig(model_dir=folder, device="cpu"))

    with pytest.raises(CheckpointError, match=r"gpt\.pth.*feat1\.pt"):
        load_without("gpt.pth", "feat1.pt")
    with pytest.raises(CheckpointError, match=r"config\.yaml, .*s2mel\.pth"):
        load_without("config.yaml", "s2mel.pth")
    with pytest.raises(ConfigError, match="not a mapping"):
        load_without(config_yaml="just words")
    with pytest.raises(CheckpointError, match=r"cannot read.*gpt\.pth"):
        load_without(gpt_pth="no pickle")
    with pytest.raises(IndexTTSError, match=r"bpe\.model"):
        load_without(bpe_model="no vocabulary")


def test_the_flow_sees_the_end_of_a_long_prompt(tiny_engine: Engine, ask: Callable[..., SynthesisRequest]) -> None:
    """``prompt_s`` shortens what stands in front of the mel, and nothing else of the voice."""
    stage, prompt = tiny_engine.stages.conditioning, ask().voice
    whole = stage._voice(prompt)
    s2mel = dataclasses.replace(stage.models.config.s2mel, prompt_s=0.2)
    config = dataclasses.replace(stage.models.config, s2mel=s2mel)
    cut = type(stage)(dataclasses.replace(stage.models, config=config), stage.emotions, None, 1)._voice(prompt)
    frames = int(0.2 * 22050 / 256)
    assert cut.prompt_mel.shape[-1] == cut.prompt_condition.shape[1] == frames < whole.prompt_mel.shape[-1]
    assert torch.equal(cut.prompt_mel, whole.prompt_mel[..., -frames:])
    assert torch.equal(cut.prompt_condition, whole.prompt_condition[:, -frames:])
    assert torch.equal(cut.speaker_latents, whole.speaker_latents)


def test_what_the_model_can_do(tiny_engine: Engine, tmp_path: Path) -> None:
    assert tiny_engine.languages == ("zh", "en") and tiny_engine.text_emotion_model == "bundled"
    english = dataclasses.replace(
        tiny_engine.models, config=dataclasses.replace(tiny_engine.models.config, languages=("en",))
    )
    engine = Engine(tiny_engine.config, tiny_engine.files, english, tiny_engine.stages, tiny_engine.report)
    assert engine.languages == ("en",)
    for reader, name in ((QwenEmotion(tmp_path), "qwen"), (None, None)):
        conditioning = ConditioningStage(engine.models, engine.stages.conditioning.emotions, reader, 0)
        engine.stages = dataclasses.replace(engine.stages, conditioning=conditioning)
        assert engine.text_emotion_model == name


def test_who_reads_emotions_is_decided_by_the_folder(tiny_engine: Engine, tmp_path: Path) -> None:
    assert tiny_engine.files
    files = dataclasses.replace(tiny_engine.files, qwen_emotion=tmp_path)
    assert isinstance(find_text_emotion(files, "cpu"), BundledTextEmotion)
    (tmp_path / "config.json").touch()
    qwen = find_text_emotion(files, "cpu")
    assert isinstance(qwen, QwenEmotion) and qwen.directory == tmp_path


def test_an_emotion_from_text_is_the_vector_that_was_read(
    tiny_engine: Engine, ask: Callable[..., SynthesisRequest]
) -> None:
    """Of the description, else of the text to speak; and the result says who read what."""
    for emotion, read in ((FromText("furious", 0.7), "furious"), (FromText(alpha=0.7), ask().text)):
        spoken = tiny_engine.synthesize(ask(emotion=emotion))
        assert spoken.read_emotion == ReadEmotion("bundled", BundledTextEmotion()(read))
        same = tiny_engine.synthesize(ask(emotion=FromVector(spoken.read_emotion.values, 0.7)))
        assert np.array_equal(spoken.samples, same.samples) and same.read_emotion is None


def test_emotion_from_text_can_be_switched_off(tiny_engine: Engine, ask: Callable[..., SynthesisRequest]) -> None:
    stage = tiny_engine.stages.conditioning
    off = ConditioningStage(stage.models, stage.emotions, None, 0)
    with pytest.raises(EmotionError, match="switched off"):
        off(ask().voice, FromText("sad"), "", 0)


def test_a_requests_glossary_is_its_own(tiny_engine: Engine, ask: Callable[..., SynthesisRequest]) -> None:
    """The words of the reading are spoken in place of the term, in this request and in no other."""
    glossary = Glossary({"M.2": {"en": "M dot two", "zh": "M 二"}})
    text, read = "An m.2 disk.", "An M dot two disk."
    assert tiny_engine.normalize(text, glossary) == tiny_engine.normalize(read) == read
    assert tiny_engine.normalize("一块m.2硬盘", glossary) == tiny_engine.normalize("一块M 二硬盘")
    assert tiny_engine.segment(text, glossary=glossary) == tiny_engine.segment(read) != tiny_engine.segment(text)
    with_reading = tiny_engine.synthesize(ask(text=text, glossary=glossary)).samples
    assert np.array_equal(with_reading, tiny_engine.synthesize(ask(text=read)).samples)
    assert not np.array_equal(with_reading, tiny_engine.synthesize(ask(text=text)).samples)


def test_a_glossary_that_leaves_nothing_to_speak(tiny_engine: Engine) -> None:
    with pytest.raises(TextError, match="empty"):
        tiny_engine.segment("um", glossary=Glossary({"um": ""}))


def test_passages_are_spoken_as_texts_of_their_own(tiny_engine: Engine, ask: Callable[..., SynthesisRequest]) -> None:
    passages = ["Hello there.", "42", "Goodbye, my friend."]
    request = ask(text="\u2029".join(passages), batch_size=1, max_text_tokens_per_segment=120, numbers_language="en")
    chunks = [chunk for chunk in tiny_engine.stream(request) if not chunk.is_silence]
    assert [chunk.segment for chunk in chunks] == [0, 1, 2]
    first = tiny_engine.synthesize(ask(text=passages[0], max_text_tokens_per_segment=120))
    assert np.array_equal(chunks[0].samples, first.samples)


SENTENCES = {"max_text_tokens_per_segment": 40}
"""Longer segments than there is room for in ``SHORT``, so that it is no fault of the model to reach its limit."""


class FaultyFirst:
    """A stage of speech that says the segment ``index`` in a loop as long as it draws with one of ``seeds``."""

    def __init__(self, stage: SpeechStage, index: int, seeds: set[int]) -> None:
        self.stage, self.index, self.seeds = stage, index, seeds
        self.spoken: list[tuple[int, int]] = []  # seed and segment

    def __call__(
        self, segments: Any, conditioning: Any, sampling: Any, generator: torch.Generator, *more: Any, **options: Any
    ) -> list[SpeechCodes]:
        seed = generator.initial_seed()
        self.spoken += [(seed, segment.index) for segment in segments]
        return [
            self.spoilt(speech) if seed in self.seeds and speech.segment.index == self.index else speech
            for speech in self.stage(segments, conditioning, sampling, generator, *more, **options)
        ]

    def growing(self, segment: Any, *more: Any, **options: Any) -> Iterator[SpeechCodes]:
        seed = more[3].initial_seed()
        self.spoken.append((seed, segment.index))
        for speech in self.stage.growing(segment, *more, **options):
            yield self.spoilt(speech) if seed in self.seeds and segment.index == self.index else speech

    @staticmethod
    def spoilt(speech: SpeechCodes) -> SpeechCodes:
        """Codes that go round four times, and a state for each."""
        rounds = torch.arange(48)
        codes, latent = speech.codes[0] + rounds % 12, speech.latent[rounds % len(speech.codes)]
        return dataclasses.replace(speech, codes=codes % 64, latent=latent)


@pytest.fixture
def faulty(tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FaultyFirst]:
    def make(index: int, seeds: set[int]) -> FaultyFirst:
        stage = FaultyFirst(tiny_engine.stages.speech, index, seeds)
        monkeypatch.setattr(tiny_engine, "stages", dataclasses.replace(tiny_engine.stages, speech=stage))
        return stage

    return make


@pytest.mark.parametrize("batch_size", [1, 3])
def test_only_a_faulty_segment_is_spoken_again(
    tiny_engine: Engine, ask: Callable[..., SynthesisRequest], faulty: Callable[..., FaultyFirst], batch_size: int
) -> None:
    request = ask(**SENTENCES, repair=True, batch_size=batch_size)
    good = list(tiny_engine.stream(request))
    stage = faulty(1, {7})
    result, again = tiny_engine.synthesize(request), tiny_engine.synthesize(request)
    assert np.array_equal(result.samples, again.samples) and result.warnings == again.warnings
    repairs = [warning for warning in result.warnings if "spoken again" in warning]
    assert len(repairs) == 1 and repairs[0].startswith("segment 2 is spoken again with seed 8: the same 0.24 s")
    assert not any("not as it should be" in warning for warning in result.warnings)
    expected = sorted([*((7, index) for index in range(good[0].segments)), (8, 1)])
    assert sorted(stage.spoken) == sorted(expected * 2)
    first = next(chunk for chunk in good if chunk.segment == 0 and not chunk.is_silence).samples
    assert np.array_equal(result.samples[: len(first)], first)


def test_what_no_attempt_says_better_is_kept_and_told(
    tiny_engine: Engine, ask: Callable[..., SynthesisRequest], faulty: Callable[..., FaultyFirst]
) -> None:
    faulty(0, {7, 8, 9})
    result = tiny_engine.synthesize(ask(**SENTENCES, repair=True))
    own = [warning.split(":")[0] for warning in result.warnings if "cut off" not in warning]
    assert own == [
        "segment 1 is spoken again with seed 8",
        "segment 1 is spoken again with seed 9",
        "segment 1 is not as it should be after three attempts",
    ]
    plain = tiny_engine.synthesize(ask(**SENTENCES, repair=False))
    assert np.array_equal(result.samples, plain.samples)  # the first attempt, and the noise after it


def test_speech_without_faults_is_the_same_with_repair_and_without(
    tiny_engine: Engine, ask: Callable[..., SynthesisRequest], faulty: Callable[..., FaultyFirst]
) -> None:
    stage = faulty(0, set())
    plain, watched = (tiny_engine.synthesize(ask(**SENTENCES, repair=repair)) for repair in (False, True))
    assert np.array_equal(plain.samples, watched.samples) and plain.warnings == watched.warnings
    assert {seed for seed, _ in stage.spoken} == {7}


def test_a_fault_before_the_first_chunk_is_repaired_and_a_later_one_told(
    tiny_engine: Engine, ask: Callable[..., SynthesisRequest], faulty: Callable[..., FaultyFirst]
) -> None:
    chunks = ChunkSchedule(first_codes=8, max_codes=8, lookahead_frames=4, fade_frames=2)
    request = ask(**SENTENCES, repair=True, chunks=chunks)
    stage = faulty(1, {7})
    result = tiny_engine.synthesize(request)
    assert any("segment 2 is spoken again with seed 8" in warning for warning in result.warnings)
    assert not any("not as it should be" in warning for warning in result.warnings)
    assert [seed for seed, index in stage.spoken if index == 1] == [7, 8]
    assert np.array_equal(result.samples, tiny_engine.synthesize(request).samples)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "spoilt", lambda speech: FaultyFirst.spoilt(speech) if speech.complete else speech)
        result = tiny_engine.synthesize(request)
    assert any("segment 2 is not as it should be and had begun to sound" in warning for warning in result.warnings)


def test_a_repair_that_comes_to_undefined_values_does_no_harm(
    tiny_engine: Engine, ask: Callable[..., SynthesisRequest], faulty: Callable[..., FaultyFirst]
) -> None:
    request = ask(text="Goodbye, my friend.", **SENTENCES, repair=True)
    expected = tiny_engine.synthesize(request)
    faulty(0, {7})
    with undefined_logits(tiny_engine, range(10, 10**6)):
        result = tiny_engine.synthesize(request)
    assert sum("there is no speech with seed" in warning for warning in result.warnings) == 2
    assert len(result.samples) > len(expected.samples)  # the loop
