"""Lets the flow of a finished model hear the codes alone.

    python -m training.without_latents --model checkpoints/nano

Latents of another language model than the one that the flow was trained with mean nothing to it. Both stages of its
training have rows without latents, so that it speaks without them as well: the last layer of their projection becomes
zero.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from indextts.checkpoints import read_tensors
from training.export import FILES, compact

PROJECTION = "gpt_layer."


def muted(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a flow whose projection of the latents gives zeros."""
    last = max(int(key.split(".")[1]) for key in tensors if key.startswith(PROJECTION))
    return {
        key: value.new_zeros(value.shape) if key.startswith(f"{PROJECTION}{last}.") else value
        for key, value in tensors.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    path = parser.parse_args().model / FILES["s2mel"]
    save_file(compact(muted(read_tensors(path))), path)


if __name__ == "__main__":
    main()
