"""``indextts bench``: how fast this machine speaks, configuration beside configuration."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import re
from pathlib import Path
from typing import Any

from indextts.cli.flags import at_least_one, device_name, existing_file, existing_or_default_dir
from indextts.cli.logs import setup_logging
from indextts.cli.output import fail, say
from indextts.config import EngineConfig, SamplingParams
from indextts.errors import AudioError, ConfigError
from indextts.resources import EVAL_SENTENCES, EXAMPLES_DIR, example_voices
from indextts.types import VoicePrompt

EXIT_RUNTIME, EXIT_FAILED = 3, 4
NOT_FOR_SPEED = {"strict", "qwen_emotion"}
SWITCHES = {
    field.name.replace("_", "-"): field.name
    for field in dataclasses.fields(EngineConfig)
    if "bool" in str(field.type) and field.name not in NOT_FOR_SPEED
}
"""What can stand in ``--configs``: every on/off acceleration that an engine has."""

NUMBERED = {"batch": "batch_size", "tp": "ds_tp_size"}
SIZES = ("full", "nano", "tiny")  # of indextts.random_weights, which is not for importing before it is needed
FIGURES = "bench.json"
"""The file of all figures in the folder of ``--clips``."""


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("bench", help="measure how fast this machine speaks")
    parser.set_defaults(run=run, parser=parser)
    what = parser.add_argument_group("what is measured")
    what.add_argument(
        "--configs", type=config_names, default=config_names("fp32"), metavar="LIST",
        help=f"comma-separated; each is fp32 or made of {', '.join(SWITCHES)}, batchN, tpN, joined by + (fp32)",
    )  # fmt: skip
    what.add_argument("--ds-config", type=existing_file, metavar="PATH", help="DeepSpeed inference settings (JSON)")
    what.add_argument("--device", type=device_name, metavar="NAME", help="cpu, cuda, cuda:1, ... (the best there is)")
    what.add_argument("--strict", action="store_true", help="a configuration that cannot be honoured is not measured")
    model = parser.add_argument_group("model")
    source = model.add_mutually_exclusive_group()
    source.add_argument(
        "--model-dir", type=existing_or_default_dir, default=Path("checkpoints"), metavar="DIR",
        help="folder of the official model files; without them the bundled small voice is measured (checkpoints)",
    )  # fmt: skip
    source.add_argument(
        "--random-weights", choices=SIZES, metavar="SIZE",
        help=f"no files: build the networks at the size {' or '.join(SIZES)} with random weights; full is as released",
    )  # fmt: skip
    model.add_argument(
        "--codes-per-character", type=at_least_one, metavar="N",
        help="how long random weights speak, at 50 codes a second (11, as the released model on Chinese)",
    )  # fmt: skip
    model.add_argument(
        "--voice", type=existing_file, nargs="+", metavar="FILE",
        help="recording (examples/voice_01.wav); with --quality several, which take turns (all of examples)",
    )  # fmt: skip
    work = parser.add_argument_group("work")
    work.add_argument("--beams", type=beam_numbers, default=(3, 1), metavar="LIST", help="comma-separated (3,1)")
    work.add_argument("--characters", type=text_length, default=60, metavar="N", help="of the short text (60)")
    work.add_argument(
        "--long-characters", type=long_text_length, default=1000, metavar="N", help="of the long text, 0: none (1000)"
    )
    work.add_argument("--repetitions", type=at_least_one, default=3, metavar="N", help="of the short text (3)")
    work.add_argument("--long-repetitions", type=at_least_one, default=1, metavar="N", help="of the long text (1)")
    work.add_argument("--warm-ups", type=whole_number, default=1, metavar="N", help="of the short text, before it (1)")
    work.add_argument("--long-warm-ups", type=whole_number, default=1, metavar="N", help="of the long text (1)")
    work.add_argument("--max-text-tokens", type=text_length, default=120, metavar="N", help="longest segment (120)")
    work.add_argument(
        "--quick-streaming-tokens", type=whole_number, default=0, metavar="N", help="keep the first segments short (0)"
    )
    work.add_argument("--seed", type=whole_number, default=0, metavar="N", help="of the weights and of speaking (0)")
    quality = parser.add_argument_group(
        "quality", "What each configuration makes of the same sentences, against the first one (docs/performance.md)."
    )
    quality.add_argument("--quality", type=at_least_one, metavar="N", help="speak N sentences (none)")
    quality.add_argument("--no-speed", action="store_true", help="measure nothing else than the quality")
    quality.add_argument(
        "--sentences", type=existing_file, metavar="FILE", help="one a line (200 English ones that come with this)"
    )
    quality.add_argument(
        "--clips", type=output_folder, metavar="DIR",
        help="for judges: a folder of recordings for each configuration, those of the voices, and all figures",
    )  # fmt: skip
    out = parser.add_argument_group("output", "Besides the tables. A file that exists is replaced.")
    out.add_argument("--json", type=output_file, metavar="FILE", help="all figures; written after each configuration")
    out.add_argument("--plot", type=output_file, metavar="FILE", help="bars, as PNG (needs matplotlib)")
    parser.add_argument("--verbose", action="store_true", help="detailed log, and tracebacks of errors")


def run(args: argparse.Namespace) -> int:
    """Check everything that can be checked without a model, then measure; 4 if a configuration failed."""
    configs = {name: engine_config_of(args, name) for name in args.configs}
    check_flags(args)
    setup_logging(args.verbose)

    from indextts.accel import resolve_device
    from indextts.bench.machine import PeakMemory, describe_machine
    from indextts.bench.measure import BenchReport, measure_configs
    from indextts.bench.output import as_json, as_text, load_plotting, plot
    from indextts.bench.quality import PROMPTS, write_prompts

    if args.plot:
        load_plotting()  # told now, and not after an hour
    plan = read_plan(args)
    device = resolve_device(args.device)
    machine, memory_kind = describe_machine(device), PeakMemory(device).kind

    files = [*([args.json] if args.json else []), *([args.clips / FIGURES] if args.clips else [])]
    if args.clips:
        write_prompts(args.clips / PROMPTS, plan.quality)

    def write(figures: Any, model: str) -> Any:
        report = BenchReport(machine, model, memory_kind, plan, tuple(figures))
        for file in files:
            file.write_text(as_json(report), encoding="utf-8")
        return report

    models: list[str] = []
    try:
        found = measure_configs(configs, plan, device, lambda found, model: models.append(write(found, model).model))
    except ConfigError as error:
        args.parser.error(str(error))
    report = write(found, models[-1])
    say(as_text(report))
    failed = [figures.name for figures in found if figures.error is not None]
    if args.plot and len(failed) < len(found):
        plot(report, args.plot)
    return fail(f"not measured: {', '.join(failed)} (the reasons stand above)", EXIT_FAILED) if failed else 0


def engine_config_of(args: argparse.Namespace, name: str) -> EngineConfig:
    """The named configuration on the device and of the model asked for; contradictions end the program."""
    changes, parser = parse_config(name), args.parser
    assert isinstance(parser, argparse.ArgumentParser)
    try:
        return EngineConfig(
            model_dir=args.model_dir,
            device=args.device,
            ds_config=args.ds_config if changes.get("deepspeed") else None,
            strict=args.strict,
            qwen_emotion=False,  # no emotion from text is asked for, so its model is not for the load to wait for
            **changes,
        )
    except ConfigError as error:
        parser.error(f"--configs {name}: {error}")


def check_flags(args: argparse.Namespace) -> None:
    """What is wrong with the flags together ends the program like any wrong flag."""
    error = args.parser.error
    if args.codes_per_character and not args.random_weights:
        error("--codes-per-character is for --random-weights: a real model has its own pace")
    if args.ds_config and not any("deepspeed" in name.split("+") for name in args.configs):
        error("--ds-config is for configurations with deepspeed, of which --configs has none")
    if args.quality and args.random_weights:
        error("--quality is for a model that speaks, and --random-weights are noise: choose one")
    for flag in ("--sentences", "--clips"):
        if getattr(args, flag[2:]) and not args.quality:
            error(f"{flag} is for --quality: say how many sentences there")
    if args.no_speed and not args.quality:
        error("--no-speed leaves nothing to measure: it is for --quality")
    if args.no_speed and args.plot:
        error("--plot shows speed, and --no-speed leaves it out: choose one")
    args.beams = () if args.no_speed else args.beams
    if args.voice and len(args.voice) > 1 and not args.quality:
        error(f"--voice names {len(args.voice)} recordings: more than one is for --quality")
    examples = list(example_voices().values())
    args.voice = args.voice or (examples if args.quality else examples[:1])
    if not args.voice:
        error(f"there are no recordings in {str(EXAMPLES_DIR)!r}: name one by --voice")
    stems = [path.stem for path in args.voice]
    if twice := [stem for stem in stems if stems.count(stem) > 1]:
        error(f"--voice has two recordings called {twice[0]!r}: they would not be told apart")
    if args.plot and importlib.util.find_spec("matplotlib") is None:
        error("--plot needs matplotlib, which is not installed: pip install matplotlib")


def read_plan(args: argparse.Namespace) -> Any:
    """The plan. What files hold that cannot be used ends the program like any wrong flag."""
    from indextts.accel.deepspeed import load_ds_config
    from indextts.audio import load_prompt
    from indextts.bench.measure import Plan
    from indextts.bench.quality import QualityPlan
    from indextts.random_weights import CODES_PER_CHARACTER

    try:
        voices = tuple(map(VoicePrompt.from_path, args.voice))
        for voice in voices:
            load_prompt(voice.data, 22050, voice.name)
        if args.ds_config:
            load_ds_config(args.ds_config)
    except (AudioError, ConfigError) as error:
        args.parser.error(str(error))
    pace = (args.codes_per_character or CODES_PER_CHARACTER) if args.random_weights else None
    quality = QualityPlan(read_sentences(args), voices, args.seed, args.clips) if args.quality else None
    names = {field.name for field in dataclasses.fields(Plan)} - {"voice", "codes_per_character", "quality"}
    given = {name: getattr(args, name) for name in names}
    return Plan(voice=voices[0], codes_per_character=pace, quality=quality, **given)


def read_sentences(args: argparse.Namespace) -> tuple[str, ...]:
    """As many sentences as asked for."""
    path = args.sentences or EVAL_SENTENCES
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        args.parser.error(f"--sentences: cannot read {str(path)!r}: {error}")
    sentences = tuple(line.strip() for line in lines if line.strip())
    if len(sentences) < args.quality:
        args.parser.error(f"--quality {args.quality}: there are only {len(sentences)} sentences in {str(path)!r}")
    return sentences[: args.quality]


def config_names(text: str) -> tuple[str, ...]:
    """The names of a list of configurations, each of which is understood."""
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        parse_config(name)
    if len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"names a configuration twice: {text!r}")
    return names


def parse_config(name: str) -> dict[str, Any]:
    """``deepspeed+fp16+batch4`` as fields of ``EngineConfig``; ``fp32`` alone is none of them."""
    changes: dict[str, Any] = {}
    for word in name.split("+"):
        number = re.fullmatch(r"(batch|tp)([1-9]\d{0,3})", word, re.ASCII)
        if word in SWITCHES:
            key, value = SWITCHES[word], True
        elif number:
            key, value = NUMBERED[number[1]], int(number[2])
        elif word == "fp32":
            key, value = "fp32", True
        else:
            known = ", ".join(("fp32", *SWITCHES, "batchN", "tpN"))
            raise argparse.ArgumentTypeError(f"has {word!r} in {name!r}; known are {known}, joined by +")
        if key in changes:
            raise argparse.ArgumentTypeError(f"has {word!r} twice in {name!r}")
        changes[key] = value
    if changes.pop("fp32", False) and {"fp16", "bf16"} & set(changes):
        raise argparse.ArgumentTypeError(f"has two precisions in {name!r}: choose one")
    return changes


def beam_numbers(text: str) -> tuple[int, ...]:
    """Numbers of beams, comma-separated."""
    numbers = tuple(at_least_one(word.strip()) for word in text.split(","))
    if len(set(numbers)) < len(numbers):
        raise argparse.ArgumentTypeError(f"names a number twice: {text!r}")
    try:
        for number in numbers:
            SamplingParams(num_beams=number)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return numbers


def whole_number(text: str) -> int:
    """A whole number from 0 up."""
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 up, not {text!r}")
    return int(text)


def text_length(text: str) -> int:
    """A length of at least two: a character and a full stop."""
    if (number := at_least_one(text)) < 2:
        raise argparse.ArgumentTypeError(f"must be at least 2, not {text!r}")
    return number


def long_text_length(text: str) -> int:
    """A length, or 0."""
    return 0 if whole_number(text) == 0 else text_length(text)


def output_file(text: str) -> Path:
    """A path that a file can be written to, as far as can be told before."""
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"cannot be written: {text!r} is a folder, or its folder does not exist")
    return path


def output_folder(text: str) -> Path:
    """A folder that is there or can be made."""
    path = Path(text)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"is no folder that can be written to: {text!r} ({error.strerror})") from error
    return path
