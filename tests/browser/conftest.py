"""The page with the bundled voice, in a real browser."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser.studio import Studio, open_chromium

ROOT = Path(__file__).parents[2]
START_S = 180.0


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where ``webui.py --deepspeed --fp16`` serves the bundled voice to several people."""
    folder = tmp_path_factory.mktemp("page")
    log = folder / "log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "webui.py", "--deepspeed", "--fp16", "--port", "0"],
            cwd=ROOT,
            env={**os.environ, "XDG_DATA_HOME": str(folder / "data"), "GRADIO_TEMP_DIR": str(folder / "files")},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        yield address_in(log, process)
        assert "Traceback" not in log.read_text(), log.read_text()
    finally:
        process.terminate()
        process.wait(30)


def address_in(log: Path, process: subprocess.Popen[bytes]) -> str:
    """The address in the log of the page, once it is there."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(r"the page is at (\S+)", log.read_text()):
            return found[1]
        time.sleep(0.2)
    raise AssertionError(f"the page did not start:\n{log.read_text()}")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = open_chromium(playwright)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Browser, address: str) -> Iterator[Callable[..., Studio]]:
    """Opens the page for one more person; all are gone when the test ends."""
    opened: list[Studio] = []

    def open_one(language: str = "en", **context: Any) -> Studio:
        opened.append(Studio(browser, address, language, **context))
        return opened[-1]

    yield open_one
    for studio in opened:
        studio.close()
