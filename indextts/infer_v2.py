"""``IndexTTS2``: the official class's constructor and ``infer``, as a thin front of the engine. No maths here."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from indextts.audio import silence
from indextts.config import EngineConfig, SamplingParams
from indextts.emotion import normalize_emo_vec
from indextts.encoding import write_wav
from indextts.engine import Engine
from indextts.errors import ConfigError, EmotionError, UnsupportedOption
from indextts.types import (
    Emotion,
    FromAudio,
    FromText,
    FromVector,
    FromVoice,
    ProgressCallback,
    SynthesisRequest,
    VoicePrompt,
)

logger = logging.getLogger(__name__)


class IndexTTS2:
    """Zero-shot voice cloning with emotion control.

    >>> tts = IndexTTS2(cfg_path="checkpoints/config.yaml", model_dir="checkpoints")  # doctest: +SKIP
    >>> tts.infer("examples/voice_01.wav", "Hello there.", "hello.wav")  # doctest: +SKIP
    """

    def __init__(
        self,
        cfg_path: str | Path | None = None,
        model_dir: str | Path = "checkpoints",
        use_fp16: bool = False,
        device: str | None = None,
        use_cuda_kernel: bool | None = None,
        use_deepspeed: bool = False,
        use_accel: bool = False,
        use_torch_compile: bool = False,
        use_qwen_emo: bool = True,
        aux_paths: Mapping[str, str | Path] | None = None,
    ) -> None:
        """Load the model in ``model_dir``, or the bundled one if that folder holds no model.

        Args:
            cfg_path: The model's ``config.yaml``, by default that in ``model_dir``; the bundled model has its own.
            use_fp16: Half precision where the device can do it.
            device: Such as "cuda:1" or "cpu"; None takes the best there is.
            use_cuda_kernel: None means: on where it exists.
            use_deepspeed: Decode through DeepSpeed.
            use_qwen_emo: Allow emotion from text, by the Qwen emotion model or, where that is not there, by the bundled
                classifier.
            aux_paths: Own places of w2v_bert, semantic_codec, campplus and bigvgan.

        Raises:
            CheckpointError, ConfigError: model files are missing or malformed.
            UnsupportedOption: ``use_accel`` or ``use_torch_compile``, which this implementation does not have.
        """
        for option, value in (("use_accel", use_accel), ("use_torch_compile", use_torch_compile)):
            if value:
                raise UnsupportedOption(f"{option} is not part of this version; use_deepspeed speeds up decoding")
        config = EngineConfig(
            model_dir=Path(model_dir),
            config_path=None if cfg_path is None else Path(cfg_path),
            device=device,
            fp16=use_fp16,
            deepspeed=use_deepspeed,
            cuda_kernel=bool(use_cuda_kernel),
            qwen_emotion=use_qwen_emo,
        )
        self.engine = Engine.load(config, aux_paths)

    def infer(
        self,
        spk_audio_prompt: str | Path,
        text: str,
        output_path: str | Path | None = None,
        emo_audio_prompt: str | Path | None = None,
        emo_alpha: float = 1.0,
        emo_vector: Sequence[float] | None = None,
        use_emo_text: bool = False,
        emo_text: str | None = None,
        use_random: bool = False,
        interval_silence: int = 200,
        verbose: bool = False,
        max_text_tokens_per_segment: int = 120,
        stream_return: bool = False,
        more_segment_before: int = 0,
        *,
        quick_streaming_tokens: int | None = None,
        batch_size: int | None = None,
        seed: int | None = None,
        repair: bool = True,
        duration_factor: float = 1.0,
        duration_s: float | None = None,
        on_progress: ProgressCallback | None = None,
        **generation: Any,
    ) -> Any:
        """Speak ``text`` in the voice of ``spk_audio_prompt`` (spec 12, 13).

        Args:
            output_path: Where to write 16-bit WAV; None returns the samples instead.
            emo_audio_prompt: A recording whose emotion to take, by ``emo_alpha`` (0 none of it, 1 all of it).
            emo_vector: Weights of happy, angry, sad, afraid, disgusted, melancholic, surprised, calm.
            use_emo_text: Take the emotion that ``emo_text`` (or ``text``) expresses.
            use_random: Random instead of best-fitting rows of the emotion matrix.
            interval_silence: Milliseconds between segments.
            verbose: Log how long things took.
            stream_return: Return a generator of ``[1, N]`` float tensors in PCM scale: a segment, then its silence.
            more_segment_before: The official name of ``quick_streaming_tokens``.
            quick_streaming_tokens: Keep segments short until so many tokens have been spoken.
            batch_size: Segments spoken at a time.
            seed: Makes the result repeatable.
            repair: Speak a segment again, with the next seed and at most twice, if its speech has a fault.
            duration_factor: Speak so many times as long as the model would, 0.5 to 2.
            duration_s: How long all of it shall last, silences included; instead of ``duration_factor``.
            on_progress: Called with a ``Progress``.
            generation: Any field of ``SamplingParams``, such as ``temperature`` or ``num_beams``.

        Returns:
            ``output_path``, or ``(sample_rate, samples)`` with int16 ``[N, 1]``, or the generator.
        """
        quick = more_segment_before if quick_streaming_tokens is None else quick_streaming_tokens
        request = SynthesisRequest(
            text=text,
            voice=VoicePrompt.from_path(spk_audio_prompt),
            emotion=self._emotion(emo_audio_prompt, emo_alpha, emo_vector, use_emo_text, emo_text, use_random),
            sampling=self._sampling(generation),
            max_text_tokens_per_segment=max_text_tokens_per_segment,
            quick_streaming_tokens=quick,
            interval_silence_ms=interval_silence,
            batch_size=batch_size,
            seed=seed,
            repair=repair,
            duration_factor=duration_factor,
            duration_s=duration_s,
        )
        if stream_return:
            return self._stream(request, output_path, on_progress, verbose)
        result = self.engine.synthesize(request, on_progress)
        if verbose:
            logger.info("%.2f s of sound, real-time factor %.2f", result.duration_s, result.real_time_factor)
            logger.info("%s, seed %d", result.timings, result.seed)
            if result.duration_by is not None:
                logger.info("the wanted duration by %s", result.duration_by)
        if output_path is None:
            return result.sample_rate_hz, result.samples[:, None]
        write_wav(output_path, result.samples, result.sample_rate_hz)
        return output_path

    normalize_emo_vec = staticmethod(normalize_emo_vec)

    def _stream(
        self,
        request: SynthesisRequest,
        output_path: str | Path | None,
        on_progress: ProgressCallback | None,
        verbose: bool,
    ) -> Iterator[torch.Tensor]:
        """Each segment and a silence after it, also after the last; then the whole is written if it has a place."""
        pause = torch.from_numpy(silence(request.interval_silence_ms, self.engine.sample_rate_hz))[None].float()
        written: list[np.ndarray] = []
        for chunk in self.engine.stream(request, on_progress):
            written.append(chunk.samples)
            if chunk.is_silence:
                continue
            if verbose:
                logger.info("segment %d of %d: %d samples", chunk.segment + 1, chunk.segments, len(chunk.samples))
            yield torch.from_numpy(chunk.samples)[None].float()
            if pause.shape[1]:
                yield pause.clone()
        if output_path is not None:
            write_wav(output_path, np.concatenate(written), self.engine.sample_rate_hz)

    def _emotion(
        self,
        audio: str | Path | None,
        alpha: float,
        vector: Sequence[float] | None,
        use_text: bool,
        text: str | None,
        random: bool,
    ) -> Emotion:
        """Which of the emotion inputs wins (spec 8.2)."""
        if use_text:
            return FromText(text, alpha, random)
        if vector is not None:
            try:
                values = tuple(float(value) for value in vector)
            except (TypeError, ValueError) as error:
                raise EmotionError(f"an emotion vector is eight numbers, not {vector!r}") from error
            return FromVector(values, alpha, random)
        if audio is not None:
            return FromAudio(VoicePrompt.from_path(audio), alpha)
        return FromVoice()

    def _sampling(self, options: dict[str, Any]) -> SamplingParams:
        """The model's sampling with ``options`` in place of its defaults; ``top_k`` None means no top-k."""
        known = {field.name for field in dataclasses.fields(SamplingParams)}
        if unknown := sorted(set(options) - known):
            raise ConfigError(f"unknown generation options {unknown}; known are {sorted(known)}")
        if options.get("top_k", 0) is None:
            options["top_k"] = 0
        return dataclasses.replace(self.engine.sampling_defaults, **options)
