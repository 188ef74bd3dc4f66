"""``indextts download``: the official model files, each proven to be what the hub announces."""

from __future__ import annotations

import argparse
import os
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from indextts.cli.logs import setup_logging
from indextts.cli.output import fail, say
from indextts.errors import ConfigError

SOURCES = ("huggingface", "modelscope")  # of indextts.hub, which needs httpx
EXIT_INPUT = 1


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "download", help="fetch the official model files",
        description="Fetch the official model files. What is there is kept, what broke off goes on, and nothing gets "
        "its name before its size and sum are right. Afterwards nothing needs the network.",
    )  # fmt: skip
    parser.set_defaults(run=run)
    parser.add_argument(
        "--model-dir", type=Path, default=Path("checkpoints"), metavar="DIR", help="where they go (checkpoints)"
    )
    parser.add_argument("--source", choices=SOURCES, default=SOURCES[0], help=f"the hub ({SOURCES[0]})")
    parser.add_argument(
        "--endpoint", type=web_address, metavar="URL",
        help="a mirror of the hub; for huggingface, the environment variable HF_ENDPOINT does the same",
    )  # fmt: skip
    parser.add_argument("--force", action="store_true", help="replace files that differ from the hub's")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--list", action="store_true", help="only say which files belong where; asks nobody")
    what.add_argument("--dry-run", action="store_true", help="ask the hub, and only say what would be fetched")
    parser.add_argument("--verbose", action="store_true", help="detailed log, and tracebacks of errors")


def run(args: argparse.Namespace) -> int:
    """Plan, check that there is room, fetch what is missing, and write the manifest; 1 if a file is in the way."""
    setup_logging(args.verbose)
    from tqdm import tqdm

    from indextts.hub import HUBS, MODEL_REPOSITORY, WANTED, check_room, fetch, plan
    from indextts.manifest import write_manifest

    folder: Path = args.model_dir
    if args.list:
        for item in WANTED:
            say(f"{item.repository}: {item.pattern} -> {folder / item.place}{'/' * item.place.endswith('/')}")
        return 0
    hub = HUBS[args.source](args.endpoint or endpoint_of_environment(args))
    with closing(hub.client):
        say(f"asking {hub.endpoint}")
        tasks = plan(hub, folder)
        missing_bytes = sum(task.missing_bytes for task in tasks)
        if args.dry_run:
            for task in tasks:
                say(f"{task.state:<10}{size(task.remote.size_bytes):>10}  {task.target}")
            say(f"{size(missing_bytes)} of {size(sum(task.remote.size_bytes for task in tasks))} would be fetched")
            return 0
        if (differing := [str(t.target) for t in tasks if t.state == "different"]) and not args.force:
            return fail(f"not the hub's: {', '.join(differing)}; move away, or replace by --force", EXIT_INPUT)
        check_room(folder, missing_bytes)
        records = {}
        for number, task in enumerate(tasks, 1):
            name = f"[{number}/{len(tasks)}] {task.place}"
            total = task.remote.size_bytes
            with tqdm(desc=name, total=total, unit="B", unit_scale=True, disable=None, leave=False) as bar:
                records[task.place] = fetch(hub, task, partial(show, bar))
            say(f"{name}: {size(total)}, {'already there' if task.state == 'present' else 'fetched'}, verified")
        write_manifest(folder, records, f"{hub.endpoint}/{MODEL_REPOSITORY}")
    say(f"all {len(tasks)} files are in {folder}; `indextts check` tries them")
    return 0


def show(bar: Any, done_bytes: int) -> None:
    """Move a progress bar to where the file is."""
    bar.update(done_bytes - bar.n)


def endpoint_of_environment(args: argparse.Namespace) -> str:
    """``HF_ENDPOINT``, where it is meant; empty if it is not set."""
    if args.source != "huggingface" or not (address := os.environ.get("HF_ENDPOINT")):
        return ""
    try:
        return web_address(address)
    except argparse.ArgumentTypeError as error:
        raise ConfigError(f"the environment variable HF_ENDPOINT {error}") from error


def web_address(text: str) -> str:
    """An address that begins with http:// or https://."""
    from httpx import URL, InvalidURL

    try:
        url = URL(text)
    except InvalidURL:
        url = URL("")
    if url.scheme not in ("http", "https") or not url.host:
        raise argparse.ArgumentTypeError(f"must be an address like https://huggingface.co, not {text!r}")
    return text


def size(count: int) -> str:
    """``3.48 GB``."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.2f} {unit}"
    return f"{count} B"
