"""A model folder of random weights in the official layout (spec 2): pickles, nested dicts, weight-norm pairs.

It is for trying what loads, checks, moves and serves real models, at the real sizes and without a download: it speaks
noise. The files are first laid out empty and then filled piece by piece, so that memory stays small at any size.
The emotion model is not among them; tensors that the released files carry and inference ignores are not, either, but
for the upper layers of the semantic encoder, which are a seventh of all.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
from collections.abc import Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any, cast

import sentencepiece
import torch
import yaml
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from indextts.checkpoints import AUXILIARY, locate, record_files, without_allocating
from indextts.config import ModelConfig
from indextts.errors import CheckpointError, ConfigError
from indextts.loading import build_networks
from indextts.random_weights import SIZES

PIECE_VALUES = 1 << 22
SAFETENSORS_DTYPES = {torch.float32: "F32", torch.int64: "I64"}
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ',.!?-0123456789"
FIRST_HAN = 0x4E00
Nested = dict[str, Any]
"""Tensors by name, in dicts of dicts; those on the meta device stand for random ones."""


def write_random_checkpoint(folder: Path, size: str, seed: int = 0) -> Path:
    """Write a model that loads, of random weights, into a new or an empty folder.

    Args:
        size: One of ``indextts.random_weights.SIZES``; "full" takes 6.7 GB of disk.
        seed: The same seed gives the same files.

    Returns:
        The manifest, which is written last.

    Raises:
        ConfigError: an unknown size, or a folder with something in it.
        CheckpointError: the files cannot be written.
    """
    if size not in SIZES:
        raise ConfigError(f"there is no size {size!r}: choose one of {', '.join(SIZES)}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{str(folder)!r} is not empty: random weights need a new or an empty folder")
    names = {field.name: field.default for field in dataclasses.fields(ModelConfig) if isinstance(field.default, str)}
    config = dataclasses.replace(SIZES[size](), **names)  # the official names, also where a size has others
    generator = torch.Generator().manual_seed(seed)
    try:
        for path, content in official_files(config).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            write = write_safetensors if path.endswith(".safetensors") else write_pickle
            write(folder / path, content, generator)
        (folder / config.bpe_model).write_bytes(character_vocabulary(config.gpt.number_text_tokens))
        plain = json.loads(json.dumps(dataclasses.asdict(config)))
        (folder / "config.yaml").write_text(yaml.safe_dump(plain, sort_keys=False), encoding="utf-8")
        return record_files(locate(folder)[1], f"random weights of the size {size}, seed {seed}")
    except OSError as error:
        raise CheckpointError(f"cannot write random weights to {folder}: {error}") from error


def official_files(config: ModelConfig) -> dict[str, Nested]:
    """The content of every file of weights, by its path in the model folder."""
    w2v_bert = dataclasses.replace(config.w2v_bert, output_layer=config.w2v_bert.num_hidden_layers)
    with without_allocating():
        nets = build_networks(dataclasses.replace(config, w2v_bert=w2v_bert))
    tensors = {name: dict(net.state_dict()) for name, net in nets.items()}
    encoder, rows = tensors["semantic_encoder"], sum(config.emo_num)
    net: Nested = {}
    for key, value in tensors["s2mel"].items():
        module, name = key.split(".", 1)
        net.setdefault(module, {})[name] = value
    auxiliary = {key: f"hf_cache/{names[0]}" for key, (_, _, names) in AUXILIARY.items()}
    return {
        config.gpt_checkpoint: tensors["gpt"],
        config.s2mel_checkpoint: {"net": net, "epoch": 0},
        config.w2v_stat: {"mean": encoder.pop("mean"), "var": encoder.pop("var")},
        config.spk_matrix: {"": torch.empty(rows, config.s2mel.style_encoder.dim, device="meta")},
        config.emo_matrix: {"": torch.empty(rows, config.gpt.model_dim, device="meta")},
        auxiliary["w2v_bert"]: encoder,
        auxiliary["semantic_codec"]: tensors["semantic_codec"],
        auxiliary["campplus"]: tensors["style_encoder"],
        auxiliary["bigvgan"]: {"generator": tensors["vocoder"]},
    }


def write_pickle(path: Path, content: Nested, generator: torch.Generator) -> None:
    """A file of ``torch.save``; the key "" stands for a file that is a single tensor."""
    with FakeTensorMode(), torch.serialization.skip_data(materialize_fake_tensors=True):
        torch.save(_with_values(content.get("", content)), path)
    with FakeTensorMode():
        laid_out = torch.load(path, weights_only=True)  # without values, but with the places where they belong
    if "" in content:
        laid_out = {"": laid_out}
    offsets = {name: tensor.untyped_storage()._checkpoint_offset for name, tensor in _leaves(laid_out)}
    _pour(path, content, cast(dict[str, int], offsets), generator)


def write_safetensors(path: Path, content: Nested, generator: torch.Generator) -> None:
    """A safetensors file: the length of a header, the header in JSON, the numbers."""
    header, size_bytes = {}, 0
    for name, tensor in _leaves(content):
        end = size_bytes + tensor.nbytes
        dtype, shape = SAFETENSORS_DTYPES[tensor.dtype], list(tensor.shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [size_bytes, end]}
        size_bytes = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    start = 8 + len(text)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(start + size_bytes)
    offsets = {name: start + entry["data_offsets"][0] for name, entry in header.items()}
    _pour(path, content, offsets, generator)


def _pour(path: Path, content: Nested, offsets: Mapping[str, int], generator: torch.Generator) -> None:
    """Write the numbers of ``content`` to their places in a file."""
    with path.open("r+b") as file:
        for name, tensor in _leaves(content):
            file.seek(offsets[name])
            for piece in _pieces(name, tensor, generator):
                file.write(piece.numpy().tobytes())


def _pieces(name: str, tensor: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
    """The numbers of a tensor, in pieces; random ones keep the scale of what passes through a layer."""
    if not tensor.is_meta:
        yield tensor.contiguous()
        return
    fan_in = tensor.numel() // max(1, len(tensor)) if tensor.ndim else 1
    for start in range(0, tensor.numel(), PIECE_VALUES):
        piece = torch.zeros(min(PIECE_VALUES, tensor.numel() - start))
        if name.endswith("weight_g") or (tensor.ndim == 1 and name.endswith(("weight", "gamma"))):
            piece += 1
        elif tensor.ndim > 1:
            piece.normal_(std=1 / math.sqrt(fan_in), generator=generator)
        yield piece


def _leaves(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}/")
        elif isinstance(value, Tensor):
            yield f"{prefix}{key}", value


def _with_values(value: Any) -> Any:
    """The same dicts, with tensors that are not on the meta device, where ``torch.save`` would store no place."""
    if isinstance(value, Mapping):
        return {key: _with_values(item) for key, item in value.items()}
    return torch.empty(value.shape, dtype=value.dtype) if isinstance(value, Tensor) else value


def character_vocabulary(size: int) -> bytes:
    """A SentencePiece model of ``size`` pieces: the marks of start and end, the unknown, and single characters."""
    marks = 4  # start, end, unknown, and the space
    characters = chain(LETTERS, map(chr, range(FIRST_HAN, FIRST_HAN + size)))
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=islice(characters, size - marks), model_writer=model, model_type="char", vocab_size=size,
        character_coverage=1.0, normalization_rule_name="identity", bos_id=0, eos_id=1, unk_id=2, pad_id=-1,
        minloglevel=2,
    )  # fmt: skip
    return model.getvalue()
