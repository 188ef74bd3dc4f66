"""What programs use through ``gradio_client``: endpoints with stable names and documented types."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import gradio as gr
from gradio.events import api

from indextts import __version__
from indextts.emotion import EMOTIONS
from indextts.text.glossary import NO_TERMS, Glossary
from indextts.webui import voice_library
from indextts.webui.downloads import check_format, save_speech
from indextts.webui.form import whole
from indextts.webui.glossary import glossary_of
from indextts.webui.i18n import PageError, choice_text, language_of, text
from indextts.webui.page import Fields, Page, readable_errors


class Endpoints:
    """The named API of the page."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def connect(self) -> None:
        """Add the endpoints. The form's widgets give ``/synthesize`` its parameters and their defaults."""
        recording = gr.Audio(visible=False, type="filepath", label="recording")
        more: Fields = {
            "voice_name": gr.Textbox(visible=False, label="voice_name"),
            "audio_format": gr.Textbox("wav", visible=False, label="audio_format"),
        }
        trigger = gr.Button(visible=False)
        trigger.click(
            self.synthesize,
            inputs_kwargs=self.page.form() | more,
            outputs=[gr.Audio(visible=False, label="audio"), gr.JSON(visible=False, label="info")],
            api_name="synthesize",
            api_description=text("api.synthesize"),
            **self.page.speaking,
        )
        for handler, inputs in (
            (self.save_voice, [gr.Textbox(visible=False, label="name"), recording]),
            (self.examine, [recording]),
        ):
            name = handler.__name__
            output = gr.JSON(visible=False, label="result")
            trigger.click(handler, inputs, output, api_name=name, api_description=choice_text("api", name))
        for handler in (self.segment, self.info, self.voices, self.rename_voice, self.delete_voice):
            name = handler.__name__
            api(handler, api_name=name, api_description=choice_text("api", name))
        api(
            self.emotion_from_text,
            api_name="emotion_from_text",
            api_description=text("api.emotion_from_text"),
            **self.page.speaking,
        )

    def synthesize(
        self,
        http: gr.Request,
        *,
        voice: str | None = None,
        voice_name: str | None = None,
        emotion_audio: str | None = None,
        emotion_text: str | None = None,
        seed: str | float | None = None,
        duration_s: str | float | None = None,
        audio_format: str = "wav",
        **values: Any,
    ) -> tuple[str, dict[str, Any]]:
        """The whole speech at once, and how it came about.

        Only parameters whose widget starts empty are spelled out: they are optional by their default here, all
        others by the value of their widget.
        """
        values |= {"emotion_audio": emotion_audio, "emotion_text": emotion_text}
        values |= {"seed": seed, "duration_s": duration_s}
        with readable_errors(language_of(http)):
            check_format(audio_format)
            if voice and voice_name:
                raise PageError("error.two_voices")
            known = self.page.library.get(voice_name) if voice_name else None
            request = self.page.request({"voice": str(known.path) if known else voice, **values})
            result = self.page.service.synthesize(request, http.session_hash or "")
            name, cache = f"indextts-seed{result.seed}", self.page.fields["voice"].GRADIO_CACHE
            path = save_speech(result.samples, result.sample_rate_hz, audio_format, name, cache)
        return path, {
            "seed": result.seed,
            "duration_s": round(result.duration_s, 3),
            "sample_rate_hz": result.sample_rate_hz,
            "segments": result.segments,
            "real_time_factor": round(result.real_time_factor, 3),
            "timings": asdict(result.timings),
            "warnings": list(result.warnings),
            "duration_by": result.duration_by,
            "read_emotion": None if result.read_emotion is None else asdict(result.read_emotion),
            "model": self.page.facts.model_name,
        }

    def segment(
        self,
        http: gr.Request,
        text: str,
        max_text_tokens_per_segment: int = 120,
        glossary: dict[str, Any] | None = None,
    ) -> list[dict[str, Any]]:
        """The segments of ``text`` as plain data."""
        with readable_errors(language_of(http)):
            return segments_of(self.page, text, max_text_tokens_per_segment, glossary_of(glossary))

    def info(self) -> dict[str, Any]:
        """The model, its limits and defaults, and what is accelerated."""
        facts = self.page.facts
        return {
            "model": facts.model_name,
            "version": __version__,
            "text_emotion_model": facts.text_emotion_model,
            "device": facts.report.device,
            "acceleration": [asdict(entry) for entry in facts.report.entries],
            "sampling_defaults": asdict(facts.sampling_defaults),
            "max_text_tokens_per_segment": facts.max_text_tokens,
            "max_mel_tokens": facts.max_mel_tokens,
        }

    def emotion_from_text(self, http: gr.Request, text: str) -> dict[str, float]:
        """The eight weights of the emotion that ``text`` expresses."""
        with readable_errors(language_of(http)):
            return emotion_of(self.page, text, http.session_hash or "")

    def voices(self, http: gr.Request, search: str = "") -> list[dict[str, Any]]:
        """The voices of the library whose name holds ``search``."""
        with readable_errors(language_of(http)):
            return voice_library.listed(self.page.library, search)

    def save_voice(self, name: str, recording: str, http: gr.Request) -> dict[str, Any]:
        """Keep a recording in the library; returns the name under which it is kept."""
        with readable_errors(language_of(http)):
            return {"name": voice_library.save(self.page.library, name, recording)}

    def rename_voice(self, http: gr.Request, name: str, new_name: str) -> dict[str, Any]:
        """Give a voice of the library another name."""
        with readable_errors(language_of(http)):
            return {"name": voice_library.rename(self.page.library, name, new_name)}

    def delete_voice(self, http: gr.Request, name: str) -> dict[str, Any]:
        """Remove a voice of the library for good."""
        with readable_errors(language_of(http)):
            voice_library.delete(self.page.library, name)
            return {"deleted": name}

    def examine(self, recording: str, http: gr.Request) -> dict[str, Any]:
        """Whether a recording is a good prompt."""
        from indextts.prompts import examine  # needs torch

        with readable_errors(language_of(http)):
            if not recording:
                raise PageError("error.no_voice")
            prompt = examine(recording)
        return {
            "recorded_s": round(prompt.recorded_s, 3),
            "used_s": round(prompt.duration_s, 3),
            "flaws": list(prompt.flaws),
        }


def emotion_of(page: Page, written: str, client: str) -> dict[str, float]:
    """The eight weights of the emotion that a text expresses. Raises ``PageError`` where nobody can tell."""
    if page.facts.text_emotion_model is None:
        raise PageError("error.no_emotion_model")
    if not written.strip():
        raise PageError("error.no_description")
    return dict(zip(EMOTIONS, page.service.emotion_from_text(written, client), strict=True))


def segments_of(page: Page, text: str, max_tokens: float, glossary: Glossary = NO_TERMS) -> list[dict[str, Any]]:
    """The segments of ``text`` as plain data. Raises ``TextError`` or ``PageError`` if nothing can be spoken."""
    if not text.strip():
        raise PageError("error.no_text")
    segments = page.service.segment(text, whole("max_text_tokens_per_segment", max_tokens), glossary)
    return [{"index": s.index, "text": s.text, "tokens": s.token_count} for s in segments]
