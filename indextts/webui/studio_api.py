"""Long texts and dialogues for programs: all of a text at once, with what was heard when."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from indextts.webui.downloads import check_format
from indextts.webui.exports import write_exports
from indextts.webui.form import FormValues
from indextts.webui.gathering import gathered
from indextts.webui.i18n import choice_text, language_of
from indextts.webui.narration import Narration
from indextts.webui.page import Fields, Page, message_of, readable_errors, sentence
from indextts.webui.studio import Studio, Values, form_values, missing

STEP_S = 1.0
"""How often a program is told how far its text is, and may cancel it."""

Answer = tuple[str | None, dict[str, Any], str | None, str | None, str | None]
"""Sound, what is in it, SRT, LRC, and ZIP of the segments; while it is being spoken, only how far it is."""


def connect_endpoint(page: Page, name: str, handler: Any, inputs: Fields) -> None:
    """Make ``handler`` the endpoint ``/name``."""
    outputs = [
        gr.Audio(visible=False, label="audio"),
        gr.JSON(visible=False, label="info"),
        *(gr.File(visible=False, label=label) for label in ("srt", "lrc", "segments_zip")),
    ]
    gr.Button(visible=False).click(
        handler,
        inputs_kwargs=inputs,
        outputs=outputs,
        api_name=name,
        api_description=choice_text("api", name),
        **page.speaking,
    )


def answers(
    studio: Studio, http: gr.Request, values: Values, audio_format: str, cast: dict[str, str] | None = None
) -> Iterator[Answer]:
    """Speak a text to its end; the last answer has all of it. Raises ``gr.Error``, also if no segment was spoken."""
    language = language_of(http)
    with readable_errors(language), tempfile.TemporaryDirectory() as folder:
        check_format(audio_format)
        narration = Narration(Path(folder) / "takes")
        narration.cast |= cast or {}
        studio.update(narration, values)
        seed = FormValues(**form_values(values)).chosen_seed()
        jobs = missing(narration, seed)
        events = studio.narrator(narration, values, http.session_hash or "").speak(jobs)
        for _ in gathered(events, narration.stop, STEP_S):
            yield None, {"ready": len(narration.spoken), "segments": len(narration.rows)}, None, None, None
        if not narration.spoken:
            raise next(row.error for row in narration.rows if row.error)
        sound, zipped, srt, lrc = map(str, write_exports(narration, Path(folder) / "files", audio_format))
        yield (
            sound,
            {"seed": seed, "model": studio.page.facts.model_name, **contents(narration, language)},
            srt,
            lrc,
            zipped,
        )


def contents(narration: Narration, language: str) -> dict[str, Any]:
    """What is heard when, as plain data."""
    times = {index: cue for (index, _, _), cue in zip(narration.spoken, narration.cues(), strict=True)}
    segments = []
    for index, row in enumerate(narration.rows):
        segment: dict[str, Any] = {"index": index, "text": row.text}
        if row.speaker:
            segment |= {"line": row.line, "speaker": row.speaker, "voice": narration.cast.get(row.speaker)}
        if index in times and row.take:
            times_s = {"start_s": round(times[index].start_s, 3), "end_s": round(times[index].end_s, 3)}
            segment |= {**times_s, "pause_ms": narration.pause_ms(index), "seed": row.take.seed}
        if row.error:
            segment["error"] = sentence(message_of(row.error, language))
        segments.append(segment)
    rate_hz = narration.sample_rate_hz
    frames = sum(map(len, narration.blocks()))
    return {
        "duration_s": round(frames / rate_hz, 3),
        "sample_rate_hz": rate_hz,
        "failed": sum("error" in segment for segment in segments),
        "segments": segments,
    }
