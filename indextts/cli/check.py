"""``indextts check``: what this machine has and which model would run."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import platform
from pathlib import Path
from typing import Any

from indextts import __version__
from indextts.cli.output import fail, say
from indextts.errors import IndexTTSError

EXIT_MISSING, EXIT_RUNTIME = 2, 3


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("check", help="what this machine has and which model would run")
    parser.add_argument("--model-dir", type=Path, default=Path("checkpoints"), metavar="DIR", help="(checkpoints)")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the findings; 2 if no model would load, 3 if PyTorch is not usable."""
    runtime = {"indextts": __version__, "python": platform.python_version(), **check_torch()}
    model = check_model(args.model_dir) if runtime["torch"] else {"error": "not looked at, PyTorch is missing"}
    found = {**runtime, "deepspeed": package_version("deepspeed"), "model": model}
    if args.json:
        say(json.dumps(found, indent=2))
    else:
        for line in as_lines(found):
            say(line)
    if not runtime["torch"]:
        return fail(f"PyTorch cannot be used: {runtime['torch_error']}", EXIT_RUNTIME)
    if "error" in model:
        return fail(model["error"], EXIT_MISSING)
    return 0


def check_torch() -> dict[str, Any]:
    """PyTorch's version and the devices of each of its back ends; ``torch`` is None if it cannot be imported."""
    try:
        import torch
    except Exception as error:  # a broken installation fails in many ways, and telling so is the purpose here
        return {"torch": None, "torch_error": f"{type(error).__name__}: {error}", "devices": {}}
    devices: dict[str, list[str]] = {}
    if torch.cuda.is_available():
        devices["cuda"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if hasattr(torch, "xpu") and torch.xpu.is_available():
        devices["xpu"] = [torch.xpu.get_device_name(i) for i in range(torch.xpu.device_count())]
    if torch.backends.mps.is_available():
        devices["mps"] = ["Apple GPU"]
    return {"torch": torch.__version__, "torch_cuda_build": torch.version.cuda, "devices": devices}


def package_version(name: str) -> str | None:
    """The version of an installed package, without importing it; None if it is absent."""
    if importlib.util.find_spec(name) is None:
        return None
    return importlib.metadata.version(name)


def check_model(model_dir: Path) -> dict[str, Any]:
    """Which model would be loaded from ``model_dir``, or what keeps it from loading."""
    from indextts.checkpoints import locate

    try:
        config, files = locate(model_dir)
    except IndexTTSError as error:
        return {"error": str(error)}
    return {
        "folder": str(files.root),
        "bundled": files.bundled,
        "version": config.version,
        "emotion_from_text": files.qwen_emotion.is_dir(),
    }


def as_lines(found: dict[str, Any]) -> list[str]:
    """The findings for people."""
    names = {"cuda": "NVIDIA CUDA / AMD ROCm", "xpu": "Intel XPU", "mps": "Apple MPS"}
    lines = [f"indextts {found['indextts']}, Python {found['python']}, PyTorch {found['torch'] or 'not usable'}"]
    for backend, name in names.items():
        devices = found["devices"].get(backend, [])
        lines.append(f"{name}: {', '.join(devices) if devices else 'none'}")
    lines.append(f"DeepSpeed: {found['deepspeed'] or 'not installed'}")
    model = found["model"]
    if "error" in model:
        lines.append("model: none that can be loaded")
    else:
        kind = "the bundled small voice" if model["bundled"] else f"IndexTTS-{model['version']:g}"
        lines.append(f"model: {kind} in {model['folder']}")
        qwen = "available" if model["emotion_from_text"] else "not available (no Qwen emotion model)"
        lines.append(f"emotion from a description: {qwen}")
    lines.append("hardware acceleration ready" if found["devices"] else "CPU mode")
    return lines
