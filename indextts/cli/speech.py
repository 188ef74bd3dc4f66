"""What ``synth`` and ``batch`` speak: the flags that they have in common, and what these say, checked."""

from __future__ import annotations

import argparse
import base64
import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from indextts.cli.flags import at_least_one
from indextts.config import SamplingParams
from indextts.emotion import check_emo_vec
from indextts.errors import ConfigError, EmotionError
from indextts.resources import example_voices
from indextts.text.limits import check_text
from indextts.types import Emotion, FromAudio, FromText, FromVector, FromVoice, SynthesisRequest, VoicePrompt

DEFAULT_VOICE = "voice_01"
SAMPLING_HELP = {
    "do_sample": "draw codes; --no-do-sample always takes the likeliest",
    "top_p": "draw from the likeliest codes of this probability, 1 is off",
    "top_k": "draw from so many of the likeliest codes, 0 is off",
    "temperature": "higher is livelier",
    "num_beams": "hypotheses side by side",
    "repetition_penalty": "above 1 discourages codes already used",
    "length_penalty": "above 0 prefers longer hypotheses",
    "max_mel_tokens": "longest speech per segment, 50 codes a second",
    "typical_sampling": "draw codes of typical probability",
    "typical_mass": "probability kept by typical sampling",
}


@dataclass(frozen=True)
class Speech:
    """A text and how to speak it, before any model is there.

    A voice is the path of a recording or, as a plain text, the name of a voice in a server's library.
    """

    text: str
    voice: Path | str
    emotion_audio: Path | str | None = None
    emotion_text: str | None = None
    emotion_vector: Sequence[object] | None = None
    emotion_weight: float = 1.0
    sampling: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What was given; the rest is the model's."""
    max_text_tokens_per_segment: int = 120
    interval_silence_ms: int = 200
    seed: int | None = None
    repair: bool = True
    """What goes wrong is spoken again."""
    duration_factor: float = 1.0
    duration_s: float | None = None
    chunks: bool = True
    """In a stream, the sound of a segment begins while the rest of it is still being made."""

    def check(self) -> None:
        """Raise ``IndexTTSError`` for whatever a model would refuse, and for a recording that cannot be read."""
        check_text(self.text)
        check_sampling(self.sampling)
        for voice in self.recordings():
            if isinstance(voice, Path):
                read_voice(voice)
        SynthesisRequest(self.text, VoicePrompt(b""), self.emotion(), None, **self.settings())

    def request(self, defaults: SamplingParams) -> SynthesisRequest:
        """What an engine with these ``defaults`` is asked for. Both voices must be paths."""
        sampling = dataclasses.replace(defaults, **self.sampling)
        return SynthesisRequest(self.text, prompt_of(self.voice), self.emotion(), sampling, **self.settings())

    def body(self) -> dict[str, Any]:
        """What a server is asked for, see docs/api.md; recordings travel inside."""
        emotion: dict[str, Any] | None = {"weight": self.emotion_weight}
        if self.emotion_audio is not None:
            emotion["voice"] = sent(self.emotion_audio)
        elif self.emotion_text is not None:
            emotion["text"] = self.emotion_text
        elif self.emotion_vector is not None:
            emotion |= {"vector": list(self.emotion_vector), "raw": True}
        else:
            emotion = None
        said = {"input": self.text, "voice": sent(self.voice), "emotion": emotion, "sampling": dict(self.sampling)}
        return said | self.settings()

    def fingerprint(self) -> str:
        """SHA-256 of everything here that the sound depends on; of recordings that is what is in them."""
        heard = [read_voice(voice).key if isinstance(voice, Path) else voice for voice in self.recordings()]
        emotion = [self.emotion_text, self.emotion_vector, self.emotion_weight]
        said = [self.text, heard, emotion, dict(self.sampling), self.settings()]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

    def recordings(self) -> list[Path | str]:
        """The voice, and the recording of the emotion if there is one."""
        return [self.voice] if self.emotion_audio is None else [self.voice, self.emotion_audio]

    def emotion(self) -> Emotion:
        """The emotion of the one source that is given. Raises ``EmotionError`` or ``AudioError``."""
        weight = self.emotion_weight
        if not math.isfinite(weight):
            raise EmotionError(f"the emotion weight must be a finite number, not {weight}")
        if self.emotion_audio is not None:
            return FromAudio(prompt_of(self.emotion_audio), weight)
        if self.emotion_text is not None:
            return FromText(self.emotion_text.strip() or None, weight)
        if self.emotion_vector is not None:
            return FromVector(check_emo_vec(self.emotion_vector), weight)
        return FromVoice()

    def settings(self) -> dict[str, Any]:
        """The plain values, by the names that ``SynthesisRequest`` and the HTTP interface have for them."""
        names = (
            "max_text_tokens_per_segment", "interval_silence_ms", "seed", "repair", "duration_factor", "duration_s",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names}


