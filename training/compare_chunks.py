"""Does speech in chunks sound like speech in one piece? Compares both on the bundled (or another) voice model.

    python -m training.compare_chunks --sentences 8

Pairs of sentences that no network was trained on are spoken twice with the same seed, once in one piece and once in
chunks (docs/streaming.md). The codes are the same, so all differences come from flow and vocoder. Shown are, in dB:

- the log-spectral distance between both, at the seams of the chunks and elsewhere, and for comparison the distance
  between two renderings in one piece that differ in nothing but the noise that the flow starts from;
- how much the spectrum changes within four frames, at the seams and in one piece at the same places;

and the word error rate of Whisper tiny.en, the time to the first sound, and how long a listener would have to wait
within the speech, all of them in one piece and in chunks.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from indextts.bench.distances import HOP_SAMPLES, distance_db, log_spectrum
from indextts.cli.output import say
from indextts.config import EngineConfig
from indextts.encoding import write_wav
from indextts.engine import Engine
from indextts.resources import EVAL_SENTENCES
from indextts.types import ChunkSchedule, SynthesisRequest, VoicePrompt
from tests.recogniser import transcribe, word_error_rate

ROOT = Path(__file__).resolve().parents[1]
SEAM_FRAMES = 4
"""Frames within this distance of a seam count as at the seam."""


@dataclasses.dataclass
class Figures:
    """Of all sentences, one after the other. Distances and changes by frame."""

    at_seams_db: list[float] = dataclasses.field(default_factory=list)
    elsewhere_db: list[float] = dataclasses.field(default_factory=list)
    other_noise_db: list[float] = dataclasses.field(default_factory=list)
    change_at_seams_db: list[float] = dataclasses.field(default_factory=list)
    change_there_in_one_piece_db: list[float] = dataclasses.field(default_factory=list)
    word_errors: list[float] = dataclasses.field(default_factory=list)
    word_errors_in_one_piece: list[float] = dataclasses.field(default_factory=list)
    first_sound_s: list[float] = dataclasses.field(default_factory=list)
    first_sound_in_one_piece_s: list[float] = dataclasses.field(default_factory=list)
    stall_s: list[float] = dataclasses.field(default_factory=list)


def change_db(spectrum: Tensor) -> Tensor:
    """How much the spectrum changes across each frame, ``[frames]``; the windows on either side do not overlap."""
    change = distance_db(spectrum[:, 4:], spectrum[:, :-4])
    return torch.nn.functional.pad(change, (2, 2), value=float("nan"))


def near(seams: list[int], frames: int) -> Tensor:
    """Whether a frame is at a seam; seams in samples."""
    distance = torch.arange(frames)[:, None] - torch.tensor(seams) / HOP_SAMPLES
    return (distance.abs() <= SEAM_FRAMES).any(1)


def in_chunks(engine: Engine, request: SynthesisRequest, figures: Figures) -> tuple[np.ndarray, list[int]]:
    """The samples and where its chunks begin, the first one excepted."""
    started, pieces, seams, heard_until_s = time.perf_counter(), [], [], None
    for chunk in engine.stream(request):
        now_s = time.perf_counter() - started
        if heard_until_s is None:
            figures.first_sound_s.append(now_s)
            figures.stall_s.append(0.0)
        else:
            seams.append(sum(map(len, pieces)))
            figures.stall_s[-1] += max(0.0, now_s - heard_until_s)
        heard_until_s = max(now_s, heard_until_s or 0.0) + len(chunk.samples) / chunk.sample_rate_hz
        pieces.append(chunk.samples)
    return np.concatenate(pieces), seams


def compare(engine: Engine, request: SynthesisRequest, folder: Path, figures: Figures) -> None:
    """Speak a request in all ways, and add what is found to ``figures``."""
    started = time.perf_counter()
    whole = engine.synthesize(dataclasses.replace(request, chunks=None))
    figures.first_sound_in_one_piece_s.append(time.perf_counter() - started)
    if whole.segments > 1:
        raise SystemExit(f"more than one segment: {request.text}")
    stage, draw = engine.stages.s2mel, engine.stages.s2mel.draw_noise
    stage.draw_noise = lambda segment, frames, generator: draw(segment + 1000, frames, generator)
    other = engine.synthesize(dataclasses.replace(request, chunks=None))
    stage.draw_noise = draw
    samples, seams = in_chunks(engine, request, figures)
    spectra = [log_spectrum(torch.from_numpy(x / 2**15).float()) for x in (whole.samples, other.samples, samples)]
    at_seams = near(seams, spectra[0].shape[1]) if seams else torch.zeros(spectra[0].shape[1], dtype=torch.bool)
    apart = distance_db(spectra[0], spectra[2])
    figures.at_seams_db += apart[at_seams].tolist()
    figures.elsewhere_db += apart[~at_seams].tolist()
    figures.other_noise_db += distance_db(spectra[0], spectra[1]).tolist()
    figures.change_at_seams_db += change_db(spectra[2])[at_seams].tolist()
    figures.change_there_in_one_piece_db += change_db(spectra[0])[at_seams].tolist()
    number = len(figures.stall_s)
    for name, sound, errors in (
        ("whole", whole.samples, figures.word_errors_in_one_piece), ("chunks", samples, figures.word_errors),
    ):  # fmt: skip
        path = folder / f"{number:02d}_{name}.wav"
        write_wav(path, sound, engine.sample_rate_hz)
        errors.append(word_error_rate(request.text, transcribe(path)))
    say(f"{number}: {len(samples) / engine.sample_rate_hz:.1f} s, {len(seams)} seams")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=int, default=8, metavar="N", help="pairs of sentences (8)")
    parser.add_argument("--model-dir", type=Path, default=Path("checkpoints"), metavar="DIR")
    parser.add_argument("--device", metavar="NAME")
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="where the recordings go (out)")
    for field in dataclasses.fields(ChunkSchedule):
        flag = "--" + field.name.replace("_", "-")
        parser.add_argument(flag, type=type(field.default), default=field.default, metavar="N")
    options = parser.parse_args()
    chunks = ChunkSchedule(**{f.name: getattr(options, f.name) for f in dataclasses.fields(ChunkSchedule)})
    options.out.mkdir(parents=True, exist_ok=True)
    lines = EVAL_SENTENCES.read_text(encoding="utf-8").splitlines()
    texts = [" ".join(pair) for pair in zip(lines[::2], lines[1::2], strict=False)]
    voices = sorted((ROOT / "examples").glob("voice_*"))
    engine = Engine.load(EngineConfig(model_dir=options.model_dir, device=options.device, qwen_emotion=False))
    figures = Figures()
    for number, text in enumerate(texts[: options.sentences]):
        voice = VoicePrompt.from_path(voices[number % len(voices)])
        engine.stages.conditioning.voice(voice)  # known before, as it is to all that follow the first request
        request = SynthesisRequest(
            text, voice, max_text_tokens_per_segment=300, chunks=chunks, seed=number, repair=False
        )
        compare(engine, request, options.out, figures)
    say(f"{engine.model_name}, {engine.report.device}, {len(figures.stall_s)} texts, {chunks}")
    for field in dataclasses.fields(Figures):
        values = [value for value in getattr(figures, field.name) if value == value]
        say(f"{field.name:32s} {statistics.fmean(values) if values else float('nan'):8.3f}")


if __name__ == "__main__":
    main()
