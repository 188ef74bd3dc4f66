"""Recordings before voices are taken from them: what is cut off, what is told, what is refused."""

from __future__ import annotations

import dataclasses
import io
import math
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from indextts.engine import Engine
from indextts.errors import AudioError
from indextts.prompts import LEVELLED_DBFS, examine, levels_dbfs, load_tidy_prompt, tidied, trim
from indextts.stages.conditioning import ConditioningStage
from indextts.types import VoicePrompt, read_recording
from indextts.voices import EXAMPLES_DIR

RATE_HZ = 22050
EXAMPLES = sorted(EXAMPLES_DIR.glob("voice_*"))


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """Four seconds of it, float64 ``[N]``."""
    samples, rate_hz = soundfile.read(EXAMPLES[1])
    assert rate_hz == RATE_HZ
    return samples[: 4 * RATE_HZ]


def written(folder: Path, samples: np.ndarray, rate_hz: int = RATE_HZ) -> Path:
    path = folder / "take.wav"
    soundfile.write(path, samples, rate_hz)
    return path


def seconds(duration_s: float) -> np.ndarray:
    return np.arange(int(duration_s * RATE_HZ)) / RATE_HZ


def music(duration_s: float = 5.0) -> np.ndarray:
    """Chords that change twice a second, each struck and dying away."""
    times_s = seconds(duration_s)
    roots_hz = np.array([220.0, 261.6, 196.0, 293.7])[(times_s / 0.5).astype(int) % 4]
    phase = 2 * np.pi * np.cumsum(roots_hz) / RATE_HZ
    chord = sum(np.sin(phase * interval) / interval for interval in (1, 1.25, 1.5, 2, 3))
    return 0.1 * chord * (0.4 + 0.6 * np.exp(-6 * (times_s % 0.5)))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_nothing_is_wrong_with_the_example_voices(path: Path) -> None:
    prompt = examine(path)
    assert prompt.flaws == ()
    assert prompt.duration_s <= prompt.recorded_s == soundfile.info(path).duration


def test_music_and_noise_are_told(tmp_path: Path, speech: np.ndarray) -> None:
    assert examine(written(tmp_path, music())).flaws == ("noisy",)
    noise = np.random.default_rng(0).normal(0, 0.03, len(speech))
    assert examine(written(tmp_path, speech + noise)).flaws == ("noisy",)
    assert examine(written(tmp_path, speech + 0.1 * noise)).flaws == ()
    assert "noisy" in examine(written(tmp_path, speech + music(4.0))).flaws


def test_flaws_of_level_and_length(tmp_path: Path, speech: np.ndarray) -> None:
    assert examine(written(tmp_path, np.clip(6 * speech, -1, 1))).flaws == ("clipped",)
    assert examine(written(tmp_path, speech / abs(speech).max())).flaws == ()
    assert examine(written(tmp_path, 0.02 * speech)).flaws == ("quiet",)
    assert "short" in examine(written(tmp_path, speech[:RATE_HZ])).flaws


def test_what_is_beyond_fifteen_seconds_is_cut_off(tmp_path: Path, speech: np.ndarray) -> None:
    prompt = examine(written(tmp_path, np.tile(speech, 6)))
    assert (prompt.flaws, prompt.trimmed, prompt.recorded_s) == (("long",), True, 24.0)
    assert len(prompt.samples) == 15 * RATE_HZ


def test_silence_is_cut_off_both_ends(tmp_path: Path, speech: np.ndarray) -> None:
    silence = np.zeros(14 * RATE_HZ)
    prompt = examine(written(tmp_path, np.concatenate([silence, speech, silence])))
    assert prompt.flaws == () and prompt.trimmed
    assert len(speech) / RATE_HZ - 0.5 < prompt.duration_s < len(speech) / RATE_HZ + 0.5
    kept = trim(prompt.samples, RATE_HZ)
    assert len(kept) == len(prompt.samples)  # nothing more to cut
    assert levels_dbfs(prompt.samples[: RATE_HZ // 2], RATE_HZ).max() > -45


def test_a_recording_is_kept_as_it_is_where_nothing_is_to_be_cut(tmp_path: Path, speech: np.ndarray) -> None:
    prompt = examine(written(tmp_path, np.stack([speech, speech], 1)))
    assert not prompt.trimmed and prompt.sample_rate_hz == RATE_HZ
    assert prompt.samples == pytest.approx(speech, abs=1e-4)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "0 bytes"),
        (b"Dear diary, this is no recording at all." * 50, "cannot decode"),
        (b"RIFF\x24\x00\x00\x00WAVEfmt ", "cannot decode"),
    ],
)
def test_what_is_no_recording_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "take.wav"
    path.write_bytes(content)
    with pytest.raises(AudioError, match=says):
        examine(path)


