"""The page: which widgets there are, where they stand, and what they set off."""

from __future__ import annotations

import html
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.events import api
from gradio.themes import Soft

from indextts.resources import EXAMPLES_DIR
from indextts.webui import strings
from indextts.webui.examples import load_examples
from indextts.webui.form import DEFAULT_EMOTION_WEIGHT, MAX_SILENCE_MS
from indextts.webui.handlers import Handlers

if TYPE_CHECKING:
    from indextts.service import ModelFacts, Service

logger = logging.getLogger(__name__)

HERE = Path(__file__).parent
MAX_THREADS = 1000  # nearly all of them wait for their turn
CACHE_SWEEP_S, CACHE_AGE_S = 3600, 24 * 3600  # results are kept for a day
Fields = dict[str, Any]  # widgets by their name in FormValues
MODES = [
    (strings.MODE_VOICE, "voice"),
    (strings.MODE_AUDIO, "audio"),
    (strings.MODE_VECTOR, "vector"),
    (strings.MODE_TEXT, "text"),
]


def build_app(service: Service, examples_dir: Path = EXAMPLES_DIR) -> gr.Blocks:
    """The page around ``service``, not yet served.

    Named endpoints for ``gradio_client``: ``/synthesize``, ``/segment``, ``/info``.
    """
    handlers, facts = Handlers(service), service.facts
    # The service's own queue decides, not gradio's: one more than it takes comes through, and is refused by name.
    places = service.config.simultaneous + service.config.max_queue + 1
    with gr.Blocks(title=strings.TITLE, analytics_enabled=False, delete_cache=(CACHE_SWEEP_S, CACHE_AGE_S)) as app:
        gr.HTML(header(facts), elem_id="header", padding=False)
        with gr.Row():
            with gr.Column(scale=5, min_width=320):
                fields = voice_and_emotion()
            with gr.Column(scale=6, min_width=320):
                fields |= text_area()
                with gr.Row():
                    generate = gr.Button(strings.GENERATE, variant="primary", scale=3, min_width=120)
                    cancel = gr.Button(strings.CANCEL, variant="stop", scale=1, min_width=80)
                status = gr.Markdown(strings.STATUS_IDLE, elem_id="status")
                audio = gr.Audio(label=strings.RESULT, interactive=False, buttons=["download"])
                listen = gr.Checkbox(label=strings.LISTEN_LIVE, value=True, container=False)
                preview = preview_table()
        fields |= advanced_settings(facts, last_seed := gr.State(""))
        examples_table(fields, examples_dir)
        with gr.Accordion(strings.FOOTER, open=False):
            gr.HTML(footer(facts), elem_id="footer")
        live = gr.File(file_count="multiple", elem_id="live", label="live")  # seen by the player only

        connect_speaking(handlers, fields, generate, cancel, (live, audio, status, last_seed), listen, places)
        gr.on(
            [fields["text"].change, fields["max_text_tokens_per_segment"].change],
            handlers.preview,
            inputs=[fields["text"], fields["max_text_tokens_per_segment"]],
            outputs=[preview],
            trigger_mode="always_last",
            show_progress="hidden",
            queue=False,
            api_visibility="private",
        )
        app.unload(handlers.forget)
        named_endpoints(handlers, fields, places)
    return app.queue()


def connect_speaking(
    handlers: Handlers,
    fields: Fields,
    generate: gr.Button,
    cancel: gr.Button,
    outputs: tuple[gr.File, gr.Audio, gr.Markdown, gr.State],
    listen: gr.Checkbox,
    places: int,
) -> None:
    """The two buttons, and the player that sounds while speech is still being made.

    Gradio's own streaming output is not used: it needs ffmpeg on the server, which a bare machine does not have.
    """
    live, audio, status, _ = outputs
    # The browser works off the listeners of a click one after the other: the player's have to come first.
    generate.click(fn=None, js="() => window.indexttsPlayer.start()", api_visibility="private")
    speaking = generate.click(
        handlers.speak,
        inputs_kwargs=fields,
        outputs=list(outputs),
        show_progress_on=[audio],
        concurrency_limit=places,
        concurrency_id="speak",
        api_visibility="private",
    )
    live.change(
        fn=None,
        inputs=[live, listen],
        js="(files, wanted) => window.indexttsPlayer.play(files, wanted)",
        api_visibility="private",
    )
    cancel.click(fn=None, js="() => window.indexttsPlayer.stop()", api_visibility="private")
    cancel.click(handlers.cancel, outputs=[status], cancels=[speaking], queue=False, api_visibility="private")


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
        "head": f"<script>{(HERE / 'player.js').read_text(encoding='utf-8')}</script>",
    }


