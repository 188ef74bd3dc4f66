"""The last tab: the model, how it is running, and what those may do who look after the server."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

import gradio as gr
from gradio.events import api

from indextts import __version__
from indextts.manifest import FileState, compare
from indextts.memory import memory_in_use
from indextts.types import VoicePrompt
from indextts.webui.benchmark import Speed, measure
from indextts.webui.i18n import PageError, choice_text, language_of, text
from indextts.webui.page import QUIET, Page, readable_errors
from indextts.webui.speaking import shown_by

MIB = 2**20
ACCELERATION = ("system.option", "system.asked", "system.runs", "system.why")
FILES = ("system.file", "system.size", "system.state")
PRECISIONS = ("precision", "fp16", "bf16")
"""Options of the acceleration report that tell the precision."""


def build(page: Page) -> Callable[[], None]:
    """The tab's widgets; see the package."""
    make, handlers = page.make, System(page)
    with make(gr.Tab, "tab.system", id="system") as tab:
        state = page.texts.html(handlers.state, elem_id="system")
        with gr.Row():
            refresh = make(gr.Button, "system.refresh", size="sm", min_width=120)
            speed = make(gr.Button, "system.benchmark", size="sm", min_width=120)
            check = make(gr.Button, "system.check", size="sm", min_width=120, visible=page.admin)
            unload = make(gr.Button, "system.unload", size="sm", min_width=120, visible=page.admin)
            reload = make(gr.Button, "system.reload", size="sm", min_width=120, visible=page.admin)
        outcome = gr.HTML(elem_id="outcome")
        make(gr.Markdown, "system.no_admin", visible=not page.admin)
        make(gr.Markdown, "system.notes")

    def connect() -> None:
        look: dict[str, Any] = {"fn": handlers.look, "outputs": [state], **QUIET}
        work: dict[str, Any] = {"outputs": [outcome], "api_visibility": "private"}
        tab.select(**look)
        refresh.click(**look)
        speed.click(handlers.show_speed, inputs=[page.fields["voice"]], **work).then(**look)
        if page.admin:
            check.click(handlers.show_files, **work)
            unload.click(handlers.show_unload, **work).then(**look)
            reload.click(handlers.show_reload, **work).then(**look)
        handlers.connect_api()

    return connect


