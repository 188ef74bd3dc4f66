"""The tab for a script with several voices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from indextts.emotion import EMOTIONS, normalize_emo_vec
from indextts.errors import VoiceNotFound
from indextts.text.script import Script, read_script
from indextts.types import FromVector, SynthesisRequest
from indextts.voices import LibraryVoice
from indextts.webui.board import Board
from indextts.webui.i18n import PageError, language_of
from indextts.webui.narration import Narration, Row
from indextts.webui.narrator import Ask
from indextts.webui.page import QUIET, Page, readable_errors
from indextts.webui.studio import Studio, Values, form_values
from indextts.webui.studio_api import Answer, answers, connect_endpoint
from indextts.webui.studio_text import texts_by_name

MAX_SPEAKERS = 8

Cast = dict[str, str]
"""Names of voices of the library by names of speakers."""


class Dialogue:
    """How a script becomes rows, and how they are spoken."""

    def __init__(self, page: Page, folder: Path) -> None:
        """Args: folder: See ``Studio``."""
        self.page = page
        self.studio = Studio(page, folder, self.read, self.ask, with_speakers=True)

    def read(self, narration: Narration, values: Values) -> None:
        """See ``Studio``."""
        script = read_dialogue(values["text"])
        narration.paragraph_ms = narration.between_ms
        rows = [
            Row.of(said.text, speaker=said.speaker, emotion=said.emotion, line=said.line, asked_pause_ms=said.pause_ms)
            for said in script.utterances
        ]
        narration.recut(rows, script.lead_ms)
        narration.cast |= self.cast(script.speakers, narration.cast)

    def cast(self, speakers: Sequence[str], known: Mapping[str, str]) -> Cast:
        """A voice for each speaker: the one that is known, or the next of the library that nobody has."""
        voices = [voice.name for voice in self.page.library.voices()]
        cast = {speaker: known[speaker] for speaker in speakers if speaker in known}
        for speaker in speakers:
            if voices and speaker not in cast:
                taken = [*cast.values()]
                cast[speaker] = min(voices, key=taken.count)  # the first of those that the fewest have
        return cast

    def ask(self, narration: Narration, values: Values) -> Ask:
        """See ``Studio``: each row in the voice of its speaker, with the emotion of its line or else of the form.

        Raises:
            PageError: a speaker has no voice, or one that is not there any more.
        """
        form = form_values(values)
        requests: dict[Any, SynthesisRequest] = {}
        for row in narration.rows:
            if (row.speaker, ()) not in requests:
                voice = self.voice(row, narration.cast.get(row.speaker))
                requests[row.speaker, ()] = self.page.request({**form, "voice": str(voice.path), "text": row.source})
            if (row.speaker, row.emotion) not in requests:
                request = requests[row.speaker, ()]
                requests[row.speaker, row.emotion] = replace(request, emotion=emotion_of(row.emotion))
        return lambda row: requests[row.speaker, row.emotion]

    def endpoint(
        self,
        http: gr.Request,
        *,
        script: str | None = None,
        voices: Cast | None = None,
        emotion_audio: str | None = None,
        emotion_text: str | None = None,
        seed: str | float | None = None,
        duration_s: str | float | None = None,
        audio_format: str = "wav",
        **values: Any,
    ) -> Iterator[Answer]:
        """``/dialogue``: see its description. Parameters are spelled out as in ``Endpoints.synthesize``."""
        values |= {"text": script, "seed": seed, "duration_s": duration_s}
        values |= {"emotion_audio": emotion_audio, "emotion_text": emotion_text}
        with readable_errors(language_of(http)), texts_by_name():
            cast = cast_by_spelling(voices or {}, read_dialogue(script).speakers)
        yield from answers(self.studio, http, values, audio_format, cast)

    def voice(self, row: Row, voice: str | None) -> LibraryVoice:
        """The voice that speaks a row."""
        if not voice:
            raise PageError("error.speaker_without_voice", line=row.line, speaker=row.speaker)
        try:
            return self.page.library.get(voice)
        except VoiceNotFound as error:
            raise PageError("error.voice_gone", line=row.line, speaker=row.speaker, voice=voice) from error


def read_dialogue(written: str | None) -> Script:
    """The script. Raises ``UnusableText``, and ``PageError`` if more speak than the page has widgets for."""
    if not (written or "").strip():
        return Script(())
    script = read_script(written or "", EMOTIONS)
    if len(script.speakers) > MAX_SPEAKERS:
        line = next(said.line for said in script.utterances if said.speaker == script.speakers[MAX_SPEAKERS])
        raise PageError("error.too_many_speakers", line=line, limit=MAX_SPEAKERS, speaker=script.speakers[MAX_SPEAKERS])
    return script


def cast_by_spelling(voices: Cast, speakers: Sequence[str]) -> Cast:
    """``voices`` by the names as the script spells them.

    Raises:
        PageError: they are no names of voices by names, or name somebody who is not in the script.
    """
    if not isinstance(voices, dict) or not all(isinstance(voice, str) for voice in voices.values()):
        raise PageError("error.voices")
    spelling = {speaker.casefold(): speaker for speaker in speakers}
    for name in voices:
        if name.casefold() not in spelling:
            raise PageError("error.unknown_speaker", speaker=name)
    return {spelling[name.casefold()]: voice for name, voice in voices.items()}


def emotion_of(weights: Sequence[tuple[str, float]]) -> FromVector:
    """The emotion of a line; it counts in full."""
    values = dict(weights)
    return FromVector(normalize_emo_vec([values.get(name, 0.0) for name in EMOTIONS]))


class CastWidgets:
    """A widget for the voice of each speaker, under the speaker's name."""

    def __init__(self, page: Page, studio: Studio) -> None:
        self.page = page
        self.studio = studio
        with gr.Row():
            # Their labels are names: they are the same in every language.
            self.widgets = [gr.Dropdown(visible=False, min_width=160, elem_classes="cast") for _ in range(MAX_SPEAKERS)]

    def shown(self, http: gr.Request) -> list[Any]:
        """The widgets of the session's speakers, with the voices that there are now."""
        narration = self.studio.sessions.of(http.session_hash)
        voices = [voice.name for voice in self.page.library.voices()]
        speakers = list(dict.fromkeys(row.speaker for row in narration.rows))
        updates = []
        for speaker in speakers[:MAX_SPEAKERS]:
            chosen = narration.cast.get(speaker)
            value = chosen if chosen in voices else None
            updates.append(gr.update(label=speaker, choices=voices, value=value, visible=True))
        return [*updates, *[gr.update(visible=False)] * (MAX_SPEAKERS - len(updates))]

    def choosing(self, number: int) -> Callable[..., dict[str, Any]]:
        """What gives a speaker another voice; what was spoken in the former one is to be spoken again."""

        def choose(http: gr.Request, voice: str | None) -> dict[str, Any]:
            narration = self.studio.sessions.of(http.session_hash)
            speakers = list(dict.fromkeys(row.speaker for row in narration.rows))
            if voice and number < len(speakers):
                narration.cast[speakers[number]] = voice
                for row in narration.rows:
                    row.outdated = row.outdated or (row.speaker == speakers[number] and row.take is not None)
            return self.studio.refreshed(http)

        return choose

    def connect(self, board: Board, tab: gr.Tab) -> None:
        """Follow the script, the library, and the user."""
        for event in (board.refreshed.then, tab.select):
            event(self.shown, None, self.widgets, **QUIET)
        for number, widget in enumerate(self.widgets):
            board.on(widget.input, self.choosing(number), ["summary", "table", "part"], [widget])


def build(page: Page) -> Callable[[], None]:
    """The tab's widgets; see the package."""
    make = page.make
    with make(gr.Tab, "tab.dialogue", id="dialogue") as tab:
        script = make(gr.Textbox, "dialogue.script", lines=10, max_lines=20, elem_id="dialogue_script")
        dialogue = Dialogue(page, Path(script.GRADIO_CACHE))
        cast = CastWidgets(page, dialogue.studio)
        widths = [48, 130, 60, 100, 120, 300, 100, 100]
        board = Board(page, dialogue.studio, "dialogue", "dialogue.table", widths)

    def connect() -> None:
        board.connect({"text": script, "interval_silence_ms": page.fields["interval_silence_ms"]})
        cast.connect(board, tab)
        form = {name: widget for name, widget in page.form().items() if name not in ("text", "voice")}
        own = {
            "script": script,
            "voices": gr.JSON(visible=False, label="voices"),
            "batch_size": board.batch_size,
            "audio_format": gr.Textbox("wav", visible=False, label="audio_format"),
        }
        connect_endpoint(page, "dialogue", dialogue.endpoint, {**form, **own})

    return connect
