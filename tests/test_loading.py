"""The networks at their released sizes have exactly the released tensors; files load strictly or not at all."""

from __future__ import annotations

import fnmatch
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from indextts.checkpoints import (
    DETERMINISTIC_BUFFERS,
    load_strictly,
    locate,
    read_tensors,
    section,
    without_allocating,
)
from indextts.config import ModelConfig
from indextts.errors import CheckpointError
from indextts.loading import build_networks
from indextts.models import s2mel, semantic_codec

KEYS = Path(__file__).parent / "keys"
KEPT_ENCODER_LAYERS = 17


def released(name: str) -> dict[str, list[int]]:
    """Key -> shape of one released file, from the key lists beside this test."""
    content = json.loads((KEYS / f"{name}.json").read_text())
    if name == "s2mel":
        tensors = {f"{m}.{k}": v for m, keys in content["net"].items() for k, v in keys.items()}
    elif name == "bigvgan":
        tensors = content["tensors_with_weight_norm"]
    else:
        tensors = content["tensors"]
    return {key: value["shape"] for key, value in tensors.items()}


@pytest.fixture(scope="module")
def networks() -> dict[str, nn.Module]:
    with without_allocating():
        return build_networks(ModelConfig())


@pytest.mark.parametrize(
    ("network", "file", "unused"),
    [
        ("gpt", "gpt", ()),
        ("s2mel", "s2mel", s2mel.UNUSED_KEYS),
        ("semantic_codec", "semantic_codec", semantic_codec.UNUSED_KEYS),
        ("style_encoder", "campplus", ()),
        ("vocoder", "bigvgan", ()),
        ("semantic_encoder", "w2v_bert", tuple(f"encoder.layers.{n}.*" for n in range(KEPT_ENCODER_LAYERS, 24))),
    ],
)
def test_full_size_has_the_released_tensors(
    networks: dict[str, nn.Module], network: str, file: str, unused: tuple[str, ...]
) -> None:
    ours = {key: list(value.shape) for key, value in networks[network].state_dict().items()}
    if network == "semantic_encoder":  # the statistics come from a file of their own
        assert ours.pop("mean") == ours.pop("var") == [1024]
    theirs = released(file)
    for key in [k for k in theirs if k not in ours]:
        assert any(fnmatch.fnmatchcase(key, pattern) for pattern in (*unused, *DETERMINISTIC_BUFFERS)), key
        del theirs[key]
    assert ours == theirs
    assert all(p.is_meta for p in networks[network].parameters())


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(2, 3)
        self.b = nn.Linear(3, 1)


def test_every_misfit_is_listed_at_once() -> None:
    shapes = {"a.weight": (3, 2), "a.bias": (4,), "c": (1,), "b.weight": (1, 3)}
    tensors = {key: torch.zeros(shape) for key, shape in shapes.items()}
    with pytest.raises(CheckpointError) as caught:
        load_strictly(Tiny(), tensors, "some.file")
    for part in ("some.file", "missing b.bias [1]", "unexpected c [1]", "a.bias has shape [4]", "needs [3]"):
        assert part in str(caught.value)


def test_int8_rows_are_expanded(tmp_path: Path) -> None:
    rows = torch.tensor([[1, -127], [64, 0]], dtype=torch.int8)
    scales = torch.tensor([0.5, 0.25], dtype=torch.float16)
    save_file({"w": rows, "w.scale": scales, "other.scale": scales.clone()}, tmp_path / "x.safetensors")
    tensors = read_tensors(tmp_path / "x.safetensors")
    assert set(tensors) == {"w", "other.scale"}
    assert torch.equal(tensors["w"], torch.tensor([[0.5, -63.5], [16.0, 0.0]]))


def test_nested_pickles_are_flattened(tmp_path: Path) -> None:
    torch.save({"net": {"m": {"k": torch.ones(2)}}, "epoch": 3}, tmp_path / "x.pth")
    assert section(read_tensors(tmp_path / "x.pth"), "net").keys() == {"m.k"}


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 truncated"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damaged_files_are_named(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=path.name):
        read_tensors(path)


class Hostile:
    def __reduce__(self) -> tuple[type, tuple[str]]:
        return Path, ("/",)


def test_pickled_code_is_refused(tmp_path: Path) -> None:
    torch.save({"model": Hostile()}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"x\.pth"):
        read_tensors(tmp_path / "x.pth")


def test_all_missing_files_are_listed(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("version: 2.0\n")
    with pytest.raises(CheckpointError) as caught:
        locate(tmp_path)
    for name in ("bpe.model", "gpt.pth", "s2mel.pth", "feat1.pt", "feat2.pt", "campplus_cn_common.bin", "bigvgan"):
        assert name in str(caught.value)


def test_a_mistyped_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        locate(tmp_path / "checkpiont")