def free_port(host: str) -> int:
    """A port that nothing listens on at the moment."""
    import socket

    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def voice_and_emotion() -> Fields:
    """The left column. Returns the widgets by their name in ``FormValues``, as the functions below do."""
    fields: Fields = {}
    fields["voice"] = gr.Audio(label=strings.VOICE, type="filepath", sources=["upload", "microphone"], buttons=[])
    gr.Markdown(strings.VOICE_HINT)
    mode = fields["emotion_mode"] = gr.Radio(MODES, value="voice", label=strings.EMOTION)
    with gr.Group(visible=False) as by_audio:
        fields["emotion_audio"] = gr.Audio(
            label=strings.EMOTION_AUDIO, type="filepath", sources=["upload", "microphone"], buttons=[]
        )
    with gr.Group(visible=False) as by_vector:
        names = list(strings.EMOTION_NAMES.items())
        for left, right in zip(names[::2], names[1::2], strict=True):
            with gr.Row():
                for name, label in (left, right):
                    fields[name] = gr.Slider(0, 1, value=0, step=0.05, label=label, min_width=140)
    with gr.Group(visible=False) as by_text:
        fields["emotion_text"] = gr.Textbox(
            label=strings.EMOTION_TEXT, placeholder=strings.EMOTION_TEXT_PLACEHOLDER, info=strings.EMOTION_TEXT_HINT
        )
    with gr.Group(visible=False) as weighted:
        fields["emotion_weight"] = gr.Slider(
            0,
            1,
            value=DEFAULT_EMOTION_WEIGHT,
            step=0.01,
            label=strings.EMOTION_WEIGHT,
            info=strings.EMOTION_WEIGHT_HINT,
        )
    with gr.Group(visible=False) as drawn:
        fields["emotion_random"] = gr.Checkbox(label=strings.EMOTION_RANDOM, info=strings.EMOTION_RANDOM_HINT)

    def show_mode(chosen: str) -> list[gr.Group]:
        shown = (
            chosen == "audio",
            chosen == "vector",
            chosen == "text",
            chosen != "voice",
            chosen in ("vector", "text"),
        )
        return [gr.Group(visible=value) for value in shown]

    mode.change(
        show_mode, mode, [by_audio, by_vector, by_text, weighted, drawn],
        queue=False, show_progress="hidden", api_visibility="private",
    )  # fmt: skip
    return fields


def text_area() -> Fields:
    """The text to speak."""
    return {"text": gr.Textbox(label=strings.TEXT, placeholder=strings.TEXT_PLACEHOLDER, lines=6, max_lines=20)}


def preview_table() -> gr.Dataframe:
    """How the text will be cut, updated while it is typed."""
    with gr.Accordion(strings.PREVIEW, open=False):
        return gr.Dataframe(
            headers=strings.PREVIEW_HEADERS,
            datatype=["number", "str", "number"],
            column_widths=["10%", "75%", "15%"],
            type="array",
            interactive=False,
            wrap=True,
            max_height=300,
            show_label=False,
        )


