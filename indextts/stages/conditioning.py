"""Recordings to what the model knows of a voice and of an emotion (spec 5, 6, 7.3, 8, 9.2, 10, 13).

A voice prompt is heard in four ways: the semantic encoder turns it into embeddings at 50 Hz, from which the language
model takes 32 latents and an emotion vector; the codec quantises the same embeddings, and the length regulator makes
them the condition that stands in front of the mel to be generated; the mel itself stands there too; and CAM++ sums
the voice up in one style vector. All of it depends on the recording alone and is kept, by content, for the next call;
of a saved voice also in a file.
"""

from __future__ import annotations

import random
import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from indextts import audio
from indextts.emotion import EmotionTables, TextEmotion, scale_emo_vector
from indextts.errors import EmotionError
from indextts.loading import Models
from indextts.prompts import load_tidy_prompt
from indextts.stages.conditioning_file import KnownVoice, load_known_voice, model_fingerprint, save_known_voice
from indextts.types import (
    Conditioning,
    Emotion,
    FromAudio,
    FromText,
    FromVector,
    ReadEmotion,
    Voice,
    VoicePrompt,
)

Value = TypeVar("Value", Tensor, Voice, KnownVoice)


class LockedCache:
    """The engine's only mutable state: the most recently used entries that fit into ``max_bytes``."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.held_bytes = 0
        self._entries: OrderedDict[tuple[str, str], Tensor | Voice | KnownVoice] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[str, str], make: Callable[[], Value]) -> Value:
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key]  # type: ignore[return-value]
        value = make()  # outside the lock: two askers may both compute it, neither waits for a stranger
        with self._lock:
            if key not in self._entries:
                self._entries[key] = value
                self.held_bytes += size_bytes(value)
            while self.held_bytes > self.max_bytes:
                self.held_bytes -= size_bytes(self._entries.popitem(last=False)[1])
        return value


def size_bytes(value: Tensor | Voice | KnownVoice) -> int:
    """The memory that the tensors of ``value`` keep occupied; of a slice this is the whole that it was cut from."""
    if isinstance(value, KnownVoice):
        tensors = list(value.tensors().values())
    else:
        tensors = [value] if isinstance(value, Tensor) else list(vars(value).values())
    storages = [tensor.untyped_storage() for tensor in tensors]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


class ConditioningStage:
    """(voice, emotion) to ``Conditioning``."""

    def __init__(
        self, models: Models, emotions: EmotionTables, text_emotion: TextEmotion | None, cache_bytes: int
    ) -> None:
        self.models = models
        self.emotions = emotions
        self.text_emotion = text_emotion
        self.cache = LockedCache(cache_bytes)

    def __call__(self, prompt: VoicePrompt, emotion: Emotion, spoken_text: str, seed: int) -> Conditioning:
        """Resolve the emotion as spec 8.2 orders and merge it with the voice.

        Args:
            spoken_text: What a ``FromText`` without a text describes.
            seed: Chooses the rows of a random emotion vector.
        """
        voice = self.voice(prompt)
        read = None
        if isinstance(emotion, FromText):
            read = self.read_emotion(spoken_text if emotion.text is None else emotion.text)
            emotion = FromVector(read.values, emotion.alpha, emotion.random)
        recording, alpha = prompt, 1.0
        if isinstance(emotion, FromAudio):
            recording, alpha = emotion.prompt, emotion.alpha
        heard = self.recorded_emotion(recording)
        merged = self.models.gpt.merge_emotion(voice.emotion_vector, heard, alpha)
        if isinstance(emotion, FromVector):
            weights = scale_emo_vector(list(emotion.values), emotion.alpha)
            chooser = random.Random(seed) if emotion.random else None
            merged = self.emotions.mix(weights, voice.style, merged, chooser)
        return Conditioning(voice, merged, read)

    def read_emotion(self, text: str) -> ReadEmotion:
        """The eight weights that ``text`` expresses. Raises ``EmotionError`` where that is switched off."""
        if self.text_emotion is None:
            raise EmotionError("emotion from text is switched off: it was asked not to use the Qwen emotion model")
        return ReadEmotion(self.text_emotion.name, self.text_emotion(text))

    def voice(self, prompt: VoicePrompt) -> Voice:
        """Everything that is computed once per voice recording."""
        if prompt.conditioning_path is not None:
            return self.known_voice(prompt, prompt.conditioning_path).voice
        return self.cache.get(("voice", prompt.key), lambda: self._voice(prompt))

    def recorded_emotion(self, prompt: VoicePrompt) -> Tensor:
        """The emotion vector ``[1, model_dim]`` of a recording, read at 16 kHz directly (spec quirk 4)."""
        if prompt.conditioning_path is not None:
            return self.known_voice(prompt, prompt.conditioning_path).recorded_emotion
        return self.cache.get(("emotion", prompt.key), lambda: self._recorded_emotion(prompt))

    def known_voice(self, prompt: VoicePrompt, path: Path) -> KnownVoice:
        """Both of a saved voice: from memory, from the file at ``path``, or computed and written there."""
        return self.cache.get(("saved voice", prompt.key), lambda: self._known_voice(prompt, path))

    def _known_voice(self, prompt: VoicePrompt, path: Path) -> KnownVoice:
        known = load_known_voice(path, prompt, self.fingerprint, self.models)
        if known is None:
            known = KnownVoice(self._voice(prompt), self._recorded_emotion(prompt))
            save_known_voice(path, known, prompt, self.fingerprint)
        return known

    @cached_property
    def fingerprint(self) -> str:
        """See ``model_fingerprint``; taken when a voice is saved for the first time."""
        return model_fingerprint(self.models)

    @torch.inference_mode()
    def _voice(self, prompt: VoicePrompt) -> Voice:
        m, config = self.models, self.models.config.s2mel
        rate = config.preprocess_params.sr
        wave = self.load(prompt, rate)
        wave_16k = audio.resample_22k_to_16k(wave)
        embedding = self.semantic_embedding(wave_16k)
        _, quantized = m.semantic_codec.quantize(embedding)
        mel = audio.log_mel(wave, config.preprocess_params.spect_params, rate)
        style = m.style_encoder(audio.style_features(wave_16k))
        frames = torch.tensor([mel.shape[-1]], device=m.device)
        condition = m.s2mel.length_regulator(quantized, frames)
        heard, lengths = self.gpt_input(embedding)
        seen = max(1, int(config.prompt_s * rate / config.preprocess_params.spect_params.hop_length))
        return Voice(
            semantic_embedding=embedding,
            prompt_condition=condition[:, -seen:],
            prompt_mel=mel[..., -seen:],
            style=style,
            speaker_latents=m.gpt.condition(heard, lengths),
            emotion_vector=m.gpt.emotion_vector(heard, lengths),
        )

    @torch.inference_mode()
    def _recorded_emotion(self, prompt: VoicePrompt) -> Tensor:
        wave_16k = self.load(prompt, audio.SEMANTIC_SAMPLE_RATE_HZ)
        return self.models.gpt.emotion_vector(*self.gpt_input(self.semantic_embedding(wave_16k)))

    def load(self, prompt: VoicePrompt, sample_rate_hz: int) -> Tensor:
        """The recording as the model is to hear it, ``[1, N]``."""
        load = load_tidy_prompt if self.models.config.tidy_prompts else audio.load_prompt
        return load(prompt.data, sample_rate_hz, prompt.name).to(self.models.device)

    def semantic_embedding(self, wave_16k: Tensor) -> Tensor:
        """Normalised hidden state of the semantic encoder ``[1, T, D]`` for ``[1, N]`` samples at 16 kHz."""
        features, mask = audio.semantic_features(wave_16k)
        encoder = self.models.semantic_encoder
        return encoder.normalize(encoder(features, mask))

    def gpt_input(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """A semantic embedding in the language model's precision, and its length ``[1]``."""
        return embedding.to(self.models.gpt.dtype), torch.tensor([embedding.shape[1]], device=embedding.device)
