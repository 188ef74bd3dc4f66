"""The last tab: the model, and how it is running."""

from __future__ import annotations

import html
from collections.abc import Callable

import gradio as gr

from indextts.webui.i18n import text
from indextts.webui.page import Page

COLUMNS = ("system.option", "system.asked", "system.runs", "system.why")


def build(page: Page) -> Callable[[], None]:
    """The tab's widgets; see the package."""
    with page.make(gr.Tab, "tab.system", id="system"):
        page.texts.html(lambda language: acceleration_table(page, language), elem_id="acceleration")

    def connect() -> None:
        pass

    return connect


def acceleration_table(page: Page, language: str) -> str:
    """The acceleration report: what was asked, what runs, and why."""
    facts = page.facts
    rows = [(entry.option, entry.asked, entry.running, entry.reason) for entry in facts.report.entries]
    rows = [("device", "", facts.report.device, ""), *rows]
    cells = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    head = "".join(f"<th>{html.escape(text(key, language))}</th>" for key in COLUMNS)
    model = html.escape(text("model", language, model=facts.model_name))
    return f"<p>{model}</p><table><thead><tr>{head}</tr></thead><tbody>{cells}</tbody></table>"
