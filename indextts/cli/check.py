"""``indextts check``: everything that a deployment needs, tried."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import sys
from pathlib import Path
from typing import Any

from indextts import __version__
from indextts.cli.flags import device_name
from indextts.cli.logs import setup_logging
from indextts.cli.output import say

EXIT_FAILED = 1
SIGNS = {"ok": "[ ok ]", "note": "[note]", "failed": "[FAIL]"}


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "check", help="try everything that a deployment needs, and say what to do about what fails",
        description="Python, PyTorch, driver and GPUs, DeepSpeed, compilers, disk, every model file, and a sentence "
        "spoken. The exit code is 0 if nothing failed, else 1; a note is no failure.",
    )  # fmt: skip
    parser.add_argument("--model-dir", type=Path, default=Path("checkpoints"), metavar="DIR", help="(checkpoints)")
    parser.add_argument("--device", type=device_name, metavar="NAME", help="to speak on (the best there is)")
    parser.add_argument("--deepspeed", action="store_true", help="DeepSpeed must be there, and is spoken through")
    parser.add_argument("--no-synthesis", action="store_true", help="do not load the model and speak")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--verbose", action="store_true", help="detailed log, and tracebacks of errors")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the findings; 1 if anything failed."""
    setup_logging(args.verbose, logging.ERROR)  # what runs and what does not stands in the list
    found = gather(args)
    say(json.dumps(found, indent=2) if args.json else as_text(found))
    return 0 if found["ok"] else EXIT_FAILED


def gather(args: argparse.Namespace) -> dict[str, Any]:
    """All findings, as plain data. Without PyTorch, nothing else can be tried."""
    from indextts.checks.machine import check_disk, check_python, check_torch

    checks, ops, files = [check_python(), check_torch(), check_disk(args.model_dir)], (), ()
    if sys.modules.get("torch"):  # of a wrong version, maybe, but there
        more, ops, files = gather_with_torch(args)
        checks += more
    return {
        "indextts": __version__,
        "ok": all(check.state != "failed" for check in checks),
        "checks": [dataclasses.asdict(check) for check in checks],
        "deepspeed_ops": [dataclasses.asdict(op) for op in ops],
        "model_files": [dataclasses.asdict(file) for file in files],
    }


def gather_with_torch(args: argparse.Namespace) -> tuple[list[Any], tuple[Any, ...], tuple[Any, ...]]:
    """The checks, DeepSpeed's kernels and the model files."""
    from indextts.checks.deepspeed import check_deepspeed
    from indextts.checks.machine import check_compilers, check_cuda, check_other_gpus, gather_cuda
    from indextts.checks.model import check_model, gather_model, weight_bytes
    from indextts.config import EngineConfig

    model, cuda = gather_model(args.model_dir), gather_cuda()
    deepspeed, ops = check_deepspeed(args.deepspeed)
    checks = [
        *check_cuda(cuda, weight_bytes(model.config) if model.config else None),
        *check_other_gpus(),
        deepspeed,
        *check_compilers(cuda.is_available),
        *check_model(model),
    ]
    if model.config is not None and not args.no_synthesis:
        from indextts.checks.speech import check_speech

        config = EngineConfig(args.model_dir, device=args.device, deepspeed=args.deepspeed, qwen_emotion=False)
        checks.append(check_speech(config))
    return checks, ops, model.files


def as_text(found: dict[str, Any]) -> str:
    """The findings for people."""
    lines = [f"indextts {found['indextts']}"]
    width = max(len(check["name"]) for check in found["checks"])
    for check in found["checks"]:
        lines.append(f"{SIGNS[check['state']]} {check['name']:<{width}}  {check['found']}")
        if check["advice"]:
            lines.append(f"{'':<7}{'':<{width}}  -> {check['advice']}")
    if found["deepspeed_ops"]:
        rows = [
            (op["name"], *("yes" if op[fact] else "no" for fact in ("is_installed", "can_be_built")))
            for op in found["deepspeed_ops"]
        ]
        lines += ["", *table(("DeepSpeed kernel", "installed", "can be built here"), rows)]
    if found["model_files"]:
        rows = [
            (file["path"], "" if file["size_bytes"] is None else f"{file['size_bytes']:,}", file["state"])
            for file in found["model_files"]
        ]
        total = sum(file["size_bytes"] or 0 for file in found["model_files"])
        lines += ["", *table(("model file", "bytes", "state"), [*rows, ("total", f"{total:,}", "")])]
    failed = [check["name"] for check in found["checks"] if check["state"] == "failed"]
    lines += ["", f"failed: {', '.join(failed)}" if failed else "all is well"]
    return "\n".join(lines)


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    """Columns side by side; those of numbers end together."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    is_number = [all(row[c].replace(",", "").isdigit() or not row[c] for row in rows) for c in range(len(head))]
    return [
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, is_number, strict=True)
        ).rstrip()
        for row in (head, *rows)
    ]
