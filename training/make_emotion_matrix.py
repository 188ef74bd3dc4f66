"""The tables behind the eight emotion sliders (spec 8.3): ``feat1`` (voices) and ``feat2`` (emotion vectors).

    python -m training.make_emotion_matrix --data DATA --out RUNS
    python -m training.make_emotion_matrix --pack PACK --model checkpoints/nano

For each emotion the training utterances spoken in its style are clustered by voice; a row of ``feat1`` is the mean
style vector of a cluster, the same row of ``feat2`` the mean emotion vector that the language model hears in it. At
inference the row with the nearest voice is taken.

The second form makes the tables of a finished model anew, on any machine: the teacher reads a few utterances for each
row, which takes about their duration on one core.
"""

from __future__ import annotations

import argparse
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from indextts import audio
from indextts.config import EngineConfig
from indextts.config_file import load_model_config
from indextts.engine import Engine
from indextts.models.gpt import UnifiedVoice
from training.dataset import SpeechData
from training.export import compact
from training.extract_styles import load_styles
from training.generate import Reader, Utterance
from training.semantics import Semantics
from training.styles import STYLE_NAMES, draw_prosody
from training.voices import VoiceBank

MIN_INTENSITY = 0.6
SYMBOLS = range(25, 46)  # of a sentence that the teacher reads for a row
UTTERANCES_PER_ROW, LEAST_UTTERANCES = 2, 8
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


class Tables:
    """The rows of both tables, emotion after emotion."""

    def __init__(self) -> None:
        self.voices: list[Tensor] = []
        self.emotions: list[Tensor] = []
        self.generator = torch.Generator().manual_seed(0)

    def add(self, name: str, styles: Tensor, heard: Tensor, rows: int) -> None:
        """Rows for one emotion from the style and emotion vectors ``[P, D]`` of its utterances."""
        if len(styles) < rows:
            raise SystemExit(f"only {len(styles)} utterances in the style {name!r}; {rows} are needed")
        nearest = cluster(styles.float(), rows, self.generator)
        for index in range(rows):
            self.voices.append(styles[nearest == index].float().mean(0))
            self.emotions.append(heard[nearest == index].float().mean(0))
        print(f"{name}: {len(styles)} utterances in {rows} rows", flush=True)

    def save(self, folder: Path, store: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict) -> None:
        """Write ``feat1.safetensors`` and ``feat2.safetensors``, as ``store`` wants the tensors."""
        for name, rows in (("feat1", self.voices), ("feat2", self.emotions)):
            save_file(store({name: torch.stack(rows).cpu()}), folder / f"{name}.safetensors")


def from_data(arguments: argparse.Namespace) -> Tables:
    """Tables of the networks in RUNS from the generated speech."""
    config = load_model_config(arguments.config)
    data = SpeechData(arguments.data, arguments.device)
    semantics = Semantics(arguments.out, arguments.device)
    styles = load_styles(arguments.out, arguments.device)
    gpt = UnifiedVoice(config.gpt)
    gpt.load_state_dict(load_file(arguments.out / "gpt.safetensors"))
    gpt.to(arguments.device).eval()
    tables = Tables()
    usable = torch.arange(len(semantics), device=data.style.device)
    for style, rows in enumerate(config.emo_num, start=1):
        strong = usable[(data.style[usable] == style) & (data.intensity[usable] >= MIN_INTENSITY)]
        order = torch.randperm(len(strong), generator=tables.generator).to(strong.device)
        chosen = strong[order[:MAX_UTTERANCES]]
        heard = emotion_vectors(gpt, semantics, chosen)
        tables.add(STYLE_NAMES[style], styles[chosen], heard, rows)
    return tables


@torch.inference_mode()
def from_teacher(pack: Path, model: Path, seed: int = 7) -> Tables:
    """Tables of a finished model from utterances that the teacher reads for the purpose."""
    torch.set_num_threads(1)
    sentences = json.loads(lzma.decompress((pack / "sentences.json.xz").read_bytes()))
    bank = VoiceBank(pack / "voices.npz", seed=1)
    reader = Reader(pack, bank, sentences, "cpu", batch_symbols=0)
    engine = Engine.load(EngineConfig(model_dir=model, device="cpu", qwen_emotion=False))
    nets, conditioning = engine.models, engine.stages.conditioning
    voices = [i for i, voice in enumerate(bank.voices) if not voice.heldout and "en" in voice.languages]
    texts = [
        i
        for i, s in enumerate(sentences)
        if (s["language"], s["kind"], s["heldout"]) == ("en", "example", False) and len(s["phonemes"]) in SYMBOLS
    ]
    random, tables = np.random.default_rng(seed), Tables()
    for style, rows in enumerate(nets.config.emo_num, start=1):
        styles, heard = [], []
        for _ in range(max(LEAST_UTTERANCES, UTTERANCES_PER_ROW * rows)):
            intensity = float(random.uniform(MIN_INTENSITY, 1.0))
            prosody = draw_prosody(style, intensity, random)
            voice, text = int(random.choice(voices)), int(random.choice(texts))
            utterance = Utterance(voice, text, style, intensity, prosody, silence_frames=(3, 4))
            samples = torch.from_numpy(reader.read([utterance])[0][0]).float()[None] / 32768
            wave = audio.resample_22k_to_16k(samples)
            styles.append(nets.style_encoder(audio.style_features(wave))[0])
            embedding = conditioning.semantic_embedding(wave)
            heard.append(nets.gpt.emotion_vector(*conditioning.gpt_input(embedding))[0])
        tables.add(STYLE_NAMES[style], torch.stack(styles), torch.stack(heard), rows)
    return tables


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the generated speech")
    parser.add_argument("--out", type=Path, help="folder of the trained networks, and of the result")
    parser.add_argument("--config", type=Path, default=Path("checkpoints/nano/config.yaml"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--pack", type=Path, help="teacher, voices and sentences")
    parser.add_argument("--model", type=Path, help="folder of a finished model, whose tables are replaced")
    arguments = parser.parse_args()
    if arguments.data and arguments.out:
        from_data(arguments).save(arguments.out)
    elif arguments.pack and arguments.model:
        from_teacher(arguments.pack, arguments.model).save(arguments.model, compact)
    else:
        parser.error("give --data and --out, or --pack and --model")


if __name__ == "__main__":
    main()
