"""``indextts synth``: one text, one voice, one file or a stream of samples."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from indextts.cli.flags import add_engine_flags
from indextts.cli.logs import setup_logging
from indextts.cli.output import fail, say
from indextts.cli.speaker import Speaker, add_server_flag, open_speaker, where_to_speak
from indextts.cli.speech import Speech, add_sampling_flags, add_speaking_flags, find_voice, read_sampling
from indextts.emotion import EMOTIONS
from indextts.encoding import FORMATS, encode, write_audio
from indextts.errors import ConfigError, EmotionError, TextError
from indextts.text.limits import MAX_TEXT_CHARACTERS, check_text
from indextts.types import ReadEmotion

EXIT_FAILED = 4
EXAMPLES = """\
examples:
  a sentence in the voice of a recording (five to fifteen seconds of one speaker):
    indextts synth --voice me.wav --text "Hello there." -o hello.wav
  a whole file as MP3, four segments at a time, in a voice that comes along:
    indextts synth --voice voice_02 --text-file chapter.txt --batch-size 4 -o chapter.mp3
  angry, and the same again at every run:
    indextts synth --text "Not again!" --emotion-vector 0,0.7,0,0,0,0,0,0 --seed 7 -o not_again.flac
  straight to the loudspeaker, while it is still being made:
    echo "Read to me." | indextts synth --stdin -o - --format pcm | aplay -f S16_LE -r 22050
  by a server that runs already, in a voice of its library; nothing is loaded here:
    indextts synth --server http://127.0.0.1:8000 --voice Anna --text "Hello there." -o hello.mp3

exit code: 0 spoken, 1 wrong input, 2 wrong usage, no model or no server, 3 this machine cannot, 4 the synthesis failed
"""


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
        help=f"the file to write, its ending one of {', '.join(FORMATS)}; - is standard output",
    )  # fmt: skip
    parser.add_argument("--format", choices=FORMATS, help="of standard output (wav); pcm comes as it is spoken")
    parser.add_argument(
        "--chunks", action=argparse.BooleanOptionalAction, default=True,
        help="pcm begins while the rest of a segment is still being made, and not when it is finished (on); not "
        "with a wanted duration",
    )  # fmt: skip
    parser.add_argument("--force", action="store_true", help="replace an output file that exists")
    add_speaking_flags(parser)
    add_server_flag(parser)
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


def run(args: argparse.Namespace) -> int:
    """Check everything that can be checked without the model, then speak."""
    where = where_to_speak(args)
    setup_logging(args.verbose, logging.WARNING)
    check_output(args)
    speech = read_speech(args)
    speech.check()
    with open_speaker(where) as speaker:
        return pipe(speaker, speech, args.format or "wav") if args.output == "-" else save(speaker, speech, args.output)


def save(speaker: Speaker, speech: Speech, output: str) -> int:
    """Speak into a file, and say how it went."""
    result = speaker.synthesize(speech)
    write_audio(output, result.samples, result.sample_rate_hz)
    read = result.read_emotion
    emotion = "" if read is None else f", emotion {described(read)}"
    means = "" if result.duration_by is None else f", duration by {result.duration_by}"
    say(
        f"Generated: {output} ({result.duration_s:.1f} s, seed {result.seed}, "
        f"real-time factor {result.real_time_factor:.2f}{means}{emotion})"
    )
    return 0


def described(read: ReadEmotion) -> str:
    """What was read out of a text, in words."""
    named = [f"{name} {value:.2f}" for name, value in zip(EMOTIONS, read.values, strict=True) if value]
    return f"{' + '.join(named)} as the {read.model} model read it"


def pipe(speaker: Speaker, speech: Speech, format: str) -> int:
    """Speak to standard output: raw samples as they come, any other format when all of it is known."""
    pieces = speaker.stream(speech) if format == "pcm" else iter([speaker.synthesize(speech)])
    try:
        for piece in pieces:
            sys.stdout.buffer.write(encode(piece.samples, piece.sample_rate_hz, format))
            sys.stdout.buffer.flush()
    except BrokenPipeError:
        # Python flushes once more at its end, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return fail("whoever read the standard output went away before the end", EXIT_FAILED)
    return 0


def read_speech(args: argparse.Namespace) -> Speech:
    """What the flags say. Raises ``TextError`` or ``EmotionError``."""
    on_server = args.server is not None
    audio = args.emotion_audio
    return Speech(
        text=read_text(args),
        voice=find_voice(args.voice, Path(), on_server),
        emotion_audio=None if audio is None else find_voice(audio, Path(), on_server),
        emotion_text=args.emotion_text,
        emotion_vector=None if args.emotion_vector is None else parse_vector(args.emotion_vector),
        emotion_weight=args.emotion_weight,
        sampling=read_sampling(args),
        max_text_tokens_per_segment=args.max_text_tokens,
        interval_silence_ms=args.interval_silence,
        seed=args.seed,
        repair=args.repair,
        duration_factor=args.duration_factor,
        duration_s=args.duration,
        chunks=args.chunks,
    )


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


def parse_vector(text: str) -> Sequence[object]:
    """Numbers, comma-separated, in brackets or not."""
    try:
        return json.loads(f"[{text.strip().removeprefix('[').removesuffix(']')}]")
    except (ValueError, RecursionError) as error:
        raise EmotionError(f"an emotion vector is 8 comma-separated numbers, not {text[:80]!r}") from error


def check_output(args: argparse.Namespace) -> None:
    """Refuse an output that could not or should not be written, before any work is done."""
    if args.output == "-":
        return
    path = Path(args.output)
    if args.format is not None:
        raise ConfigError(f"--format is for standard output (-o -): the name {args.output!r} tells a file's format")
    if path.suffix.lower().removeprefix(".") not in FORMATS:
        endings = ", ".join(f".{name}" for name in FORMATS)
        raise ConfigError(f"the output {args.output!r} must end in one of {endings}")
    if path.is_dir():
        raise ConfigError(f"the output {args.output!r} is a folder")
    if path.exists() and not args.force:
        raise ConfigError(f"the output {args.output!r} exists: --force replaces it")