def test_silence_and_a_moment_are_refused(tmp_path: Path, speech: np.ndarray) -> None:
    with pytest.raises(AudioError, match="is silent"):
        examine(written(tmp_path, np.zeros(3 * RATE_HZ)))
    with pytest.raises(AudioError, match="too short"):
        examine(written(tmp_path, speech[: RATE_HZ // 4]))


def test_three_hours_are_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "take.wav"
    data_bytes = 3 * 3600 * 2 * RATE_HZ
    with path.open("wb") as file:
        sizes = struct.pack("<4sI4s", b"RIFF", 36 + data_bytes, b"WAVE")
        file.write(sizes + struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE_HZ, 2 * RATE_HZ, 2, 16))
        file.write(struct.pack("<4sI", b"data", data_bytes))
        file.truncate(44 + data_bytes)  # a hole: it takes no place on the disk
    tracemalloc.start()
    try:
        with pytest.raises(AudioError, match="180 minutes; at most 10 are taken"):
            examine(path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
        with pytest.raises(AudioError, match="larger than 200 MiB"):
            read_recording(path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="cannot read the recording"):
        examine(tmp_path / "gone.wav")


def test_a_usual_recording_is_heard_as_it_is(speech: np.ndarray) -> None:
    wave = torch.from_numpy(speech).float()[None]
    assert torch.equal(tidied(wave, RATE_HZ), wave)


@pytest.mark.parametrize("gain", [0.05, 3.0])
def test_quiet_and_loud_recordings_are_heard_at_a_usual_level(speech: np.ndarray, gain: float) -> None:
    wave = torch.from_numpy(gain * speech).float()[None]
    heard = tidied(wave, RATE_HZ)[0].numpy()
    assert np.percentile(levels_dbfs(heard, RATE_HZ), 95) == pytest.approx(LEVELLED_DBFS, abs=0.1)
    assert np.corrcoef(heard, speech)[0, 1] > 0.999


def test_silence_before_the_voice_does_not_use_up_the_seconds_that_are_heard(speech: np.ndarray) -> None:
    recorded = np.concatenate([np.zeros(14 * RATE_HZ), speech, np.zeros(2 * RATE_HZ)])
    content = io.BytesIO()
    soundfile.write(content, recorded, RATE_HZ, format="WAV", subtype="FLOAT")
    heard = load_tidy_prompt(content.getvalue(), RATE_HZ)
    assert 3.5 * RATE_HZ < heard.shape[1] <= len(speech) + 0.5 * RATE_HZ
    with pytest.raises(AudioError, match="silent"):
        content = io.BytesIO()
        soundfile.write(content, np.zeros(RATE_HZ), RATE_HZ, format="WAV")
        load_tidy_prompt(content.getvalue(), RATE_HZ)


def test_a_model_says_how_it_hears_recordings(tiny_engine: Engine, speech: np.ndarray) -> None:
    content = io.BytesIO()
    soundfile.write(content, 0.02 * speech, RATE_HZ, format="WAV", subtype="FLOAT")
    prompt, models = VoicePrompt(content.getvalue()), tiny_engine.models
    as_it_is = tiny_engine.stages.conditioning.voice(prompt)
    tidy = dataclasses.replace(models, config=dataclasses.replace(models.config, tidy_prompts=True))
    stage = ConditioningStage(tidy, tiny_engine.stages.conditioning.emotions, None, 0)
    louder_nepers = (stage.voice(prompt).prompt_mel - as_it_is.prompt_mel)[..., 50:-50].median()
    quiet_dbfs = np.percentile(levels_dbfs(0.02 * speech, RATE_HZ), 95)
    assert float(louder_nepers) == pytest.approx((LEVELLED_DBFS - quiet_dbfs) / 20 * math.log(10), rel=0.1)
