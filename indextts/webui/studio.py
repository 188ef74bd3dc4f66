"""Texts in rows, for the tabs of long texts and of dialogues: what happens when somebody does something with them.

The rows of a session live on the server (``narration``). Handlers answer with what changes on the page, by the names
of the widgets of a ``Board``.
"""

from __future__ import annotations

import secrets
import shutil
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr

from indextts.errors import Cancelled
from indextts.text.limits import MAX_TEXT_CHARACTERS
from indextts.text.pauses import MAX_PAUSE_S
from indextts.webui.exports import write_exports, write_joined
from indextts.webui.form import MAX_SEED, FormValues, whole
from indextts.webui.gathering import gathered
from indextts.webui.i18n import PageError, language_of, text
from indextts.webui.narration import Narration, Row, Sessions
from indextts.webui.narrator import Ask, Job, Narrator
from indextts.webui.page import Page, readable_errors
from indextts.webui.studio_run import StudioRun
from indextts.webui.studio_text import MISSING, PART_ROWS, parts, standing, summary, table_value, texts_by_name

MAX_BATCH = 64
STEP_S = 0.5
"""How often the page changes at most: browsers are slower than graphics cards."""

Values = dict[str, Any]
"""Those of the form, and of the widgets of the tab."""

Changes = dict[str, Any]
"""New values of widgets, by their names."""


class Studio:
    """The rows of every session of one tab.

    Args:
        folder: Where the takes of all sessions go, in a folder that goes when the program ends.
        read: Brings the rows of a narration in line with the widgets. Raises ``UnusableText`` or ``PageError``.
        ask: How the rows shall be spoken. Raises ``IndexTTSError``.
        with_speakers: Whether the table shows who says what.
    """

    def __init__(
        self,
        page: Page,
        folder: Path,
        read: Callable[[Narration, Values], None],
        ask: Callable[[Narration, Values], Ask],
        with_speakers: bool = False,
    ) -> None:
        self.page = page
        self.read = read
        self.ask = ask
        self.with_speakers = with_speakers
        folder = folder / f"narrations-{secrets.token_hex(16)}"
        self.sessions = Sessions(lambda: Narration(folder / secrets.token_hex(16)), Narration.close)
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)  # pages may be open when the server ends

    # ------------------------------------------------------------------------------------------- looking, changing

    def refresh(self, http: gr.Request, **values: Any) -> Changes:
        """The text, or how it shall be cut, has changed."""
        language, narration = language_of(http), self.sessions.of(http.session_hash)
        try:
            with readable_errors(language):
                self.update(narration, values)
        except gr.Error as error:  # shown under the text while it is being typed, and not in the way
            return {"summary": error.message}
        return self.refreshed(http)

    def refreshed(self, http: gr.Request) -> Changes:
        """The rows as they are."""
        language, narration = language_of(http), self.sessions.of(http.session_hash)
        return {"summary": summary(narration, language), **self.table(narration, language)}

    def update(self, narration: Narration, values: Values) -> None:
        """Bring the rows in line with the widgets. Raises ``PageError``."""
        if len(values["text"] or "") > MAX_TEXT_CHARACTERS:
            raise PageError("error.text_too_long", limit=f"{MAX_TEXT_CHARACTERS:,}")
        narration.between_ms = whole("interval_silence_ms", values["interval_silence_ms"], 0, 1000 * int(MAX_PAUSE_S))
        with texts_by_name():
            self.read(narration, values)

    def table(self, narration: Narration, language: str) -> Changes:
        """The shown part of the table, and which one it is."""
        count = parts(narration)
        narration.part = min(max(1, narration.part), count)
        slider = gr.update(value=narration.part, maximum=max(2, count), visible=count > 1)
        return {"table": table_value(narration, language, self.with_speakers), "part": slider}

    def show_part(self, http: gr.Request, part: float | None) -> Changes:
        """Another part of the table."""
        narration = self.sessions.of(http.session_hash)
        narration.part = int(part or 1)
        return {"table": self.table(narration, language_of(http))["table"]}

    def show_row(self, http: gr.Request, number: float | None) -> Changes:
        """One row, to be looked at and changed."""
        narration = self.sessions.of(http.session_hash)
        index = index_of(narration, number)
        if index is None:
            return {"row_text": "", "row_pause": 0, "heard": None}
        row = narration.rows[index]
        heard = str(row.take.path) if row.take else None
        return {"row_text": row.text, "row_pause": narration.pause_ms(index), "heard": heard}

    def change_row(
        self, http: gr.Request, number: float | None, row_text: str | None, row_pause: float | None
    ) -> Changes:
        """Keep what a user has made of a row."""
        language, narration = language_of(http), self.sessions.of(http.session_hash)
        with readable_errors(language):
            change(narration, number, row_text, row_pause)
            return {"summary": summary(narration, language), **self.outcome(narration, language)}

    def start_over(self, http: gr.Request) -> Changes:
        """Forget what was spoken, and what was changed."""
        language, narration = language_of(http), self.sessions.of(http.session_hash)
        with readable_errors(language), alone(narration):
            for row in narration.rows:
                narration.drop(row)
                row.text, row.own_pause_ms = row.source, None
            return {"summary": summary(narration, language), **self.outcome(narration, language)}

    # ---------------------------------------------------------------------------------------------------- speaking

    def speak(self, http: gr.Request, **values: Any) -> Iterator[Changes]:
        """Speak what is not spoken yet."""
        language, narration = language_of(http), self.sessions.of(http.session_hash)
        with readable_errors(language), alone(narration):
            self.update(narration, values)
            narrator = self.narrator(narration, values, http.session_hash or "")
            jobs = missing(narration, FormValues(**form_values(values)).chosen_seed())
            yield from self.run(narration, narrator, jobs, language)

    def speak_row(
        self,
        http: gr.Request,
        number: float | None,
        row_text: str | None,
        row_pause: float | None,
        row_seed: str | None,
        **values: Any,
    ) -> Iterator[Changes]:
        """Speak one row anew, as it has been changed, with a seed of its own."""
        language, narration = language_of(http), self.sessions.of(http.session_hash)
        with readable_errors(language), alone(narration):
            row = change(narration, number, row_text, row_pause)
            if row.state == "silent":
                raise PageError("error.no_text")
            seed = FormValues(**{**form_values(values), "seed": row_seed}).chosen_seed()
            narrator = self.narrator(narration, values, http.session_hash or "")
            yield from self.run(narration, narrator, [Job(row, seed)], language)

    def narrator(self, narration: Narration, values: Values, client: str) -> Narrator:
        """What speaks with the settings of the form. Raises ``IndexTTSError``."""
        batch_size = whole("batch_size", values["batch_size"], 1, MAX_BATCH)
        return Narrator(self.page.service, client, narration, self.ask(narration, values), batch_size)

    def run(self, narration: Narration, narrator: Narrator, jobs: Sequence[Job], language: str) -> Iterator[Changes]:
        """Speak, and show what becomes of it."""
        run = StudioRun(narration, jobs, language)
        narration.part = narration.rows.index(jobs[0].row) // PART_ROWS + 1
        yield {
            "status": text("status.starting", language),
            "live": [],
            "result": None,
            "files": gr.update(value=None, visible=False),
        }
        shown = None
        try:
            for events in gathered(narrator.speak(jobs), narration.stop, STEP_S):
                changes = run.changes(events)
                table = self.table(narration, language)
                if table != shown:
                    shown = table
                    changes |= table
                if changes:
                    yield changes
        except Exception as error:
            if narration.closed:  # nobody sees it; its files have gone, perhaps while one was being written
                return
            yield self.outcome(narration, language)  # rows that were being spoken are not any more
            if not isinstance(error, Cancelled):
                raise
            yield {"status": text("status.cancelled", language)}
        else:
            yield {**self.outcome(narration, language), "status": run.ended()}
        finally:
            if narration.closed:
                narration.close()  # once more: something may have been written meanwhile

    def cancel(self, http: gr.Request) -> Changes:
        """Stop the session's run at its next opportunity."""
        self.sessions.of(http.session_hash).stop.set()
        return {"status": text("status.cancelled", language_of(http))}

    # -------------------------------------------------------------------------------------------------- taking away

    def outcome(self, narration: Narration, language: str) -> Changes:
        """The table, what is ready, and how it sounds together."""
        whole_sound = None
        if narration.spoken:
            folder = narration.folder / "joined"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            whole_sound = str(write_joined(narration, folder / f"{secrets.token_hex(4)}.wav"))
        return {**self.table(narration, language), "status": standing(narration, language), "result": whole_sound}

    def export(self, http: gr.Request, audio_format: str) -> Changes:
        """The files to take away."""
        language, narration = language_of(http), self.sessions.of(http.session_hash)
        with readable_errors(language):
            shutil.rmtree(narration.folder / "files", ignore_errors=True)
            folder = narration.folder / "files" / secrets.token_hex(4)
            files = [str(path) for path in write_exports(narration, folder, audio_format)]
            return {"files": gr.update(value=files, visible=True), "status": standing(narration, language)}


