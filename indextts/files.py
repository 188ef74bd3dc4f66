"""Files that are there either completely or not at all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

PARTIAL = ".partial"
"""The ending of a file that is being written; its name begins with a dot. Who is killed meanwhile leaves it behind."""


def write_at_once(path: Path, data: bytes) -> None:
    """Write or replace a file in one step, even if the machine stops in between. Raises ``OSError``."""
    partial = path.with_name(f".{secrets.token_hex(8)}{PARTIAL}")
    try:
        with partial.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
