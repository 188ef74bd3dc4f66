"""The networks at their released sizes have exactly the released tensors; files load strictly or not at all."""

from __future__ import annotations

import fnmatch
import json
import math
import pickle
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from indextts.checkpoints import (
    DETERMINISTIC_BUFFERS,
    all_finite,
    load_strictly,
    locate,
    read_tensors,
    section,
    without_allocating,
)
from indextts.config import EngineConfig, ModelConfig
from indextts.engine import Engine
from indextts.errors import CheckpointError
from indextts.loading import build_networks
from indextts.models import s2mel, semantic_codec
from indextts.resources import EVAL_SENTENCES
from training.train_tokenizer import train_vocabulary

ROOT = Path(__file__).parents[1]
KEYS = ROOT / "tests" / "keys"
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
    for part in ("some.file", "1 missing: b.bias [1]", "1 unexpected: c [1]", "a.bias has shape [4]", "needs [3]"):
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
    """Calls ``touch`` on a file when it is unpickled by anyone who lets it."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Path]]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("as_archive", [True, False])
def test_pickled_code_is_not_run(tmp_path: Path, as_archive: bool) -> None:
    path, mark = tmp_path / "x.pth", tmp_path / "was here"
    torch.save({"model": Hostile(mark)}, path, _use_new_zipfile_serialization=as_archive)
    with pytest.raises(CheckpointError, match=r"x\.pth"):
        read_tensors(path)
    assert not mark.exists()
    path.write_bytes(pickle.dumps(Hostile(mark), protocol=2))
    with pytest.raises(CheckpointError, match=r"x\.pth"):
        read_tensors(path)
    assert not mark.exists()
    pickle.loads(path.read_bytes())
    assert mark.exists()  # so it is a danger


@pytest.mark.parametrize("suffix", [".pth", ".bin", ".safetensors"])
def test_cut_files_are_named(tmp_path: Path, suffix: str) -> None:
    tensors = {"a": torch.ones(100, 10), "b": torch.zeros(3)}
    path = tmp_path / f"whole{suffix}"
    save_file(tensors, path) if suffix == ".safetensors" else torch.save(tensors, path)
    content = path.read_bytes()
    assert read_tensors(path).keys() == tensors.keys()
    for length in (1, 7, 8, 100, len(content) // 4, len(content) // 2, len(content) - 100, len(content) - 1):
        cut = tmp_path / f"cut{suffix}"
        cut.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match="cut"):
            read_tensors(cut)


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "good.pth")
    with (
        zipfile.ZipFile(tmp_path / "good.pth") as good,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as bomb,
    ):
        for name in good.namelist():
            content = good.read(name)
            bomb.writestr(name, content + bytes(50_000_000) if name.endswith("data.pkl") else content)
    assert (tmp_path / "bomb.pth").stat().st_size < 100_000
    with pytest.raises(CheckpointError, match=r"bomb\.pth: its \d+ bytes unpack to 5\d{7}"):
        read_tensors(tmp_path / "bomb.pth")


def laughs(depth: int) -> dict[str, Any]:
    """Ten to the power of ``depth`` tensors in a few bytes."""
    content: dict[str, Any] = {"k": torch.ones(1)}
    for _ in range(depth):
        content = {str(n): content for n in range(10)}
    return content


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize(
    "content",
    [
        {"a": torch.empty(10, device="meta")},
        {"a": torch.ones(3, 3).to_sparse()},
        {"a": torch.ones(1).expand(1_000_000)},
        {"a": torch.ones(4, 4, dtype=torch.int8), "a.scale": torch.ones(3)},
        {"a": torch.tensor(1, dtype=torch.int8), "a.scale": torch.ones(1)},
        laughs(30),
    ],
    ids=["without values", "sparse", "larger than stored", "scales", "scale of one number", "laughs"],
)
def test_odd_contents_are_refused(tmp_path: Path, content: dict[str, Any]) -> None:
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match=r"odd\.pth"):
        read_tensors(tmp_path / "odd.pth")


def test_endless_depth(tmp_path: Path) -> None:
    with (tmp_path / "deep.pth").open("wb") as file:  # what pickling 10,000 dicts in each other would write
        empty, key, setitem = b"}", b"X\x01\x00\x00\x00k", b"s"
        pickle.dump(0x1950A86A20F9469CFC6C, file, protocol=2)
        pickle.dump(1001, file, protocol=2)
        pickle.dump({}, file, protocol=2)
        file.write(b"\x80\x02" + (empty + key) * 10_000 + empty + setitem * 10_000 + b".")
        pickle.dump([], file, protocol=2)
    with pytest.raises(CheckpointError, match=r"deep\.pth"):
        read_tensors(tmp_path / "deep.pth")


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none(number: float) -> None:
    tensors = {key: torch.zeros_like(value) for key, value in Tiny().state_dict().items()}
    tensors["a.weight"][2, 1] = number
    with pytest.raises(CheckpointError, match=r"some\.file is damaged: NaN or infinite numbers in a\.weight$"):
        load_strictly(Tiny(), tensors, "some.file")


def test_large_numbers_are_no_damage() -> None:
    assert all_finite(torch.full((4, 4), 3e38))
    assert all_finite(torch.tensor([], dtype=torch.float32)) and all_finite(torch.tensor(3))


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_numbers_of_another_kind(dtype: torch.dtype) -> None:
    tensors = {key: torch.zeros_like(value) for key, value in Tiny().state_dict().items()}
    tensors["b.bias"] = tensors["b.bias"].to(dtype)
    with pytest.raises(CheckpointError, match=rf"b\.bias is of {dtype}, the network of torch\.float32"):
        load_strictly(Tiny(), tensors, "some.file")


@pytest.fixture
def model_dir(tiny_model_dir: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, to be spoiled."""
    return Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))


