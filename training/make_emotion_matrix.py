"""The tables behind the eight emotion sliders (spec 8.3): ``feat1`` (voices) and ``feat2`` (emotion vectors).

    python -m training.make_emotion_matrix --data DATA --out RUNS

For each emotion the training utterances spoken in its style are clustered by voice; a row of ``feat1`` is the mean
style vector of a cluster, and the same row of ``feat2`` the vector by which the language model learnt to be told of the
emotion (``gpt_emotions.safetensors``), for every voice the same. At inference the row with the nearest voice is taken.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from indextts.config_file import load_model_config
from training.dataset import SpeechData
from training.extract_styles import load_styles
from training.styles import STYLE_NAMES

MIN_INTENSITY = 0.6
MAX_UTTERANCES = 4096  # of one emotion; the means do not change with more


def cluster(points: Tensor, count: int, generator: torch.Generator, steps: int = 20) -> Tensor:
    """Cosine k-means: the cluster ``[P]`` of each of ``points [P, D]``; every cluster has at least one point."""
    points = torch.nn.functional.normalize(points, dim=1)
    drawn = torch.randperm(len(points), generator=generator, device=generator.device)[:count]
    centres = points[drawn.to(points.device)]
    nearest = torch.zeros(len(points), dtype=torch.long, device=points.device)
    for _ in range(steps):
        nearest = (points @ centres.T).argmax(1)
        for index in range(count):
            members = points[nearest == index]
            # An empty cluster takes the point that its neighbours serve worst.
            worst = (points @ centres.T).amax(1).argmin()
            centres[index] = members.mean(0) if len(members) else points[worst]
        centres = torch.nn.functional.normalize(centres, dim=1)
    nearest = (points @ centres.T).argmax(1)
    for index in range(count):
        if not (nearest == index).any():
            nearest[(points @ centres[index]).argmax()] = index
    return nearest


def tables(
    styles: Tensor, style: Tensor, intensity: Tensor, told: Tensor, rows: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """``feat1 [sum(rows), S]`` and ``feat2 [sum(rows), D]``.

    Args:
        styles: Style vector of each utterance, ``[U, S]``.
        style: Which emotion it is spoken in, ``[U]``, and ``intensity [U]`` how strongly.
        told: The language model's vector for each, ``[9, D]``.
        rows: How many rows each emotion has.
    """
    generator = torch.Generator().manual_seed(0)
    voices, emotions = [], []
    for number, count in enumerate(rows, start=1):
        strong = torch.nonzero((style == number) & (intensity >= MIN_INTENSITY)).squeeze(1)
        if len(strong) < count:
            raise SystemExit(f"only {len(strong)} utterances in the style {STYLE_NAMES[number]!r}; {count} are needed")
        chosen = styles[strong[torch.randperm(len(strong), generator=generator).to(strong.device)[:MAX_UTTERANCES]]]
        nearest = cluster(chosen.float(), count, generator)
        voices += [chosen[nearest == index].float().mean(0) for index in range(count)]
        emotions += [told[number]] * count
        print(f"{STYLE_NAMES[number]}: {len(chosen)} utterances in {count} rows", flush=True)
    return torch.stack(voices), torch.stack(emotions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the generated speech")
    parser.add_argument("--out", type=Path, required=True, help="folder of the trained networks, and of the result")
    parser.add_argument("--config", type=Path, default=Path("checkpoints/nano/config.yaml"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    data = SpeechData(arguments.data, arguments.device)
    styles = load_styles(arguments.out, arguments.device)
    told = load_file(arguments.out / "gpt_emotions.safetensors")["weight"]
    count = len(styles)
    rows = load_model_config(arguments.config).emo_num
    feat1, feat2 = tables(styles, data.style[:count], data.intensity[:count], told, tuple(rows))
    save_file({"feat1": feat1.cpu().contiguous()}, arguments.out / "feat1.safetensors")
    save_file({"feat2": feat2.cpu().contiguous()}, arguments.out / "feat2.safetensors")


if __name__ == "__main__":
    main()
