"""``indextts synth``: one text, one voice, one file or a stream of samples."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indextts.cli.flags import add_engine_flags, at_least_one, engine_config
from indextts.cli.logs import setup_logging
from indextts.cli.output import fail, say
from indextts.config import SamplingParams
from indextts.errors import ConfigError, EmotionError, TextError
from indextts.resources import EXAMPLES_DIR
from indextts.text.limits import MAX_TEXT_CHARACTERS, check_text
from indextts.types import Emotion, FromAudio, FromText, FromVector, FromVoice, Progress, SynthesisRequest, VoicePrompt

if TYPE_CHECKING:
    from indextts.engine import Engine

EXIT_FAILED = 4
MAX_VECTOR_SUM = 0.8
DEFAULT_VOICE = "voice_01"
STREAMED = ("wav", "pcm", "flac", "mp3", "ogg", "opus")  # the formats of indextts.audio, which is slow to import
EXAMPLES = """\
examples:
  a sentence in the voice of a recording (five to fifteen seconds of one speaker):
    indextts synth --voice me.wav --text "Hello there." -o hello.wav
  a whole file as MP3, four segments at a time, in a voice that comes along:
    indextts synth --voice voice_02 --text-file chapter.txt --batch-size 4 -o chapter.mp3
  angry, and the same again at every run:
    indextts synth --text "Not again!" --emotion-vector 0,0.7,0,0,0,0,0,0 --seed 7 -o not_again.flac
  straight to the loudspeaker, from the first segment on:
    echo "Read to me." | indextts synth --stdin -o - --format pcm | aplay -f S16_LE -r 22050

