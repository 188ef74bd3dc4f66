"""A long text, one of its segments again, and a dialogue."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from indextts.resources import example_voices
from tests.browser.judges import likeness, says
from tests.browser.studio import SPOKEN_S, Studio

ROOT = Path(__file__).parents[2]
MAN = ROOT / "training" / "prompts" / "am_onyx.flac"
SENTENCES = [
    "The village lies behind the hill.",
    "Nobody has lived there for years.",
    "The old school is still standing.",
    "Its windows look across the river.",
    "In summer the children play there.",
]

OpenPage = Callable[..., Studio]


def rows(studio: Studio, tab: str) -> list[list[str]]:
    """The table as one sees it."""
    read = f"""[...document.querySelectorAll('#{tab}_table [role=row]')].map((row) =>
        [...row.querySelectorAll('[role=gridcell]')].map((cell) => cell.innerText.trim()))"""
    return [cells for cells in studio.page.evaluate(read) if cells]


def wait_for_rows(studio: Studio, tab: str, count: int) -> None:
    """Until the text is cut into so many."""
    words = f"{count} "
    studio.page.wait_for_function(
        f"(words) => document.querySelector('#{tab}_summary').innerText.startsWith(words)", arg=words, timeout=60_000
    )


def wait_until_ready(studio: Studio, tab: str, count: int) -> None:
    """Until the line under the buttons tells that ``count`` segments are ready."""
    words = studio.say("rows.standing", ready=count, total=count, duration="").replace("*", "")
    words = words[: words.index(",")]
    studio.page.wait_for_function(
        f"(words) => document.querySelector('#{tab}_status').innerText.includes(words)",
        arg=words,
        timeout=SPOKEN_S * 1000,
    )


def taken_away(studio: Studio) -> dict[str, bytes]:
    """The files that the page makes of what is ready."""
    studio.button("rows.export").click()
    links = studio.page.locator(".file-preview a[download]").locator("visible=true")
    studio.page.locator("a[download$='.zip']").locator("visible=true").first.wait_for(timeout=60_000)
    files = {}
    for link in links.all():
        with studio.page.expect_download() as started:
            link.click()
        files[started.value.suggested_filename] = Path(started.value.path()).read_bytes()
    return files


def segments_in(files: dict[str, bytes]) -> list[np.ndarray]:
    """The sounds in the ZIP, in their order."""
    (archive,) = [content for name, content in files.items() if name.endswith(".zip")]
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        names = sorted(name for name in opened.namelist() if name.endswith(".wav"))
        return [soundfile.read(io.BytesIO(opened.read(name)), dtype="float32")[0] for name in names]


def test_five_segments_of_which_one_is_spoken_again(open_page: OpenPage) -> None:
    studio = open_page()
    studio.upload_voice(MAN)
    studio.message()
    studio.choose_seed(5)
    studio.tab("tab.long_text")
    studio.field("long_text.text").fill("\n\n".join(SENTENCES))
    wait_for_rows(studio, "long_text", 5)
    assert [row[2] for row in rows(studio, "long_text")] == SENTENCES
    studio.button("speak").click()
    wait_until_ready(studio, "long_text", 5)
    assert [row[1] for row in rows(studio, "long_text")] == [studio.say("rows.state.ready")] * 5
    files = taken_away(studio)
    first = segments_in(files)
    assert len(first) == 5
    (name,) = [name for name in files if name.endswith(".wav")]
    assert says(" ".join(SENTENCES), *soundfile.read(io.BytesIO(files[name]), dtype="float32"))
    subtitles = next(content for name, content in files.items() if name.endswith(".srt")).decode("utf-8-sig")
    assert re.findall(r"^\d\d:\d\d:\d\d,\d+ --> ", subtitles, re.M).__len__() == 5
    assert all(sentence in subtitles for sentence in SENTENCES)
    assert any(name.endswith(".lrc") for name in files)

    studio.open("rows.one")
    studio.field("rows.number").fill("3")
    studio.field("rows.number").press("Tab")
    studio.page.wait_for_timeout(1000)
    assert studio.field("rows.text").input_value() == SENTENCES[2]
    other = "The old church is still standing."
    studio.field("rows.text").fill(other)
    studio.field("rows.seed").fill("6")
    studio.button("rows.speak").click()
    studio.page.wait_for_function(
        "(words) => document.querySelector('#long_text_table').innerText.includes(words)", arg=other, timeout=60_000
    )
    wait_until_ready(studio, "long_text", 5)
    again = segments_in(taken_away(studio))
    same = [len(a) == len(b) and np.array_equal(a, b) for a, b in zip(first, again, strict=True)]
    assert same == [True, True, False, True, True]
    assert says(other, again[2], 22050)


def test_a_dialogue_of_two(open_page: OpenPage) -> None:
    studio = open_page()
    studio.choose_seed(5)
    studio.tab("tab.dialogue")
    studio.field("dialogue.script").fill(
        "[Anna] I heard the rain on the roof last night.\n"
        "[Ben] I was sleeping and heard nothing at all. [pause:0.5s]\n"
        "[Anna] Good for you."
    )
    cast = studio.page.locator(".cast").locator("visible=true")
    wait_for_rows(studio, "dialogue", 3)
    cast.nth(1).wait_for()
    assert cast.count() == 2
    studio.button("speak").click()
    wait_until_ready(studio, "dialogue", 3)
    anna, ben, anna_again = segments_in(taken_away(studio))
    assert says("I heard the rain on the roof last night.", anna, 22050)
    assert says("I was sleeping and heard nothing at all.", ben, 22050)
    voices = [cast.nth(number).locator("input").input_value() for number in range(2)]
    assert voices[0] != voices[1]
    prompts = [example_voices()[voice] for voice in voices]
    assert likeness(anna, 22050, prompts[0]) > likeness(anna, 22050, prompts[1])
    assert likeness(ben, 22050, prompts[1]) > likeness(ben, 22050, prompts[0])
    assert len(anna_again) > 0