def load_error(model_dir: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        Engine.load(EngineConfig(model_dir=model_dir, device="cpu"))
    return str(caught.value)


def test_swapped_files_are_told_together(model_dir: Path) -> None:
    (model_dir / "gpt.pth").rename(model_dir / "x")
    (model_dir / "s2mel.pth").rename(model_dir / "gpt.pth")
    (model_dir / "x").rename(model_dir / "s2mel.pth")
    (model_dir / "hf_cache" / "campplus_cn_common.bin").write_bytes(b"not much")
    said = load_error(model_dir)
    for name in ("gpt.pth", "s2mel.pth"):
        assert re.search(rf"{name} does not fit the network: \d+ missing: .* and \d+ more; \d+ unexpected: ", said)
    assert "cannot read the model file" in said and "campplus_cn_common.bin" in said


def test_swapped_tables(model_dir: Path) -> None:
    (model_dir / "feat1.pt").write_bytes((model_dir / "feat2.pt").read_bytes())
    assert "feat1.pt should hold one matrix" in load_error(model_dir)


def test_a_broken_table(model_dir: Path) -> None:
    table = torch.load(model_dir / "feat2.pt", weights_only=True)
    table[0, 0] = math.nan
    torch.save(table, model_dir / "feat2.pt")
    assert "feat2.pt is damaged" in load_error(model_dir)


def test_the_statistics_of_another_file(model_dir: Path) -> None:
    torch.save({"mean": torch.zeros(3), "std": torch.ones(3)}, model_dir / "wav2vec2bert_stats.pt")
    assert "wav2vec2bert_stats.pt should hold mean and var, not mean, std" in load_error(model_dir)


def test_the_vocabulary_of_another_model(model_dir: Path) -> None:
    lines = EVAL_SENTENCES.read_text(encoding="utf-8").upper().splitlines()
    (model_dir / "bpe.model").write_bytes(train_vocabulary(lines, 600))
    assert "bpe.model has 600 tokens and the language model 420" in load_error(model_dir)


@pytest.mark.parametrize("content", [b"", b"\x0a\xff\xff\xff\xff\x0f", b"text"])
def test_a_damaged_vocabulary(model_dir: Path, content: bytes) -> None:
    (model_dir / "bpe.model").write_bytes(content)
    assert "cannot read the vocabulary" in load_error(model_dir)


def test_all_missing_files_are_listed(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("version: 2.0\n")
    with pytest.raises(CheckpointError) as caught:
        locate(tmp_path)
    for name in ("bpe.model", "gpt.pth", "s2mel.pth", "feat1.pt", "feat2.pt", "campplus_cn_common.bin", "bigvgan"):
        assert name in str(caught.value)


def test_a_mistyped_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        locate(tmp_path / "checkpiont")