def advanced_settings(facts: ModelFacts, last_seed: gr.State) -> Fields:
    """Segments, seed and sampling; ranges from the model, defaults from its ``SamplingParams``."""
    fields: Fields = {}
    with gr.Accordion(strings.SETTINGS, open=False):
        gr.Markdown(f"#### {strings.SETTINGS_TEXT}")
        with gr.Row():
            limit = facts.max_text_tokens
            fields["max_text_tokens_per_segment"] = gr.Slider(
                min(20, limit), limit, value=min(120, limit), step=2,
                label=strings.MAX_TOKENS, info=strings.MAX_TOKENS_HINT,
            )  # fmt: skip
            fields["interval_silence_ms"] = gr.Slider(
                0, MAX_SILENCE_MS, value=200, step=50, label=strings.SILENCE, info=strings.SILENCE_HINT
            )
            with gr.Column(min_width=200):
                seed = fields["seed"] = gr.Textbox(label=strings.SEED, info=strings.SEED_HINT, max_lines=1)
                keep = gr.Button(strings.SEED_KEEP, size="sm")
                keep.click(str, last_seed, seed, queue=False, api_visibility="private")
        gr.Markdown(f"#### {strings.SETTINGS_SAMPLING}")
        fields |= sampling_widgets(facts)
    return fields


def sampling_widgets(facts: ModelFacts) -> Fields:
    """One widget for each field of ``SamplingParams``."""
    defaults = facts.sampling_defaults
    longest = facts.max_mel_tokens
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
    rows = [
        ("temperature", "top_p", "top_k"),
        ("num_beams", "repetition_penalty", "length_penalty"),
        ("max_mel_tokens", "typical_mass"),
        ("do_sample", "typical_sampling"),
    ]
    fields: Fields = {}
    for row in rows:
        with gr.Row():
            for name in row:
                label, info = strings.SAMPLING_LABELS[name]
                value = getattr(defaults, name)
                if name not in sliders:
                    fields[name] = gr.Checkbox(value=value, label=label, info=info, min_width=200)
                    continue
                low, high, step = sliders[name]
                fields[name] = gr.Slider(
                    low, high, value=min(value, high), step=step, label=label, info=info, min_width=200
                )
    return fields


def examples_table(fields: Fields, folder: Path) -> None:
    """Ready-made cases; a click fills the form."""
    names, rows = load_examples(folder)
    if rows:
        gr.Examples(
            rows,
            [fields[name] for name in names],
            label=strings.EXAMPLES,
            elem_id="examples",
            examples_per_page=12,
            cache_examples=False,
            api_visibility="private",
            visible_columns=[names.index("voice"), names.index("text"), names.index("emotion_mode")],
        )


def named_endpoints(handlers: Handlers, fields: Fields, places: int) -> None:
    """What programs use. The widgets give ``/synthesize`` its parameters and their defaults."""
    trigger = gr.Button(visible=False)
    trigger.click(
        handlers.synthesize,
        inputs_kwargs=fields,
        outputs=[gr.Audio(visible=False, label="audio"), gr.JSON(visible=False, label="info")],
        concurrency_limit=places,
        concurrency_id="speak",
        api_name="synthesize",
        api_description=strings.API_SYNTHESIZE,
    )
    api(handlers.segment_endpoint, api_name="segment", api_description=strings.API_SEGMENT)
    api(handlers.info, api_name="info", api_description=strings.API_INFO)


def header(facts: ModelFacts) -> str:
    """Title, one sentence, and the model."""
    model = html.escape(strings.MODEL.format(model=facts.model_name))
    return f"<h1>{strings.TITLE}</h1><p>{strings.SUBTITLE}</p><p><b>{model}</b></p>"


def footer(facts: ModelFacts) -> str:
    """The acceleration report as a table: what was asked, what runs, and why."""
    report = facts.report
    heads = (strings.FOOTER_OPTION, strings.FOOTER_ASKED, strings.FOOTER_RUNS, strings.FOOTER_WHY)
    rows = [(entry.option, entry.asked, entry.running, entry.reason) for entry in report.entries]
    rows = [("device", "", report.device, ""), *rows]
    cells = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    head = "".join(f"<th>{cell}</th>" for cell in heads)
    model = html.escape(strings.MODEL.format(model=facts.model_name))
    return f"<p>{model}</p><table><thead><tr>{head}</tr></thead><tbody>{cells}</tbody></table>"
