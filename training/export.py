"""Trained weights to the files of ``checkpoints/nano``: the official layout in safetensors, int8 rows or half floats.

    python -m training.export --runs RUNS --out checkpoints/nano

Large matrices are stored as int8 with one scale a row (``indextts.checkpoints.read_tensors`` expands them); everything
else is stored in half precision.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

# trained file -> file of the bundled model
FILES = {
    "semantic_encoder": "hf_cache/w2v-bert-2.0/model.safetensors",
    "wav2vec2bert_stats": "wav2vec2bert_stats.safetensors",
    "semantic_codec": "hf_cache/semantic_codec_model.safetensors",
    "campplus": "hf_cache/campplus_cn_common.safetensors",
    "gpt": "gpt.safetensors",
    "s2mel": "s2mel.safetensors",
    "vocoder": "hf_cache/bigvgan/bigvgan_generator.safetensors",
    "feat1": "feat1.safetensors",
    "feat2": "feat2.safetensors",
}
MIN_INT8_VALUES = 4096


def to_int8_rows(value: Tensor) -> tuple[Tensor, Tensor]:
    """``[R, ...]`` to int8 of the same shape and float32 scales ``[R]``, so that ``int8 * scale`` restores it."""
    rows = value.float().reshape(len(value), -1)
    scale = (rows.abs().amax(1) / 127).clamp(min=1e-12)
    quantised = (rows / scale[:, None]).round().clamp(-127, 127)
    return quantised.to(torch.int8).reshape(value.shape), scale


def compact(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as they are stored."""
    stored: dict[str, Tensor] = {}
    for key, value in tensors.items():
        if value.is_floating_point() and value.ndim >= 2 and value.numel() >= MIN_INT8_VALUES:
            stored[key], stored[f"{key}.scale"] = to_int8_rows(value)
        else:
            stored[key] = value.half() if value.is_floating_point() else value
    return {key: value.contiguous().cpu() for key, value in stored.items()}


def export(runs: Path, out: Path) -> dict[str, int]:
    """Write every file whose trained weights exist in ``runs``; returns their sizes in bytes by name."""
    sizes = {}
    for name, target in FILES.items():
        source = runs / f"{name}.safetensors"
        if source.is_file():
            path = out / target
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(compact(load_file(source)), path)
            sizes[target] = path.stat().st_size
    return sizes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    sizes = export(arguments.runs, arguments.out)
    for name, size in sizes.items():
        print(f"{size / 1e6:8.2f} MB  {name}")
    missing = sorted(set(FILES.values()) - set(sizes))
    print(f"{sum(sizes.values()) / 1e6:8.2f} MB  in all; missing: {missing}")


if __name__ == "__main__":
    main()
