"""Files that are no recordings, or not what they say, as prompts."""

from __future__ import annotations

import io
import logging
import struct
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import strategies as st

from indextts import types
from indextts.audio import MAX_PEAK, MAX_PROMPT_S, MIN_PROMPT_S, load_prompt
from indextts.errors import AudioError
from indextts.resources import EXAMPLES_DIR
from indextts.types import VoicePrompt
from tests.hostile.sizes import Try, quick_and_slow

logger = logging.getLogger(__name__)

RATE_HZ = 22050
MAX_SECONDS, MAX_MIB = 10, 150


def outcome(content: bytes) -> str:
    """Check that ``content`` gives a usable prompt or a clear error, in bounded time and memory; says which."""
    started = time.process_time()
    tracemalloc.start()
    try:
        wave = load_prompt(content, RATE_HZ, "prompt")
    except AudioError as error:
        assert "'prompt'" in str(error) and "\n" not in str(error)
        result = "AudioError"
    else:
        assert MIN_PROMPT_S * RATE_HZ <= wave.shape[1] <= MAX_PROMPT_S * RATE_HZ and wave.shape[0] == 1
        assert wave.isfinite().all() and wave.abs().max() <= MAX_PEAK
        result = "prompt"
    finally:
        peak_mib = tracemalloc.get_traced_memory()[1] / 2**20
        tracemalloc.stop()
    assert time.process_time() - started < MAX_SECONDS and peak_mib < MAX_MIB
    return result


def tone(seconds: float = 1.0, rate_hz: int = RATE_HZ, channels: int = 1) -> np.ndarray:
    wave = 0.3 * np.sin(2 * np.pi * 440 / rate_hz * np.arange(int(seconds * rate_hz)))
    return np.repeat(wave[:, None], channels, 1)


def written(samples: np.ndarray, rate_hz: int = RATE_HZ, format: str = "WAV", subtype: str = "PCM_16") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate_hz, format=format, subtype=subtype)
    return buffer.getvalue()


def header(data_bytes: int, rate_hz: int = 48000, channels: int = 2, bits: int = 16, content: bytes = b"") -> bytes:
    """A WAV header that promises ``data_bytes``, whatever follows."""
    frame = channels * bits // 8
    start = struct.pack("<4sI4s4sI", b"RIFF", min(36 + data_bytes, 2**32 - 1), b"WAVE", b"fmt ", 16)
    middle = struct.pack("<HHIIHH", 1, channels, rate_hz, rate_hz * frame % 2**32, frame % 2**16, bits)
    return start + middle + struct.pack("<4sI", b"data", min(data_bytes, 2**32 - 1)) + content


def with_sample(value: float, subtype: str = "FLOAT") -> bytes:
    samples = tone()
    samples[500] = value
    return written(samples, subtype=subtype)


def flac_bomb() -> bytes:
    """Two minutes of near silence in eight channels at 192 kHz: 369 MB of samples in a small file."""
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", 192_000, 8, "PCM_16", format="FLAC") as file:
        silence = np.zeros((192_000 * 30, 8), np.int16)
        silence[::192_000] = 9000
        for _ in range(4):
            file.write(silence)
    return buffer.getvalue()


