"""One request of the form, spoken while the page plays it."""

from __future__ import annotations

import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr

from indextts.errors import Cancelled
from indextts.types import AudioChunk, ChunkSchedule, Progress, Queued, SynthesisRequest
from indextts.webui.i18n import catalogue, language_of, text
from indextts.webui.page import Page, readable_errors
from indextts.webui.progress import line, segment_bar, status_panel
from indextts.webui.recording import Recording
from indextts.webui.takes import Takes

LIVE_CHUNKS = 8  # how many recent chunks the page is told of at a time; it plays each of them once


@dataclass(frozen=True)
class Step:
    """What changes on the page at one moment of speaking; the rest stays as it is.

    Attributes:
        live: Files of the latest chunks, for the player.
        audio: File of the whole speech.
        panel: HTML of how far it is.
        seed: The seed that was used.
        takes: Rows of the table of takes.
    """

    live: Any = field(default_factory=gr.skip)
    audio: Any = field(default_factory=gr.skip)
    panel: Any = field(default_factory=gr.skip)
    seed: Any = field(default_factory=gr.skip)
    takes: Any = field(default_factory=gr.skip)


class Speaker:
    """Speaks what stands in the form. Has no state but the page's: several users run side by side."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def speak(self, http: gr.Request, takes: Takes, **values: Any) -> Iterator[Step]:
        """Speak the form's request, segment by segment, and add it to the ``takes`` of the session."""
        language = language_of(http)
        yield Step(live=[], audio=None, panel=status_panel(text("status.starting", language)))
        try:
            with readable_errors(language), self.page.runs.stoppable(http.session_hash) as stop:
                request = self.page.request(values, ChunkSchedule())
                run = self.page.service.follow(request, http.session_hash or "", stop.is_set)
                yield from Speech(request, Path(values["voice"]).stem, takes, language).steps(run)
        except gr.Error as error:  # told where it happened, and nowhere else
            yield Step(panel=line("error", text("status.failed", language, reason=error.message)))

    def cancel(self, http: gr.Request) -> str:
        """Stop the session's run at its next opportunity. Returns what the panel says then."""
        self.page.runs.stop(http.session_hash)
        return status_panel(text("status.cancelled", language_of(http)))


class Speech:
    """One speech on its way: what has come so far, and how the page tells it."""

    def __init__(self, request: SynthesisRequest, voice: str, takes: Takes, language: str) -> None:
        self.request = request
        self.voice = voice
        self.takes = takes
        self.language = language
        self.done = 0  # segments
        self.live: deque[str] = deque(maxlen=LIVE_CHUNKS)

    def steps(self, run: Iterator[AudioChunk | Progress]) -> Iterator[Step]:
        """What the page shows of each thing that happens."""
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            recording = Recording(Path(folder), "speech.wav")
            try:
                for event in run:
                    if isinstance(event, AudioChunk):
                        yield self.sounds(event, recording)
                    else:
                        yield Step(panel=self.waits(event))
            except Cancelled:
                yield Step(panel=status_panel(text("status.cancelled", self.language)))
                return
            finally:
                recording.close()
            take = self.takes.add(recording, self.request.text, self.voice, self.request.seed or 0)
            message = self.summary(recording, time.perf_counter() - started)
            panel = status_panel(message, segment_bar(recording.segments, recording.segments))
            yield Step(audio=str(take.path), panel=panel, seed=take.seed, takes=self.takes.rows())

    def waits(self, step: Progress) -> str:
        """The panel while there is no new sound."""
        bar = segment_bar(self.done, step.segments) if step.segments else ""
        return status_panel(in_words(step, self.language), bar)

    def sounds(self, chunk: AudioChunk, recording: Recording) -> Step:
        """A chunk has come."""
        self.live.append(str(recording.add(chunk)))
        if not chunk.ends_segment:
            return Step(live=list(self.live))
        self.done = chunk.segment + 1
        message = text(
            "status.segment", self.language,
            segment=self.done, segments=chunk.segments, duration_s=recording.duration_s,
        )  # fmt: skip
        return Step(live=list(self.live), panel=status_panel(message, segment_bar(self.done, chunk.segments)))

    def summary(self, recording: Recording, elapsed_s: float) -> str:
        """What came of it, in words."""
        return text(
            "status.done",
            self.language,
            duration_s=recording.duration_s,
            elapsed_s=elapsed_s,
            real_time_factor=elapsed_s / max(recording.duration_s, 1e-9),
            segments=recording.segments,
            seed=self.request.seed,
        )


def in_words(step: Progress, language: str) -> str:
    """A step of the engine, or a place in the queue, in a language."""
    if isinstance(step, Queued):
        return text("status.queued", language, place=step.place, wait_s=step.wait_s)
    message = catalogue(language).get(f"progress.{step.message}", step.message)
    if not step.segments:
        return message
    return text("progress.segment", language, message=message, segment=step.segment + 1, segments=step.segments)


def shown_by(progress: gr.Progress, language: str) -> Callable[[Progress], None]:
    """What shows the engine's progress in a language."""

    def show(step: Progress) -> None:
        progress(step.fraction, desc=in_words(step, language))

    return show
