"""The run: text to segments, (voice, emotion) to conditioning, segments to codes, codes to mel, mel to sound.

``Engine.stream`` is the primary path; the whole audio is the concatenation of its chunks. The page, the command line
and ``IndexTTS2.infer`` are thin skins over it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from indextts.accel import accelerate, can_offload, conversion, relieve, resolve_device
from indextts.checkpoints import ModelFiles, locate
from indextts.config import EngineConfig, SamplingParams
from indextts.emotion import EmotionTables, QwenEmotion, TextEmotion
from indextts.engine.run import Run
from indextts.loading import Models, check_vocabulary, load_models
from indextts.stages.conditioning import ConditioningStage
from indextts.stages.s2mel import S2MelStage
from indextts.stages.speech import SpeechStage
from indextts.stages.text import TextStage
from indextts.stages.vocoder import VocoderStage
from indextts.text.glossary import NO_TERMS, Glossary
from indextts.text.normalizer import TextNormalizer
from indextts.text.tokenizer import TextTokenizer
from indextts.text_emotion import BundledTextEmotion
from indextts.turns import Turns
from indextts.types import (
    AccelerationReport,
    AudioChunk,
    ProgressCallback,
    Segment,
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
        text_emotion = find_text_emotion(files, str(models.device)) if config.qwen_emotion else None
        engine = cls.assemble(config, files, models, tokenizer, text_emotion)
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
        text_emotion: TextEmotion | None = None,
    ) -> Engine:
        """``load`` from where the networks are there: apply the accelerations, and build the stages.

        Args:
            files: Where the networks come from; None if they are not from files.
            text_emotion: None switches emotion from text off.
        """
        backend, report = accelerate(models, config)
        emotions = EmotionTables(models.emotion_matrix, models.speaker_matrix, models.config.emo_num)
        stages = Stages(
            text=TextStage(tokenizer, models.config.gpt.max_text_tokens),
            conditioning=ConditioningStage(models, emotions, text_emotion, config.voice_cache_bytes),
            speech=SpeechStage(models.gpt, backend),
            s2mel=S2MelStage(models),
            vocoder=VocoderStage(models.vocoder),
        )
        logger.info("device: %s", report.device)
        if text_emotion is not None:
            logger.info("emotion from text: the %s model", text_emotion.name)
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
        return self.models.config.languages

    @property
    def text_emotion_model(self) -> str | None:
        """Which model reads emotions out of texts, ``qwen`` or ``bundled``; None: that is switched off."""
        text_emotion = self.stages.conditioning.text_emotion
        return None if text_emotion is None else text_emotion.name

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
        """The eight emotion weights that ``text`` expresses, by ``text_emotion_model``."""
        return self.stages.conditioning.read_emotion(text).values

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
            duration_by=run.duration_by,
            read_emotion=run.read_emotion,
        )


def find_text_emotion(files: ModelFiles, device: str) -> TextEmotion:
    """The Qwen emotion model of the checkpoint; where it is not there, the bundled classifier."""
    qwen = QwenEmotion(files.qwen_emotion, device)
    return qwen if qwen.available else BundledTextEmotion()
