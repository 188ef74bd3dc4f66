"""A voice, a text, and what comes out of the loudspeaker."""

from __future__ import annotations

import struct
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soxr

from tests.browser.judges import likeness, says
from tests.browser.studio import Studio

ROOT = Path(__file__).parents[2]
MAN = ROOT / "training" / "prompts" / "am_onyx.flac"  # voices that no network was trained on
WOMAN = ROOT / "training" / "prompts" / "af_bella.flac"
WORDS = "The train to the coast leaves at seven."
OTHER_WORDS = "We bought some bread and cheese in the village."

OpenPage = Callable[..., Studio]


def test_a_first_visitor_hears_a_cloned_voice_after_two_clicks(open_page: OpenPage) -> None:
    studio = open_page()
    studio.page.locator("#examples table tbody tr").first.click()
    studio.page.wait_for_function("document.querySelector('#text textarea').value.length > 0")
    words = studio.field("text").input_value()
    studio.button("speak").click()
    studio.wait_for_status("seed")
    samples, rate_hz = studio.result()
    assert says(words, samples, rate_hz)


def test_an_uploaded_voice_speaks_the_typed_words(open_page: OpenPage) -> None:
    studio = open_page()
    studio.upload_voice(MAN)
    studio.speak(f"{WORDS} {OTHER_WORDS}")
    samples, rate_hz = studio.result()
    assert rate_hz == 22050 and np.abs(samples).max() > 0.02
    assert says(f"{WORDS} {OTHER_WORDS}", samples, rate_hz)
    played = soxr.resample(*studio.heard(), rate_hz)  # while it was being made: all of it, and nothing else
    assert len(played) == pytest.approx(len(samples), abs=100)
    length = min(len(played), len(samples))
    assert np.corrcoef(played[:length], samples[:length])[0, 1] > 0.99
    assert likeness(samples, rate_hz, MAN) > likeness(samples, rate_hz, WOMAN)


def test_another_emotion_is_another_sound_of_the_same_words(open_page: OpenPage) -> None:
    studio = open_page()
    studio.upload_voice(WOMAN)
    studio.speak(WORDS)
    neutral, rate_hz = studio.result()
    studio.tab("tab.emotion")
    studio.page.get_by_label(studio.say("emotion_mode.vector"), exact=True).check()
    studio.set_slider("sad", 0.8)
    studio.tab("tab.cloning")
    studio.speak(WORDS)
    sad, _ = studio.result()
    assert says(WORDS, sad, rate_hz)
    length = min(len(sad), len(neutral))
    assert len(sad) != len(neutral) or not np.allclose(sad[:length], neutral[:length], atol=1e-3)


def test_cancel_stops_in_the_middle(open_page: OpenPage) -> None:
    studio = open_page()
    studio.upload_voice(MAN)
    studio.type(" ".join([WORDS, OTHER_WORDS] * 40))
    studio.button("speak").click()
    studio.page.wait_for_function("window.heard.length > 0", timeout=240_000)
    studio.button("cancel").click()
    studio.wait_for_status(studio.say("status.cancelled"), wait_s=60)
    made = studio.page.evaluate("window.heard.length")
    studio.speak(WORDS)  # the page and the model are free again
    assert says(WORDS, *studio.result())
    assert studio.page.evaluate("window.heard.length") >= made


def test_two_people_at_once_get_their_own_voices(open_page: OpenPage) -> None:
    people = [(open_page(), MAN, WORDS), (open_page(), WOMAN, OTHER_WORDS)]
    for studio, prompt, words in people:
        studio.upload_voice(prompt)
        studio.type(words)
        studio.choose_seed(11)
    for studio, _, _ in people:
        studio.button("speak").click()
    margins = []
    for studio, prompt, words in people:
        studio.wait_for_status(studio.done_with(11))
        samples, rate_hz = studio.result()
        assert says(words, samples, rate_hz)
        other = WOMAN if prompt == MAN else MAN
        margins.append(likeness(samples, rate_hz, prompt) - likeness(samples, rate_hz, other))
    assert min(margins) > 0 and sum(margins) > 0.2


@pytest.fixture(scope="module")
def bad_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What people upload by mistake."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "text.wav").write_text("This is a text, whatever its name says.\n" * 50)
    (folder / "empty.wav").write_bytes(b"")
    with wave.open(str(folder / "three_hours.wav"), "wb") as file:  # of silence, at a low rate: 86 MB
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(8000)
        file.writeframes(struct.pack("B", 128) * (3 * 3600 * 8000))
    return {path.stem: path for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["text", "empty", "three_hours"])
def test_what_is_no_voice_is_refused_in_words(open_page: OpenPage, bad_files: dict[str, Path], name: str) -> None:
    studio = open_page()
    studio.upload_voice(bad_files[name])
    studio.type(WORDS)
    message = studio.message()
    assert message and "Traceback" not in message
    studio.upload_voice(MAN)  # and the page lives
    studio.speak(WORDS)
    assert says(WORDS, *studio.result())


def test_nothing_to_speak_is_said_where_it_happens(open_page: OpenPage) -> None:
    studio = open_page()
    studio.upload_voice(MAN)
    studio.button("speak").click()
    studio.wait_for_status(studio.say("error.no_text")[1:], wait_s=20)


def test_script_tags_are_words_at_most(open_page: OpenPage) -> None:
    studio = open_page()
    studio.page.add_init_script("window.hacked = false")
    studio.upload_voice(MAN)
    studio.speak(f"<script>window.hacked = true</script> <img src=x onerror='window.hacked = true'> {WORDS}")
    assert not studio.page.evaluate("window.hacked === true")


def test_the_keyboard_is_enough(open_page: OpenPage) -> None:
    studio = open_page()
    studio.upload_voice(MAN)
    studio.choose_seed(3)
    studio.type(WORDS)
    studio.field("text").press("Control+Enter")
    studio.wait_for_status(studio.done_with(3))
    assert says(WORDS, *studio.result())