WAV = written(tone())
RECORDINGS: dict[str, tuple[Callable[[], bytes], str]] = {
    "0 bytes": (lambda: b"", "AudioError"),
    "1 byte": (lambda: b"R", "AudioError"),
    "text": (lambda: b"this is not sound " * 99, "AudioError"),
    "zip": (lambda: b"PK\x03\x04" + bytes(999), "AudioError"),
    "truncated header": (lambda: WAV[:30], "AudioError"),
    "truncated samples": (lambda: WAV[: len(WAV) * 3 // 4], "prompt"),
    "nearly all truncated": (lambda: WAV[:200], "AudioError"),
    "truncated FLAC": (lambda: written(tone(), format="FLAC")[:4000], "AudioError"),
    "8 bit": (lambda: written(tone(), subtype="PCM_U8"), "prompt"),
    "24 bit": (lambda: written(tone(), subtype="PCM_24"), "prompt"),
    "64 bit float": (lambda: written(tone(), subtype="DOUBLE"), "prompt"),
    "mu-law": (lambda: written(tone(), subtype="ULAW"), "prompt"),
    "192 kHz": (lambda: written(tone(rate_hz=192_000), 192_000), "prompt"),
    "7 channels": (lambda: written(tone(channels=7)), "prompt"),
    "1,024 channels": (lambda: written(tone(channels=1024)[:2000]), "AudioError"),
    "no channels": (lambda: header(10**6, channels=0, content=bytes(999)), "AudioError"),
    "1 Hz": (lambda: written(tone(), 1), "AudioError"),
    "0 Hz": (lambda: header(10**6, rate_hz=0, content=bytes(999)), "AudioError"),
    "2 GHz": (lambda: header(10**6, rate_hz=2**31 - 1, content=WAV), "AudioError"),
    "NaN": (lambda: with_sample(np.nan), "AudioError"),
    "infinite": (lambda: with_sample(-np.inf), "AudioError"),
    "huge": (lambda: with_sample(3e38), "AudioError"),
    "beyond float": (lambda: with_sample(1e300, "DOUBLE"), "AudioError"),
    "whole numbers as floats": (lambda: written(tone() * 32767, subtype="FLOAT"), "AudioError"),
    "a little too loud": (lambda: with_sample(2.0), "prompt"),
    "10 h and no data": (lambda: header(36_000 * 48_000 * 4), "AudioError"),
    "10 h and 1 s of data": (lambda: header(36_000 * 48_000 * 4, content=bytes(48_000 * 4)), "AudioError"),
    "FLAC bomb": (flac_bomb, "prompt"),
}  # fmt: skip


@pytest.mark.parametrize("name", RECORDINGS)
def test_corpus(name: str) -> None:
    make, expected = RECORDINGS[name]
    assert outcome(make()) == expected


@pytest.mark.parametrize(("ending", "format", "subtype"), [("mp3", "WAV", "PCM_16"), ("wav", "OGG", "VORBIS")])
def test_the_name_of_a_file_does_not_matter(tmp_path: Path, ending: str, format: str, subtype: str) -> None:
    path = tmp_path / f"wrong.{ending}"
    path.write_bytes(written(tone(), format=format, subtype=subtype))
    assert load_prompt(path, RATE_HZ).shape[1] >= RATE_HZ * 0.9


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000, "", "\ud800.wav", "nowhere/../.."])
def test_names_that_are_no_files(name: str) -> None:
    with pytest.raises(AudioError, match="cannot read the recording"):
        VoicePrompt.from_path(name)


def test_a_source_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(types, "MAX_RECORDING_BYTES", 2**20)
    with pytest.raises(AudioError, match="larger than 1 MiB"):
        VoicePrompt.from_path("/dev/zero")


@cache
def originals() -> list[bytes]:
    speech, rate_hz = soundfile.read(EXAMPLES_DIR / "voice_01.wav", frames=RATE_HZ * 2)
    kinds = [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAV", "IMA_ADPCM"), ("FLAC", "PCM_24"), ("OGG", "VORBIS"),
             ("MP3", "MPEG_LAYER_III"), ("AIFF", "PCM_16"), ("CAF", "ALAC_16")]  # fmt: skip
    return [written(speech, rate_hz, format, subtype) for format, subtype in kinds]


@dataclass(frozen=True)
class Damage:
    """A recording with bytes changed, taken out, put in, and cut off. Small to show, unlike what it makes."""

    original: int
    edits: list[tuple[int, bytes, int]]  # where, what instead of it, and of how many bytes
    kept: float

    def content(self) -> bytes:
        content = bytearray(originals()[self.original])
        for position, new, replaced in self.edits:
            content[position : position + replaced] = new
        return bytes(content[: int(self.kept * len(content))])


POSITIONS = st.one_of(st.integers(0, 127), st.integers(0, 100_000))  # half of them in the headers
BYTES = st.one_of(st.binary(max_size=8), st.sampled_from([b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff"]))
DAMAGES = st.builds(
    Damage,
    st.integers(0, 7),
    st.lists(st.tuples(POSITIONS, BYTES, st.sampled_from([0, 1, 4, 8])), min_size=1, max_size=8),
    st.one_of(st.just(1.0), st.floats(0, 1)),
)


@quick_and_slow(200, 10_000)
def test_any_damage(attempt: Try) -> None:
    counts = attempt(DAMAGES, lambda damage: outcome(damage.content()))
    logger.info("%s", dict(counts))
    assert min(counts["prompt"], counts["AudioError"]) > sum(counts.values()) / 20
