"""Markdown as it is read aloud: the words without the markup."""

from __future__ import annotations

import html
import re

_FRONT_MATTER = re.compile(r"\A---\n.*?\n(?:---|\.\.\.)\n", re.DOTALL)
_FENCED_CODE = re.compile(r"^ {0,3}(`{3,9}|~{3,9})[^\n]*\n(?:.*?^ {0,3}\1[`~]*[ \t]*$|.*\Z)", re.DOTALL | re.MULTILINE)
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_DEFINITION = re.compile(r"^ {0,3}\[[^\]\n]+\]:[^\n]*$", re.MULTILINE)

_RULE = re.compile(r" {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,}|=+[ \t]*|-+[ \t]*)")
_TABLE_RULE = re.compile(r"\s*\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?\s*")
_HEADING = re.compile(r" {0,3}#{1,6}(?:[ \t]+|$)(.*?)[ \t]*(?:[ \t]#+)?[ \t]*")
_QUOTE = re.compile(r"(?: {0,3}>[ \t]?)+")
_BULLET = re.compile(r"\s*[-*+][ \t]+(?:\[[ xX]\][ \t]+)?")
_NUMBERED = re.compile(r"\s*\d{1,9}[.)][ \t]+")

_INLINE = (
    (re.compile(r"!?\[\^[^\]\n]*\]"), ""),  # footnotes
    (re.compile(r"!?\[([^\[\]\n]*)\]\([^()\n]*(?:\([^()\n]*\)[^()\n]*)*\)"), r"\1"),  # images and links
    (re.compile(r"!?\[([^\[\]\n]+)\]\[[^\]\n]*\]"), r"\1"),
    (re.compile(r"<(?:https?://|mailto:)[^<>\s]*>"), ""),
    (re.compile(r"</?[a-zA-Z][^<>\n]*>"), ""),
    (re.compile(r"`+|~~"), ""),
    # Stars and bars that touch a word, whether or not there is a pair of them: "2 * 3" and snake_case are none.
    (re.compile(r"\*{1,3}(?=[^\s*])|(?<=[^\s*])\*{1,3}"), ""),
    (re.compile(r"(?<!\w)_{1,3}(?=[^\s_])|(?<=[^\s_])_{1,3}(?!\w)"), ""),
)
_ESCAPED = re.compile(r"\\([!-/:-@\[-`{-~])")
_HIDDEN = 0xE000  # of the private use area, where escaped characters wait


def spoken_markdown(markdown: str) -> str:
    """The words of ``markdown`` in paragraphs with an empty line in between.

    Emphasis, headings, quotes, bullets, links, tables and HTML lose their marks; numbers of lists, which are words,
    stay. Blocks of code, comments, footnote marks and addresses of links are left out: nobody reads them aloud.
    """
    text = markdown.replace("\r\n", "\n").replace("\r", "\n")
    for pattern in (_FRONT_MATTER, _FENCED_CODE, _COMMENT, _DEFINITION):
        text = pattern.sub("", text)
    paragraphs = (_inline(paragraph) for paragraph in _paragraphs(text))
    return "\n\n".join(filter(None, paragraphs))


def _paragraphs(text: str) -> list[str]:
    """Blocks that belong together, each on one line; marks of blocks are gone."""
    found: list[str] = [""]
    for line in text.split("\n"):
        line = _QUOTE.sub("", line, count=1) if _QUOTE.match(line) else line
        if not line.strip() or _RULE.fullmatch(line) or ("-" in line and _TABLE_RULE.fullmatch(line)):
            found.append("")
        elif heading := _HEADING.fullmatch(line):
            found += [heading[1], ""]
        elif bullet := _BULLET.match(line):
            found.append(line[bullet.end() :])
        elif _NUMBERED.match(line):
            found.append(line.strip())
        elif line.strip().startswith("|") and line.strip().endswith("|"):
            cells = (cell.strip() for cell in line.strip().strip("|").split("|"))
            found += [", ".join(filter(None, cells)) + ".", ""]
        else:
            found[-1] = f"{found[-1]} {line.strip()}" if found[-1] else line.strip()
    return found


def _inline(text: str) -> str:
    text = _ESCAPED.sub(lambda match: chr(_HIDDEN + ord(match[1])), text)
    for pattern, replacement in _INLINE:
        text = pattern.sub(replacement, text)
    text = "".join(chr(ord(c) - _HIDDEN) if 0 <= ord(c) - _HIDDEN < 128 else c for c in text)
    return " ".join(html.unescape(text).split())
