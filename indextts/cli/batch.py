"""``indextts batch``: a text, a voice and a file for each line of a JSONL file."""

from __future__ import annotations

import argparse
import difflib
import json
import logging
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from indextts.cli.flags import add_engine_flags, at_least_one, existing_file
from indextts.cli.logs import setup_logging
from indextts.cli.output import fail, say
from indextts.cli.side_by_side import side_by_side
from indextts.cli.speaker import Speaker, add_server_flag, open_speaker, where_to_speak
from indextts.cli.speech import Speech, add_sampling_flags, add_speaking_flags, find_voice, read_sampling
from indextts.config import EngineConfig, SamplingParams
from indextts.encoding import FORMATS, write_audio
from indextts.errors import ConfigError, IndexTTSError
from indextts.files import write_at_once

EXIT_SOME_LINES = 5
RESULTS = "results.jsonl"
MAX_FILE_BYTES = 64 * 2**20
KEYS: dict[str, type | tuple[type, ...]] = {
    "text": str, "voice": str, "output": str, "seed": int, "sampling": dict,
    "duration_s": (int, float), "duration_factor": (int, float),
    "emotion_mode": str, "emotion_audio": str, "emotion_text": str, "emotion_vector": list,
    "emotion_weight": (int, float),
}  # fmt: skip
"""What a line can have, and of what type."""

EMOTION_SOURCES = ("audio", "text", "vector")
DESCRIPTION = f"""\
Speak every line of a JSONL file into a file of its own in DIR. A line is a JSON object with
  text            what to say (the only key that must be there)
  voice           recording, relative to the JSONL file, or the name of one that comes along (--voice)
  output          name of the file below DIR; its ending tells the format (00001.wav for the first line, ...)
  seed, sampling  a number; an object of sampling options such as {{"temperature": 0.7}} (the flags below)
  duration_s or duration_factor: how long it shall last (--duration, --duration-factor)
  emotion_audio, emotion_text or emotion_vector, and emotion_weight: as the flags of `indextts synth`

DIR/{RESULTS} says of each line how it went: its file, length and seed, or its error. A line that is wrong does not
stop the others. Started again with --continue, only those lines are spoken that are missing, failed or have changed.
"""
EXAMPLES = """\
examples:
  two lines, written by hand:
    echo '{"text": "Good morning.", "output": "morning.mp3"}' > lines.jsonl
    echo '{"text": "Good night.", "voice": "me.wav", "emotion_text": "sleepy"}' >> lines.jsonl
    indextts batch lines.jsonl --out spoken
  a long list, eight segments of a line at a time, and on from where it stopped:
    indextts batch lines.jsonl --out spoken --batch-size 8 --continue
  by a server, three lines at once:
    indextts batch lines.jsonl --out spoken --server http://127.0.0.1:8000 --parallel 3

exit code: 0 all lines are spoken, 1 the file or DIR is unusable, 2 wrong usage or no model, 3 this machine cannot,
5 some lines could not be spoken: each was reported with its number, the others are done
"""


@dataclass(frozen=True)
class Line:
    """One line of the file, checked as far as it can be without the model."""

    number: int
    output: str
    speech: Speech


class Results:
    """``DIR/results.jsonl``: a record more with each line that is spoken, and at the end in the order of the lines.

    Raises:
        ConfigError: there are results of an earlier run and neither ``resume`` nor ``replace``, or no place for any.
    """

    def __init__(self, folder: Path, resume: bool, replace: bool) -> None:
        self.path = folder / RESULTS
        if self.path.exists() and not (resume or replace):
            raise ConfigError(f"{str(self.path)!r} exists: --continue goes on with it, --force speaks all lines anew")
        self.records = read_records(self.path) if resume else {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.rewrite(self.records)
        except OSError as error:
            raise ConfigError(f"cannot write into {str(folder)!r}: {error.strerror or error}") from error

    def has(self, line: Line) -> bool:
        """Whether the sound of ``line`` is there, from a run of the same text, voice and settings."""
        record = self.records.get(line.number, {})
        unchanged = (line.output, line.speech.fingerprint()) == (record.get("output"), record.get("fingerprint"))
        return unchanged and (self.path.parent / line.output).is_file()

    def add(self, number: int, **record: Any) -> None:
        """Note how a line went, at once: a run may end at any time."""
        self.records[number] = {"line": number, **record}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(self.records[number]) + "\n")

    def rewrite(self, numbers: Iterable[int]) -> None:
        """Replace the file, in one step, by the records of these lines."""
        lines = [json.dumps(self.records[number]) + "\n" for number in sorted(numbers)]
        write_at_once(self.path, "".join(lines).encode())


