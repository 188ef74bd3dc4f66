"""The page, put together and served."""

from __future__ import annotations

import html
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.themes import Soft

from indextts.resources import EXAMPLES_DIR
from indextts.types import MAX_RECORDING_BYTES
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


def build_app(
    service: Service,
    library: VoiceLibrary | None = None,
    examples_dir: Path = EXAMPLES_DIR,
    admin: bool = True,
) -> gr.Blocks:
    """The page around ``service``, not yet served.

    Args:
        library: The saved voices; None: those in the user's data directory. Presets are in a folder beside it.
        examples_dir: Where the ready-made cases and their recordings are.
        admin: Whether its users may unload the model and have its files checked.
    """
    page = Page(service, library or VoiceLibrary(default_folder()), examples_dir, admin=admin)
    with gr.Blocks(title=text("title"), analytics_enabled=False, delete_cache=(CACHE_SWEEP_S, CACHE_AGE_S)) as app:
        page.app = app
        with gr.Row(elem_id="top"):
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
            theme = page.make(gr.Button, "theme", size="sm", elem_id="theme", scale=0, min_width=110)
            theme.click(fn=None, js="() => window.indexttsTheme()", api_visibility="private")
        with gr.Tabs(elem_id="tabs"):
            connectors = [tab.build(page) for tab in TABS]
        settings.build(page)
        for connect in connectors:
            connect()
        page.texts.connect(app, switch)
        app.load(fn=None, js="() => window.indexttsPage.opened()", api_visibility="private")
        app.unload(page.forget)
        Endpoints(page).connect()
    return app.queue()


def header(page: Page, language: str) -> str:
    """Title, one sentence, and the model."""
    model = text("model", language, model=f"<bdi>{html.escape(page.facts.model_name)}</bdi>")
    return f"<h1>{text('title', language)}</h1><p>{text('subtitle', language)}</p><p><b>{model}</b></p>"


@dataclass(frozen=True)
class Access:
    """Who reaches the page, and how.

    Attributes:
        auth: Names and passwords of the users; the page then asks for a login.
        root_path: Where a proxy shows the page to the outside: a path, or a whole address.
        max_upload_bytes: The largest file that is taken.
    """

    auth: tuple[tuple[str, str], ...] = ()
    root_path: str | None = None
    max_upload_bytes: int = MAX_RECORDING_BYTES

    def arguments(self) -> dict[str, Any]:
        """What gradio is told."""
        return {
            "auth": list(self.auth) or None,
            "root_path": self.root_path,
            "max_file_size": self.max_upload_bytes,
        }


def launch(
    app: gr.Blocks,
    host: str = "127.0.0.1",
    port: int = 7860,
    share: bool = False,
    block: bool = True,
    access: Access | None = None,
) -> str:
    """Serve the page; returns its address once it is up, or with ``block`` when it has been stopped."""
    _, local_url, public_url = app.launch(
        server_name=host,
        server_port=port or free_port(host),
        share=share,
        prevent_thread_lock=True,
        quiet=True,
        max_threads=MAX_THREADS,
        **(access or Access()).arguments(),
        **appearance(),
    )
    logger.info("the page is at %s", public_url or local_url)
    if block:
        app.block_thread()
    return local_url


def mount(app: gr.Blocks, server: Any, path: str = "/", access: Access | None = None) -> Callable[[], None]:
    """Make the page a part of ``server``, a FastAPI app; routes that this has already go first.

    Returns what ends the sessions of the pages that are open in browsers, which keep a connection each. To be called
    in the server's thread when it shall end, or it would wait for them; what they still make is cancelled.
    """
    app.max_threads = MAX_THREADS
    gr.mount_gradio_app(server, app, path, **(access or Access()).arguments(), **appearance())
    mounted = server.routes[-1].app
    return mounted.stop_event.set


def appearance() -> dict[str, Any]:
    """What the page looks like, wherever it is served."""
    return {
        "ssr_mode": False,
        "show_error": False,  # but errors that are raised to be shown
        "run_history": False,  # which would keep every text in the browser
        "enable_monitoring": False,
        "footer_links": ["api", "settings"],
        "theme": Soft(
            primary_hue="teal",
            font=["system-ui", "sans-serif"],  # by name only: nothing is fetched from a font server
            font_mono=["ui-monospace", "monospace"],
        ),
        "css": (HERE / "page.css").read_text(encoding="utf-8"),
        "head": "".join(
            f"<script>{(HERE / name).read_text(encoding='utf-8')}</script>"
            for name in ("language.js", "theme.js", "player.js", "keys.js")
        ),
    }


def free_port(host: str) -> int:
    """A port that nothing listens on at the moment."""
    import socket

    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]
