"""What is no text to speak, whatever a model knows: told before any work is done."""

from __future__ import annotations

import re

from indextts.errors import TextError

MAX_TEXT_CHARACTERS = 200_000
"""Some four hours of English speech. It bounds the time and memory of reading numbers out."""

SURROGATE = re.compile("[\ud800-\udfff]")
"""Half a character: what is left of one that was cut in UTF-16."""


def check_text(text: str) -> None:
    """Raise ``TextError`` if ``text`` is empty, too long, or holds half a character, and say which."""
    if len(text) > MAX_TEXT_CHARACTERS:
        raise TextError(f"the text is longer than {MAX_TEXT_CHARACTERS:,} characters: speak it in parts")
    if not text.strip():
        raise TextError("the text is empty: there is nothing to speak")
    if half := SURROGATE.search(text):
        raise TextError(
            f"the text holds half a character, U+{ord(half[0]):04X}, at position {half.start() + 1}: "
            "it was cut in the middle of one, or read in a wrong encoding"
        )