def read_records(path: Path) -> dict[int, dict[str, Any]]:
    """The latest record of each line. Half a record at the end, of a run that was killed, is left out."""
    records: dict[int, dict[str, Any]] = {}
    for raw in path.read_bytes().splitlines() if path.is_file() else ():
        with suppress(ValueError, TypeError, KeyError):
            record = json.loads(raw)
            records[int(record["line"])] = record
    return records


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "batch", help="speak every line of a JSONL file", description=DESCRIPTION, epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.set_defaults(run=run, parser=parser)
    parser.add_argument("file", type=existing_file, metavar="FILE.jsonl", help="one JSON object a line")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="where the sound goes")
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--continue", dest="resume", action="store_true", help="speak only what is not there already")
    again.add_argument("--force", action="store_true", help="speak all lines anew, and replace files that exist")
    parser.add_argument("--format", choices=FORMATS, default="wav", help="of lines without an output name (wav)")
    parser.add_argument(
        "--parallel", type=at_least_one, default=1, metavar="N",
        help="lines under way at once; with --server, requests. Texts are read and files written while another line is "
        "spoken, but the model takes their segments one after the other, so that where it needs nearly all of the "
        "time, as on a CPU, hardly anything is gained (1)",
    )  # fmt: skip
    add_speaking_flags(parser)
    add_server_flag(parser)
    add_sampling_flags(parser)
    add_engine_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Read and check all lines, then load the model if there is something to speak, and speak."""
    where = where_to_speak(args)
    setup_logging(args.verbose, logging.WARNING)
    SamplingParams(**read_sampling(args))  # wrong for every line: told once
    lines = read_lines(args)
    results = Results(args.out, args.resume, args.force)
    good = [line for line in lines.values() if isinstance(line, Line)]
    todo = [line for line in good if not results.has(line)]
    wrong = {number: line for number, line in lines.items() if not isinstance(line, Line)}
    for number, error in wrong.items():
        report(results, number, error)
    failed = list(wrong)
    if todo:
        failed += speak_lines(where, todo, results, args.parallel, args.verbose)
    results.rewrite(lines)
    say(f"{len(lines) - len(failed) - len(good) + len(todo)} spoken, {len(good) - len(todo)} there already, "
        f"{len(failed)} failed: {results.path}")  # fmt: skip
    if failed:
        return fail(f"could not be spoken: line {', '.join(map(str, sorted(failed)))}", EXIT_SOME_LINES)
    return 0


def speak_lines(
    where: EngineConfig | str, lines: Sequence[Line], results: Results, parallel: int, verbose: bool
) -> list[int]:
    """Load the model, or ask the server, and speak; returns the numbers of the lines that failed."""
    from tqdm import tqdm

    failed = []
    parallel = min(parallel, len(lines))
    with open_speaker(where, parallel) as speaker, tqdm(total=len(lines), unit="line", disable=None) as bar:

        def record(line: Line) -> dict[str, Any]:
            return speak(speaker, line, results.path.parent)

        with closing(side_by_side(record, lines, parallel)) as spoken:
            for line, future in spoken:
                bar.update()
                try:
                    results.add(line.number, **future.result())
                except Exception as error:  # the entry point of a line: one must not stop the others
                    if verbose and not isinstance(error, IndexTTSError):
                        raise
                    failed.append(line.number)
                    with bar.external_write_mode(sys.stderr):
                        report(results, line.number, error)
    return failed


def speak(speaker: Speaker, line: Line, folder: Path) -> dict[str, Any]:
    """Speak one line into its file, and tell about it."""
    result = speaker.synthesize(line.speech)
    write_audio(folder / line.output, result.samples, result.sample_rate_hz)
    return {
        "output": line.output,
        "duration_s": round(result.duration_s, 3),
        "seed": result.seed,
        "segments": result.segments,
        "real_time_factor": round(result.real_time_factor, 3),
        "warnings": list(result.warnings),
        "read_emotion": None if result.read_emotion is None else asdict(result.read_emotion),
        "fingerprint": line.speech.fingerprint(),
    }


def report(results: Results, number: int, error: Exception) -> None:
    """Say and note that a line failed."""
    message = str(error) if isinstance(error, IndexTTSError) else f"{type(error).__name__}: {error}"
    fail(f"line {number}: {message}", EXIT_SOME_LINES)
    results.add(number, error=message)


def read_lines(args: argparse.Namespace) -> dict[int, Line | IndexTTSError]:
    """Every line that is not blank by its number, or what is wrong with it.

    Raises:
        ConfigError: the file cannot be read, is too large, or has no lines.
    """
    try:
        with args.file.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {str(args.file)!r}: {error.strerror or error}") from error
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(f"{str(args.file)!r} is larger than {MAX_FILE_BYTES:,} bytes: split it")
    lines: dict[int, Line | IndexTTSError] = {}
    taken: dict[str, int] = {}
    for number, raw in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if raw.strip():
            try:
                lines[number] = read_line(number, raw, args, taken)
            except IndexTTSError as error:
                lines[number] = error
    if not lines:
        raise ConfigError(f"{str(args.file)!r} has no lines to speak")
    return lines


def read_line(number: int, raw: bytes, args: argparse.Namespace, taken: dict[str, int]) -> Line:
    """One line, checked. ``taken`` has the output names so far and the lines that they are of.

    Raises:
        IndexTTSError: what is wrong with it.
    """
    given = parse_line(raw)
    folder, on_server = args.file.parent, args.server is not None
    audio = given.get("emotion_audio")
    speech = Speech(
        text=given["text"].strip(),
        voice=find_voice(given.get("voice", args.voice), folder if "voice" in given else Path(), on_server),
        emotion_audio=None if audio is None else find_voice(audio, folder, on_server),
        emotion_text=given.get("emotion_text", "" if given.get("emotion_mode") == "text" else None),
        emotion_vector=given.get("emotion_vector"),
        emotion_weight=given.get("emotion_weight", 1.0),
        sampling={**read_sampling(args), **given.get("sampling", {})},
        max_text_tokens_per_segment=args.max_text_tokens,
        interval_silence_ms=args.interval_silence,
        seed=given.get("seed", args.seed),
        repair=args.repair,
        **durations(given, args),
    )
    speech.check()
    line = Line(number, output_name(given.get("output", f"{number:05}.{args.format}"), args.out), speech)
    place = unicodedata.normalize("NFC", line.output).casefold()  # what some file systems take for the same name
    if (other := taken.setdefault(place, number)) != number:
        raise ConfigError(f"the output {line.output!r} is that of line {other} already")
    if (args.out / line.output).exists() and not (args.resume or args.force):
        raise ConfigError(f"the output {str(args.out / line.output)!r} exists: --force replaces it")
    return line


def durations(given: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """How long a line shall last: as it says, else as the flags say."""
    flags = {"duration_s": args.duration, "duration_factor": args.duration_factor}
    return {name: given[name] for name in flags if name in given} or flags


def parse_line(raw: bytes) -> dict[str, Any]:
    """A JSON object with keys of ``KEYS`` and values of their types, and at most one source of emotion."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    try:
        given = json.loads(raw.decode("utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"not a JSON object: {error}") from error
    if not isinstance(given, dict):
        raise ConfigError(f"not a JSON object but {str(given)[:80]!r}")
    for key, value in given.items():
        if key not in KEYS:
            close = difflib.get_close_matches(key, KEYS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(KEYS)}"
            raise ConfigError(f"unknown key {key[:80]!r}; {hint}")
        if not isinstance(value, KEYS[key]) or isinstance(value, bool):
            kinds = {str: "a text", int: "a whole number", dict: "an object", list: "a list"}
            raise ConfigError(f"{key} must be {kinds.get(KEYS[key], 'a number')}, not {str(value)[:80]!r}")
    if "text" not in given:
        raise ConfigError('the text is missing: {"text": ...} is what every line needs')
    sources = [name for name in EMOTION_SOURCES if f"emotion_{name}" in given]
    mode = given.get("emotion_mode", sources[0] if sources else "voice")
    if mode not in ("voice", *EMOTION_SOURCES):
        raise ConfigError(f"emotion_mode must be voice, audio, text or vector, not {mode[:80]!r}")
    if len(sources) > 1 or (sources and sources != [mode]) or (not sources and mode in ("audio", "vector")):
        said = ", ".join(f"emotion_{name}" for name in sources) or "no source"
        raise ConfigError(f"one source of emotion at most, and that of emotion_mode {mode!r}, not {said}")
    return given


def output_name(name: str, folder: Path) -> str:
    """``name`` if it is that of a sound file below ``folder``, by the rules of every system.

    Raises:
        ConfigError: it leads out of the folder, could not be written, or tells no format.
    """
    if not name.isprintable() or "\\" in name or PureWindowsPath(name).drive or set(name) & set('<>:"|?*'):
        raise ConfigError(f"the output {name[:80]!r} holds characters that a file name cannot have")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not (folder / name).resolve().is_relative_to(folder.resolve()):
        raise ConfigError(f"the output {name[:80]!r} leads out of {str(folder)!r}")
    if path.suffix.lower().removeprefix(".") not in FORMATS:
        raise ConfigError(f"the output {name[:80]!r} must end in one of {', '.join('.' + f for f in FORMATS)}")
    return name
