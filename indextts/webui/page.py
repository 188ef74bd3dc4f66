"""What the parts of the page share."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from indextts.errors import IndexTTSError, QueueFull
from indextts.webui.form import FormValues
from indextts.webui.i18n import DEFAULT_LANGUAGE, PageError, Texts, catalogue, text
from indextts.webui.preset_library import PresetLibrary

if TYPE_CHECKING:
    from indextts.service import ModelFacts, Service
    from indextts.types import ChunkSchedule, SynthesisRequest
    from indextts.voices import VoiceLibrary

logger = logging.getLogger(__name__)

Fields = dict[str, Any]  # widgets by their name in FormValues
QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""For events that only change the page. What they raise is not shown: only events of the queue show errors."""

ACTION: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
"""For quick events that may be refused."""


class Runs:
    """The syntheses under way, by the browser session that started them; one session has one at a time."""

    def __init__(self) -> None:
        self.stops: dict[str, threading.Event] = {}

    @contextmanager
    def stoppable(self, session: str | None) -> Iterator[threading.Event]:
        """An event that ``stop`` of the same session sets; set as well when the run is dropped."""
        stop, key = threading.Event(), session or ""
        self.stops[key] = stop
        try:
            yield stop
        finally:
            stop.set()
            if self.stops.get(key) is stop:
                del self.stops[key]

    def stop(self, session: str | None) -> None:
        """Stop the session's run at its next opportunity."""
        if stop := self.stops.get(session or ""):
            stop.set()


@dataclass
class Page:
    """The page while it is being built: what its tabs stand on, and the widgets that they share.

    Attributes:
        fields: The form's widgets by their name in ``FormValues``; each tab adds those that it owns.
        parts: Other widgets of one tab that are connected by another.
        presets: The saved settings; None: in a folder beside that of the voices.
        admin: Whether users may unload the model and have its files checked.
        app: What is being built.
        closing: Called with each session whose page is closed.
    """

    service: Service
    library: VoiceLibrary
    examples_dir: Path
    texts: Texts = field(default_factory=Texts)
    runs: Runs = field(default_factory=Runs)
    fields: Fields = field(default_factory=dict)
    parts: Fields = field(default_factory=dict)
    presets: PresetLibrary = None  # type: ignore[assignment]  # __post_init__ sets it
    admin: bool = True
    app: gr.Blocks | None = None
    closing: list[Callable[[str | None], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.presets = self.presets or PresetLibrary(self.library.folder.with_name("presets"))

    @property
    def facts(self) -> ModelFacts:
        return self.service.facts

    @property
    def speaking(self) -> dict[str, Any]:
        """For events that speak. The service's own queue decides who speaks when, not gradio's."""
        config = self.service.config  # one more than it takes comes through, and is refused by name
        return {"concurrency_limit": config.simultaneous + config.max_queue + 1, "concurrency_id": "speak"}

    def form(self) -> Fields:
        """The widgets that make up ``FormValues``."""
        return {name: self.fields[name] for name in FormValues.__dataclass_fields__}

    def request(self, values: Mapping[str, Any], chunks: ChunkSchedule | None = None) -> SynthesisRequest:
        """What the form's ``values`` ask for; a voice of the library brings along what was heard in it before.

        Raises:
            IndexTTSError: as ``FormValues.request``.
        """
        request = FormValues(**values).request(chunks)
        known = self.library.holding(request.voice.data)
        return request if known is None else replace(request, voice=known.prompt())

    def forget(self, http: gr.Request) -> None:
        """Stop what the session is making."""
        self.runs.stop(http.session_hash)

    def opened(self, written: Any, inputs: list[Any], outputs: list[Any]) -> None:
        """Have ``written`` called when a browser opens the page."""
        assert self.app is not None, "the page is not being built"
        self.app.load(written, inputs, outputs, **QUIET)

    def closed(self, http: gr.Request) -> None:
        """The session's page was closed: stop what it is making, and free what was kept for it."""
        self.forget(http)
        for close in self.closing:
            close(http.session_hash)

    def make(self, kind: Any, key: str, *args: Any, **properties: Any) -> Any:
        """See ``Texts.make``."""
        return self.texts.make(kind, key, *args, **properties)


def sentence(message: str) -> str:
    """An error message as a line for the page: with a capital letter."""
    return message[:1].upper() + message[1:]


def message_of(error: IndexTTSError, language: str) -> str:
    """What ``error`` says, in ``language`` as far as the catalogues know it.

    The program's own errors speak English; in other languages, what kind of error it is comes first.
    """
    if isinstance(error, PageError):
        return error.in_language(language)
    if language == DEFAULT_LANGUAGE:
        return str(error)
    if isinstance(error, QueueFull):
        return text("refusal.QueueFull", language, retry_after_s=error.retry_after_s)
    texts = catalogue(language)
    keys = (".".join(("refusal", kind.__name__)) for kind in type(error).__mro__)
    summary = next((texts[key] for key in keys if key in texts), "")
    return f"{summary} ({error})" if summary else str(error)


@contextmanager
def readable_errors(language: str) -> Iterator[None]:
    """Errors raised on purpose become a message on the page; of bugs the page tells only that, the log the rest."""
    try:
        yield
    except IndexTTSError as error:
        logger.info("refused: %s", error)
        raise gr.Error(sentence(message_of(error, language)), print_exception=False) from error
    except gr.Error:
        raise
    except Exception as error:
        logger.exception("unexpected error while handling a request")
        message = text("error.unexpected", language, kind=type(error).__name__)
        raise gr.Error(message, print_exception=False) from error
