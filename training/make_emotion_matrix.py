"""The tables behind the eight emotion sliders (spec 8.3): ``feat1`` (voices) and ``feat2`` (emotion vectors).

    python -m training.make_emotion_matrix --data DATA --out RUNS

For each emotion the training utterances spoken in its style are clustered by voice; a row of ``feat1`` is the mean
style vector of a cluster, the same row of ``feat2`` the mean emotion vector that the language model hears in it. At
inference the row with the nearest voice is taken.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from indextts.config import load_model_config
from indextts.models.gpt import UnifiedVoice
from training.dataset import SpeechData
from training.extract_styles import load_styles
from training.semantics import Semantics
from training.styles import STYLE_NAMES

MIN_INTENSITY = 0.6
MAX_UTTERANCES = 4096  # of one emotion; the means do not change with more
BATCH = 64


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


@torch.inference_mode()
def emotion_vectors(gpt: UnifiedVoice, semantics: Semantics, indices: Tensor) -> Tensor:
    """What the language model hears in each utterance, ``[P, model_dim]``."""
    return torch.cat(
        [gpt.emotion_vector(*semantics.embeddings(part, augmented=False)) for part in indices.split(BATCH)]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=Path("checkpoints/nano/config.yaml"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    config = load_model_config(arguments.config)
    data = SpeechData(arguments.data, arguments.device)
    semantics = Semantics(arguments.out, arguments.device)
    styles = load_styles(arguments.out, arguments.device)
    gpt = UnifiedVoice(config.gpt)
    gpt.load_state_dict(load_file(arguments.out / "gpt.safetensors"))
    gpt.to(arguments.device).eval()
    generator = torch.Generator().manual_seed(0)
    usable = torch.arange(len(semantics), device=data.style.device)
    voices, emotions = [], []
    for style, rows in enumerate(config.emo_num, start=1):
        strong = usable[(data.style[usable] == style) & (data.intensity[usable] >= MIN_INTENSITY)]
        order = torch.randperm(len(strong), generator=generator).to(strong.device)
        chosen = strong[order[:MAX_UTTERANCES]]
        if len(chosen) < rows:
            raise SystemExit(f"only {len(chosen)} utterances in the style {STYLE_NAMES[style]!r}; {rows} are needed")
        nearest = cluster(styles[chosen].float(), rows, generator)
        heard = emotion_vectors(gpt, semantics, chosen)
        for index in range(rows):
            voices.append(styles[chosen][nearest == index].float().mean(0))
            emotions.append(heard[nearest == index].float().mean(0))
        print(f"{STYLE_NAMES[style]}: {len(chosen)} utterances in {rows} rows", flush=True)
    save_file({"feat1": torch.stack(voices).cpu()}, arguments.out / "feat1.safetensors")
    save_file({"feat2": torch.stack(emotions).cpu()}, arguments.out / "feat2.safetensors")


if __name__ == "__main__":
    main()
