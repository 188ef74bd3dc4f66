"""What programs use through ``gradio_client``: endpoints with stable names and documented types."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import gradio as gr
import numpy as np
from gradio.events import api

from indextts import __version__
from indextts.text.glossary import NO_TERMS, Glossary
from indextts.webui.form import FormValues, whole
from indextts.webui.glossary import glossary_of
from indextts.webui.i18n import PageError, language_of, text
from indextts.webui.page import Page, readable_errors


class Endpoints:
    """The named API of the page."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def connect(self) -> None:
        """Add the endpoints. The form's widgets give ``/synthesize`` its parameters and their defaults."""
        trigger = gr.Button(visible=False)
        trigger.click(
            self.synthesize,
            inputs_kwargs=self.page.form(),
            outputs=[gr.Audio(visible=False, label="audio"), gr.JSON(visible=False, label="info")],
            api_name="synthesize",
            api_description=text("api.synthesize"),
            **self.page.speaking,
        )
        api(self.segment, api_name="segment", api_description=text("api.segment"))
        api(self.info, api_name="info", api_description=text("api.info"))

    def synthesize(
        self,
        http: gr.Request,
        *,
        emotion_audio: str | None = None,
        emotion_text: str | None = None,
        seed: str | float | None = None,
        **values: Any,
    ) -> tuple[tuple[int, np.ndarray], dict[str, Any]]:
        """The whole speech at once, and how it came about.

        Only parameters whose widget starts empty are spelled out: they are optional by their default here, all
        others by the value of their widget.
        """
        values |= {"emotion_audio": emotion_audio, "emotion_text": emotion_text, "seed": seed}
        with readable_errors(language_of(http)):
            result = self.page.service.synthesize(FormValues(**values).request(), http.session_hash or "")
        return (result.sample_rate_hz, result.samples), {
            "seed": result.seed,
            "duration_s": round(result.duration_s, 3),
            "sample_rate_hz": result.sample_rate_hz,
            "segments": result.segments,
            "real_time_factor": round(result.real_time_factor, 3),
            "timings": asdict(result.timings),
            "warnings": list(result.warnings),
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
            "device": facts.report.device,
            "acceleration": [asdict(entry) for entry in facts.report.entries],
            "sampling_defaults": asdict(facts.sampling_defaults),
            "max_text_tokens_per_segment": facts.max_text_tokens,
            "max_mel_tokens": facts.max_mel_tokens,
        }


def segments_of(page: Page, text: str, max_tokens: float, glossary: Glossary = NO_TERMS) -> list[dict[str, Any]]:
    """The segments of ``text`` as plain data. Raises ``TextError`` or ``PageError`` if nothing can be spoken."""
    if not text.strip():
        raise PageError("error.no_text")
    segments = page.service.segment(text, whole("max_text_tokens_per_segment", max_tokens), glossary)
    return [{"index": s.index, "text": s.text, "tokens": s.token_count} for s in segments]
