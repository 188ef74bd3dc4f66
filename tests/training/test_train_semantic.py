"""The trainings of the semantic networks run from generated speech to extracted codes, and resume."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from indextts.config import load_model_config
from indextts.models.semantic_codec import SemanticCodec
from training.dataset import SpeechData
from training.semantics import Semantics

CONFIG = Path(__file__).parents[2] / "checkpoints" / "nano" / "config.yaml"


def run(module: str, data: Path, out: Path, *options: str) -> str:
    command = [sys.executable, "-m", module, "--data", str(data), "--out", str(out), "--smoke"]
    done = subprocess.run(
        [*command, "--config", str(CONFIG), *options], capture_output=True, text=True, cwd=CONFIG.parents[2]
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_from_speech_to_codes(toy_speech: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "phone" in run("training.train_semantic_encoder", toy_speech, out)
    assert "resumed at step 3" in run("training.train_semantic_encoder", toy_speech, out, "--resume")
    assert "perplexity" in run("training.train_semantic_codec", toy_speech, out)
    run("training.extract_semantics", toy_speech, out)
    semantics = Semantics(out, "cpu")
    semantics.check(SpeechData(toy_speech, "cpu"))
    codec = SemanticCodec(load_model_config(CONFIG).semantic_codec)
    codec.load_state_dict(load_file(out / "semantic_codec.safetensors"), strict=True)
    codes, lengths = semantics.codes([0, 1])
    assert codes.max() < semantics.codebook_size and (lengths > 0).all()
    assert torch.isfinite(semantics.embeddings([0], augmented=True)[0]).all()
