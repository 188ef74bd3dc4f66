"""The bundled voice through the real page and the API, and what a recogniser hears."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from gradio_client import Client, handle_file

from indextts.infer_v2 import IndexTTS2
from tests.recogniser import transcribe, word_error_rate

ROOT = Path(__file__).resolve().parents[1]
PROMPT = ROOT / "training" / "prompts" / "am_onyx.flac"  # a voice that no network was trained on
TEXT = "The train to the coast leaves at seven, and the children are waiting at the station."
MAX_WORD_ERROR_RATE = 0.25
START_S = 180.0

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(autouse=True)
def all_cores() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Where ``webui.py --deepspeed --fp16`` serves the bundled voice."""
    command = [sys.executable, "webui.py", "--deepspeed", "--fp16", "--port", "0"]
    log = tmp_path / "webui.log"
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT)
    try:
        yield wait_for_address(process, log)
    finally:
        process.terminate()
        process.wait(30)


def wait_for_address(process: subprocess.Popen[bytes], log: Path) -> str:
    """The address in the log of the page, once it is there."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(r"the page is at (\S+)", log.read_text()):
            return found[1]
        time.sleep(0.5)
    raise AssertionError(f"the page did not start:\n{log.read_text()}")


def check_speech(path: Path) -> None:
    """The recording is sound of the right length, in which a recogniser finds the words."""
    samples, rate_hz = soundfile.read(path)
    assert rate_hz == 22050 and 2.0 < len(samples) / rate_hz < 12.0
    assert 0.02 < np.abs(samples).max() < 1.0
    heard = transcribe(path)
    assert word_error_rate(TEXT, heard) <= MAX_WORD_ERROR_RATE, f"heard: {heard}"


def test_the_page_speaks(address: str, tmp_path: Path) -> None:
    client = Client(address, verbose=False, download_files=tmp_path)
    path, info = client.predict(voice=handle_file(PROMPT), text=TEXT, seed=1, api_name="/synthesize")
    check_speech(Path(path))
    assert info["segments"] == 1 and info["seed"] == 1
    options = {row["option"]: row for row in client.predict(api_name="/info")["acceleration"]}
    assert not options["deepspeed"]["reason"]
    assert bool(options["fp16"]["reason"]) != torch.cuda.is_available()


def test_the_api_speaks(tmp_path: Path) -> None:
    path = tmp_path / "said.wav"
    assert IndexTTS2().infer(PROMPT, TEXT, path, seed=1) == path
    check_speech(path)
