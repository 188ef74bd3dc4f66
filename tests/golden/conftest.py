"""Golden tensors: every case of a set, read from the folder given by ``--golden`` (default: this folder)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file


@dataclass(frozen=True)
class Case:
    """One component case: configuration, weights, inputs and expected outputs."""

    id: str
    config: dict[str, Any]
    tensors: dict[str, torch.Tensor]
    weights: dict[str, torch.Tensor]
    atol: float
    rtol: float

    def input(self, name: str) -> torch.Tensor:
        return self.tensors[f"in.{name}"]

    def output(self, name: str) -> torch.Tensor:
        return self.tensors[f"out.{name}"]

    def names(self, kind: str) -> list[str]:
        """All names of one kind, "in" or "out"."""
        return [k.split(".", 1)[1] for k in self.tensors if k.startswith(kind + ".")]

    def check(self, name: str, got: torch.Tensor) -> None:
        """Compare with ``out.<name>``: integers equal, floats within the manifest's tolerance."""
        compare(f"{self.id}/{name}", got, self.output(name), self.atol, self.rtol)


def compare(label: str, got: torch.Tensor, want: torch.Tensor, atol: float, rtol: float) -> None:
    assert tuple(got.shape) == tuple(want.shape), f"{label}: shape {tuple(got.shape)}, expected {tuple(want.shape)}"
    if not want.is_floating_point():
        assert torch.equal(got.to(want.dtype), want), f"{label}: integers differ"
        return
    torch.testing.assert_close(got.float(), want, atol=atol, rtol=rtol, msg=lambda m: f"{label}: {m}")


@dataclass(frozen=True)
class GoldenSet:
    """A folder with a ``MANIFEST.json`` and the files it names."""

    dir: Path

    @cached_property
    def manifest(self) -> dict[str, Any]:
        return json.loads((self.dir / "MANIFEST.json").read_text(encoding="utf-8"))

    def component(self, id: str) -> Case:
        entry = next(c for c in self.manifest["components"] if c["id"] == id)
        own = load_file(self.dir / entry["file"])
        base = load_file(self.dir / entry["weights_file"]) if entry["weights_file"] else {}
        weights = {k[2:]: v for source in (base, own) for k, v in source.items() if k.startswith("w.")}
        tensors = {k: v for k, v in own.items() if not k.startswith("w.")}
        return Case(id, entry["config"], tensors, weights, entry["atol"], entry["rtol"])

    def json(self, name: str) -> Any:
        return json.loads((self.dir / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def golden(pytestconfig: pytest.Config) -> GoldenSet:
    return GoldenSet(Path(pytestconfig.getoption("--golden")).resolve())
