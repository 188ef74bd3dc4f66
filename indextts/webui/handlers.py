"""What happens when something on the page is used. One ``Handlers`` per app; no state but the runs under way."""

from __future__ import annotations

import logging
import tempfile
import threading
import time
import wave
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np

from indextts import __version__
from indextts.errors import Cancelled, IndexTTSError, TextError
from indextts.types import AudioChunk, Progress
from indextts.webui import strings
from indextts.webui.form import FormValues, whole

if TYPE_CHECKING:
    from indextts.service import Service

logger = logging.getLogger(__name__)

LIVE_CHUNKS = 8  # how many recent chunks the page is told of at a time; it plays each of them once


class Handlers:
    """The page's actions on the shared service; several users run side by side."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.stop_by_session: dict[str, threading.Event] = {}

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
        yield [], None, strings.STATUS_STARTING, gr.skip()
        try:
            yield from self._speak(http.session_hash, progress, values)
        except gr.Error as error:
            yield gr.skip(), gr.skip(), strings.STATUS_FAILED.format(reason=error.message), gr.skip()
            raise

    def _speak(
        self, session: str | None, progress: gr.Progress, values: dict[str, Any]
    ) -> Iterator[tuple[Any, Any, Any, Any]]:
        with readable_errors(), self.stoppable(session) as stop, tempfile.TemporaryDirectory() as folder:
            request = FormValues(**values).request()
            started = time.perf_counter()

            def show(step: Progress) -> None:
                text = strings.PROGRESS_SEGMENT if step.segments else strings.PROGRESS
                progress(
                    step.fraction,
                    desc=text.format(message=step.message, segment=step.segment + 1, segments=step.segments),
                )

            recording = Recording(Path(folder), f"indextts-seed{request.seed}.wav")
            live: deque[str] = deque(maxlen=LIVE_CHUNKS)
            try:
                for chunk in self.service.stream(request, session or "", show, stop.is_set):
                    live.append(str(recording.add(chunk)))
                    status = strings.STATUS_SEGMENT.format(
                        segment=chunk.segment + 1, segments=chunk.segments, duration_s=recording.duration_s
                    )
                    yield list(live), gr.skip(), status, gr.skip()
            except Cancelled:
                yield gr.skip(), gr.skip(), strings.STATUS_CANCELLED, gr.skip()
                return
            finally:
                recording.close()
            elapsed_s = time.perf_counter() - started
            status = strings.STATUS_DONE.format(
                duration_s=recording.duration_s,
                elapsed_s=elapsed_s,
                real_time_factor=elapsed_s / max(recording.duration_s, 1e-9),
                segments=recording.segments,
                seed=request.seed,
            )
            yield gr.skip(), str(recording.path), status, request.seed

    def cancel(self, http: gr.Request) -> str:
        """Stop the session's run at its next opportunity."""
        self.forget(http)
        return strings.STATUS_CANCELLED

    def forget(self, http: gr.Request) -> None:
        """The same, without an answer: the page was closed."""
        if stop := self.stop_by_session.get(http.session_hash or ""):
            stop.set()

    @contextmanager
    def stoppable(self, session: str | None) -> Iterator[threading.Event]:
        """An event that ``cancel`` of the same browser session sets; set as well when the run is dropped."""
        stop, key = threading.Event(), session or ""
        self.stop_by_session[key] = stop
        try:
            yield stop
        finally:
            stop.set()
            if self.stop_by_session.get(key) is stop:
                del self.stop_by_session[key]

    def synthesize(
        self,
        http: gr.Request,
        *,
        emotion_audio: str | None = None,
        emotion_text: str | None = None,
        seed: str | float | None = None,
        **values: Any,
    ) -> tuple[tuple[int, np.ndarray], dict[str, Any]]:
        """The named API: the whole speech at once, and how it came about.

        Only parameters whose widget starts empty are spelled out: they are optional by their default here, all
        others by the value of their widget.
        """
        values |= {"emotion_audio": emotion_audio, "emotion_text": emotion_text, "seed": seed}
        with readable_errors():
            result = self.service.synthesize(FormValues(**values).request(), http.session_hash or "")
        return (result.sample_rate_hz, result.samples), {
            "seed": result.seed,
            "duration_s": round(result.duration_s, 3),
            "sample_rate_hz": result.sample_rate_hz,
            "segments": result.segments,
            "real_time_factor": round(result.real_time_factor, 3),
            "timings": asdict(result.timings),
            "warnings": list(result.warnings),
            "model": self.service.facts.model_name,
        }

    def preview(self, text: str | None, max_tokens: float | None) -> list[list[Any]]:
        """The table of segments under the text; empty while there is nothing to cut."""
        try:
            return [[s["index"] + 1, s["text"], s["tokens"]] for s in self.segment(text or "", max_tokens or 0)]
        except TextError:
            return []

    def segment(self, text: str, max_text_tokens_per_segment: float) -> list[dict[str, Any]]:
        """The segments of ``text`` as plain data. Raises ``TextError`` if nothing can be spoken."""
        if not text.strip():
            raise TextError(strings.ERROR_NO_TEXT)
        segments = self.service.segment(text, whole("max_text_tokens_per_segment", max_text_tokens_per_segment))
        return [{"index": s.index, "text": s.text, "tokens": s.token_count} for s in segments]

    def segment_endpoint(self, text: str, max_text_tokens_per_segment: int = 120) -> list[dict[str, Any]]:
        """The named API: ``segment`` with readable errors."""
        with readable_errors():
            return self.segment(text, max_text_tokens_per_segment)

    def info(self) -> dict[str, Any]:
        """The model, its limits and defaults, and what is accelerated."""
        facts = self.service.facts
        return {
            "model": facts.model_name,
            "version": __version__,
            "device": facts.report.device,
            "acceleration": [asdict(entry) for entry in facts.report.entries],
            "sampling_defaults": asdict(facts.sampling_defaults),
            "max_text_tokens_per_segment": facts.max_text_tokens,
            "max_mel_tokens": facts.max_mel_tokens,
        }


