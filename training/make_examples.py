"""Renders the example recordings of ``examples`` that ``examples/voices.json`` describes.

    python -m training.make_examples --pack PACK

All voices are held out: the bundled model was not trained on them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import soundfile
import torch

from training.dataset import SAMPLE_RATE_HZ
from training.generate import Reader, Utterance
from training.styles import Prosody
from training.voices import VoiceBank

SILENCE_FRAMES = (6, 8)
READING = Prosody(speed=0.92)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1, help="that of the generated data")
    parser.add_argument("--examples", type=Path, default=Path("examples"))
    args = parser.parse_args()
    rows = json.loads((args.examples / "voices.json").read_text(encoding="utf-8"))
    bank = VoiceBank(args.pack / "voices.npz", args.seed)
    number = {voice.name: i for i, voice in enumerate(bank.voices) if voice.heldout}
    reader = Reader(args.pack, bank, rows, "cpu", batch_symbols=0)
    torch.manual_seed(args.seed)
    for sentence, row in enumerate(rows):
        utterance = Utterance(number[row["voice"]], sentence, 0, 0.0, READING, SILENCE_FRAMES)
        ((samples, _, _),) = reader.read([utterance])
        soundfile.write(args.examples / row["file"], samples, SAMPLE_RATE_HZ, subtype="PCM_16")


if __name__ == "__main__":
    main()
