"""The page as programs and browsers see it, served on a free port."""

from __future__ import annotations

import ast
import logging
import re
import threading
import time
import urllib.request
import wave
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

import indextts.webui
from indextts.service import Service, ServiceConfig
from indextts.types import FromVector
from indextts.voices import VoiceLibrary
from indextts.webui import build_app, launch
from indextts.webui.i18n import text as words
from indextts.webui.page import Page, sentence
from indextts.webui.speaking import Speaker
from indextts.webui.tabs.cloning import preview_rows
from indextts.webui.takes import Takes
from tests.webui.humming_engine import RATE_HZ, HummingEngine

ENDPOINTS = {
    *("/synthesize", "/segment", "/info", "/normalize", "/emotion_from_text"),
    *("/voices", "/save_voice", "/rename_voice", "/delete_voice", "/examine"),
    *("/presets", "/preset", "/save_preset", "/rename_preset", "/delete_preset"),
    *("/system", "/benchmark", "/check_files", "/unload", "/reload"),
    *("/long_text", "/dialogue"),
}


@pytest.fixture(scope="module")
def address(service: Service, library: VoiceLibrary, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    app = build_app(service, library, examples_dir=tmp_path_factory.mktemp("examples"))
    yield launch(app, port=0, block=False)
    app.close()


@pytest.fixture(scope="module")
def client(address: str) -> Client:
    return Client(address, verbose=False)


def wav_duration_s(path: str) -> float:
    with wave.open(path) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (RATE_HZ, 1, 2)
        return file.getnframes() / RATE_HZ


def test_page_is_served_and_names_nothing_foreign(address: str) -> None:
    page = urllib.request.urlopen(address, timeout=10).read().decode()
    assert words("title") in page and "indexttsPlayer" in page
    assert "fonts.googleapis" not in page


def test_the_page_tells_the_model_and_the_acceleration(service: Service, library: VoiceLibrary) -> None:
    app = build_app(service, library)
    texts = " ".join(str(block.value) for block in app.blocks.values() if isinstance(block, gr.HTML))
    assert "humming &lt;voice&gt;" in texts
    assert "there is no CUDA device" in texts


def test_an_untouched_seed_means_a_new_one(service: Service, library: VoiceLibrary) -> None:
    app = build_app(service, library)
    (seed,) = [b for b in app.blocks.values() if getattr(b, "label", None) == words("seed")]
    assert isinstance(seed, gr.Textbox) and not seed.value  # a number box would show, and send, 0


def test_only_the_named_endpoints_are_public(client: Client) -> None:
    endpoints: Any = client.view_api(return_format="dict")
    assert set(endpoints["named_endpoints"]) == ENDPOINTS


def test_synthesize_with_defaults(client: Client, engine: HummingEngine, prompt: Path) -> None:
    path, info = client.predict(voice=handle_file(prompt), text="One. Two. Three.", api_name="/synthesize")
    assert wav_duration_s(path) == pytest.approx(1.5)
    assert info["segments"] == 3 and info["duration_s"] == pytest.approx(1.5)
    assert info["seed"] == engine.requests[-1].seed
    assert engine.requests[-1].sampling == engine.sampling_defaults


def test_synthesize_with_options(client: Client, engine: HummingEngine, prompt: Path) -> None:
    _, info = client.predict(
        voice=handle_file(prompt),
        text="One.",
        emotion_mode="vector",
        happy=0.5,
        seed=5,
        top_k=7,
        api_name="/synthesize",
    )
    request = engine.requests[-1]
    assert info["seed"] == request.seed == 5
    assert request.sampling and request.sampling.top_k == 7
    assert isinstance(request.emotion, FromVector) and request.emotion.values[0] == pytest.approx(0.5 * 0.9375)


def test_segment_and_info(client: Client) -> None:
    segments = client.predict("One two. Three.", api_name="/segment")
    assert segments == [
        {"index": 0, "text": "One two", "tokens": 2},
        {"index": 1, "text": "Three", "tokens": 1},
    ]
    info = client.predict(api_name="/info")
    assert info["model"] == "humming <voice>"
    assert info["sampling_defaults"]["num_beams"] == 1
    assert info["acceleration"][0]["reason"] == "there is no CUDA device"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", words("error.no_text")),
        ("This will fail.", "the model produced no speech for segment 1"),
        ("...", "there is nothing to speak"),
    ],
)
def test_errors_are_readable_and_the_page_stays_alive(client: Client, prompt: Path, text: str, says: str) -> None:
    with pytest.raises(AppError, match=re.escape(sentence(says))):
        client.predict(voice=handle_file(prompt), text=text, api_name="/synthesize")
    client.predict(voice=handle_file(prompt), text="Still alive.", api_name="/synthesize")


def test_without_a_voice(client: Client) -> None:
    with pytest.raises(AppError, match="Choose a voice"):
        client.predict(voice=None, text="Hello.", api_name="/synthesize")


