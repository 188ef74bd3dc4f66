"""Files as text: their encodings, and what is not read aloud."""

from __future__ import annotations

import io
import random
import time
import zipfile

import pytest

from indextts.errors import UnusableText
from indextts.text.documents import read_document
from indextts.text.limits import MAX_TEXT_CHARACTERS
from indextts.text.markdown import spoken_markdown
from tests.webui.humming_engine import hum

CHINESE = "他说：“你好，世界！”\n然后走了。1984 年"
SPANISH = "Mañana será otro día; ¿qué tal?\nÉl volvió."


@pytest.mark.parametrize("text", [CHINESE, SPANISH, "Plain."])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "gb18030"])
def test_encodings(text: str, encoding: str) -> None:
    if text == SPANISH and encoding == "gb18030":
        encoding = "cp1252"
    assert read_document(text.replace("\n", "\r\n").encode(encoding), "a.TXT") == text


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark(encoding: str) -> None:
    assert read_document(SPANISH.encode(encoding), "a.txt") == SPANISH
    assert read_document(CHINESE.encode(encoding), "a.txt") == CHINESE


def docx() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("word/document.xml", "<w:p>Hello there, this is a document.</w:p>" * 50)
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "name", "problem"),
    [
        (hum(0.1).tobytes(), "sound.txt", "no_text"),
        (b"RIFF\x24\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00", "sound.txt", "no_text"),
        (docx(), "letter.txt", "no_text"),
        (random.Random(0).randbytes(5000), "noise.md", "no_text"),
        (b"\xff\xfea", "half.txt", "no_text"),
        (b"\x89PNG\r\n\x1a\n", "picture.txt", "no_text"),
        (b"Hello.", "letter.docx", "unknown_kind"),
        (b"Hello.", "letter", "unknown_kind"),
        (b"", "empty.txt", "empty_file"),
        (b"\xef\xbb\xbf \n", "empty.txt", "empty_file"),
        (b"<!-- nothing -->", "empty.md", "empty_file"),
        (b"Hello.", "film.srt", "no_cues"),
        (b"a" * (MAX_TEXT_CHARACTERS + 1), "long.txt", "too_long"),
        (b"a" * 9 * 2**20, "longer.txt", "too_long"),
    ],
)
def test_what_is_no_document(content: bytes, name: str, problem: str) -> None:
    with pytest.raises(UnusableText) as caught:
        read_document(content, name)
    assert caught.value.problem == problem
    assert problem == "no_cues" or name in str(caught.value)


def test_the_longest_document() -> None:
    assert len(read_document("字".encode() * MAX_TEXT_CHARACTERS, "long.txt")) == MAX_TEXT_CHARACTERS


SRT = b"1\r\n00:00:01,500 --> 00:00:03,000\r\nI went\r\n\r\n2\r\n00:00:03,250 --> 00:00:04,000\r\nto the market.\r\n"


def test_subtitles_with_and_without_their_timing() -> None:
    assert read_document(SRT, "film.srt") == "I went to the market."
    assert read_document(SRT, "film.srt", timing=True) == "[pause:1.5s]\nI went\n[pause:0.25s]\nto the market."


MARKDOWN = """\
---
title: Not read
---
# A *great* day #

It was **very** _nice_, ~~not~~ `warm` and snake_case_stays
on two lines. See [the site](https://example.org/a_(b)) or [this][1], <https://example.org>.[^2]

Subtitle
--------
> Quoted **words
> go on**.

- One
- [x] Two
  * Three
1. First
2) Second

| Name | Age |
|------|:---:|
| Ann  | 7   |

```python
print("not read")
```
<!-- nor this -->
![A cat](cat.png) 2 * 3 * 4 &amp; \\*stars\\* <b>bold</b> a < b

[1]: https://example.org
[^2]: a note
***
The end
"""


def test_markup_is_not_read_aloud() -> None:
    assert spoken_markdown(MARKDOWN).split("\n\n") == [
        "A great day",
        "It was very nice, not warm and snake_case_stays on two lines. See the site or this, .",
        "Subtitle",
        "Quoted words go on.",
        "One",
        "Two",
        "Three",
        "1. First",
        "2) Second",
        "Name, Age.",
        "Ann, 7.",
        "A cat 2 * 3 * 4 & *stars* bold a < b",
        "The end",
    ]


@pytest.mark.parametrize(
    "part", ["*", "_", "`", "[", "](", "![", "> ", "# ", "| ", "~~", "<", "<!--", "```\n", "-", "**a", "\\"]
)
def test_odd_markdown_takes_little_time(part: str) -> None:
    started_s = time.process_time()
    spoken_markdown(part * (100_000 // len(part)))
    assert time.process_time() - started_s < 10
