"""What HTTP clients get: files and streams."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from indextts.api.formats import PCM_RATE_HZ, STREAM_ENCODERS, encode
from indextts.errors import ConfigError
from tests.webui.humming_engine import RATE_HZ, hum


@pytest.mark.parametrize("audio_format", ["wav", "flac"])
def test_lossless_files_hold_the_samples(audio_format: str) -> None:
    samples, rate = soundfile.read(io.BytesIO(encode(hum(0.7), RATE_HZ, audio_format)), dtype="int16")
    assert rate == RATE_HZ and np.array_equal(samples, hum(0.7))


@pytest.mark.parametrize("audio_format", ["mp3", "opus"])
def test_lossy_files_sound_alike(audio_format: str) -> None:
    heard, rate = soundfile.read(io.BytesIO(encode(hum(2.0), RATE_HZ, audio_format)))
    assert len(heard) / rate == pytest.approx(2.0, abs=0.1)
    middle = heard[rate // 2 : rate // 2 + rate]
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(3000 / 2**15 / np.sqrt(2), rel=0.05)
    assert np.abs(np.fft.rfft(middle)).argmax() == 220


@pytest.mark.parametrize("piece_samples", [1, 100, 5000, 10**6])
def test_streams_are_what_files_are(piece_samples: int) -> None:
    sound = hum(0.5)
    pieces = [sound[start : start + piece_samples] for start in range(0, len(sound), piece_samples)]
    streamed = {}
    for name, kind in STREAM_ENCODERS.items():
        encoder = kind(RATE_HZ)
        streamed[name] = b"".join([*map(encoder.add, pieces), encoder.end()])
    got, expected = (
        np.frombuffer(data, "<i2").astype(int) for data in (streamed["pcm"], encode(sound, RATE_HZ, "pcm"))
    )
    assert len(got) == len(expected) == PCM_RATE_HZ // 2
    assert np.abs(got - expected).max() <= 3
    samples, rate = soundfile.read(io.BytesIO(streamed["wav"]), dtype="int16")
    assert rate == RATE_HZ and np.array_equal(samples, sound)


def test_another_format() -> None:
    with pytest.raises(ConfigError, match="'aac'"):
        encode(hum(0.1), RATE_HZ, "aac")
