"""The run: text to segments, (voice, emotion) to conditioning, segments to codes, codes to mel, mel to sound.

``Engine.stream`` is the primary path; the whole audio is the concatenation of its chunks. The page, the command line
and ``IndexTTS2.infer`` are thin skins over it.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from indextts.accel import accelerate, can_offload, conversion, relieve, resolve_device
from indextts.audio import silence, to_pcm16
from indextts.checkpoints import ModelFiles, locate
from indextts.config import EngineConfig, SamplingParams
from indextts.emotion import EmotionTables, QwenEmotion
from indextts.errors import Cancelled, InferenceTimeout, SynthesisError, UndefinedValues
from indextts.loading import Models, check_vocabulary, load_models, release_memory
from indextts.stages.batches import plan_batches
from indextts.stages.chunks import GrowingMel, GrowingWave
from indextts.stages.conditioning import ConditioningStage
from indextts.stages.s2mel import S2MelStage
from indextts.stages.speech import SpeechStage
from indextts.stages.text import TextStage
from indextts.stages.vocoder import VocoderStage
from indextts.text.glossary import NO_TERMS, Glossary
from indextts.text.normalizer import TextNormalizer
from indextts.text.tokenizer import TextTokenizer
from indextts.turns import Turns
from indextts.types import (
    AccelerationReport,
    AudioChunk,
    ChunkSchedule,
    Conditioning,
    FromText,
    Progress,
    ProgressCallback,
    Segment,
    SpeechCodes,
    StageTimings,
    StopCallback,
    SynthesisRequest,
    SynthesisResult,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stages:
    """The five steps of a run, built once."""

    text: TextStage
    conditioning: ConditioningStage
    speech: SpeechStage
    s2mel: S2MelStage
    vocoder: VocoderStage


class Engine:
    """A loaded model, ready to speak. Safe to share between threads: segments of several callers take turns."""

    def __init__(
        self,
        config: EngineConfig,
        files: ModelFiles | None,
        models: Models,
        stages: Stages,
        report: AccelerationReport,
    ) -> None:
        self.config = config
        self.files = files
        self.models = models
        self.stages = stages
        self.report = report
        self.turns = Turns()

    @classmethod
    def load(cls, config: EngineConfig, aux_paths: Mapping[str, str | Path] | None = None) -> Engine:
        """Load the model, apply the accelerations asked for, build the stages, and warm up, in this order.

        Raises:
            CheckpointError, ConfigError: the model files are incomplete or damaged.
            UnsupportedOption: with ``strict``, an option that this machine cannot honour.
        """
        model_config, files = locate(config.model_dir, config.config_path, aux_paths)
        device = resolve_device(config.device)
        offloads = config.cpu_offload and can_offload(device)
        models = load_models(model_config, files, device, conversion(config, device), in_main_memory=offloads)
        normalizer = TextNormalizer(Glossary.load(files.glossary))
        tokenizer = TextTokenizer(files.bpe_model, normalizer, **vars(model_config.text))
        check_vocabulary(tokenizer.vocabulary_size, model_config, files.bpe_model)
        qwen = QwenEmotion(files.qwen_emotion, str(models.device)) if config.qwen_emotion else None
        engine = cls.assemble(config, files, models, tokenizer, qwen)
        if any(entry.option in ("cuda-graph", "compile") and entry.honoured for entry in engine.report.entries):
            from indextts.accel.warm_up import warm_up

            warm_up(models, engine.stages.speech.backend, config.batch_size)
        return engine

    @classmethod
    def assemble(
        cls,
        config: EngineConfig,
        files: ModelFiles | None,
        models: Models,
        tokenizer: TextTokenizer,
        qwen: QwenEmotion | None = None,
    ) -> Engine:
        """``load`` from where the networks are there: apply the accelerations, and build the stages.

        Args:
            files: Where the networks come from; None if they are not from files.
            qwen: None switches emotion from text off.
        """
        backend, report = accelerate(models, config)
        emotions = EmotionTables(models.emotion_matrix, models.speaker_matrix, models.config.emo_num)
        stages = Stages(
            text=TextStage(tokenizer, models.config.gpt.max_text_tokens),
            conditioning=ConditioningStage(models, emotions, qwen, config.voice_cache_bytes),
            speech=SpeechStage(models.gpt, backend),
            s2mel=S2MelStage(models),
            vocoder=VocoderStage(models.vocoder),
        )
        logger.info("device: %s", report.device)
        for entry in report.entries:
            logger.log(logging.INFO if entry.honoured else logging.WARNING, "%s", entry)
        return cls(config, files, models, stages, report)

    @property
    def sample_rate_hz(self) -> int:
        return self.models.config.s2mel.preprocess_params.sr

    @property
    def sampling_defaults(self) -> SamplingParams:
        """The model's own sampling, which a request without ``sampling`` gets."""
        return self.models.config.sampling

    @property
    def max_text_tokens(self) -> int:
        """The longest segment that the model can speak, in text tokens."""
        return self.models.config.gpt.max_text_tokens

    @property
    def max_mel_tokens(self) -> int:
        """The longest speech of a segment, in codes, the stop code included."""
        return self.models.config.gpt.max_mel_tokens

    @property
    def model_name(self) -> str:
        if self.files is None:
            return "random weights"
        return "bundled nano voice" if self.files.bundled else f"IndexTTS-{self.models.config.version:g}"

    @property
    def languages(self) -> tuple[str, ...]:
        """Codes of the languages that the model has learned to speak."""
        return ("en",) if self.files is not None and self.files.bundled else ("zh", "en")

    @property
    def emotions_from_text(self) -> bool:
        """Whether the model that reads emotions from texts is there."""
        qwen = self.stages.conditioning.text_emotion
        return isinstance(qwen, QwenEmotion) and qwen.available

    def relieve(self) -> bool:
        """Take from the device what it can do without, for its memory is full. Needs a turn of its own.

        Returns:
            Whether that made a difference, which ``report`` tells from then on.
        """
        report = relieve(self.models, self.report)
        self.report = report or self.report
        return report is not None

    def segment(
        self, text: str, max_tokens: int = 120, quick_streaming_tokens: int = 0, glossary: Glossary = NO_TERMS
    ) -> list[Segment]:
        """How ``text`` will be cut. Raises ``TextError`` if nothing in it can be spoken."""
        return self.stages.text(text, max_tokens, quick_streaming_tokens, glossary)

    def normalize(self, text: str, glossary: Glossary = NO_TERMS) -> str:
        """``text`` as it is read out: numbers and symbols as words. Raises ``TextError`` if it is no text to speak."""
        return self.stages.text.normalize(text, glossary)

    def emotion_from_text(self, text: str) -> tuple[float, ...]:
        """The eight emotion weights that ``text`` expresses, by the Qwen emotion model."""
        return self.stages.conditioning.vector_from_text(FromText(text), text).values

    def stream(
        self,
        request: SynthesisRequest,
        on_progress: ProgressCallback | None = None,
        should_stop: StopCallback | None = None,
    ) -> Iterator[AudioChunk]:
        """Speak ``request``, yielding each segment as it is ready and the silence after it.

        With ``request.chunks`` a segment comes in several pieces, the first of them while it is still being spoken.
        Silence stands between segments, not at the end. Errors of the request are raised before anything is yielded.

        Raises:
            TextError, AudioError, EmotionError, ConfigError: the request cannot be spoken.
            Cancelled: ``should_stop`` returned True.
            SynthesisError: the model failed.
            InferenceTimeout: the request took longer than ``config.inference_timeout_s``.
        """
        return Run(self, request, on_progress, should_stop).chunks()

    def synthesize(
        self,
        request: SynthesisRequest,
        on_progress: ProgressCallback | None = None,
        should_stop: StopCallback | None = None,
    ) -> SynthesisResult:
        """Speak ``request`` to the end and return all of it. Raises as ``stream`` does."""
        run = Run(self, request, on_progress, should_stop)
        samples = [chunk.samples for chunk in run.chunks()]
        run.seconds["total_s"] = time.perf_counter() - run.started
        return SynthesisResult(
            samples=np.concatenate(samples),
            sample_rate_hz=self.sample_rate_hz,
            seed=run.seed,
            segments=run.segment_count,
            timings=StageTimings(**run.seconds),
            warnings=tuple(run.warnings),
        )


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
        self.segment_count = 0
        self.sampling = request.sampling or engine.sampling_defaults
        self.generator = torch.Generator(engine.models.device).manual_seed(self.seed)

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
        self.tell(0.05, "listening to the voice")
        conditioning = self.conditioning()
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
        with self.turn("speech_s"):
            spoken = stages.speech(batch, conditioning, self.sampling, self.generator, self.stopped)
        with self.turn("s2mel_s"):
            mels = stages.s2mel(spoken, conditioning.voice, self.generator, self.check)
        for speech, mel in zip(spoken, mels, strict=True):
            self.tell_limit(speech)
            with self.turn("vocoder_s"):
                samples = stages.vocoder(mel)
            yield Sound(speech.segment, samples)

    def sounds_in_chunks(
        self, segment: Segment, conditioning: Conditioning, chunks: ChunkSchedule
    ) -> Iterator[Sound]:
        """The sound of a segment while it is being spoken, piece by piece."""
        stages = self.engine.stages
        growing = stages.speech.growing(
            segment, conditioning, self.sampling, chunks, self.generator, self.stopped
        )
        mel = GrowingMel(stages.s2mel, conditioning.voice, chunks, self.generator)
        wave = GrowingWave(stages.vocoder, chunks)
        complete = False
        while not complete:
            with self.turn("speech_s"):
                speech = next(growing)
            self.tell_limit(speech)
            with self.turn("s2mel_s"):
                mel.grow(speech, self.check)
            with self.turn("vocoder_s"):
                samples = to_pcm16(wave.grow(mel))
            complete = speech.complete
            yield Sound(segment, samples, complete)

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
