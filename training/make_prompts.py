"""Renders the prompts of ``training/evaluate.py``: held-out voices reading held-out sentences.

    python -m training.make_prompts --pack PACK --sentences DATA/sentences.json
    python -m training.make_prompts --pack PACK --sentences DATA/sentences.json --kind drawn --out DIR
    python -m training.make_prompts --pack PACK --sentences DATA/sentences.json --kind styles --out DIR

The first form makes ``training/prompts``, of the stock voices. ``drawn`` are the fifty held-out voices that were drawn
at random, and ``styles`` one stock voice in the manner of each emotion. Nothing was trained on these voices or on these
sentences.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch

from training.clips import Clip, write_clips
from training.dataset import SAMPLE_RATE_HZ
from training.generate import Reader, Utterance
from training.styles import STYLE_NAMES, STYLES
from training.teacher import SAMPLE_RATE_HZ as TEACHER_RATE_HZ
from training.teacher import Teacher
from training.voices import HELDOUT_STOCK, VoiceBank

SYMBOLS = (110, 150)  # of a prompt: about eight seconds
MIN_WORDS = 7
LEVEL = 0.08  # root mean square
SILENCE_FRAMES = (4, 6)
STYLES_VOICE = "bf_emma"


def prompt_texts(sentences: list[dict], count: int) -> list[tuple[str, str]]:
    """(text, phonemes) of prompts of two or more held-out sentences, no sentence twice."""
    rows = [s for s in sentences if s["heldout"] and s["language"] == "en" and s["kind"] == "example"]
    rows = [s for s in rows if len(s["text"].split()) >= MIN_WORDS]  # sentences rather than phrases
    texts: list[tuple[str, str]] = []
    while rows:
        made = len(texts)
        parts: list[dict] = []
        passed_over: list[dict] = []  # too long for what was begun
        for row in rows:
            size = sum(len(p["phonemes"]) + 1 for p in [*parts, row])
            if size > SYMBOLS[1]:
                passed_over.append(row)
                continue
            parts.append(row)
            if size >= SYMBOLS[0] and len(parts) > 1:
                texts.append((" ".join(p["text"] for p in parts), " ".join(p["phonemes"] for p in parts)))
                parts = []
                if len(texts) == count:
                    return texts
        rows = passed_over + (parts if len(texts) > made else [])  # to what was begun in vain nothing fits
    raise ValueError(f"only {len(texts)} of {count} prompts could be made of the held-out sentences")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pack", type=Path, required=True, help="folder of the packed teacher")
    parser.add_argument("--sentences", type=Path, required=True, help="sentences.json of the training data")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("prompts"))
    parser.add_argument("--kind", choices=("stock", "drawn", "styles"), default="stock")
    parser.add_argument("--seed", type=int, default=1, help="that of the generated data")
    options = parser.parse_args()
    sentences = json.loads(options.sentences.read_text(encoding="utf-8"))
    options.out.mkdir(parents=True, exist_ok=True)
    if options.kind == "stock":
        write_clips(options.out, list(stock_prompts(options.pack, sentences, options.out)))
        return
    bank = VoiceBank(options.pack / "voices.npz", options.seed)
    write_clips(options.out, list(read_prompts(options.pack, bank, sentences, options.kind, options.out)))


def stock_prompts(pack: Path, sentences: list[dict], out: Path) -> Iterator[Clip]:
    """The held-out stock voices."""
    bank, teacher = VoiceBank(pack / "voices.npz"), Teacher(pack)
    names = [v.name for v in bank.voices]
    for voice, (text, phonemes) in zip(HELDOUT_STOCK, prompt_texts(sentences, len(HELDOUT_STOCK)), strict=True):
        style = bank.style(names.index(voice), len(phonemes))[None]
        one = torch.ones(1)
        speech = teacher.synthesise([phonemes], style, one, one, one, torch.zeros(1))
        wave = soxr.resample(speech.samples[0].numpy(), TEACHER_RATE_HZ, SAMPLE_RATE_HZ)
        wave = wave * min(LEVEL / np.sqrt(np.mean(wave**2)), 0.97 / np.abs(wave).max())
        soundfile.write(out / f"{voice}.flac", wave, SAMPLE_RATE_HZ, subtype="PCM_16")
        print(f"{voice}: {len(wave) / SAMPLE_RATE_HZ:.1f} s  {text}", flush=True)
        yield Clip(f"{voice}.flac", text, voice)


def read_prompts(pack: Path, bank: VoiceBank, sentences: list[dict], kind: str, out: Path) -> Iterator[Clip]:
    """The drawn voices that are held out, or one voice in all styles at full intensity."""
    drawn = [i for i, voice in enumerate(bank.voices) if voice.heldout and not voice.stock]
    speaker = next(i for i, voice in enumerate(bank.voices) if voice.name == STYLES_VOICE)
    wanted = [(i, 0) for i in drawn] if kind == "drawn" else [(speaker, i) for i in range(1, len(STYLE_NAMES))]
    texts = prompt_texts(sentences, len(wanted))
    rows = [{"text": text, "phonemes": phonemes} for text, phonemes in texts]
    reader = Reader(pack, bank, rows, "cpu", batch_symbols=0)
    for row, (voice, style) in enumerate(wanted):
        prosody = STYLES[STYLE_NAMES[style]]
        ((samples, _, _),) = reader.read([Utterance(voice, row, style, 1.0, prosody, SILENCE_FRAMES)])
        name = bank.voices[voice].name if kind == "drawn" else STYLE_NAMES[style]
        soundfile.write(out / f"{name}.flac", samples, SAMPLE_RATE_HZ, subtype="PCM_16")
        print(f"{name}: {len(samples) / SAMPLE_RATE_HZ:.1f} s  {texts[row][0]}", flush=True)
        yield Clip(f"{name}.flac", texts[row][0], bank.voices[voice].name, case=STYLE_NAMES[style])


if __name__ == "__main__":
    main()
