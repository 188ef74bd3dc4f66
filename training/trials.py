"""What each evaluation says, in whose voice and how: the clips that ``training/evaluate.py`` makes and judges."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from indextts.emotion import EMOTIONS
from indextts.resources import EVAL_SENTENCES
from training.clips import Clip, read_clips
from training.rough import KINDS, degrade_prompts

HERE = Path(__file__).resolve().parent
SENTENCES = {"en": EVAL_SENTENCES, "zh": HERE / "eval_sentences_zh.txt"}
LONG_TEXTS = {"en": HERE / "eval_long.txt", "zh": HERE / "eval_long_zh.txt"}
STRENGTH = 0.8
WEIGHTS = (0.2, 0.4, 0.6, 0.8)
DURATION_FACTORS = (0.8, 0.9, 1.0, 1.1, 1.25)
COMPARED_WITH = "calm"
PLAIN = "none"


def lines_of(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def pairs(options: argparse.Namespace, cross: bool) -> Iterator[Clip]:
    """A clip for each sentence, the voices taking turns, or for each sentence in each voice."""
    sentences = lines_of(options.sentences_file or SENTENCES[options.language])[: options.sentences]
    voices = [clip.voice for clip in read_clips(options.prompts)][: options.voices]
    for number, text in enumerate(sentences):
        for voice in voices if cross else [voices[number % len(voices)]]:
            seed = options.seed + number
            yield Clip(f"{number:03d}_{voice}.wav", text, voice, seed=seed, language=options.language)


def as_case(clip: Clip, case: str, **changes) -> Clip:
    """The clip under a file name of its own."""
    return replace(clip, file=f"{Path(clip.file).stem}_{case}.wav", case=case, **changes)


def words(options: argparse.Namespace) -> list[Clip]:
    """Each sentence once, or with ``--cross`` in each voice."""
    return list(pairs(options, options.cross))


def emotions(options: argparse.Namespace) -> list[Clip]:
    """Each sentence in each voice: without emotion, and with each of the eight at the same strength."""
    clips = list(pairs(options, cross=True))
    plain = [as_case(clip, PLAIN) for clip in clips]
    return plain + [as_case(c, name, emotion=name, weight=STRENGTH) for name in EMOTIONS for c in clips]


def intensity(options: argparse.Namespace) -> list[Clip]:
    """Each emotion at rising weights."""
    clips = list(pairs(options, options.cross))
    plain = [as_case(clip, PLAIN) for clip in clips]
    return plain + [
        as_case(clip, f"{name}-{weight}", emotion=name, weight=weight)
        for name in EMOTIONS
        for weight in WEIGHTS
        for clip in clips
    ]


def transfer(options: argparse.Namespace) -> list[Clip]:
    """Each sentence in each voice, in the manner of a recording of another voice for each of the eight."""
    if options.styles is None:
        raise SystemExit("give --styles DIR: python -m training.make_prompts --styles makes it")
    clips = list(pairs(options, cross=True))
    plain = [as_case(clip, PLAIN) for clip in clips]
    heard = {clip.case: str(options.styles / clip.file) for clip in read_clips(options.styles)}
    return plain + [as_case(c, name, emotion=heard[name], weight=1.0) for name in EMOTIONS for c in clips]


def long(options: argparse.Namespace) -> list[Clip]:
    """A text of about a minute in one go, in each voice."""
    text = " ".join(lines_of(LONG_TEXTS[options.language]))
    voices = [clip.voice for clip in read_clips(options.prompts)][: options.voices]
    return [Clip(f"long_{v}.wav", text, v, seed=options.seed, language=options.language) for v in voices]


def rough(options: argparse.Namespace) -> list[Clip]:
    """Each sentence with the prompt of its voice as it is, and as a bad microphone, room or line makes it."""
    degrade_prompts(options.prompts, options.out / "prompts", options.seed)
    clips = list(pairs(options, options.cross))
    files = {clip.voice: Path(clip.file).stem for clip in read_clips(options.prompts)}
    worse = [
        as_case(clip, kind, prompt=str((options.out / "prompts" / f"{files[clip.voice]}_{kind}.flac").resolve()))
        for kind in KINDS
        for clip in clips
    ]
    return [as_case(clip, "clean") for clip in clips] + worse


def duration(options: argparse.Namespace) -> list[Clip]:
    """Each sentence at several lengths."""
    clips = list(pairs(options, options.cross))
    return [as_case(clip, f"x{factor}", duration_factor=factor) for factor in DURATION_FACTORS for clip in clips]


TRIALS: dict[str, Callable[[argparse.Namespace], list[Clip]]] = {
    "words": words,
    "emotions": emotions,
    "intensity": intensity,
    "transfer": transfer,
    "long": long,
    "rough": rough,
    "duration": duration,
}
