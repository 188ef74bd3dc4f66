"""Files that people name: which names can be used, and how a file appears under its name complete or not at all."""

from __future__ import annotations

import logging
import os
import secrets
import time
import unicodedata
from collections.abc import Iterable
from pathlib import Path

logger = logging.getLogger(__name__)

MAX_NAME_LENGTH = 64
MAX_NAME_BYTES = 200  # file systems take 255, suffix included
FORBIDDEN = frozenset('/\\:*?"<>|')
"""Characters that mean something in a path or cannot stand in one, on any system."""

DEVICE_NAMES = frozenset(
    ["con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(10))]
)
"""Names that Windows does not let files have."""

PARTIAL = ".partial"
"""The ending of a file that is being written; its name begins with a dot. Who is killed meanwhile leaves it behind."""

ABANDONED_AFTER_S = 3600.0


def checked_name(name: str, kind: str, error: type[Exception]) -> str:
    """``name`` as it is stored: in Unicode's composed form, without spaces around it.

    Args:
        kind: What has the name, for the message.
        error: What to raise if the name is empty, too long, or holds what cannot stand in a file name.
    """
    name = unicodedata.normalize("NFC", name.strip())
    if not name:
        raise error(f"a {kind} needs a name")
    shown = repr(name[:MAX_NAME_LENGTH])
    if len(name) > MAX_NAME_LENGTH or len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES:
        raise error(f"the name {shown} is too long: at most {MAX_NAME_LENGTH} characters, {MAX_NAME_BYTES} bytes")
    if bad := [character for character in name if character in FORBIDDEN or not character.isprintable()]:
        raise error(f"the name {shown} must not hold {bad[0]!r}")
    if name[0] == "." or name[-1] == "." or name.split(".")[0].casefold() in DEVICE_NAMES:
        raise error(f"the name {shown} cannot be used: no dot at either end, and no name of a Windows device")
    return name


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


def remove_abandoned(folder: Path, others: Iterable[Path] = ()) -> None:
    """Remove what programs that were killed while saving have left, but not what others are writing now.

    ``others`` are left over as well, if they are old enough.
    """
    for path in (*folder.glob(f".*{PARTIAL}"), *others):
        try:
            if time.time() - path.stat().st_mtime > ABANDONED_AFTER_S:
                path.unlink()
        except OSError as error:
            logger.warning("cannot remove the unfinished file %s: %s", path, error.strerror)