@contextmanager
def alone(narration: Narration) -> Iterator[None]:
    """Be the only one that speaks rows of ``narration``. Raises ``PageError`` while somebody else does."""
    if not narration.busy.acquire(blocking=False):
        raise PageError("error.still_speaking")
    try:
        if not narration.closed:
            narration.stop.clear()
        yield
    finally:
        narration.busy.release()


def change(narration: Narration, number: float | None, row_text: str | None, row_pause: float | None) -> Row:
    """Give a row the text and the pause behind it that a user has typed. Raises ``PageError``."""
    index = index_of(narration, number)
    if index is None:
        raise PageError("error.no_row", rows=len(narration.rows))
    row = narration.rows[index]
    pause_ms = whole("pause", row_pause or 0, 0, 1000 * int(MAX_PAUSE_S))
    if pause_ms != narration.pause_ms(index):
        row.own_pause_ms = pause_ms
    row.text = " ".join((row_text or "").split())
    row.error = None
    return row


def index_of(narration: Narration, number: float | None) -> int | None:
    """Where the row is that has a number; None if there is none."""
    index = int(number or 0) - 1
    return index if 0 <= index < len(narration.rows) else None


def missing(narration: Narration, seed: int) -> list[Job]:
    """What is still to be spoken, and with which seeds: ``seed`` for the first row, the next one for the next.

    Raises:
        PageError: there is nothing.
    """
    jobs = [Job(row, (seed + i) % (MAX_SEED + 1)) for i, row in enumerate(narration.rows) if row.state in MISSING]
    if not jobs:
        raise PageError("error.all_spoken" if narration.spoken else "error.no_text")
    return jobs


def form_values(values: Values) -> Values:
    """Those among ``values`` that belong to the form; what has no widget is empty.

    Raises:
        PageError: they say how many seconds all shall last, but each row is a speech of its own.
    """
    if str(values.get("duration_s") or "").strip():
        raise PageError("error.duration_of_rows")
    names = FormValues.__dataclass_fields__
    return {"voice": None, "text": None, **{name: value for name, value in values.items() if name in names}}
