"""``indextts serve``: the HTTP interface, and the page with it if wanted."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
from contextlib import closing
from pathlib import Path

from indextts.cli.flags import (
    API_KEY_VARIABLE,
    MIB,
    add_engine_flags,
    add_page_flags,
    add_server_flags,
    add_service_flags,
    at_least_one,
    engine_config,
    is_admin,
    page_users,
    positive,
    service_config,
)
from indextts.cli.logs import setup_logging

LAST_ANSWERS_S = 1.0
"""What the last request of a page has made needs so long to reach the browser."""

logger = logging.getLogger(__name__)


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "serve",
        help="answer over HTTP, as OpenAI's interface for speech does",
        description="Serves POST /v1/audio/speech, /v1/audio/voices, /v1/models, /health, /ready and /metrics; "
        "/docs describes them.",
        epilog=f"With {API_KEY_VARIABLE} in the environment, clients must send its value as bearer token.",
    )
    parser.set_defaults(run=run, parser=parser)
    server = add_server_flags(parser, port=8000)
    server.add_argument("--voices", type=Path, metavar="DIR", help="the voice library (in the user's data directory)")
    server.add_argument(
        "--shutdown-grace", type=positive, default=300.0, metavar="S",
        help="when told to stop, finish what was accepted, for at most so many seconds (300)",
    )  # fmt: skip
    add_page_flags(parser).add_argument(
        "--page", action="store_true", help="also serve the web page, at /; the other flags of this group are for it"
    )
    limits = parser.add_argument_group("limits")
    limits.add_argument("--max-body", type=at_least_one, default=20, metavar="MIB", help="largest request (20)")
    limits.add_argument("--max-text", type=at_least_one, default=10_000, metavar="N", help="characters (10000)")
    limits.add_argument("--rate-limit", type=at_least_one, metavar="N", help="requests a minute and client (no limit)")
    add_service_flags(parser)
    add_engine_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Listen, load the model, and serve until told to stop."""
    config = engine_config(args, args.parser)
    users = page_users(args, args.parser) if args.page else ()
    if not args.page and (args.auth or args.root_path or args.admin):
        args.parser.error("--auth, --root-path and --admin are for the page: add --page")
    setup_logging(args.verbose)

    from indextts.api import ApiSettings, create_app
    from indextts.api.server import Server
    from indextts.engine import Engine
    from indextts.service import Service
    from indextts.voices import VoiceLibrary, default_folder

    settings = ApiSettings(
        api_key=os.environ.get(API_KEY_VARIABLE) or None,
        max_body_bytes=args.max_body * MIB,
        max_text_characters=args.max_text,
        max_requests_per_minute=args.rate_limit,
        max_upload_bytes=args.max_upload * MIB,
    )
    library = VoiceLibrary(args.voices or default_folder())
    with closing(Service(lambda: Engine.load(config), service_config(args))) as service:
        app = create_app(service, library, settings)
        end_sessions = None
        if args.page:
            from indextts.webui import Access, build_app, mount

            access = Access(users, args.root_path, args.max_upload * MIB)
            end_sessions = mount(build_app(service, library, admin=is_admin(args)), app, access=access)
            if settings.api_key is not None and not users:
                logger.warning(
                    "the page asks for no key: whoever reaches this address can use it, unless --auth asks for a login"
                )

        async def finish() -> None:
            await asyncio.to_thread(service.close, args.shutdown_grace)
            if end_sessions is not None:
                await asyncio.sleep(LAST_ANSWERS_S)
                end_sessions()

        Server(app, args.host, args.port, args.shutdown_grace, finish).serve_until_stopped()
    return 0
