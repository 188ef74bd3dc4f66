"""Speech written to files of every format."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from indextts.encoding import write_audio, write_pieces, write_wav
from indextts.errors import AudioError
from tests.webui.humming_engine import RATE_HZ, hum


def test_write_wav_roundtrip_and_replacement(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "out.wav"
    for seed in (0, 1):
        samples = np.random.default_rng(seed).integers(-9000, 9000, 500, np.int16)
        assert write_wav(path, samples, 22050) == path
        read, rate = soundfile.read(path, dtype="int16")
        assert rate == 22050 and np.array_equal(read, samples)
        assert soundfile.info(path).subtype == "PCM_16"
    assert os.listdir(path.parent) == ["out.wav"]


def test_write_wav_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    target = tmp_path / "taken"
    target.mkdir()
    with pytest.raises(AudioError, match="taken"):
        write_wav(target, np.zeros(10, np.int16), 22050)
    assert os.listdir(tmp_path) == ["taken"]


def test_write_wav_refuses_floats(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="int16"):
        write_wav(tmp_path / "a.wav", np.zeros(10, np.float32), 22050)


@pytest.mark.parametrize(("ending", "container", "rate_hz"), [
    ("wav", "WAV", 22050), ("flac", "FLAC", 22050), ("mp3", "MP3", 22050), ("ogg", "OGG", 22050),
    ("OPUS", "OGG", 24000),
])  # fmt: skip
def test_every_format_is_written_and_read_back(tmp_path: Path, ending: str, container: str, rate_hz: int) -> None:
    """Five minutes, for that is where a coder of libsndfile once crashed the process."""
    tone = (12000 * np.sin(2 * np.pi * 440 / 22050 * np.arange(300 * 22050))).astype(np.int16)
    path = write_audio(tmp_path / f"tone.{ending}", tone, 22050)
    with soundfile.SoundFile(path) as file:
        assert (file.format, file.samplerate, file.channels) == (container, rate_hz, 1)
        assert abs(file.frames / rate_hz - 300) < 0.1
        second = file.read(rate_hz)
    spectrum = np.abs(np.fft.rfft(second[-rate_hz // 2 :]))
    assert spectrum.argmax() == 220 and 0.3 < np.abs(second[rate_hz // 2 :]).max() < 0.45
    assert os.listdir(tmp_path) == [path.name]


def test_raw_samples_are_little_endian(tmp_path: Path) -> None:
    assert write_audio(tmp_path / "a.pcm", np.array([1, -2], np.int16), 22050).read_bytes() == b"\x01\x00\xfe\xff"


@pytest.mark.parametrize("name", ["a.aac", "wav", "a"])
def test_an_unknown_ending_names_the_known_ones(tmp_path: Path, name: str) -> None:
    with pytest.raises(AudioError, match=rf"{name}.*\.wav, \.flac, \.mp3"):
        write_audio(tmp_path / name, np.zeros(1, np.int16), 22050)
    assert os.listdir(tmp_path) == []


def test_a_name_that_the_disk_refuses(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="cannot write"):
        write_audio(tmp_path / f"{'x' * 300}.wav", np.zeros(1, np.int16), 22050)


@pytest.mark.parametrize("ending", [".wav", ".flac", ".mp3"])
def test_pieces_are_written_as_one_file(tmp_path: Path, ending: str) -> None:
    sound = hum(2.0)
    path = tmp_path / f"joined{ending}"
    write_pieces(path, np.array_split(sound, 7), RATE_HZ)
    samples, rate = soundfile.read(path, dtype="int16")
    assert rate == RATE_HZ
    if ending == ".mp3":
        assert len(samples) == pytest.approx(len(sound), abs=3000)
    else:
        assert np.array_equal(samples, sound)


def test_pieces_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"'a\.opus' must end in \.wav, \.flac or \.mp3"):
        write_pieces(tmp_path / "a.opus", [hum(0.1)], RATE_HZ)
    with pytest.raises(AudioError, match=r"cannot write 'a\.wav'"):
        write_pieces(tmp_path / "no folder" / "a.wav", [hum(0.1)], RATE_HZ)
