"""Weights of a finished model as results of a run, so that ``training/run.py`` goes on from there.

    python -m training.import_weights --model checkpoints/nano --runs RUNS semantic_encoder semantic_codec campplus

The steps whose results are imported are skipped, and the trainings after them use the weights exactly as the model has
them, rounding included. ``semantic_encoder`` brings its statistics along.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from indextts.checkpoints import read_tensors
from training.export import FILES
from training.loop import save_weights

COMPANIONS = {"semantic_encoder": ("wav2vec2bert_stats",)}


def import_weights(model: Path, runs: Path, names: list[str]) -> list[Path]:
    """Write ``RUNS/<name>.safetensors`` for every name; returns the paths.

    Raises:
        ValueError: a name that no part of a model has.
    """
    if unknown := sorted(set(names) - set(FILES)):
        raise ValueError(f"unknown: {', '.join(unknown)}; there are {', '.join(FILES)}")
    runs.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in names:
        for part in (name, *COMPANIONS.get(name, ())):
            paths.append(runs / f"{part}.safetensors")
            save_weights(paths[-1], read_tensors(model / FILES[part]))
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("names", nargs="+", help=", ".join(FILES))
    arguments = parser.parse_args()
    for path in import_weights(arguments.model, arguments.runs, arguments.names):
        print(path)


if __name__ == "__main__":
    main()
