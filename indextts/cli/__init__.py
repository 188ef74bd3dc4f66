"""The command line: ``indextts`` and ``synth``, ``batch``, ``serve``, ``bench``, ``check``, ``download``, ..."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from indextts import __version__
from indextts.cli import batch, bench, check, download, make_random, manifest, serve, synth
from indextts.cli.flags import Parser
from indextts.cli.output import fail
from indextts.errors import CheckpointError, IndexTTSError, QueueFull, ServerError, SynthesisError, UnsupportedOption

EXIT_OK, EXIT_INPUT, EXIT_MISSING, EXIT_RUNTIME, EXIT_FAILED = range(5)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 success, 1 wrong input, 2 a model file or the server is missing or the command line is not understood, 3 this
        machine cannot do what was asked, 4 the synthesis failed, 5 some lines of a batch failed. ``check`` knows 0
        and 1: whether anything failed.
    """
    parser = Parser(
        "indextts",
        description="IndexTTS2 on the command line.",
        epilog="`indextts COMMAND --help` explains a command by examples, and its exit codes.",
    )
    parser.add_argument("--version", action="version", version=f"indextts {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for command in (synth, batch, serve, bench, check, download, manifest, make_random):
        command.add_parser(commands)
    args = parser.parse_args(argv)
    verbose = getattr(args, "verbose", False)
    try:
        return args.run(args)
    except IndexTTSError as error:
        logging.getLogger(__name__).debug("traceback", exc_info=True)
        return fail(str(error), exit_code(error))
    except KeyboardInterrupt:
        return fail("interrupted", EXIT_FAILED)
    except Exception as error:  # the entry point: a bug is one line, too, unless details are wanted
        if verbose:
            raise
        return fail(f"{type(error).__name__}: {error} (--verbose shows where)", EXIT_FAILED)


def exit_code(error: IndexTTSError) -> int:
    """The exit code that tells the kind of ``error``."""
    if isinstance(error, (CheckpointError, ServerError)):
        return EXIT_MISSING
    if isinstance(error, UnsupportedOption):
        return EXIT_RUNTIME
    if isinstance(error, (SynthesisError, QueueFull)):
        return EXIT_FAILED
    return EXIT_INPUT


if __name__ == "__main__":
    sys.exit(main())