class System:
    """What the tab shows, and what its buttons and the endpoints do."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.service = page.service

    # ------------------------------------------------------------------------------------- what the tab shows

    def state(self, language: str) -> str:
        """The model, what it takes, and the acceleration report: what was asked, what runs, and why."""
        facts, stats, memory = self.page.facts, self.service.stats(), memory_in_use()
        used = [text("system.memory.process", language, size=memory.resident / MIB)] if memory.resident else []
        used += [text("system.memory.cuda", language, size=memory.cuda / MIB)] if memory.cuda is not None else []
        counts = {name: getattr(stats, name) for name in ("running", "waiting", "served")}
        overview = {
            "system.model": facts.model_name,
            "system.text_emotion": choice_text("emotion_model", facts.text_emotion_model or "none", language),
            "system.version": __version__,
            "system.device": facts.report.device,
            "system.precision": self.precision(),
            "system.loaded": text("system.yes" if stats.loaded else "system.no", language),
            "system.memory": ", ".join(used) or text("system.memory.unknown", language),
            "system.requests": text("system.requests.counts", language, **counts),
        }
        rows = [(entry.option, entry.asked, entry.running, entry.reason) for entry in facts.report.entries]
        acceleration = table([text(key, language) for key in ACCELERATION], rows)
        about = table([], [(text(key, language), value) for key, value in overview.items()])
        return f"{about}<h4>{text('system.running', language)}</h4>{acceleration}"

    def precision(self) -> str:
        """As the acceleration report tells it."""
        entries = self.page.facts.report.entries
        return next((entry.running for entry in entries if entry.option in PRECISIONS), "fp32")

    def look(self, http: gr.Request) -> str:
        return self.state(language_of(http))

    def show_speed(self, voice: str | None, http: gr.Request, progress: gr.Progress = gr.Progress()) -> str:  # noqa: B008
        language = language_of(http)
        with readable_errors(language):
            speed = measure(self.service, self.voice(voice), http.session_hash or "", shown_by(progress, language))
        rows = {
            "system.speed.characters": f"{speed.characters_per_s:.1f}",
            "system.speed.real_time": f"{speed.real_time_factor:.2f}",
            "system.speed.first": f"{speed.first_sound_s:.2f} s",
            "system.speed.whole": f"{speed.audio_s:.1f} s / {speed.total_s:.1f} s",
        }
        return table([], [(text(key, language), value) for key, value in rows.items()])

    def show_files(self, http: gr.Request) -> str:
        language = language_of(http)
        with readable_errors(language):
            files = self.compared()
        rows = [
            (
                file.path,
                "" if file.size_bytes is None else f"{file.size_bytes / MIB:,.1f} MiB",
                text(f"system.state.{file.state}", language),
            )
            for file in files
        ]
        good = sum(file.state == "ok" for file in files)
        said = text("system.files", language, good=good, count=len(files))
        return f"<p>{said}</p>{table([text(key, language) for key in FILES], rows)}"

    def show_unload(self, http: gr.Request) -> str:
        language = language_of(http)
        with readable_errors(language):
            self.service.unload()
        return f"<p>{text('system.unloaded', language)}</p>"

    def show_reload(self, http: gr.Request) -> str:
        language = language_of(http)
        with readable_errors(language):
            self.service.reload()
        return f"<p>{text('system.reloaded', language)}</p>"

    def voice(self, path: str | None) -> VoicePrompt:
        """The recording in the form, else the first of the library. Raises ``PageError`` if there is none."""
        if path:
            return VoicePrompt.from_path(path)
        voices = self.page.library.voices()
        if not voices:
            raise PageError("error.no_voice")
        return voices[0].prompt()

    def compared(self) -> list[FileState]:
        """The model's files, compared with what they should be. Raises ``PageError`` if it has none."""
        files = self.page.facts.files
        if files is None:
            raise PageError("error.no_files")
        return compare(files.root, files.paths())

    # ------------------------------------------------------------------------------------------------ endpoints

    def connect_api(self) -> None:
        api(self.system, api_name="system", api_description=text("api.system"))
        api(self.benchmark, api_name="benchmark", api_description=text("api.benchmark"))
        if self.page.admin:
            api(self.check_files, api_name="check_files", api_description=text("api.check_files"))
            api(self.unload, api_name="unload", api_description=text("api.unload"))
            api(self.reload, api_name="reload", api_description=text("api.reload"))

    def system(self) -> dict[str, Any]:
        """The model, its device and precision, the memory in use, and the requests so far."""
        facts = self.page.facts
        return {
            "model": facts.model_name,
            "text_emotion_model": facts.text_emotion_model,
            "version": __version__,
            "device": facts.report.device,
            "precision": self.precision(),
            "acceleration": [asdict(entry) for entry in facts.report.entries],
            "memory_bytes": asdict(memory_in_use()),
            "requests": asdict(self.service.stats()),
        }

    def benchmark(self, http: gr.Request, voice: str | None = None) -> dict[str, float]:
        """Speak two sentences with a voice of the library, the first one if none is named."""
        with readable_errors(language_of(http)):
            prompt = self.page.library.get(voice).prompt() if voice else self.voice(None)
            speed = measure(self.service, prompt, http.session_hash or "")
        return as_numbers(speed)

    def check_files(self, http: gr.Request) -> list[dict[str, Any]]:
        """Name, size in bytes and state of every file of the model. A key "path" would be taken for a download."""
        with readable_errors(language_of(http)):
            return [{"file": f.path, "size_bytes": f.size_bytes, "state": f.state} for f in self.compared()]

    def unload(self, http: gr.Request) -> bool:
        """Whether the model is loaded afterwards."""
        with readable_errors(language_of(http)):
            self.service.unload()
        return self.service.stats().loaded

    def reload(self, http: gr.Request) -> bool:
        """Whether the model is loaded afterwards."""
        with readable_errors(language_of(http)):
            self.service.reload()
        return self.service.stats().loaded


def as_numbers(speed: Speed) -> dict[str, float]:
    """The measured and the derived figures."""
    derived = {"characters_per_s": speed.characters_per_s, "real_time_factor": speed.real_time_factor}
    return {name: round(value, 3) for name, value in {**asdict(speed), **derived}.items()}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """An HTML table of plain texts; without a head, the first cell of each row is one."""
    written = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in head)
    body = "".join(row_of(row, not head) for row in rows)
    return f'<table class="facts">{f"<thead><tr>{written}</tr></thead>" if head else ""}<tbody>{body}</tbody></table>'


def row_of(cells: Sequence[str], headed: bool) -> str:
    first, *others = (html.escape(cell) for cell in cells)
    head = f'<th scope="row">{first}</th>' if headed else f"<td>{first}</td>"
    return f"<tr>{head}{''.join(f'<td><bdi>{cell}</bdi></td>' for cell in others)}</tr>"