class Recording:
    """Chunks as WAV files of their own, and the same samples growing in one file."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / name
        self.samples = 0
        self.sample_rate_hz = 1
        self.segments = 0
        self._chunks = 0
        self._whole: wave.Wave_write | None = None

    @property
    def duration_s(self) -> float:
        return self.samples / self.sample_rate_hz

    def add(self, chunk: AudioChunk) -> Path:
        """Append ``chunk``; returns the file of it alone."""
        if self._whole is None:
            self._whole = open_wav(self.path, chunk.sample_rate_hz)
        self._whole.writeframes(chunk.samples.tobytes())
        self.samples += len(chunk.samples)
        self.sample_rate_hz, self.segments = chunk.sample_rate_hz, chunk.segments
        alone = self.path.with_name(f"chunk{self._chunks:05d}.wav")
        self._chunks += 1
        with open_wav(alone, chunk.sample_rate_hz) as file:
            file.writeframes(chunk.samples.tobytes())
        return alone

    def close(self) -> None:
        """Finish the whole file."""
        if self._whole is not None:
            self._whole.close()


def open_wav(path: Path, sample_rate_hz: int) -> wave.Wave_write:
    """A mono 16-bit PCM file to write frames to."""
    file = wave.open(str(path), "wb")  # noqa: SIM115  the caller closes it
    file.setnchannels(1)
    file.setsampwidth(2)
    file.setframerate(sample_rate_hz)
    return file


def sentence(message: str) -> str:
    """An error message as a line for the page: with a capital letter."""
    return message[:1].upper() + message[1:]


@contextmanager
def readable_errors() -> Iterator[None]:
    """Errors raised on purpose become a message on the page; of bugs the page tells only that, the log the rest."""
    try:
        yield
    except IndexTTSError as error:
        logger.info("refused: %s", error)
        raise gr.Error(sentence(str(error)), print_exception=False) from error
    except gr.Error:
        raise
    except Exception as error:
        logger.exception("unexpected error while handling a request")
        message = strings.ERROR_UNEXPECTED.format(kind=type(error).__name__)
        raise gr.Error(message, print_exception=False) from error
