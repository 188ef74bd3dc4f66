"""The tab for settings under names, and how words are read."""

from __future__ import annotations

from collections.abc import Callable

import gradio as gr

from indextts.webui.page import Page


def build(page: Page) -> Callable[[], None]:
    """The tab's widgets; see the package."""
    with page.make(gr.Tab, "tab.presets", id="presets"):
        pass

    def connect() -> None:
        pass

    return connect
