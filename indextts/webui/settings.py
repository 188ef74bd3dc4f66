"""The settings under all tabs: segments, seed and sampling, ranges and defaults from the model; and the glossary."""

from __future__ import annotations

import gradio as gr

from indextts.types import DURATION_FACTORS
from indextts.webui.form import MAX_SILENCE_MS
from indextts.webui.page import Page

GLOSSARY_KEY = "indextts_glossary"
"""Where a browser keeps its user's glossary. As a secret, it only makes that unreadable at a glance."""

SAMPLING_ROWS = [
    ("temperature", "top_p", "top_k"),
    ("num_beams", "repetition_penalty", "length_penalty"),
    ("max_mel_tokens", "typical_mass"),
    ("do_sample", "typical_sampling"),
]


def build(page: Page) -> None:
    """The widgets; the button ``seed.keep`` is connected by the tab that knows the last seed."""
    make, fields, limit = page.make, page.fields, page.facts.max_text_tokens
    with make(gr.Accordion, "settings", open=False):
        make(gr.Markdown, "settings.segments")
        with gr.Row():
            fields["max_text_tokens_per_segment"] = make(
                gr.Slider, "max_text_tokens_per_segment", min(20, limit), limit, value=min(120, limit), step=2
            )
            fields["interval_silence_ms"] = make(
                gr.Slider, "interval_silence_ms", 0, MAX_SILENCE_MS, value=200, step=50
            )
            with gr.Column(min_width=200):
                fields["seed"] = make(gr.Textbox, "seed", max_lines=1)
                fields["seed.keep"] = make(gr.Button, "seed.keep", size="sm")
        with gr.Row():
            fields["duration_factor"] = make(gr.Slider, "duration_factor", *DURATION_FACTORS, value=1.0, step=0.05)
            fields["duration_s"] = make(gr.Textbox, "duration_s", max_lines=1)
            fields["repair"] = make(gr.Checkbox, "repair", value=True)
        make(gr.Markdown, "settings.sampling")
        sampling_widgets(page)
    # Not in the tab that shows them: what is in a tab comes to life when that is opened.
    fields["glossary"] = gr.JSON({}, visible=False, label="glossary")
    fields["glossary.kept"] = gr.BrowserState(None, storage_key=GLOSSARY_KEY, secret=GLOSSARY_KEY)


def sampling_widgets(page: Page) -> None:
    """One widget for each field of ``SamplingParams``."""
    defaults, longest = page.facts.sampling_defaults, page.facts.max_mel_tokens
    sliders = {
        "temperature": (0.1, 2.0, 0.1),
        "top_p": (0.0, 1.0, 0.01),
        "top_k": (0, 100, 1),
        "num_beams": (1, 10, 1),
        "repetition_penalty": (0.1, 20.0, 0.1),
        "length_penalty": (-2.0, 2.0, 0.1),
        "max_mel_tokens": (min(50, longest), longest, 10),
        "typical_mass": (0.0, 1.0, 0.01),
    }
    for row in SAMPLING_ROWS:
        with gr.Row():
            for name in row:
                value = getattr(defaults, name)
                if name in sliders:
                    low, high, step = sliders[name]
                    page.fields[name] = page.make(
                        gr.Slider, name, low, high, value=min(value, high), step=step, min_width=200
                    )
                else:
                    page.fields[name] = page.make(gr.Checkbox, name, value=value, min_width=200)