exit code: 0 spoken, 1 wrong input, 2 wrong usage or no model, 3 this machine cannot, 4 the synthesis failed
"""
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
    parser = commands.add_parser(
        "synth", help="speak a text into a file or a pipe", description="Speak a text in the voice of a recording.",
        epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.set_defaults(run=run, parser=parser)
    text = parser.add_mutually_exclusive_group(required=True)
    text.add_argument("--text", metavar="TEXT", help="the text itself")
    text.add_argument("--text-file", metavar="FILE", help="a UTF-8 file with the text")
    text.add_argument("--stdin", action="store_true", help="read the text from standard input")
    parser.add_argument(
        "-o", "--output", required=True, metavar="FILE",
        help=f"the file to write, its ending one of {', '.join(STREAMED)}; - is standard output",
    )  # fmt: skip
    parser.add_argument("--format", choices=STREAMED, help="of standard output (wav); pcm comes as it is spoken")
    parser.add_argument("--force", action="store_true", help="replace an output file that exists")
    add_speaking_flags(parser)
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


def add_speaking_flags(parser: argparse.ArgumentParser) -> None:
    """Voice, seed and cut: what ``synth`` and ``batch`` have in common."""
    parser.add_argument(
        "--voice", default=DEFAULT_VOICE, metavar="FILE",
        help=f"recording of the voice to speak with, or voice_01 to voice_08, which come along ({DEFAULT_VOICE})",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, metavar="N", help="the same seed and settings give the same speech")
    parser.add_argument("--max-text-tokens", type=at_least_one, default=120, metavar="N", help="longest segment (120)")
    parser.add_argument("--interval-silence", type=int, default=200, metavar="MS", help="between segments (200)")


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
    check_output(args)
    request = SynthesisRequest(
        text=read_text(args),
        voice=VoicePrompt.from_path(find_voice(args.voice)),
        emotion=read_emotion(args),
        max_text_tokens_per_segment=args.max_text_tokens,
        interval_silence_ms=args.interval_silence,
        seed=args.seed,
    )
    sampling = read_sampling(args)
    SamplingParams(**sampling)  # a wrong range is told before the model is loaded

    from indextts.engine import Engine

    engine = Engine.load(config)
    request = dataclasses.replace(request, sampling=dataclasses.replace(engine.sampling_defaults, **sampling))
    return pipe(engine, request, args.format or "wav") if args.output == "-" else save(engine, request, args.output)


def save(engine: Engine, request: SynthesisRequest, output: str) -> int:
    """Speak into a file, and say how it went."""
    from indextts.audio import write_audio

    result = engine.synthesize(request, on_progress=log_progress)
    write_audio(output, result.samples, result.sample_rate_hz)
    say(
        f"Generated: {output} ({result.duration_s:.1f} s, seed {result.seed}, "
        f"real-time factor {result.real_time_factor:.2f})"
    )
    return 0


def pipe(engine: Engine, request: SynthesisRequest, format: str) -> int:
    """Speak to standard output: raw samples as they come, any other format when all of it is known."""
    from indextts.audio import encode

    try:
        if format == "pcm":
            for chunk in engine.stream(request, on_progress=log_progress):
                sys.stdout.buffer.write(encode(chunk.samples, chunk.sample_rate_hz, format))
                sys.stdout.buffer.flush()
        else:
            result = engine.synthesize(request, on_progress=log_progress)
            sys.stdout.buffer.write(encode(result.samples, result.sample_rate_hz, format))
            sys.stdout.buffer.flush()
    except BrokenPipeError:
        # Python flushes once more at its end, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return fail("whoever read the standard output went away before the end", EXIT_FAILED)
    return 0


def log_progress(step: Progress) -> None:
    logging.getLogger(__name__).debug("%3.0f %% %s", 100 * step.fraction, step.message)


def read_text(args: argparse.Namespace) -> str:
    """The text from whichever source was named. Raises ``TextError`` if it is empty, too long or unreadable."""
    limit = MAX_TEXT_CHARACTERS + 1  # a source without an end must not fill the memory; the engine refuses the rest
    if args.text is not None:
        text = args.text
    else:
        source = "standard input" if args.stdin else f"the text file {args.text_file!r}"
        try:
            if args.stdin:
                text = sys.stdin.read(limit)
            else:
                with open(args.text_file, encoding="utf-8") as file:
                    text = file.read(limit)
        except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a name with a zero byte
            raise TextError(f"cannot read {source}: {error}") from error
    check_text(text)
    return text.strip()


def find_voice(name: str, folder: Path = Path()) -> Path:
    """The path of a recording: a file, relative to ``folder``, or by its name one of those that come along."""
    example = EXAMPLES_DIR / f"{name}.wav"
    path = folder / name
    return example if Path(name).name == name and not path.exists() and example.is_file() else path


def read_emotion(args: argparse.Namespace) -> Emotion:
    """The emotion from whichever source was named. Raises ``EmotionError`` or ``AudioError``."""
    vector = None if args.emotion_vector is None else parse_vector(args.emotion_vector)
    audio = None if args.emotion_audio is None else find_voice(args.emotion_audio)
    return make_emotion(audio, args.emotion_text, vector, args.emotion_weight)


def make_emotion(audio: Path | None, text: str | None, vector: Sequence[object] | None, weight: float) -> Emotion:
    """The emotion of the one source that is not None. Raises ``EmotionError`` or ``AudioError``."""
    if not math.isfinite(weight):
        raise EmotionError(f"the emotion weight must be a finite number, not {weight}")
    if audio is not None:
        return FromAudio(VoicePrompt.from_path(audio), weight)
    if text is not None:
        return FromText(text.strip() or None, weight)
    if vector is not None:
        return FromVector(check_vector(vector), weight)
    return FromVoice()


def parse_vector(text: str) -> Sequence[object]:
    """Numbers, comma-separated, in brackets or not."""
    try:
        return json.loads(f"[{text.strip().removeprefix('[').removesuffix(']')}]")
    except (ValueError, RecursionError) as error:
        raise EmotionError(f"an emotion vector is 8 comma-separated numbers, not {text[:80]!r}") from error


def check_vector(values: Sequence[object]) -> tuple[float, ...]:
    """Eight numbers, each 0 to 1, together at most 0.8 (spec 17)."""
    numbers = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
    if len(numbers) != 8 or len(values) != 8:
        raise EmotionError(f"an emotion vector is 8 comma-separated numbers, not {str(values)[:80]}")
    if not all(0 <= value <= 1 for value in numbers):
        raise EmotionError(f"every emotion value must be from 0 to 1: {values}")
    if sum(numbers) > MAX_VECTOR_SUM + 1e-9:
        raise EmotionError(f"the emotion values must add up to at most {MAX_VECTOR_SUM}, not {sum(numbers):g}")
    return tuple(map(float, numbers))


def read_sampling(args: argparse.Namespace) -> dict[str, Any]:
    """The sampling options that were given."""
    names = [field.name for field in dataclasses.fields(SamplingParams)]
    return {name: value for name in names if (value := getattr(args, name)) is not None}


def check_output(args: argparse.Namespace) -> None:
    """Refuse an output that could not or should not be written, before any work is done."""
    if args.output == "-":
        return
    path = Path(args.output)
    if args.format is not None:
        raise ConfigError(f"--format is for standard output (-o -): the name {args.output!r} tells a file's format")
    if path.suffix.lower().removeprefix(".") not in STREAMED:
        endings = ", ".join(f".{name}" for name in STREAMED)
        raise ConfigError(f"the output {args.output!r} must end in one of {endings}")
    if path.is_dir():
        raise ConfigError(f"the output {args.output!r} is a folder")
    if path.exists() and not args.force:
        raise ConfigError(f"the output {args.output!r} exists: --force replaces it")
