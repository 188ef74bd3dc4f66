"""Renders the prompts of ``training/evaluate.py``: the held-out stock voices reading held-out sentences.

    python -m training.make_prompts --pack PACK --sentences DATA/sentences.json

Nothing was trained on these voices or on these sentences.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch

from training.dataset import SAMPLE_RATE_HZ
from training.evaluate import Clip, write_clips
from training.teacher import SAMPLE_RATE_HZ as TEACHER_RATE_HZ
from training.teacher import Teacher
from training.voices import HELDOUT_STOCK, VoiceBank

SYMBOLS = (110, 150)  # of a prompt: about eight seconds
MIN_WORDS = 7
LEVEL = 0.08  # root mean square


def prompt_texts(sentences: list[dict], count: int) -> list[tuple[str, str]]:
    """(text, phonemes) of prompts of two or more held-out sentences, no sentence twice."""
    rows = [s for s in sentences if s["heldout"] and s["language"] == "en" and s["kind"] == "example"]
    rows = [s for s in rows if len(s["text"].split()) >= MIN_WORDS]  # sentences rather than phrases
    texts: list[tuple[str, str]] = []
    parts: list[dict] = []
    for row in rows:
        size = sum(len(p["phonemes"]) + 1 for p in [*parts, row])
        if size > SYMBOLS[1]:
            continue
        parts.append(row)
        if size >= SYMBOLS[0] and len(parts) > 1:
            texts.append((" ".join(p["text"] for p in parts), " ".join(p["phonemes"] for p in parts)))
            parts = []
            if len(texts) == count:
                return texts
    raise ValueError(f"only {len(texts)} of {count} prompts could be made of {len(rows)} held-out sentences")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pack", type=Path, required=True, help="folder of the packed teacher")
    parser.add_argument("--sentences", type=Path, required=True, help="sentences.json of the training data")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("prompts"))
    options = parser.parse_args()
    bank, teacher = VoiceBank(options.pack / "voices.npz"), Teacher(options.pack)
    sentences = json.loads(options.sentences.read_text(encoding="utf-8"))
    names = [v.name for v in bank.voices]
    options.out.mkdir(parents=True, exist_ok=True)
    clips = []
    for voice, (text, phonemes) in zip(HELDOUT_STOCK, prompt_texts(sentences, len(HELDOUT_STOCK)), strict=True):
        style = bank.style(names.index(voice), len(phonemes))[None]
        one = torch.ones(1)
        speech = teacher.synthesise([phonemes], style, one, one, one, torch.zeros(1))
        wave = soxr.resample(speech.samples[0].numpy(), TEACHER_RATE_HZ, SAMPLE_RATE_HZ)
        wave = wave * min(LEVEL / np.sqrt(np.mean(wave**2)), 0.97 / np.abs(wave).max())
        soundfile.write(options.out / f"{voice}.flac", wave, SAMPLE_RATE_HZ, subtype="PCM_16")
        clips.append(Clip(f"{voice}.flac", text, voice))
        print(f"{voice}: {len(wave) / SAMPLE_RATE_HZ:.1f} s  {text}", flush=True)
    write_clips(options.out, clips)


if __name__ == "__main__":
    main()
