"""A model folder that differs from another one in its language model alone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from indextts.checkpoints import AUXILIARY, ModelFiles, locate, record_files
from indextts.errors import CheckpointError
from indextts.files import PARTIAL

COPIED_BYTES = 1 << 20
"""Files up to this size are copied, since people edit them; larger ones are linked where the file system can."""


def write_model(files: ModelFiles, out: Path, changed: Mapping[str, Tensor], source: str) -> None:
    """Make ``out`` a complete model: that of ``files``, but for ``changed`` tensors of the language model.

    Args:
        changed: By their names in the network. They are stored in float32, for in the half precision or the int8 rows
            of the source a small change would be rounded away. All others stay as they are stored.
        source: What the manifest says of where the files are from.

    Raises:
        CheckpointError: a file cannot be written, or lies outside the model's folder.
    """
    try:
        for path in [*files.paths(), *filter(Path.is_file, [files.glossary])]:
            if path not in (files.gpt, files.config_path):
                _link_or_copy(path, out / _place(files, path))
        _write_weights(files.gpt, out / _place(files, files.gpt), changed)
        _link_or_copy(files.config_path, out / _place(files, files.config_path))  # the last: now it is a model
        record_files(locate(out)[1], source)
    except OSError as error:
        raise CheckpointError(f"cannot write the model to {out}: {error}") from error


def _place(files: ModelFiles, path: Path) -> Path:
    """Where a file of the model belongs in a model folder; files of a hub's cache get the names of their own."""
    inside = Path(os.path.relpath(path, files.root))
    if ".." not in inside.parts:
        return inside
    for key, (_, _, names) in AUXILIARY.items():
        if path == getattr(files, key):
            fitting = [name for name in names if Path(name).suffix == path.suffix]
            return Path("hf_cache") / (fitting or names)[0]
    raise CheckpointError(f"{path} is outside the model folder {files.root}: put it inside to make a copy of the model")


def _link_or_copy(path: Path, target: Path) -> None:
    source = path.resolve()
    if target.exists() and target.samefile(source):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    if source.stat().st_size > COPIED_BYTES:
        try:
            os.link(source, target)
            return
        except OSError:  # another file system, or one without links
            pass
    shutil.copyfile(source, target)


def _write_weights(source: Path, target: Path, changed: Mapping[str, Tensor]) -> None:
    """The file ``source``, of either layout, with other tensors under some of its names."""
    if source.suffix == ".safetensors":
        stored, save = load_file(source), save_file
    else:
        stored, save = torch.load(source, map_location="cpu", weights_only=True), torch.save
    section = "model." if any(key == "model" or key.startswith("model.") for key in stored) else ""
    rest = {f"{section}{name}": value.detach().float().cpu().contiguous() for name, value in changed.items()}
    content = _exchanged(stored, "", rest)
    if rest:
        raise CheckpointError(f"{source} has no tensors {', '.join(sorted(rest)[:5])}")
    partial = target.with_name(f".{target.name}{PARTIAL}")
    try:
        save(content, partial)
        shutil.copymode(source, partial)  # safetensors writes files that their owner alone may read
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _exchanged(stored: Mapping[str, Any], prefix: str, rest: dict[str, Tensor]) -> dict[str, Any]:
    """``stored`` with the tensors of ``rest``, which are taken out of it, and without the scales of their int8 rows."""
    names = {key: f"{prefix}{key}" for key in stored}
    scales = {f"{k}.scale" for k, name in names.items() if name in rest and stored[k].dtype == torch.int8}
    result: dict[str, Any] = {}
    for key, value in stored.items():
        if isinstance(value, Mapping):
            result[key] = _exchanged(value, f"{names[key]}.", rest)
        elif key not in scales:
            result[key] = rest.pop(names[key], value)
    return result
