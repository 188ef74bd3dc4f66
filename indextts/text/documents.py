"""Files that people want to hear, as plain text: .txt, .md and .srt, in the encodings that such files have."""

from __future__ import annotations

import codecs
import re
from pathlib import PurePath

from indextts.errors import UnusableText
from indextts.subtitles import gaps_s, read_srt
from indextts.text.limits import MAX_TEXT_CHARACTERS
from indextts.text.markdown import spoken_markdown
from indextts.text.pauses import MAX_PAUSE_S, written_pause

SUFFIXES = (".txt", ".md", ".srt")
MAX_DOCUMENT_BYTES = 8 * 2**20
"""More than any encoding needs for a text, markup included."""

_MARKS = (  # the longer ones first: that of UTF-32 begins as that of UTF-16 does
    (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be"), (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"),
)  # fmt: skip
_NO_TEXT = re.compile("[\x00-\x08\x0e-\x1f\x7f\ufffe\uffff]")
_HIGH = re.compile(rb"[\x80-\xff]")
_HIGH_ALONE = re.compile(rb"(?<![\x80-\xff])[\x80-\xff](?![\x80-\xff])")


def read_document(content: bytes, name: str, timing: bool = False) -> str:
    """The text of a file to be read aloud.

    Args:
        content: The bytes of the file.
        name: Its name; the ending tells what it is.
        timing: Keep the silence between subtitles, as pauses written into the text.

    Raises:
        UnusableText: another kind of file, no text, an unknown encoding, or more than ``MAX_TEXT_CHARACTERS``.
    """
    suffix = PurePath(name).suffix.lower()
    if suffix not in SUFFIXES:
        message = "{name} is not a file of text: .txt, .md and .srt can be read"
        raise UnusableText("unknown_kind", message, name=repr(name[:80]))
    if len(content) > MAX_DOCUMENT_BYTES:
        raise UnusableText("too_long", "{name} is longer than {limit} characters: speak it in parts", **_limit(name))
    text = decode(content, name)
    if suffix == ".md":
        text = spoken_markdown(text)
    elif suffix == ".srt":
        text = spoken_subtitles(text, timing)
    if len(text) > MAX_TEXT_CHARACTERS:
        raise UnusableText("too_long", "{name} is longer than {limit} characters: speak it in parts", **_limit(name))
    if not text.strip():
        raise UnusableText("empty_file", "there is no text in {name}", name=repr(name[:80]))
    return text


def decode(content: bytes, name: str) -> str:
    """Bytes as text: by a byte order mark, else UTF-8, UTF-16, GB18030 or, for single accents, Windows-1252.

    Raises:
        UnusableText: it is none of these, or no text at all.
    """
    for encoding in _encodings(content):
        try:
            text = content.decode(encoding).removeprefix("\ufeff").removesuffix("\x1a")  # the end of a DOS file
        except UnicodeDecodeError:
            continue
        if not _NO_TEXT.search(text):
            return text.replace("\r\n", "\n").replace("\r", "\n")
    message = "{name} is no text, or in an unknown encoding: save it as UTF-8"
    raise UnusableText("no_text", message, name=repr(name[:80]))


def spoken_subtitles(content: str, timing: bool) -> str:
    """The texts of a SubRip file; with ``timing`` one a line with the pauses in between, else as running text.

    A pause is ``MAX_PAUSE_S`` at most.
    """
    cues = read_srt(content)
    if not timing:
        return " ".join(cue.text for cue in cues)
    lines = []
    for cue, gap_s in zip(cues, gaps_s(cues), strict=True):
        lines += [written_pause(min(gap_s, MAX_PAUSE_S)), cue.text]
    return "\n".join(lines)


def _limit(name: str) -> dict[str, object]:
    return {"name": repr(name[:80]), "limit": f"{MAX_TEXT_CHARACTERS:,}"}


def _encodings(content: bytes) -> list[str]:
    """What ``content`` may be written in, the likeliest first."""
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return [encoding]
    zeros = content[:2000:2].count(0), content[1:2000:2].count(0)
    if any(zeros):  # zero bytes are in no text but UTF-16, which has one in each Latin character
        return ["utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"]
    # The characters of GB18030 are pairs of high bytes for the most part; accents stand alone between letters.
    accents = 2 * len(_HIGH_ALONE.findall(content)) > len(_HIGH.findall(content))
    return ["utf-8", *(("cp1252", "gb18030") if accents else ("gb18030",))]
