"""What a session has made, and taking it away."""

from __future__ import annotations

import copy
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import soundfile

from indextts.errors import ConfigError
from indextts.types import AudioChunk
from indextts.webui.downloads import DOWNLOADS, check_format, converted
from indextts.webui.recording import Recording
from indextts.webui.takes import MAX_TAKES, Takes, shorten
from tests.webui.humming_engine import RATE_HZ, hum


def recorded(folder: Path, duration_s: float = 0.5) -> Recording:
    recording = Recording(folder, "speech.wav")
    recording.add(AudioChunk(hum(duration_s), RATE_HZ, 0, 1))
    recording.close()
    return recording


def test_the_latest_takes_are_kept_and_go_with_the_session(tmp_path: Path) -> None:
    with closing(Takes()) as takes:
        for seed in range(MAX_TAKES + 2):
            takes.add(recorded(tmp_path), f"Text {seed}.", "Anna", seed)
        assert [take.seed for take in takes.all] == list(range(MAX_TAKES + 1, 1, -1))
        paths = [take.path for take in takes.all]
        assert sorted(paths[0].parent.iterdir()) == sorted(paths)
        number, _, text, voice, seed, duration_s = takes.rows()[0]
        assert (number, text, voice, seed, duration_s) == (MAX_TAKES + 2, "Text 21.", "Anna", "21", "0.5")
        assert takes.get(number) is takes.all[0] and takes.get(1) is None
        assert soundfile.info(paths[0]).duration == pytest.approx(0.5)
    assert not paths[0].parent.exists() and takes.rows() == []


def test_every_session_has_its_own(tmp_path: Path) -> None:
    """As gradio makes them: each session gets a copy of what the page was built with."""
    empty = Takes()
    with closing(copy.deepcopy(empty)) as one, closing(copy.deepcopy(empty)) as other:
        assert one.add(recorded(tmp_path), "A", "a", 1).path != other.add(recorded(tmp_path), "B", "b", 1).path
        assert len(one.all) == len(other.all) == 1 and empty.all == []


def test_the_beginning_of_a_text() -> None:
    assert shorten(" One\n two ", 20) == "One two"
    assert shorten("word " * 100_000, 12) == "word word w…"


@pytest.mark.parametrize("audio_format", DOWNLOADS)
def test_downloads(tmp_path: Path, audio_format: str) -> None:
    path = converted(str(recorded(tmp_path).path), audio_format, str(tmp_path / "cache"))
    assert Path(path).name == f"speech.{audio_format}"
    samples, rate_hz = soundfile.read(path, dtype="int16")
    assert rate_hz == RATE_HZ and soundfile.info(path).format == audio_format.upper()
    if audio_format != "mp3":
        assert np.array_equal(samples, hum(0.5))
    else:
        assert np.abs(samples[2000:10000].astype(int)).max() == pytest.approx(3000, rel=0.05)


def test_other_formats_are_refused() -> None:
    with pytest.raises(ConfigError, match="wav, flac, mp3, not 'exe'"):
        check_format("exe")
