"""Files that come with this package: the bundled voice model, the example recordings, the DeepSpeed defaults.

In a checkout they lie at its top level, where people look for them; in an installed wheel in a folder of the package.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_INSTALLED = _PACKAGE / "bundled"  # see [tool.hatch.build.targets.wheel] in pyproject.toml
ROOT = _INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parent

NANO_DIR = ROOT / "checkpoints" / "nano"
EXAMPLES_DIR = ROOT / "examples"
DS_CONFIG = ROOT / "ds_config.json"

EVAL_SENTENCES = _PACKAGE / "bench" / "eval_sentences.txt"
"""English sentences, one a line, that no network of the bundled voice was trained on."""

TEXT_EMOTION = _PACKAGE / "text_emotion.safetensors"
"""Weights of the classifier in ``indextts/text_emotion.py``, made by ``training/train_text_emotion.py``."""


def example_voices() -> dict[str, Path]:
    """The example recordings by their names, ``voice_01`` and so on."""
    return {path.stem: path for path in sorted(EXAMPLES_DIR.glob("voice_*"))}
