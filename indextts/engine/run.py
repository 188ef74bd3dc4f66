"""One request on its way through the stages."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from indextts.audio import silence, to_pcm16
from indextts.errors import Cancelled, InferenceTimeout, SynthesisError, UndefinedValues
from indextts.loading import release_memory
from indextts.stages.batches import plan_batches
from indextts.stages.chunks import GrowingMel, GrowingWave
from indextts.stages.duration import BY_CODES, BY_STRETCHING, at_length, far, share_frames, wanted_factors
from indextts.stages.repair import examined, repaired, still_faulty
from indextts.types import (
    AccelerationReport,
    AudioChunk,
    ChunkSchedule,
    Conditioning,
    Progress,
    ProgressCallback,
    ReadEmotion,
    Segment,
    SpeechCodes,
    StopCallback,
    SynthesisRequest,
)

if TYPE_CHECKING:
    from indextts.engine.engine import Engine

logger = logging.getLogger(__name__)


class Sound(NamedTuple):
    """A segment, or a piece of it: int16 samples ``[N]``. ``complete``: there are no more of this segment."""

    segment: Segment
    samples: np.ndarray
    complete: bool = True


def without_beginning(sounds: Iterator[Sound], samples: int) -> Iterator[Sound]:
    """``sounds`` but for the first ``samples``."""
    for sound in sounds:
        cut = min(samples, len(sound.samples))
        samples -= cut
        yield sound._replace(samples=sound.samples[cut:])


class Run:
    """One request on its way through the stages: what differs from call to call lives here and nowhere else."""

    def __init__(
        self,
        engine: Engine,
        request: SynthesisRequest,
        on_progress: ProgressCallback | None,
        should_stop: StopCallback | None,
    ) -> None:
        self.engine = engine
        self.request = request
        self.on_progress = on_progress
        self.should_stop = should_stop
        self.started = time.perf_counter()
        self.seed = request.seed if request.seed is not None else secrets.randbelow(2**31)
        self.seconds: dict[str, float] = {}
        self.warnings: list[str] = []
        self.duration_by: str | None = None
        self.segment_count = self.token_count = 0
        self.read_emotion: ReadEmotion | None = None
        self.sampling = request.sampling or engine.sampling_defaults
        self.draw_seed = self.seed  # what the generator was started with
        self.generator = self.generator_of(self.seed)

    def chunks(self) -> Iterator[AudioChunk]:
        """The run on one screen."""
        request, stages = self.request, self.engine.stages
        batch_size = 1 if request.chunks else request.batch_size or self.engine.config.batch_size
        self.tell(0.0, "reading the text")
        segments = stages.text(
            request.text,
            request.max_text_tokens_per_segment,
            request.quick_streaming_tokens,
            request.glossary,
            request.numbers_language,
        )
        self.segment_count = len(segments)
        self.token_count = sum(segment.token_count for segment in segments)
        self.tell(0.05, "listening to the voice")
        conditioning = self.conditioning()
        self.read_emotion = conditioning.read_emotion
        for batch in plan_batches(segments, batch_size):
            self.tell(0.1 + 0.9 * batch[0].index / len(segments), "speaking", batch[0].index)
            for sound in self.sounds_within_memory(batch, conditioning):
                yield from self.audio(sound)
        self.tell(1.0, "done", len(segments) - 1)

    def conditioning(self) -> Conditioning:
        """What the recordings say; where the device has no memory for it, once more with less on the device."""
        request, report = self.request, self.engine.report
        try:
            with self.turn("conditioning_s"):
                return self.engine.stages.conditioning(request.voice, request.emotion, request.text, self.seed)
        except torch.OutOfMemoryError as error:
            if not self.relieved(report, "for the recording"):
                raise self.not_enough_memory("for the recording") from error
        release_memory()  # here, where the failed attempt's tensors are no longer held by the error
        return self.conditioning()

    def sounds(self, batch: Sequence[Segment], conditioning: Conditioning) -> Iterator[Sound]:
        """The sound of each segment of a batch."""
        if self.request.chunks is not None:
            for segment in batch:
                yield from self.sounds_in_chunks(segment, conditioning, self.request.chunks)
            return
        stages = self.engine.stages
        spoken = self.at_wanted_length(batch, partial(self.speak, batch, conditioning))
        with self.turn("s2mel_s"):
            mels = stages.s2mel(spoken, conditioning.voice, self.generator, self.check)
        for speech, mel in zip(spoken, mels, strict=True):
            self.tell_limit(speech)
            with self.turn("vocoder_s"):
                samples = stages.vocoder(mel)
            yield Sound(speech.segment, samples)

    def speak(
        self, batch: Sequence[Segment], conditioning: Conditioning, length_hints: Sequence[int] | None = None
    ) -> list[SpeechCodes]:
        """The speech of a batch; of what went wrong the best of a few attempts, if the request wants that."""
        repairs = self.request.repair
        hints = {} if length_hints is None else {s.index: hint for s, hint in zip(batch, length_hints, strict=True)}

        def attempt(segments: Sequence[Segment], generator: torch.Generator) -> list[SpeechCodes]:
            more: dict[str, Any] = {"aligned": True} if repairs else {}
            if hints:
                more["length_hints"] = [hints[segment.index] for segment in segments]
            with self.turn("speech_s"):
                speech = self.engine.stages.speech
                return speech(segments, conditioning, self.sampling, generator, self.stopped, **more)

        def again(segments: Sequence[Segment], seed: int) -> list[SpeechCodes]:
            return attempt(segments, self.generator_of(seed))

        spoken = attempt(batch, self.generator)
        return repaired(spoken, self.draw_seed, again, self.warn, not hints) if repairs else spoken

    def at_wanted_length(self, batch: Sequence[Segment], speak: Callable[..., list[SpeechCodes]]) -> list[SpeechCodes]:
        """What ``speak`` says, as long as the request wants it."""
        request, models = self.request, self.engine.models
        spoken = speak()
        if not request.has_duration:
            return spoken
        wanted_frames = None
        if request.duration_s is not None:
            silence_s = (self.segment_count - 1) * max(0, request.interval_silence_ms) / 1000
            frames_per_s = self.engine.sample_rate_hz / models.vocoder.hop_samples
            wanted_frames = share_frames(batch, self.token_count, (request.duration_s - silence_s) * frames_per_s)
        factors = wanted_factors(spoken, models.s2mel, request.duration_factor, wanted_frames)
        told = models.config.gpt.length_hints and far(factors)
        self.duration_by = BY_CODES if told else self.duration_by or BY_STRETCHING
        return at_length(spoken, factors, models.s2mel, speak if told else None)

    def sounds_in_chunks(self, segment: Segment, conditioning: Conditioning, chunks: ChunkSchedule) -> Iterator[Sound]:
        """The sound of a segment while it is being spoken, piece by piece."""
        stages = self.engine.stages
        growing, speech = self.begun(segment, conditioning, chunks)
        mel = GrowingMel(stages.s2mel, conditioning.voice, chunks, self.generator)
        wave = GrowingWave(stages.vocoder, chunks)
        while True:
            self.tell_limit(speech)
            with self.turn("s2mel_s"):
                mel.grow(speech, self.check)
            with self.turn("vocoder_s"):
                samples = to_pcm16(wave.grow(mel))
            yield Sound(segment, samples, speech.complete)
            if speech.complete:
                return
            with self.turn("speech_s"):
                speech = next(growing)
            if self.request.repair and speech.complete and (found := examined(speech)).faults:
                self.warn(still_faulty(found, "and had begun to sound"))

    def begun(
        self, segment: Segment, conditioning: Conditioning, chunks: ChunkSchedule
    ) -> tuple[Iterator[SpeechCodes], SpeechCodes]:
        """Speech that grows, and what there is of it for the first chunk.

        While nothing has sounded, what has a fault can still be spoken again.
        """

        def begin(generator: torch.Generator) -> tuple[Iterator[SpeechCodes], SpeechCodes]:
            growing = self.engine.stages.speech.growing(
                segment, conditioning, self.sampling, chunks, generator, self.stopped, self.request.repair
            )
            with self.turn("speech_s"):
                return growing, next(growing)

        growing, speech = begin(self.generator)
        if not self.request.repair:
            return growing, speech
        grows = {id(speech): growing}

        def again(_: Sequence[Segment], seed: int) -> list[SpeechCodes]:
            growing, speech = begin(self.generator_of(seed))
            grows[id(speech)] = growing
            return [speech]

        (best,) = repaired([speech], self.draw_seed, again, self.warn)
        return grows[id(best)], best

    def sounds_tried_twice(self, batch: Sequence[Segment], conditioning: Conditioning) -> Iterator[Sound]:
        """``sounds``; where the model computes undefined values, it gets a second chance with another seed.

        Not where a part of the segment has sounded: the rest of another attempt would not go with it.
        """
        made, begun = 0, False
        try:
            for sound in self.sounds(batch, conditioning):
                made, begun = made + sound.complete, not sound.complete
                yield sound
        except UndefinedValues as error:
            if begun:
                raise
            another_seed = self.seed + 1  # not drawn: the same request shall fail, and succeed, in the same way
            self.warn(f"segment {batch[made].index + 1} is tried again with seed {another_seed}: {error}")
            self.draw_seed = another_seed
            self.generator.manual_seed(another_seed)
            try:
                yield from self.sounds(batch[made:], conditioning)
            except UndefinedValues as again:
                seeds = f"with seed {self.seed} and with seed {another_seed}"
                raise UndefinedValues(f"{again}, {seeds}: try another recording, or full precision") from again

    def sounds_within_memory(self, batch: Sequence[Segment], conditioning: Conditioning) -> Iterator[Sound]:
        """``sounds_tried_twice``; where the device has no memory for the batch, one half after the other.

        Where it has none for a single segment, that one is tried again with less on the device. On the same draws, so
        that it goes on where it has sounded already.
        """
        made, heard, report, drawn = 0, 0, self.engine.report, self.generator.get_state()
        try:
            for sound in self.sounds_tried_twice(batch, conditioning):
                made, heard = made + sound.complete, 0 if sound.complete else heard + len(sound.samples)
                yield sound
            return
        except torch.OutOfMemoryError as error:
            what = f"for segment {batch[0].index + 1}"
            if len(batch) == 1 and not self.relieved(report, what):
                raise self.not_enough_memory(what) from error
        release_memory()
        if not made:
            self.generator.set_state(drawn)
        rest, half = batch[made:], (len(batch) - made + 1) // 2
        if len(rest) > 1:
            first = rest[0].index + 1
            self.warn(f"not enough memory for {len(rest)} segments at once: {half} at a time from segment {first}")
        for part in filter(None, (rest[:half], rest[half:])):
            yield from without_beginning(self.sounds_within_memory(part, conditioning), heard)

    def relieved(self, report: AccelerationReport, what: str) -> bool:
        """Whether the device holds less than when ``report`` was true. Makes it so, if it can."""
        with self.engine.turns.take(self.check):
            relieved = self.engine.report is not report or self.engine.relieve()
        if relieved:
            self.warn(f"not enough memory {what}: networks that listen to recordings rest in main memory from now on")
        return relieved

    def not_enough_memory(self, what: str) -> SynthesisError:
        """What to say when the device's memory is full."""
        device = self.engine.models.device
        return SynthesisError(
            f"the memory of {device} is not enough {what}: try shorter segments (max_text_tokens_per_segment), half "
            "precision, or fewer requests side by side"
        )

    def audio(self, sound: Sound) -> Iterator[AudioChunk]:
        """A sound, and where its segment ends the silence in front of the next one, if there is one."""
        rate, total, index = self.engine.sample_rate_hz, self.segment_count, sound.segment.index
        if len(sound.samples):
            yield AudioChunk(sound.samples, rate, index, total, ends_segment=sound.complete)
        pause = silence(self.request.interval_silence_ms, rate)
        if sound.complete and index + 1 < total and len(pause):
            yield AudioChunk(pause, rate, index, total, is_silence=True)

    @contextmanager
    def turn(self, stage: str) -> Iterator[None]:
        """Hold the model for one stage of one batch, and add up the time it takes."""
        with self.engine.turns.take(self.check):
            started = time.perf_counter()
            try:
                yield
            except Cancelled:  # a stage saw that it shall stop: say why
                self.check()
                raise
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started
        self.check()

    def generator_of(self, seed: int) -> torch.Generator:
        return torch.Generator(self.engine.models.device).manual_seed(seed)

    def stopped(self) -> bool:
        return self.timed_out() or (self.should_stop is not None and self.should_stop())

    def timed_out(self) -> bool:
        limit_s = self.engine.config.inference_timeout_s
        return limit_s is not None and time.perf_counter() - self.started > limit_s

    def check(self) -> None:
        if self.timed_out():
            raise InferenceTimeout(f"the inference timeout of {self.engine.config.inference_timeout_s:g} s has passed")
        if self.stopped():
            raise Cancelled("the synthesis was cancelled")

    def tell(self, fraction: float, message: str, segment: int = 0) -> None:
        if self.on_progress is not None:
            self.on_progress(Progress(fraction, message, segment, self.segment_count))

    def tell_limit(self, speech: SpeechCodes) -> None:
        if speech.reached_limit:
            self.warn(f"segment {speech.segment.index + 1} was cut off at {len(speech.codes)} codes")

    def warn(self, message: str) -> None:
        logger.warning("%s", message)
        self.warnings.append(message)
