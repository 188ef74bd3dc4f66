"""What happens when somebody works with a long text."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from indextts.webui.i18n import LANGUAGES
from indextts.webui.page import Page
from indextts.webui.studio_text import PART_ROWS, clock
from indextts.webui.tabs.long_text import LongText
from indextts.webui.tokens import token_rate
from tests.webui.humming_engine import HummingEngine
from tests.webui.somebody import last, session, states


@pytest.fixture
def long_text(page: Page, tmp_path: Path) -> LongText:
    return LongText(page, tmp_path / "cache")


def shaping(values: dict[str, Any]) -> dict[str, Any]:
    names = ("text", "paragraph_pause_ms", "max_text_tokens_per_segment", "interval_silence_ms")
    return {name: values[name] for name in names}


def test_typing_shows_the_rows(long_text: LongText, asked: Callable[..., dict[str, Any]]) -> None:
    shown = long_text.studio.refresh(session(), **shaping(asked()))
    assert shown["summary"] == "4 segments, 55 characters, about 0:06"
    assert shown["table"]["headers"][:3] == ["#", "Status", "Text"]
    rows = shown["table"]["data"]
    assert [row[:3] for row in rows] == [
        [1, "waiting", "Chapter One."],
        [2, "waiting", "It was a dark night."],
        [3, "waiting", "Then it rained."],
        [4, "waiting", "The end."],
    ]
    assert [row[5] for row in rows] == [600, 1200, 600, 0]
    assert all(row[3].startswith("≈ ") and row[4].startswith("≈ ") for row in rows)
    assert long_text.studio.refresh(session(), **shaping(asked("")))["summary"] == ""


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_wrong_with_the_text_stands_under_it(
    long_text: LongText, asked: Callable[..., dict[str, Any]], language: str
) -> None:
    http = session(language=language)
    assert "2" in long_text.studio.refresh(http, **shaping(asked("One.\n[pause:x] two")))["summary"]
    assert "200" in long_text.studio.refresh(http, **shaping(asked("a" * 200_001)))["summary"]


def test_speaking_shows_every_row_and_then_all(
    engine: HummingEngine, long_text: LongText, asked: Callable[..., dict[str, Any]]
) -> None:
    steps = list(long_text.studio.speak(session(), **asked()))
    seen = [[row[1] for row in step["table"]["data"]] for step in steps if "table" in step]
    assert seen[0][0] in ("speaking …", "ready") and seen[-1] == ["ready"] * 4
    live = [step["live"] for step in steps if step.get("live")]
    assert len(live[-1]) == 4 and all(Path(path).is_file() for path in live[-1])
    assert [path.rsplit("-", 1)[1] for path in live[-1]] == [
        "pause600.wav",
        "pause1200.wav",
        "pause600.wav",
        "pause0.wav",
    ]
    end = last(iter(steps))
    assert Path(end["result"]).is_file() and "**4 of 4** segments are ready, **0:02** of speech." in end["status"]
    assert [request.seed for request in engine.requests[-2:]] == [7, 8]
    narration = long_text.studio.sessions.of("a")
    seconds = sum(len(block) for block in narration.blocks()) / 22050
    assert seconds == pytest.approx(4 * 0.5 + 0.6 + 1.2 + 0.6, abs=0.01)


def test_only_what_is_missing_is_spoken(
    engine: HummingEngine, long_text: LongText, asked: Callable[..., dict[str, Any]]
) -> None:
    studio = long_text.studio
    end = last(studio.speak(session(), **asked("One.\n\nThis will fail.\n\nThree.")))
    assert states(studio) == ["ready", "failed", "ready"]
    assert "1 could not be spoken" in end["status"]
    assert end["table"]["data"][1][1] == "failed: The model produced no speech for segment 1"
    studio.change_row(session(), 2, "This is well.", 50)
    assert states(studio) == ["ready", "waiting", "ready"]
    engine.requests.clear()
    last(studio.speak(session(), **asked("One.\n\nThis will fail.\n\nThree.")))
    assert [request.text for request in engine.requests] == ["This is well."]
    assert states(studio) == ["ready"] * 3
    with pytest.raises(gr.Error, match="All segments are ready"):
        last(studio.speak(session(), **asked("One.\n\nThis will fail.\n\nThree.")))


def test_one_row_again_leaves_the_others(
    engine: HummingEngine, long_text: LongText, asked: Callable[..., dict[str, Any]]
) -> None:
    studio = long_text.studio
    last(studio.speak(session(), **asked()))
    before = [row.take for row in studio.sessions.of("a").rows]
    assert studio.show_row(session(), 2)["row_text"] == "It was a dark night."
    assert studio.show_row(session(), 2)["row_pause"] == 1200
    last(studio.speak_row(session(), 2, "It was a bright day. Was it?", 300, "99", **asked()))
    after = [row.take for row in studio.sessions.of("a").rows]
    assert [old is new for old, new in zip(before, after, strict=True)] == [True, False, True, True]
    assert after[1] and after[1].seed == 99 and engine.requests[-1].text == "It was a bright day. Was it?"
    assert studio.sessions.of("a").pause_ms(1) == 300
    last(studio.speak_row(session(), 2, "It was a bright day. Was it?", 300, "", **asked()))
    newest = studio.sessions.of("a").rows[1].take
    assert newest and newest.seed not in (7, 99)


@pytest.mark.parametrize("number", [0, 5, -1, None])
def test_there_is_no_such_row(long_text: LongText, asked: Callable[..., dict[str, Any]], number: int | None) -> None:
    long_text.studio.refresh(session(), **shaping(asked()))
    assert long_text.studio.show_row(session(), number) == {"row_text": "", "row_pause": 0, "heard": None}
    with pytest.raises(gr.Error, match="from 1 to 4"):
        long_text.studio.change_row(session(), number, "x", 0)


def test_a_row_without_words_is_left_out(
    engine: HummingEngine, long_text: LongText, asked: Callable[..., dict[str, Any]]
) -> None:
    studio = long_text.studio
    studio.refresh(session(), **shaping(asked()))
    with pytest.raises(gr.Error, match="nothing to speak"):
        last(studio.speak_row(session(), 1, " ", 0, "", **asked()))
    engine.requests.clear()
    end = last(studio.speak(session(), **asked()))
    assert "Chapter" not in engine.requests[0].text
    assert end["table"]["data"][0][1] == "nothing to speak" and "**4 of 4**" in end["status"]


def test_starting_over(long_text: LongText, asked: Callable[..., dict[str, Any]]) -> None:
    studio = long_text.studio
    last(studio.speak(session(), **asked()))
    studio.change_row(session(), 1, "Changed.", 5)
    end = studio.start_over(session())
    assert states(studio) == ["waiting"] * 4 and end["result"] is None
    assert end["table"]["data"][0][2] == "Chapter One."
    assert not list(studio.sessions.of("a").folder.glob("*.wav"))


def test_files(long_text: LongText, asked: Callable[..., dict[str, Any]]) -> None:
    studio = long_text.studio
    with pytest.raises(gr.Error, match="Nothing is spoken yet"):
        studio.export(session(), "mp3")
    last(studio.speak(session(), **asked()))
    first = studio.export(session(), "wav")["files"]["value"]
    names = [Path(path).name for path in studio.export(session(), "mp3")["files"]["value"]]
    assert names == ["joined.mp3", "segments.zip", "joined.srt", "joined.lrc"]
    assert not any(Path(path).exists() for path in first)


def test_errors_before_anything_is_spoken(long_text: LongText, asked: Callable[..., dict[str, Any]]) -> None:
    studio = long_text.studio
    for changes, says in (
        ({"text": " "}, "type a text first"),
        ({"text": "...\n\n!"}, "type a text first"),
        ({"voice": None}, "choose a voice"),
        ({"batch_size": 0}, "batch_size must be from 1 to 64"),
        ({"seed": "x"}, "seed must be a number"),
        ({"duration_s": "30"}, "seconds are for one text"),
        ({"top_k": -1}, "top_k"),
        ({"paragraph_pause_ms": 1e9}, "paragraph_pause_ms"),
    ):
        with pytest.raises(gr.Error, match=says[1:]):
            last(studio.speak(session(), **asked(**changes)))
    last(studio.speak(session(), **asked()))  # nobody is left speaking


def test_a_bug_ends_the_run_and_keeps_what_is_ready(long_text: LongText, asked: Callable[..., dict[str, Any]]) -> None:
    studio, steps = long_text.studio, []
    with pytest.raises(gr.Error, match="ZeroDivisionError"):
        for step in studio.speak(session(), **asked("One.\n\nA bug.\n\nThree.")):
            steps.append(step)
    assert states(studio) == ["ready", "waiting", "waiting"]
    assert [row[1] for row in last(iter(steps))["table"]["data"]] == ["ready", "waiting", "waiting"]


def test_cancelling_and_going_on(
    engine: HummingEngine, long_text: LongText, asked: Callable[..., dict[str, Any]]
) -> None:
    studio, text = long_text.studio, "One.\n\nslow.\n\nThree."
    ends: dict[str, dict[str, Any]] = {}
    threads = {
        name: threading.Thread(
            target=lambda name=name: ends.update({name: last(studio.speak(session(name), **asked(text)))})
        )
        for name in "ab"
    }
    for thread in threads.values():
        thread.start()
    wait_for(lambda: all(states(studio, name)[:2] == ["ready", "speaking"] for name in "ab"))
    with pytest.raises(gr.Error, match="still being spoken"):
        last(studio.speak(session("a"), **asked(text)))
    studio.cancel(session("a"))
    threads["a"].join(10)
    assert ends["a"]["status"] == "Cancelled." and Path(ends["a"]["result"]).is_file()
    assert states(studio, "a") == ["ready", "waiting", "waiting"] and threads["b"].is_alive()
    studio.sessions.forget("b")  # its page is closed
    threads["b"].join(10)
    studio.change_row(session("a"), 2, "Quick.", 0)
    last(studio.speak(session("a"), **asked(text)))
    assert states(studio, "a") == ["ready"] * 3
    assert len(list(long_text.studio.sessions.of("a").folder.parent.iterdir())) == 1  # nothing is left of b


def test_a_dropped_run_frees_the_rows(long_text: LongText, asked: Callable[..., dict[str, Any]]) -> None:
    studio = long_text.studio
    steps: Any = studio.speak(session(), **asked("One.\n\nslow."))
    next(steps)
    next(steps)
    wait_for(lambda: states(studio) == ["ready", "speaking"])
    steps.close()
    assert "speaking" not in states(studio)
    studio.start_over(session())
    last(studio.speak(session(), **asked("One.\n\nTwo.")))


def test_long_texts_are_shown_in_parts(long_text: LongText, asked: Callable[..., dict[str, Any]]) -> None:
    studio = long_text.studio
    text = "\n\n".join(f"Paragraph {number}." for number in range(2 * PART_ROWS + 5))
    shown = studio.refresh(session(), **shaping(asked(text)))
    assert len(shown["table"]["data"]) == PART_ROWS and shown["part"]["maximum"] == 3 and shown["part"]["visible"]
    assert studio.show_part(session(), 3)["table"]["data"][0][0::2][:2] == [201, "Paragraph 200."]
    end = last(studio.speak(session(), **asked(text, batch_size=64)))
    assert end["table"]["data"][-1][0] == 205  # it has followed
    folder = studio.sessions.of("a").folder
    takes = list(folder.glob("*.wav"))
    assert len(takes) == 205 and all(take.stat().st_nlink == 2 for take in takes)  # the player's are no copies
    assert studio.refresh(session(), **shaping(asked("One.")))["part"]["value"] == 1


def test_the_longest_text_is_cut_at_once(long_text: LongText, asked: Callable[..., dict[str, Any]]) -> None:
    sentence = "The old lighthouse keeper climbed the stairs every evening, and lit the lamp. "
    text = (sentence * 9 + "\n\n") * (200_000 // (9 * len(sentence) + 2))
    started_s = time.process_time()
    long_text.studio.refresh(session(), **shaping(asked(text)))
    assert time.process_time() - started_s < 5
    rows = long_text.studio.sessions.of("a").rows
    tokens = [sum(s.token_count for s in long_text.page.service.segment(row.text)) for row in rows]
    assert max(tokens) <= 120 and sum(tokens) / len(tokens) > 55


@pytest.mark.parametrize(("text", "rate"), [("", None), ("one two", 2 / (6 / 12.5)), ("go " * 5000, 6.25)])
def test_token_rate(text: str, rate: float | None) -> None:
    measured = token_rate(text, lambda written: len(written.split()))
    assert measured == (rate and pytest.approx(rate, rel=0.05))


def test_open_file(long_text: LongText, tmp_path: Path) -> None:
    srt = tmp_path / "film.srt"
    srt.write_text("1\n00:00:01,000 --> 00:00:02,000\nHi.\n", encoding="utf-16")
    assert long_text.open_file(session(), str(srt), True) == "[pause:1s]\nHi."
    assert long_text.open_file(session(), str(srt), False) == "Hi."
    assert long_text.open_file(session(), None, False) == gr.skip()
    wrong = tmp_path / "sound.txt"
    wrong.write_bytes(bytes(range(256)))
    with pytest.raises(gr.Error, match=r"'sound\.txt' 不是文本"):
        long_text.open_file(session(language="zh"), str(wrong), False)


@pytest.mark.parametrize(("seconds", "shown"), [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (14403.2, "4:00:03")])
def test_clock(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_nothing_is_left_when_the_program_ends(
    page: Page, asked: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    long_text = LongText(page, tmp_path / "cache")
    last(long_text.studio.speak(session(), **asked()))
    assert list((tmp_path / "cache").iterdir())
    del long_text
    gc.collect()  # as at the end of the program
    assert not list((tmp_path / "cache").iterdir())
