"""The model files: there, of the right size, of the right content."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from indextts.checkpoints import locate
from indextts.checks.report import FAILED, NOTE, OK, Check
from indextts.config import ModelConfig
from indextts.emotion import QwenEmotion
from indextts.errors import CheckpointError, ConfigError
from indextts.manifest import MANIFEST, FileState, compare


@dataclass(frozen=True)
class ModelFacts:
    """What would be loaded. Without a model, ``config`` is None and ``error`` says why."""

    config: ModelConfig | None
    bundled: bool
    qwen_emotion: bool
    files: tuple[FileState, ...]
    error: str = ""


def gather_model(folder: Path) -> ModelFacts:
    """Find the model and compare its files with their manifest. Reads all of them."""
    try:
        config, files = locate(folder)
        states = compare(files.root, files.paths())
        return ModelFacts(config, files.bundled, QwenEmotion(files.qwen_emotion).available, tuple(states))
    except (CheckpointError, ConfigError) as error:
        return ModelFacts(None, False, False, _listed(folder), str(error))


def _listed(folder: Path) -> tuple[FileState, ...]:
    """What the manifest says of a folder that is no model."""
    try:
        return tuple(compare(folder, ()))
    except CheckpointError:  # told already: it is why there is no model, or less than that
        return ()


def check_model(facts: ModelFacts) -> list[Check]:
    """Whether a model is there, and its files are what they should be."""
    if facts.config is None:
        advice = "put the files there: `indextts download` fetches what is missing and keeps the rest"
        return [Check("model", FAILED, facts.error, advice)]
    name = "the bundled small voice" if facts.bundled else f"IndexTTS-{facts.config.version:g}"
    reader = "by the Qwen emotion model" if facts.qwen_emotion else "by the bundled classifier: there is no Qwen model"
    return [Check("model", OK, name), _check_files(facts), Check("emotion from text", OK, reader)]


def _check_files(facts: ModelFacts) -> Check:
    total_bytes = sum(file.size_bytes or 0 for file in facts.files)
    found = f"{len(facts.files)} files, {total_bytes / 1e6:.1f} MB"
    if wrong := [f"{file.path}: {file.state}" for file in facts.files if file.state not in ("ok", "not listed")]:
        replace = "restore them: git checkout checkpoints/nano" if facts.bundled else "`indextts download --force`"
        advice = f"{replace}; or, if they are meant to be so, `indextts manifest` records them as they are"
        return Check("model files", FAILED, f"{found}; {'; '.join(wrong)}", advice)
    if unknown := [file.path for file in facts.files if file.state == "not listed"]:
        listed = "no file is" if len(unknown) == len(facts.files) else f"{', '.join(unknown)} not"
        return Check("model files", NOTE, f"{found}; {listed} listed in {MANIFEST}, so not compared with any sum")
    return Check("model files", OK, f"{found}, all as in {MANIFEST}")


def weight_bytes(config: ModelConfig) -> int:
    """What the networks take in float32, without building them."""
    import torch

    from indextts.loading import build_networks

    with torch.device("meta"):
        return 4 * sum(p.numel() for net in build_networks(config).values() for p in net.parameters())
