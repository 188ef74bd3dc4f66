"""Rows of a text, what was spoken of them, and how it sounds together."""

from __future__ import annotations

import io
import wave
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from indextts.errors import ConfigError, SynthesisError
from indextts.subtitles import Cue, read_srt
from indextts.webui.exports import write_exports
from indextts.webui.i18n import PageError
from indextts.webui.narration import Narration, Row, Sessions
from tests.webui.humming_engine import RATE_HZ, hum


@pytest.fixture
def narration(tmp_path: Path) -> Narration:
    """Four rows; the first is spoken, the second has two pieces, the third has failed, the last is empty."""
    narration = Narration(tmp_path / "takes")
    narration.recut(
        [Row.of("One."), Row.of("Two.", ends_paragraph=False), Row.of("Three.", asked_pause_ms=1000), Row.of("…")], 250
    )
    narration.between_ms, narration.paragraph_ms = 100, 300
    narration.keep(narration.rows[0], [hum(0.5)], RATE_HZ, 1, "One.")
    narration.keep(narration.rows[1], [hum(0.5), hum(0.25)], RATE_HZ, 2, "Two.")
    narration.rows[2].error = SynthesisError("no")
    return narration


def test_states(narration: Narration) -> None:
    first, second, third, _ = narration.rows
    assert [row.state for row in narration.rows] == ["ready", "ready", "failed", "silent"]
    first.text = "Another."
    second.outdated = True
    third.error = None
    assert [row.state for row in narration.rows] == ["changed", "changed", "waiting", "silent"]
    third.speaking = True
    assert third.state == "speaking"


def test_pauses(narration: Narration) -> None:
    assert [narration.pause_ms(i) for i in range(4)] == [300, 100, 1000, 0]
    narration.rows[0].own_pause_ms = narration.rows[3].own_pause_ms = narration.rows[2].own_pause_ms = 5
    assert [narration.pause_ms(i) for i in range(4)] == [5, 100, 5, 5]


def test_the_sound_of_all_and_when_what_is_heard(narration: Narration) -> None:
    sound = np.concatenate(list(narration.blocks()))
    zeros = [np.zeros(int(RATE_HZ * ms / 1000), np.int16) for ms in (250, 300, 100)]
    assert np.array_equal(sound, np.concatenate([zeros[0], hum(0.5), zeros[1], hum(0.5), hum(0.25), zeros[2]]))
    cues = narration.cues()
    assert [cue.text for cue in cues] == ["One.", "Two."]
    for cue, frames in zip(cues, (11025, 11025 + 5512), strict=True):
        heard = sound[round(cue.start_s * RATE_HZ) : round(cue.end_s * RATE_HZ)]
        assert len(heard) == frames and np.array_equal(heard[:100], hum(0.5)[:100])


@pytest.mark.parametrize("audio_format", ["wav", "flac", "mp3"])
def test_files_to_take_away(narration: Narration, tmp_path: Path, audio_format: str) -> None:
    narration.rows[1].speaker = "Dr. Ben/../x"
    joined, zipped, srt, lrc = write_exports(narration, tmp_path / "files", audio_format)
    sound = np.concatenate(list(narration.blocks()))
    samples, rate = soundfile.read(joined, dtype="int16")
    assert rate == RATE_HZ
    if audio_format == "mp3":
        assert len(samples) == pytest.approx(len(sound), abs=3000)
    else:
        assert np.array_equal(samples, sound)
    with zipfile.ZipFile(zipped) as file:
        assert file.namelist() == [f"001.{audio_format}", f"002-Dr_Ben_x.{audio_format}"]
        first, _ = soundfile.read(io.BytesIO(file.read(file.namelist()[0])), dtype="int16")
    assert audio_format == "mp3" or np.array_equal(first, hum(0.5))
    assert read_srt(srt.read_text(encoding="utf-8")) == [Cue(0.25, 0.75, "One."), Cue(1.05, 1.8, "Dr. Ben/../x: Two.")]
    assert lrc.read_text(encoding="utf-8") == "[00:00.25]One.\n[00:01.05]Dr. Ben/../x: Two.\n[00:01.80]\n"
    assert sorted(path.name for path in joined.parent.iterdir()) == sorted(p.name for p in (joined, zipped, srt, lrc))


def test_nothing_to_take_away(tmp_path: Path, narration: Narration) -> None:
    with pytest.raises(PageError, match="press Speak"):
        write_exports(Narration(tmp_path), tmp_path / "files", "wav")
    with pytest.raises(ConfigError, match="'ogg'"):
        write_exports(narration, tmp_path / "files", "ogg")


def test_an_edit_in_the_text_costs_only_what_it_touches(narration: Narration) -> None:
    first, second, _, last = narration.rows
    assert first.take and second.take
    second.text = "Two, as somebody wants it."
    paths = first.take.path, second.take.path
    narration.recut([Row.of("Zero."), Row.of("One."), Row.of("Two."), Row.of("Three and more."), Row.of("…")])
    assert [row.text for row in narration.rows] == ["Zero.", "One.", "Two.", "Three and more.", "…"]
    assert narration.rows[-1] is last and not paths[0].exists()  # found from the end only
    narration.keep(narration.rows[1], [hum(0.1)], RATE_HZ, 1, "One.")
    narration.recut([Row.of("Zero."), Row.of("One.", ends_paragraph=False, asked_pause_ms=7), Row.of("…"), Row.of("…")])
    kept = narration.rows[1]
    assert kept.state == "ready" and kept.asked_pause_ms == 7 and not kept.ends_paragraph
    narration.recut([])
    assert not narration.rows and not list(narration.folder.iterdir())


@pytest.mark.parametrize("old", ["", "a", "ab", "aa", "aba", "abcabc"])
@pytest.mark.parametrize("new", ["", "a", "b", "aa", "abab", "abcbc"])
def test_recutting_gives_the_new_rows_whatever_was_there(tmp_path: Path, old: str, new: str) -> None:
    narration = Narration(tmp_path / "takes")
    narration.recut([Row.of(letter) for letter in old])
    narration.recut([Row.of(letter) for letter in new])
    assert "".join(row.source for row in narration.rows) == new
    assert len(set(map(id, narration.rows))) == len(new)


def test_a_new_take_replaces_the_old_one(narration: Narration) -> None:
    row = narration.rows[0]
    assert row.take
    before = row.take.path
    narration.keep(row, [hum(0.2)], RATE_HZ, 9, "One.")
    assert row.take.path != before and not before.exists() and row.take.seed == 9
    with wave.open(str(row.take.path)) as file:
        assert file.getnframes() == row.take.frames == int(0.2 * RATE_HZ)


def test_closing_frees_the_disk_and_stops(narration: Narration) -> None:
    narration.close()
    assert narration.stop.is_set() and not narration.folder.exists()
    narration.keep(narration.rows[3], [hum(0.1)], RATE_HZ, 1, "late")
    assert narration.rows[3].take is None and not list(narration.folder.glob("*.wav"))


def test_every_session_has_its_own(tmp_path: Path) -> None:
    sessions = Sessions(lambda: Narration(tmp_path), Narration.close)
    one, other = sessions.of("a"), sessions.of("b")
    assert sessions.of("a") is one is not other
    sessions.forget("a")
    sessions.forget("nobody")
    assert one.closed and not other.closed and sessions.of("a") is not one
