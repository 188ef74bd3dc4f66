"""What holds on every tab: languages, small screens, both themes, and no fault of the page's scripts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from indextts.webui.i18n import LANGUAGES
from tests.browser.studio import Studio

TABS = ("cloning", "emotion", "long_text", "dialogue", "presets", "system")

OpenPage = Callable[..., Studio]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_browsers_language_is_spoken(open_page: OpenPage, language: str) -> None:
    studio = open_page(language)
    assert studio.page.evaluate("document.documentElement.lang") == language
    assert studio.page.evaluate("document.documentElement.dir") == ("rtl" if language == "ar" else "ltr")
    for tab in TABS:
        studio.tab(f"tab.{tab}")
    studio.tab("tab.cloning")
    assert studio.field("text").get_attribute("placeholder") == studio.say("text.placeholder")


def test_the_language_is_switched_and_what_was_typed_stays(open_page: OpenPage) -> None:
    studio = open_page()
    studio.type("Hello there.")
    studio.page.locator("#language input").click()
    studio.page.get_by_role("option", name=studio.say("language.es")).click()
    studio.language = "es"
    studio.button("speak").wait_for()
    assert studio.field("text").input_value() == "Hello there."
    studio.button("speak").click()
    studio.wait_for_status(studio.say("error.no_voice")[1:], wait_s=20)
    studio.page.reload()
    studio.page.get_by_role("tab", name=studio.say("tab.cloning")).wait_for()  # it is remembered


@pytest.mark.parametrize("language", ["en", "ar"])
def test_a_phone_is_wide_enough(open_page: OpenPage, language: str) -> None:
    studio = open_page(language, viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True)
    for tab in TABS:
        studio.tab_by_any_way(f"tab.{tab}")
        studio.page.wait_for_timeout(300)
        assert studio.page.evaluate("document.documentElement.scrollWidth") <= 360, tab


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_both_themes(open_page: OpenPage, theme: str, pytestconfig: pytest.Config) -> None:
    """With ``--screenshots DIR``, the pictures of the documentation are made here."""
    studio = open_page(viewport={"width": 1200, "height": 800}, color_scheme=theme)
    assert studio.page.evaluate("document.body.classList.contains('dark')") == (theme == "dark")
    folder = pytestconfig.getoption("--screenshots")
    studio.page.locator("#examples table tbody tr").first.click()
    studio.page.wait_for_function("document.querySelector('#text textarea').value.length > 0")
    studio.tab("tab.emotion")
    studio.button("mood.preset.cheerful").click()
    studio.tab("tab.long_text")
    studio.field("long_text.text").fill("The village lies behind the hill.\n\nNobody has lived there for years.")
    studio.tab("tab.dialogue")
    studio.field("dialogue.script").fill("[Anna] I heard the rain last night.\n[Ben] I was sleeping. [pause:0.5s]")
    studio.page.wait_for_function("document.querySelector('#dialogue_summary').innerText.startsWith('2 ')")
    for tab in TABS:
        studio.tab(f"tab.{tab}")
        if folder:
            studio.page.wait_for_timeout(500)
            studio.page.screenshot(path=Path(folder) / f"{tab}-{theme}.png", full_page=True)
