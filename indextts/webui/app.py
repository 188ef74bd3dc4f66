"""The page, put together and served."""

from __future__ import annotations

import html
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.themes import Soft

from indextts.resources import EXAMPLES_DIR
from indextts.voices import VoiceLibrary, default_folder
from indextts.webui import settings
from indextts.webui.endpoints import Endpoints
from indextts.webui.i18n import DEFAULT_LANGUAGE, LANGUAGES, text
from indextts.webui.page import Page
from indextts.webui.tabs import cloning, dialogue, emotion, long_text, presets, system

if TYPE_CHECKING:
    from indextts.service import Service

logger = logging.getLogger(__name__)

HERE = Path(__file__).parent
TABS = (cloning, emotion, long_text, dialogue, presets, system)
MAX_THREADS = 1000  # nearly all of them wait for their turn
CACHE_SWEEP_S, CACHE_AGE_S = 3600, 24 * 3600  # results are kept for a day


def build_app(service: Service, library: VoiceLibrary | None = None, examples_dir: Path = EXAMPLES_DIR) -> gr.Blocks:
    """The page around ``service``, not yet served.

    Args:
        library: The saved voices; None: those in the user's data directory.
        examples_dir: Where the ready-made cases and their recordings are.
    """
    page = Page(service, library or VoiceLibrary(default_folder()), examples_dir)
    with gr.Blocks(title=text("title"), analytics_enabled=False, delete_cache=(CACHE_SWEEP_S, CACHE_AGE_S)) as app:
        with gr.Row(equal_height=True):
            page.texts.html(lambda language: header(page, language), elem_id="header", padding=False)
            switch = page.make(
                gr.Dropdown,
                "language",
                choices=LANGUAGES,
                value=DEFAULT_LANGUAGE,
                elem_id="language",
                scale=0,
                min_width=150,
            )
        with gr.Tabs(elem_id="tabs"):
            connectors = [tab.build(page) for tab in TABS]
        settings.build(page)
        for connect in connectors:
            connect()
        page.texts.connect(app, switch)
        app.unload(page.closed)
        Endpoints(page).connect()
    return app.queue()


def header(page: Page, language: str) -> str:
    """Title, one sentence, and the model."""
    model = html.escape(text("model", language, model=page.facts.model_name))
    return f"<h1>{text('title', language)}</h1><p>{text('subtitle', language)}</p><p><b>{model}</b></p>"


def launch(app: gr.Blocks, host: str = "127.0.0.1", port: int = 7860, share: bool = False, block: bool = True) -> str:
    """Serve the page; returns its address once it is up, or with ``block`` when it has been stopped."""
    _, local_url, public_url = app.launch(
        server_name=host,
        server_port=port or free_port(host),
        share=share,
        prevent_thread_lock=True,
        quiet=True,
        max_threads=MAX_THREADS,
        **appearance(),
    )
    logger.info("the page is at %s", public_url or local_url)
    if block:
        app.block_thread()
    return local_url


def mount(app: gr.Blocks, server: Any, path: str = "/") -> Callable[[], None]:
    """Make the page a part of ``server``, a FastAPI app; routes that this has already go first.

    Returns what ends the sessions of the pages that are open in browsers, which keep a connection each. To be called
    in the server's thread when it shall end, or it would wait for them; what they still make is cancelled.
    """
    app.max_threads = MAX_THREADS
    gr.mount_gradio_app(server, app, path, **appearance())
    mounted = server.routes[-1].app
    return mounted.stop_event.set


def appearance() -> dict[str, Any]:
    """What the page looks like, wherever it is served."""
    return {
        "ssr_mode": False,
        "footer_links": ["api", "settings"],
        "theme": Soft(
            primary_hue="teal",
            font=["system-ui", "sans-serif"],  # by name only: nothing is fetched from a font server
            font_mono=["ui-monospace", "monospace"],
        ),
        "css": (HERE / "page.css").read_text(encoding="utf-8"),
        "head": "".join(
            f"<script>{(HERE / name).read_text(encoding='utf-8')}</script>" for name in ("language.js", "player.js")
        ),
    }


def free_port(host: str) -> int:
    """A port that nothing listens on at the moment."""
    import socket

    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]
