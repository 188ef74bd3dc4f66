"""Trained weights to the files of ``checkpoints/nano``: the official layout in safetensors, int8 rows or half floats.

    python -m training.export --runs RUNS --out checkpoints/nano
    python -m training.export --runs RUNS --out SNAPSHOT --unfinished --use s2mel=s2mel_codes

The second form saves what there is in the middle of a run: networks that are still learning are taken from their last
checkpoint, and another stage of one may stand in for it.

Large matrices are stored as int8 with one scale a row (``indextts.checkpoints.read_tensors`` expands them); everything
else is stored in half precision.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from training.styles import TOLD_EMOTIONS

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
# trained file -> part of its checkpoint and prefix of the names there
CHECKPOINTS = {
    "semantic_encoder": ("encoder", ""),
    "semantic_codec": ("codec", ""),
    "gpt": ("best", "model."),
    "s2mel_codes": ("averaged", ""),
    "s2mel_latents": ("averaged", ""),
    "s2mel": ("averaged", ""),
}


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


def trained(runs: Path, name: str, unfinished: bool) -> dict[str, Tensor] | None:
    """The weights of a network in ``runs``, if need be from its checkpoint; None where there are none."""
    source, checkpoint = runs / f"{name}.safetensors", runs / f"{name}.pt"
    if source.is_file():
        return load_file(source)
    if not (unfinished and name in CHECKPOINTS and checkpoint.is_file()):
        return None
    part, prefix = CHECKPOINTS[name]
    tensors = torch.load(checkpoint, map_location="cpu", weights_only=True)["parts"][part]
    tensors = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    return {key: value for key, value in tensors.items() if not key.startswith(f"{TOLD_EMOTIONS}.")}


def export(runs: Path, out: Path, use: Mapping[str, str] | None = None, unfinished: bool = False) -> dict[str, int]:
    """Write every file whose trained weights exist in ``runs``; returns their sizes in bytes by name.

    Args:
        use: For a network the name of the one whose weights are taken for it.
        unfinished: Also take weights from checkpoints.
    """
    sizes = {}
    for name, target in FILES.items():
        tensors = trained(runs, (use or {}).get(name, name), unfinished)
        if tensors is not None:
            path = out / target
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(compact(tensors), path)
            sizes[target] = path.stat().st_size
    return sizes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--use", nargs="*", default=[], help="weights that stand in, such as s2mel=s2mel_latents")
    parser.add_argument("--unfinished", action="store_true", help="also take weights from checkpoints")
    arguments = parser.parse_args()
    use = dict(value.split("=", 1) for value in arguments.use)
    sizes = export(arguments.runs, arguments.out, use, arguments.unfinished)
    for name, size in sizes.items():
        print(f"{size / 1e6:8.2f} MB  {name}")
    missing = sorted(set(FILES.values()) - set(sizes))
    print(f"{sum(sizes.values()) / 1e6:8.2f} MB  in all; missing: {missing}")


if __name__ == "__main__":
    main()
