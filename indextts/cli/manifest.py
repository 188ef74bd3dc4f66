"""``indextts manifest``: record the model files as they are, for ``indextts check`` to find later damage."""

from __future__ import annotations

import argparse
from pathlib import Path

from indextts.cli.flags import existing_or_default_dir
from indextts.cli.output import say


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "manifest", help="record sizes and sums of the model files that are there",
        description="Record the model files as they are now. It cannot tell whether they are the official ones: "
        "`indextts download` does.",
    )  # fmt: skip
    parser.add_argument(
        "--model-dir", type=existing_or_default_dir, default=Path("checkpoints"), metavar="DIR",
        help="folder of the model; without a model in it, the bundled voice's (checkpoints)",
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the manifest of the model that would be loaded."""
    from indextts.checkpoints import locate, record_files

    _, files = locate(args.model_dir)
    say(f"{record_files(files)} is written")
    return 0
