"""``indextts make-random``: a model folder of random weights, for trying machines and servers without a download."""

from __future__ import annotations

import argparse
from pathlib import Path

from indextts.cli.bench import SIZES, whole_number
from indextts.cli.output import say


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "make-random", help="write a model folder of random weights",
        description="Write a model folder of random weights in the layout of the official download. It loads, checks "
        "and runs like a real one, and speaks noise.",
    )  # fmt: skip
    parser.add_argument("folder", type=Path, metavar="DIR", help="a new or an empty folder")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--size", choices=SIZES, default="full", help="full is as released, and takes 6.7 GB (full)")
    size.add_argument("--full", action="store_const", const="full", dest="size", help="the same as --size full")
    parser.add_argument("--seed", type=whole_number, default=0, metavar="N", help="the same seed, the same files (0)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the folder."""
    from indextts.random_checkpoint import write_random_checkpoint

    write_random_checkpoint(args.folder, args.size, args.seed)
    say(f"random weights of the size {args.size} are in {args.folder}")
    return 0
