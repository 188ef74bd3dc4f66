"""The page as a person uses it: what one sees, types, clicks and hears."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from playwright.sync_api import Browser, BrowserContext, Locator, Page, Playwright

from indextts.webui.i18n import text

SPOKEN_S = 240.0  # how long a test waits for speech on a slow machine
STATUS = "#status p"
LISTEN = """
window.heard = [];
const start = AudioBufferSourceNode.prototype.start;
AudioBufferSourceNode.prototype.start = function (...when) {
  window.heard.push({ samples: Array.from(this.buffer.getChannelData(0)), rate_hz: this.buffer.sampleRate,
                      done: document.querySelector("#status")?.innerText ?? "" });
  return start.apply(this, when);
};
"""
"""Keeps what the page's player plays, with the status line of that moment."""


def open_chromium(playwright: Playwright) -> Browser:
    """The system's Chromium, or the one that playwright has installed."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    return playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--use-fake-ui-for-media-stream"])


class Studio:
    """One person with the page open."""

    def __init__(self, browser: Browser, address: str, language: str = "en", **context: Any) -> None:
        """Open the page; ``context`` as for playwright's ``new_context``."""
        self.language = language
        locale = {"en": "en-US", "zh": "zh-CN", "ja": "ja-JP", "es": "es-ES", "ar": "ar-EG"}[language]
        self.context: BrowserContext = browser.new_context(locale=locale, accept_downloads=True, **context)
        self.page: Page = self.context.new_page()
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.add_init_script(LISTEN)
        self.page.goto(address)
        self.page.get_by_role("tab", name=self.say("tab.cloning")).wait_for(timeout=60_000)
        self.page.wait_for_function("document.cookie.includes('indextts_language')", timeout=60_000)  # it has loaded

    def close(self) -> None:
        self.context.close()
        assert not self.errors, self.errors

    def say(self, key: str, **values: Any) -> str:
        """A text of the page in this person's language."""
        return text(key, self.language, **values)

    # ------------------------------------------------------------------------------------------------ what one does

    def tab(self, key: str) -> None:
        self.page.get_by_role("tab", name=self.say(key), exact=True).click()

    def tab_by_any_way(self, key: str) -> None:
        """Where the tabs do not fit beside each other, the rest is in a menu."""
        tab = self.page.get_by_role("tab", name=self.say(key), exact=True).locator("visible=true")
        if not tab.count():
            self.page.locator(".overflow-menu > button").click()
            self.page.locator(".overflow-dropdown button", has_text=self.say(key)).click()
        else:
            tab.first.click()

    def button(self, key: str) -> Locator:
        """The button of that text which can be seen."""
        return self.page.get_by_role("button", name=self.say(key), exact=True).locator("visible=true").first

    def field(self, key: str) -> Locator:
        """The field of that label; a label's element holds the explanation of the field as well."""
        alone = re.compile(rf"^\s*{re.escape(self.say(key))}\s*$")
        name = self.page.locator("[data-testid=block-info]", has_text=alone)
        return self.page.locator("label", has=name).locator("input, textarea").locator("visible=true").first

    def upload_voice(self, path: Path) -> None:
        self.page.locator("#voice input[type=file]").first.set_input_files(path)

    def type(self, words: str) -> None:
        self.field("text").fill(words)

    def open(self, key: str) -> None:
        """Open a part of the page that is folded up."""
        fold = self.page.locator("button.label-wrap", has_text=self.say(key)).locator("visible=true").first
        if "open" not in (fold.get_attribute("class") or "").split():
            fold.click()

    def choose_seed(self, seed: int) -> None:
        self.open("settings")
        self.field("seed").fill(str(seed))

    def set_slider(self, key: str, value: float) -> None:
        """Type ``value`` into the number beside a slider."""
        number = self.page.get_by_label(f"number input for {self.say(key)}").locator("visible=true").first
        number.fill(str(value))
        number.press("Enter")

    # ------------------------------------------------------------------------------------------- what one sees, hears

    def status(self) -> str:
        # Beside it, unseen, Gradio counts the seconds. And innerText is another while the tab is not shown yet.
        return self.page.locator(STATUS).text_content() or ""

    def speak(self, words: str, seed: int = 7, button: str = "speak") -> str:
        """Have ``words`` spoken, and wait for the end. Returns the status line."""
        self.type(words)
        self.choose_seed(seed)
        before = self.status()
        self.button(button).click()
        changed = f"(before) => document.querySelector('{STATUS}').textContent !== before"
        self.page.wait_for_function(changed, arg=before)
        return self.wait_for_status(self.done_with(seed))

    def done_with(self, seed: int) -> str:
        """The end of the status line when all is spoken."""
        whole = self.say("status.done", duration_s=0.0, elapsed_s=0.0, real_time_factor=0.0, segments=0, seed=seed)
        return whole[whole.rindex(",") :]

    def wait_for_status(self, part: str, wait_s: float = SPOKEN_S) -> str:
        """Wait until the status line holds ``part``."""
        deadline = time.monotonic() + wait_s
        while part not in (status := self.status()):
            assert time.monotonic() < deadline, f"after {wait_s:g} s the page says: {status}"
            self.page.wait_for_timeout(100)
        return status

    def message(self, wait_s: float = 60.0) -> str:
        """What is said beside the recording once it has been looked at."""
        report = self.page.locator("#voice-report")
        deadline = time.monotonic() + wait_s
        while not (message := report.inner_text().strip()):
            assert time.monotonic() < deadline, f"nothing is said about the recording within {wait_s:g} s"
            self.page.wait_for_timeout(100)
        return message

    def heard(self) -> tuple[np.ndarray, int]:
        """Samples and rate of all that the page's player has played so far; the rate is the sound card's."""
        pieces = self.page.evaluate("window.heard.map((piece) => piece.samples)")
        samples = np.concatenate([np.asarray(piece, np.float32) for piece in pieces] or [np.zeros(0, np.float32)])
        return samples, self.page.evaluate("window.heard[0]?.rate_hz ?? 0")

    def result(self) -> tuple[np.ndarray, int]:
        """Samples and rate of the file that the page offers."""
        return self.download(self.page.locator("#download"))

    def download(self, button: Locator) -> tuple[np.ndarray, int]:
        """Samples and rate of the sound file behind a button."""
        with self.page.expect_download(timeout=SPOKEN_S * 1000) as started:
            button.click()
        return soundfile.read(started.value.path(), dtype="float32")
