"""The flags that say where the model is and how to run it: one definition for the page and every command."""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
from pathlib import Path
from typing import NoReturn

from indextts.config import EngineConfig
from indextts.errors import ConfigError
from indextts.service import ServiceConfig
from indextts.types import MAX_RECORDING_BYTES

API_KEY_VARIABLE = "INDEXTTS_API_KEY"
EXIT_USAGE = 2  # argparse's own code for a command line that cannot be understood
AUTH_VARIABLE = "INDEXTTS_AUTH"
MIB = 2**20
LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
ROOT_PATH = re.compile(r"(https?://[^/\s?#]+)?(/[^/\s?#]+)*/?")
DEVICE = re.compile(r"cpu|mps|(cuda|xpu)(:\d+)?")


ENGINE_OPTIONS = {
    **{name: name for name in (
        "model_dir", "device", "fp16", "bf16", "deepspeed", "ds_config", "ds_tp_size", "cuda_kernel", "cuda_graph",
        "compile", "cpu_offload", "batch_size", "strict",
    )},
    "inference_timeout": "inference_timeout_s",
}  # fmt: skip
"""The flags of an engine, and the fields of ``EngineConfig`` that they are."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, and whose long flags may be spelled with underscores.

    Of the arguments, ``given`` has the flags that were on the command line, whatever their value.
    """

    def __init__(self, *args, **kwargs) -> None:
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[override]
        words = [with_hyphens(word) for word in (sys.argv[1:] if args is None else args)]
        namespace, rest = super().parse_known_args(words, namespace)
        namespace.given = frozenset(word.partition("=")[0] for word in words)
        return namespace, rest

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USAGE, f"ERROR: {message} (see {self.prog} --help)\n")


def with_hyphens(word: str) -> str:
    """``--model_dir=a_b`` -> ``--model-dir=a_b``; anything that is not a long flag stays as it is."""
    if not re.fullmatch(r"--[A-Za-z_-]+(=.*)?", word, re.DOTALL):
        return word
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value


def add_engine_flags(parser: argparse.ArgumentParser) -> None:
    """Everything that ends in ``EngineConfig``, and ``--verbose``."""
    model = parser.add_argument_group("model")
    model.add_argument(
        "--model-dir", type=existing_or_default_dir, default=Path("checkpoints"), metavar="DIR",
        help="folder of the official model files; without them the bundled small voice is used (checkpoints)",
    )  # fmt: skip
    model.add_argument("--device", type=device_name, metavar="NAME", help="cpu, cuda, cuda:1, ... (the best there is)")
    speed = parser.add_argument_group("acceleration", "What this machine cannot do is said in one line at start.")
    speed.add_argument("--fp16", action="store_true", help="half precision wherever it is safe (CUDA)")
    speed.add_argument("--bf16", action="store_true", help="the same in bfloat16")
    speed.add_argument("--deepspeed", action="store_true", help="run the language model inside DeepSpeed")
    speed.add_argument("--ds-config", type=existing_file, metavar="PATH", help="DeepSpeed inference settings (JSON)")
    speed.add_argument(
        "--ds-tp-size", type=at_least_one, default=1, metavar="N",
        help="GPUs to split the language model over, by DeepSpeed (1)",
    )  # fmt: skip
    speed.add_argument("--cuda-kernel", action="store_true", help="fused kernels for decoding, flow and vocoder (CUDA)")
    speed.add_argument(
        "--cuda-graph", type=true_or_false, nargs="?", const=True, metavar="true|false",
        help="replay steps of decoding and of the flow as CUDA graphs (true with --deepspeed on CUDA, else false)",
    )  # fmt: skip
    speed.add_argument("--compile", action="store_true", help="compile the flow's layers, a minute's work at start")
    speed.add_argument(
        "--cpu-offload", action="store_true", help="keep networks that only hear recordings in main memory (CUDA)"
    )
    speed.add_argument("--batch-size", type=at_least_one, default=1, metavar="N", help="segments spoken at once (1)")
    speed.add_argument(
        "--inference-timeout", type=timeout_s, metavar="S", help="stop a request after 30 to 300 seconds (never)"
    )
    speed.add_argument("--strict", action="store_true", help="an option that cannot be honoured is an error")
    parser.add_argument("--verbose", action="store_true", help="detailed log, and tracebacks of errors")


def add_server_flags(parser: argparse.ArgumentParser, port: int) -> argparse._ArgumentGroup:
    """Where the server listens, on ``port`` by default. Returns the group, for what else belongs there."""
    server = parser.add_argument_group("server")
    server.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="0.0.0.0 for all networks (127.0.0.1)")
    server.add_argument("--port", type=port_number, default=port, metavar="N", help=f"0 for any free one ({port})")
    return server


