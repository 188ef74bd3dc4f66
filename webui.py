"""Start the web page: ``python webui.py [--deepspeed] [--fp16] ...``; ``--help`` lists all flags."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from contextlib import closing

from indextts.cli.flags import (
    MIB,
    Parser,
    add_engine_flags,
    add_page_flags,
    add_server_flags,
    add_service_flags,
    engine_config,
    is_admin,
    page_users,
    service_config,
)
from indextts.cli.logs import setup_logging


def main(argv: Sequence[str] | None = None) -> int:
    """Flags -> configuration -> service -> page. Returns the exit code: 0, or 1 if the page could not start."""
    parser = Parser("webui.py", description="IndexTTS2: the web page.")
    add_engine_flags(parser)
    add_server_flags(parser, port=7860)
    add_page_flags(parser).add_argument("--share", action="store_true", help="also publish through a Gradio share link")
    add_service_flags(parser)
    args = parser.parse_args(argv)
    users = page_users(args, parser)
    config = engine_config(args, parser)
    setup_logging(args.verbose)
    try:
        from indextts.engine import Engine  # after the flags: --help and their errors need not wait for torch
        from indextts.service import Service
        from indextts.webui import Access, build_app, launch

        access = Access(users, args.root_path, args.max_upload * MIB)
        with closing(Service(lambda: Engine.load(config), service_config(args))) as service:
            launch(build_app(service, admin=is_admin(args)), args.host, args.port, args.share, access=access)
    except Exception as error:  # the entry point: whatever it is, one line tells it
        logging.getLogger("webui").error("%s", error or repr(error), exc_info=args.verbose)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
