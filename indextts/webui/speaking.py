"""One request of the form, spoken while the page plays it."""

from __future__ import annotations

import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from indextts.errors import Cancelled
from indextts.types import Progress
from indextts.webui.form import FormValues
from indextts.webui.i18n import catalogue, language_of, text
from indextts.webui.page import Page, readable_errors
from indextts.webui.recording import Recording

LIVE_CHUNKS = 8  # how many recent chunks the page is told of at a time; it plays each of them once


class Speaker:
    """Speaks what stands in the form. Has no state but the page's: several users run side by side."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def speak(
        self,
        http: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  gradio finds it by its default
        **values: Any,
    ) -> Iterator[tuple[Any, Any, Any, Any]]:
        """Speak the form's request, segment by segment.

        Yields:
            (files of the latest chunks, file of the whole speech, status line, seed); each may be a "no change".
        """
        language = language_of(http)
        yield [], None, text("status.starting", language), gr.skip()
        try:
            yield from self._speak(http.session_hash, language, progress, values)
        except gr.Error as error:
            yield gr.skip(), gr.skip(), text("status.failed", language, reason=error.message), gr.skip()
            raise

    def _speak(
        self, session: str | None, language: str, progress: gr.Progress, values: dict[str, Any]
    ) -> Iterator[tuple[Any, Any, Any, Any]]:
        with (
            readable_errors(language),
            self.page.runs.stoppable(session) as stop,
            tempfile.TemporaryDirectory() as folder,
        ):
            request = FormValues(**values).request()
            started = time.perf_counter()
            recording = Recording(Path(folder), f"indextts-seed{request.seed}.wav")
            live: deque[str] = deque(maxlen=LIVE_CHUNKS)
            try:
                show = shown_by(progress, language)
                for chunk in self.page.service.stream(request, session or "", show, stop.is_set):
                    live.append(str(recording.add(chunk)))
                    status = text(
                        "status.segment",
                        language,
                        segment=chunk.segment + 1,
                        segments=chunk.segments,
                        duration_s=recording.duration_s,
                    )
                    yield list(live), gr.skip(), status, gr.skip()
            except Cancelled:
                yield gr.skip(), gr.skip(), text("status.cancelled", language), gr.skip()
                return
            finally:
                recording.close()
            elapsed_s = time.perf_counter() - started
            status = text(
                "status.done",
                language,
                duration_s=recording.duration_s,
                elapsed_s=elapsed_s,
                real_time_factor=elapsed_s / max(recording.duration_s, 1e-9),
                segments=recording.segments,
                seed=request.seed,
            )
            yield gr.skip(), str(recording.path), status, request.seed

    def cancel(self, http: gr.Request) -> str:
        """Stop the session's run at its next opportunity."""
        self.page.forget(http)
        return text("status.cancelled", language_of(http))


def shown_by(progress: gr.Progress, language: str) -> Callable[[Progress], None]:
    """What shows the engine's progress in a language."""

    def show(step: Progress) -> None:
        message = catalogue(language).get(f"progress.{step.message}", step.message)
        if step.segments:
            message = text(
                "progress.segment", language, message=message, segment=step.segment + 1, segments=step.segments
            )
        progress(step.fraction, desc=message)

    return show
