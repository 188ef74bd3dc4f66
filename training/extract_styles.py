"""Style vectors of all utterances, for the networks that are conditioned on them.

    python -m training.extract_styles --data DATA --out OUT

Reads ``OUT/campplus.safetensors``; writes float16 ``[num_utterances, dim]`` in the order of ``SpeechData``:
``OUT/style.npy`` for the training split, ``OUT/style_heldout.npy`` for the other. Each vector is of the whole,
clean utterance.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from indextts.audio import resample_22k_to_16k, style_features
from indextts.config_file import load_model_config
from indextts.models.campplus import CAMPPlus
from training import loop
from training.augment import augment
from training.dataset import SAMPLE_RATE_HZ, SpeechData, Split

FILES: dict[Split, str] = {"train": "style.npy", "heldout": "style_heldout.npy"}


def load_styles(out_dir: str | Path, device: str | torch.device, split: Split = "train") -> Tensor:
    """The extracted style vectors of a split.

    Returns:
        float32 ``[num_utterances, dim]`` on ``device``; a row is an utterance index of ``SpeechData``.
    """
    return torch.from_numpy(np.load(Path(out_dir) / FILES[split])).to(device).float()


@torch.no_grad()
def embed_utterances(
    model: CAMPPlus,
    data: SpeechData,
    indices: Tensor,
    batch_size: int = 128,
    noise: torch.Generator | None = None,
) -> Tensor:
    """Style vectors of utterances. ``model`` must be in evaluation mode.

    The utterances are taken in order of length and each batch is cut to its shortest, which costs a few
    hundredths of a second and needs no masks.

    Args:
        noise: if given, the recordings are first degraded (``training/augment.py``) with randomness from here.

    Returns:
        float32 ``[len(indices), dim]``.
    """
    indices = indices.to(data.device)
    samples = data.num_samples(indices)
    styles = torch.zeros(len(indices), model.dim, device=data.device)
    for rows in torch.argsort(samples).split(batch_size):
        wave = data.wave(indices[rows], num_samples=int(samples[rows].min()))
        if noise is not None:
            wave = augment(wave, SAMPLE_RATE_HZ, noise)
        features = style_features(resample_22k_to_16k(wave))
        with torch.autocast(data.device.type, torch.bfloat16, enabled=data.device.type == "cuda"):
            styles[rows] = model(features).float()
    return styles


def main() -> None:
    options = loop.arguments(__doc__, minutes=0)
    device = loop.device_for(options.smoke)
    model = CAMPPlus(load_model_config(options.config).s2mel.style_encoder)
    model.load_state_dict(load_file(options.out / "campplus.safetensors"))
    model.to(device).eval()
    for split, name in FILES.items():
        data = SpeechData(options.data, device, split)
        styles = embed_utterances(model, data, torch.arange(len(data))).half().cpu().numpy()
        partial = options.out / f".{name}.partial.npy"
        np.save(partial, styles)
        os.replace(partial, options.out / name)
        print(f"{name}: {len(styles)} style vectors of {data.num_voices} voices", flush=True)


if __name__ == "__main__":
    main()