def test_a_bug_is_hidden_on_the_page_and_told_in_the_log(
    client: Client, prompt: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR), pytest.raises(AppError, match="ZeroDivisionError") as caught:
        client.predict(voice=handle_file(prompt), text="A bug.", api_name="/synthesize")
    assert "secret detail" not in str(caught.value)
    assert any(record.exc_info and "secret detail" in str(record.exc_info[1]) for record in caplog.records)


def test_speak_yields_every_piece_and_then_the_whole(
    engine: HummingEngine, page: Page, values: dict[str, Any]
) -> None:
    sound: list[tuple[list[float], float | None]] = []
    with closing(Takes()) as takes:
        steps = []
        for step in Speaker(page).speak(session("a"), takes, **values):
            live = [wav_duration_s(path) for path in step.live] if isinstance(step.live, list) else []
            sound.append((live, wav_duration_s(step.audio) if isinstance(step.audio, str) else None))
            steps.append(step)
        pieces = [files for files, _ in sound if files]
        assert pieces == [pytest.approx([0.25] * count, abs=1e-4) for count in (1, 2, 3, 4)]
        assert [whole for _, whole in sound if whole] == [1.0]
        assert steps[-1].seed == engine.requests[-1].seed == takes.all[0].seed
        assert str(steps[-1].seed) in steps[-1].panel
        assert steps[-1].takes == takes.rows() and takes.rows()[0][2:4] == ["One. Two.", "prompt"]
    bars = [re.findall(r'valuenow="(\d)" aria-valuemax="(\d)"', str(step.panel)) for step in steps]
    assert [pair for bar in bars for pair in bar] == [("0", "2"), ("1", "2"), ("1", "2"), ("2", "2"), ("2", "2")]


def test_what_goes_wrong_is_told_in_the_panel(page: Page, values: dict[str, Any]) -> None:
    takes = Takes()
    for changed, says in (({"text": " "}, "Type a text first"), ({"text": "fail."}, "no speech for segment 1")):
        *_, last = Speaker(page).speak(session("a"), takes, **{**values, **changed})
        assert 'class="error"' in last.panel and says in last.panel
    assert takes.all == [] and not page.runs.stops


def test_the_place_in_the_queue_is_told(prompt: Path, values: dict[str, Any], tmp_path: Path) -> None:
    engine = HummingEngine()
    with closing(Service(lambda: engine, ServiceConfig(simultaneous=1))) as service:  # type: ignore[arg-type,return-value]
        page = Page(service, VoiceLibrary(tmp_path, None), tmp_path)
        first: Any = Speaker(page).speak(session("a"), Takes(), **{**values, "text": "slow."})
        next(first)
        next(first)
        second: Any = Speaker(page).speak(session("b"), Takes(), **values)
        next(second)
        panel = next(second).panel
        assert "place 1 in the queue, about 10 s" in panel
        second.close()
        first.close()


def test_cancel_stops_the_run_of_its_own_session_only(page: Page, values: dict[str, Any]) -> None:
    speaker = Speaker(page)
    seen: dict[str, list[Any]] = {"a": [], "b": []}

    def run(name: str) -> None:
        for step in speaker.speak(session(name), Takes(), **{**values, "text": "slow."}):
            seen[name].append(step.panel)

    threads = {name: threading.Thread(target=run, args=(name,), daemon=True) for name in seen}
    for thread in threads.values():
        thread.start()
    deadline = time.monotonic() + 10
    while len(page.runs.stops) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    speaker.cancel(session("a"))
    threads["a"].join(10)
    assert words("status.cancelled") in seen["a"][-1]
    assert threads["b"].is_alive()
    page.forget(session("b"))
    threads["b"].join(10)
    assert not threads["b"].is_alive() and not page.runs.stops


def test_a_run_that_the_browser_drops_is_told_to_stop(page: Page, values: dict[str, Any]) -> None:
    speaker = Speaker(page)
    steps: Any = speaker.speak(session("c"), Takes(), **values)
    next(steps)
    next(steps)
    stop = page.runs.stops["c"]
    steps.close()
    assert stop.is_set() and not page.runs.stops


@pytest.mark.parametrize(
    ("text", "rows"), [("One two. Three.", [[1, "One two", 2], [2, "Three", 1]]), ("", []), ("..", [])]
)
def test_preview(page: Page, text: str, rows: list[list[Any]]) -> None:
    assert preview_rows(page, text, 120) == rows


def test_the_page_imports_no_torch_and_only_the_page_imports_gradio() -> None:
    package = Path(indextts.webui.__file__).parent.parent
    for path in package.rglob("*.py"):
        inside = path.is_relative_to(package / "webui")
        forbidden = {"torch", "torchaudio", "transformers", "deepspeed"} if inside else {"gradio"}
        assert not imported(path) & forbidden, path


def imported(path: Path) -> set[str]:
    """Top-level names of all modules that the file at ``path`` imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def session(name: str) -> Any:
    return SimpleNamespace(session_hash=name, cookies={}, headers={})
