"""``indextts synth``: one text, one voice, one WAV file."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import math
import sys
from pathlib import Path
from typing import Any

from indextts.cli.flags import add_engine_flags, at_least_one, engine_config
from indextts.cli.logs import setup_logging
from indextts.cli.output import say
from indextts.config import SamplingParams
from indextts.errors import ConfigError, EmotionError, TextError
from indextts.types import Emotion, FromAudio, FromText, FromVector, FromVoice, Progress, SynthesisRequest, VoicePrompt

MAX_VECTOR_SUM = 0.8
SAMPLING_HELP = {
    "do_sample": "draw codes; --no-do-sample always takes the likeliest",
    "top_p": "draw from the likeliest codes of this probability, 1 is off",
    "top_k": "draw from so many of the likeliest codes, 0 is off",
    "temperature": "higher is livelier",
    "num_beams": "hypotheses side by side",
    "repetition_penalty": "above 1 discourages codes already used",
    "length_penalty": "above 0 prefers longer hypotheses",
    "max_mel_tokens": "longest speech per segment, 50 codes a second",
    "typical_sampling": "draw codes of typical probability",
    "typical_mass": "probability kept by typical sampling",
}


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("synth", help="speak a text into a WAV file")
    parser.set_defaults(run=run, parser=parser)
    text = parser.add_mutually_exclusive_group(required=True)
    text.add_argument("--text", metavar="TEXT", help="the text itself")
    text.add_argument("--text-file", metavar="FILE", help="a UTF-8 file with the text")
    text.add_argument("--stdin", action="store_true", help="read the text from standard input")
    parser.add_argument("--voice", required=True, metavar="FILE", help="recording of the voice to speak with")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE", help="the WAV file to write")
    parser.add_argument("--force", action="store_true", help="replace an output file that exists")
    parser.add_argument("--seed", type=int, metavar="N", help="the same seed and settings give the same speech")
    parser.add_argument("--max-text-tokens", type=at_least_one, default=120, metavar="N", help="longest segment (120)")
    parser.add_argument("--interval-silence", type=int, default=200, metavar="MS", help="between segments (200)")
    group = parser.add_argument_group("emotion", "At most one source; without any, as in the voice recording.")
    source = group.add_mutually_exclusive_group()
    source.add_argument("--emotion-audio", metavar="FILE", help="a recording with the wanted emotion")
    source.add_argument("--emotion-text", metavar="TEXT", help="a description of it")
    source.add_argument(
        "--emotion-vector", metavar="8 NUMBERS",
        help="comma-separated: happy,angry,sad,afraid,disgusted,melancholic,surprised,calm",
    )  # fmt: skip
    group.add_argument("--emotion-weight", type=float, default=1.0, metavar="W", help="how much of it (1.0)")
    add_sampling_flags(parser)
    add_engine_flags(parser)


def add_sampling_flags(parser: argparse.ArgumentParser) -> None:
    """One flag for each field of ``SamplingParams``; not given means the model's own default."""
    group = parser.add_argument_group("sampling", "Not given: as the model's configuration says.")
    for field in dataclasses.fields(SamplingParams):
        flag = "--" + field.name.replace("_", "-")
        text = SAMPLING_HELP[field.name]
        if isinstance(field.default, bool):
            group.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=text)
        else:
            group.add_argument(flag, type=type(field.default), default=None, metavar="N", help=text)


def run(args: argparse.Namespace) -> int:
    """Check everything that can be checked without the model, then load it and speak."""
    config = engine_config(args, args.parser)
    setup_logging(args.verbose, logging.WARNING)
    check_output(args.output, args.force)
    request = SynthesisRequest(
        text=read_text(args),
        voice=VoicePrompt.from_path(args.voice),
        emotion=read_emotion(args),
        max_text_tokens_per_segment=args.max_text_tokens,
        interval_silence_ms=args.interval_silence,
        seed=args.seed,
    )
    sampling = read_sampling(args)
    SamplingParams(**sampling)  # a wrong range is told before the model is loaded

    from indextts.audio import write_wav
    from indextts.engine import Engine

    engine = Engine.load(config)
    request = dataclasses.replace(request, sampling=dataclasses.replace(engine.sampling_defaults, **sampling))
    result = engine.synthesize(request, on_progress=log_progress)
    write_wav(args.output, result.samples, result.sample_rate_hz)
    say(
        f"Generated: {args.output} ({result.duration_s:.1f} s, seed {result.seed}, "
        f"real-time factor {result.real_time_factor:.2f})"
    )
    return 0


def log_progress(step: Progress) -> None:
    logging.getLogger(__name__).debug("%3.0f %% %s", 100 * step.fraction, step.message)


def read_text(args: argparse.Namespace) -> str:
    """The text from whichever source was named. Raises ``TextError`` if it is empty or unreadable."""
    if args.stdin:
        text = sys.stdin.read()
    elif args.text_file is not None:
        try:
            text = Path(args.text_file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise TextError(f"cannot read the text file {args.text_file!r}: {error}") from error
    else:
        text = args.text
    if not text.strip():
        raise TextError("the text is empty: there is nothing to speak")
    return text.strip()


def read_emotion(args: argparse.Namespace) -> Emotion:
    """The emotion from whichever source was named. Raises ``EmotionError`` or ``AudioError``."""
    weight = args.emotion_weight
    if not math.isfinite(weight):
        raise EmotionError(f"the emotion weight must be a finite number, not {weight}")
    if args.emotion_audio is not None:
        return FromAudio(VoicePrompt.from_path(args.emotion_audio), weight)
    if args.emotion_text is not None:
        return FromText(args.emotion_text.strip() or None, weight)
    if args.emotion_vector is not None:
        return FromVector(emotion_vector(args.emotion_vector), weight)
    return FromVoice()


def emotion_vector(text: str) -> tuple[float, ...]:
    """Eight numbers, comma-separated, in brackets or not; each 0 to 1, together at most 0.8 (spec 17)."""
    try:
        values = json.loads(f"[{text.strip().removeprefix('[').removesuffix(']')}]")
    except json.JSONDecodeError:
        values = []
    if len(values) != 8 or any(isinstance(v, bool) or not isinstance(v, (int, float)) for v in values):
        raise EmotionError(f"an emotion vector is 8 comma-separated numbers, not {text!r}")
    if not all(0 <= value <= 1 for value in values):
        raise EmotionError(f"every emotion value must be from 0 to 1: {text!r}")
    if sum(values) > MAX_VECTOR_SUM + 1e-9:
        raise EmotionError(f"the emotion values must add up to at most {MAX_VECTOR_SUM}, not {sum(values):g}")
    return tuple(float(value) for value in values)


def read_sampling(args: argparse.Namespace) -> dict[str, Any]:
    """The sampling options that were given."""
    names = [field.name for field in dataclasses.fields(SamplingParams)]
    return {name: value for name in names if (value := getattr(args, name)) is not None}


def check_output(path: Path, force: bool) -> None:
    """Refuse an output that could not or should not be written, before any work is done."""
    if path.suffix.lower() != ".wav":
        raise ConfigError(f"the output must be a .wav file, not {str(path)!r}")
    if path.is_dir():
        raise ConfigError(f"the output {str(path)!r} is a folder")
    if path.exists() and not force:
        raise ConfigError(f"the output {str(path)!r} exists: --force replaces it")
