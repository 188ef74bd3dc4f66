"""Scripts for several speakers.

::

    [Anna] Good morning.
    [Ben|happy 0.6] Morning! [pause:800ms] Coffee?
    It is still hot.
    [pause:1.2s]
    [Anna] Gladly.

A line starts with the name of its speaker in brackets; without one, it goes on as the line before. Behind a bar may
stand how it shall feel: one or more of the eight emotions, separated by commas, with a weight of 0 to 1 each, until the
next name. Full-width brackets, 【】 or ［］, do as well.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass, replace

from indextts.errors import UnusableText
from indextts.text.limits import check_text
from indextts.text.pauses import split_pauses

MAX_NAME = 40
"""Characters of a speaker's name; more is a bracket that was meant otherwise."""

DEFAULT_WEIGHT = 0.6
"""Of an emotion that is named without one."""

_SPEAKER = re.compile(r"\s*[\[［【](?!\s*pause\b)([^\[\]［］【】]*)[\]］】]\s*", re.IGNORECASE)
_BAR = re.compile(r"[|｜]")
_EMOTION = re.compile(r"\s*([^\W\d]+)(?:\s+(\d+(?:\.\d+)?|\.\d+))?\s*")


@dataclass(frozen=True)
class Utterance:
    """What one speaker says in one go.

    Attributes:
        line: Its line in the script, from 1.
        emotion: (name, weight) of each emotion that the line asks for; empty: none of its own.
        pause_ms: The silence that the script asks for behind it; None: it does not say.
    """

    line: int
    speaker: str
    text: str
    emotion: tuple[tuple[str, float], ...] = ()
    pause_ms: int | None = None


@dataclass(frozen=True)
class Script:
    """Utterances in their order, and the silence in front of the first."""

    utterances: tuple[Utterance, ...]
    lead_ms: int = 0

    @property
    def speakers(self) -> tuple[str, ...]:
        """The names, in the order in which they first speak."""
        return tuple(dict.fromkeys(utterance.speaker for utterance in self.utterances))


def read_script(script: str, emotions: Collection[str]) -> Script:
    """Who says what.

    A name may be written in upper or lower case; as it is written first it is shown.

    Args:
        emotions: The names of the emotions that there are.

    Raises:
        UnusableText: nobody says anything, the first line has no name, or a name, an emotion or a pause cannot be
            used; its line is named.
    """
    check_text(script)
    utterances: list[Utterance] = []
    spelling: dict[str, str] = {}
    lead_ms, speaker, emotion = 0, "", ()
    for number, line in enumerate(script.splitlines(), 1):
        if match := _SPEAKER.match(line):
            name, _, wanted = (part.strip() for part in _BAR.sub("|", match[1]).partition("|"))
            speaker, emotion = _name(name, number, spelling), _emotion(wanted, number, emotions)
            line = line[match.end() :]
        for part in split_pauses(line, number):
            if isinstance(part, str):
                if not speaker:
                    message = "line {line}: who says this? The first line needs a name, such as [Anna] Hello."
                    raise UnusableText("no_speaker", message, line=number)
                utterances.append(Utterance(number, speaker, part, emotion))
            elif utterances:
                before = utterances[-1]
                utterances[-1] = replace(before, pause_ms=(before.pause_ms or 0) + part)
            else:
                lead_ms += part
    if not utterances:
        raise UnusableText("nobody_speaks", "nobody says anything in it: write lines such as [Anna] Hello.")
    return Script(tuple(utterances), lead_ms)


def _name(written: str, number: int, spelling: dict[str, str]) -> str:
    name = unicodedata.normalize("NFC", " ".join(written.split()))
    if not name or len(name) > MAX_NAME or not name.isprintable():
        message = "line {line}: {written} is not a name: one to {limit} characters in brackets"
        raise UnusableText("bad_name", message, line=number, written=repr(written[:40]), limit=MAX_NAME)
    return spelling.setdefault(name.casefold(), name)


def _emotion(written: str, number: int, emotions: Collection[str]) -> tuple[tuple[str, float], ...]:
    found: dict[str, float] = {}
    for part in filter(None, (p.strip() for p in re.split("[,，、+]", written))):
        match = _EMOTION.fullmatch(part)
        name, weight = (match[1].lower(), float(match[2] or DEFAULT_WEIGHT)) if match else ("", 0.0)
        if name not in emotions or not 0 <= weight <= 1:
            message = "line {line}: {written} is not an emotion: one of {known}, and a weight of 0 to 1"
            raise UnusableText("bad_emotion", message, line=number, written=repr(part[:40]), known=", ".join(emotions))
        found[name] = weight
    return tuple(found.items())