def add_page_flags(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Who reaches the page. Returns the group, for what else belongs there."""
    page = parser.add_argument_group("page")
    page.add_argument(
        "--auth", type=users, default=(), metavar="USER:PASSWORD|FILE",
        help="ask for a login; a file has one user:password a line. Other users of the machine see command lines: "
        f"better a file, or the same in the environment as {AUTH_VARIABLE}",
    )  # fmt: skip
    page.add_argument(
        "--root-path", type=root_path, metavar="PATH",
        help="where a proxy shows the page to the outside, such as /tts or https://example.org/tts (/)",
    )  # fmt: skip
    page.add_argument(
        "--max-upload", type=at_least_one, default=MAX_RECORDING_BYTES // MIB, metavar="MIB",
        help=f"largest file that is taken ({MAX_RECORDING_BYTES // MIB})",
    )  # fmt: skip
    page.add_argument(
        "--admin", action="store_true",
        help="let users of the page unload the model and have its files checked, "
        "as they may anyway if only this machine reaches the page",
    )  # fmt: skip
    return page


def page_users(args: argparse.Namespace, parser: argparse.ArgumentParser) -> tuple[tuple[str, str], ...]:
    """Names and passwords of those who may use the page; none: everybody. The flag goes before the environment."""
    if args.auth or not (written := os.environ.get(AUTH_VARIABLE)):
        return args.auth
    try:
        return users(written)
    except argparse.ArgumentTypeError as error:
        parser.error(f"the environment variable {AUTH_VARIABLE} {error}")


def is_admin(args: argparse.Namespace) -> bool:
    """Whether users of the page look after the server as well."""
    only_here = args.host in LOCAL_HOSTS and not args.root_path and not getattr(args, "share", False)
    return args.admin or only_here


def add_service_flags(parser: argparse.ArgumentParser) -> None:
    """Everything that ends in ``ServiceConfig``."""
    service = parser.add_argument_group("many users")
    service.add_argument(
        "--simultaneous", type=at_least_one, default=4, metavar="N",
        help="requests that run side by side; one client gets all of these places but one (4)",
    )  # fmt: skip
    service.add_argument(
        "--max-queue", type=at_least_one, default=32, metavar="N",
        help="requests that may wait; one client may fill half of the queue (32)",
    )  # fmt: skip
    service.add_argument(
        "--idle-unload", type=positive, metavar="MINUTES",
        help="unload the model when nobody uses it for so long, and load it again when needed (never)",
    )  # fmt: skip


def service_config(args: argparse.Namespace) -> ServiceConfig:
    """The parsed flags as a configuration."""
    idle_unload_s = None if args.idle_unload is None else 60 * args.idle_unload
    return ServiceConfig(args.simultaneous, args.max_queue, idle_unload_s)


def engine_config(args: argparse.Namespace, parser: argparse.ArgumentParser) -> EngineConfig:
    """The parsed flags as a configuration.

    Contradictory ones end the program like any wrong flag, and so does a DeepSpeed configuration that is wrong.
    """
    try:
        config = EngineConfig(**{field: getattr(args, name) for name, field in ENGINE_OPTIONS.items()})
        if config.deepspeed or config.ds_tp_size > 1:
            from indextts.accel.ds_config import check_before_loading  # needs torch, which others need not wait for

            check_before_loading(config)
        return config
    except ConfigError as error:
        parser.error(str(error))


def given_engine_flags(args: argparse.Namespace) -> list[str]:
    """The flags of ``add_engine_flags`` that were on the command line and have a meaning for a model alone."""
    flags = [f"--{name.replace('_', '-')}" for name in ENGINE_OPTIONS]
    return [flag for flag in flags if flag in args.given]


def at_least_one(text: str) -> int:
    """A whole number from 1 up."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 up, not {text!r}")
    return int(text)


def users(text: str) -> tuple[tuple[str, str], ...]:
    """Names and passwords: ``user:password``, or a file with such lines. Passwords are not repeated in errors."""
    path = Path(text)
    try:
        is_file = path.is_file()
        lines = path.read_text(encoding="utf-8").splitlines() if is_file else [text]
    except (OSError, ValueError) as error:  # ValueError: no UTF-8, or a name that cannot be one
        raise argparse.ArgumentTypeError(f"names a file that cannot be read: {error}") from error
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if is_file and not line.strip():
            continue
        name, colon, password = line.strip().partition(":")
        where = f"line {number} of {text}" if is_file else "it"
        if not (name and colon and password):
            raise argparse.ArgumentTypeError(f"must be user:password or a file with such lines, and {where} is not")
        if name in found:
            raise argparse.ArgumentTypeError(f"names the user {name!r} twice")
        found[name] = password
    if not found:
        raise argparse.ArgumentTypeError(f"names the file {text!r}, which has no user:password in it")
    return tuple(found.items())


def root_path(text: str) -> str:
    """A path that starts at the root, or a whole address, as gradio wants it: without a slash at its end."""
    if not ROOT_PATH.fullmatch(text):
        raise argparse.ArgumentTypeError(f"must be a path such as /tts or an address of http or https, not {text!r}")
    return text.rstrip("/")


def true_or_false(text: str) -> bool:
    """A switch that is spelled out."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"must be true or false, not {text!r}")
    return text.lower() == "true"


def positive(text: str) -> float:
    """A number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {text!r}")
    return value


def port_number(text: str) -> int:
    """A TCP port."""
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"must be a port from 0 to 65535, not {text!r}")
    return int(text)


def timeout_s(text: str) -> float:
    """Seconds in the range that ``EngineConfig`` allows."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 30 <= value <= 300:
        raise argparse.ArgumentTypeError(f"must be 30 to 300 seconds, not {text!r}")
    return value


def device_name(text: str) -> str:
    """A torch device that a model can live on."""
    if not DEVICE.fullmatch(text):
        raise argparse.ArgumentTypeError(f"must be cpu, cuda, cuda:N, xpu, xpu:N or mps, not {text!r}")
    return text


def existing_file(text: str) -> Path:
    """The path of a file that is there."""
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text!r}")
    return path


def existing_or_default_dir(text: str) -> Path:
    """A folder that is there; the default ``checkpoints`` may be absent, for then the bundled voice is used."""
    path = Path(text)
    if not path.is_dir() and path != Path("checkpoints"):
        raise argparse.ArgumentTypeError(f"there is no folder {text!r}")
    return path