def prompt_of(voice: Path | str) -> VoicePrompt:
    """The recording; empty for a voice that only a server has."""
    return read_voice(voice) if isinstance(voice, Path) else VoicePrompt(b"", voice)


def sent(voice: Path | str) -> str | dict[str, str]:
    """A voice as the HTTP interface takes it: a name, or the recording itself."""
    return voice if isinstance(voice, str) else {"recording": base64.b64encode(read_voice(voice).data).decode()}


@lru_cache(maxsize=16)
def read_voice(path: Path) -> VoicePrompt:
    return VoicePrompt.from_path(path)


# -------------------------------------------------------------------------------------------------- flags


def add_speaking_flags(parser: argparse.ArgumentParser) -> None:
    """Voice, seed, cut, duration and repair."""
    parser.add_argument(
        "--voice", default=DEFAULT_VOICE, metavar="FILE",
        help="recording of the voice to speak with, or voice_01 to voice_08, which come along; with --server also "
        f"the name of a voice in its library ({DEFAULT_VOICE})",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, metavar="N", help="the same seed and settings give the same speech")
    parser.add_argument("--max-text-tokens", type=at_least_one, default=120, metavar="N", help="longest segment (120)")
    parser.add_argument("--interval-silence", type=int, default=200, metavar="MS", help="between segments (200)")
    duration = parser.add_mutually_exclusive_group()
    duration.add_argument(
        "--duration-factor", type=float, default=1.0, metavar="N", help="times as long as by itself, 0.5 to 2 (1.0)"
    )
    duration.add_argument(
        "--duration", type=float, metavar="SECONDS", help="how long all of it shall last, silences included"
    )
    parser.add_argument(
        "--repair", action=argparse.BooleanOptionalAction, default=True,
        help="speak a segment again, with the next seed, if it repeats, skips, halts or never ends; at most twice (on)",
    )  # fmt: skip


def add_sampling_flags(parser: argparse.ArgumentParser) -> None:
    """One flag for each field of ``SamplingParams``; not given means the model's own default."""
    group = parser.add_argument_group("sampling", "Not given: as the model's configuration says.")
    for field in dataclasses.fields(SamplingParams):
        flag = "--" + field.name.replace("_", "-")
        text = SAMPLING_HELP[field.name]
        if isinstance(field.default, bool):
            group.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=text)
        else:
            group.add_argument(flag, type=type(field.default), default=None, metavar="N", help=text)


def read_sampling(args: argparse.Namespace) -> dict[str, Any]:
    """The sampling options that were given."""
    names = [field.name for field in dataclasses.fields(SamplingParams)]
    return {name: value for name in names if (value := getattr(args, name)) is not None}


# ------------------------------------------------------------------------------------------------- values


def find_voice(name: str, folder: Path, on_server: bool) -> Path | str:
    """What ``name`` means: a file, relative to ``folder``, or else a voice of the server, or one that comes along."""
    path = folder / name
    if Path(name).name != name or path.exists():
        return path
    if on_server:
        return name
    return example_voices().get(name, path)


def check_sampling(sampling: Mapping[str, Any]) -> None:
    """Raise ``ConfigError`` for an option that does not exist or a value out of its range."""
    known = {option.name for option in dataclasses.fields(SamplingParams)}
    if unknown := sorted(set(sampling) - known):
        raise ConfigError(f"unknown sampling options {str(unknown)[:80]}; known are {', '.join(sorted(known))}")
    SamplingParams(**sampling)
