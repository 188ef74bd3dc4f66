"""What a command says: results to stdout, errors to stderr."""

from __future__ import annotations

import sys


def say(line: str) -> None:
    """A line of result."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def fail(message: str, code: int) -> int:
    """An error in one line; returns ``code``, for the caller to end with."""
    sys.stderr.write(f"ERROR: {' '.join(message.split())}\n")
    return code
