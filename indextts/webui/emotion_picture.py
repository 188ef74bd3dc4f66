"""What becomes of an emotion, as HTML: the eight sliders and what is left of them, or one bar where there are none."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from indextts.emotion import EMOTIONS, normalize_emo_vec, scale_emo_vector
from indextts.webui.i18n import choice_text, text

LARGEST_SUM = sum(normalize_emo_vec([1.0] * len(EMOTIONS)))
"""What the cap leaves of all eight together."""

NAMED = 3  # how many emotions of a mix are named in one line


@dataclass(frozen=True)
class Mood:
    """The emotion widgets at a moment, which may hold anything."""

    mode: str
    description: str
    weight: float
    values: Sequence[float]

    @property
    def effective(self) -> tuple[float, ...]:
        """What the model gets of the sliders: damped, capped, and scaled by the weight."""
        return scale_emo_vector(normalize_emo_vec(self.values), self.weight)

    def line(self, language: str) -> str:
        """The mood in one line."""
        values = {"weight": self.weight, "mix": self.mix(language), "description": self.description.strip()}
        choice = self.mode
        if self.mode == "text" and not values["description"]:
            choice = "text_itself"
        elif self.mode == "vector" and not any(self.values):
            choice = "nothing"
        return choice_text("mood", choice, language, **values)

    def mix(self, language: str) -> str:
        """The strongest emotions and their share of the result."""
        strongest = sorted(zip(self.effective, EMOTIONS, strict=True), key=lambda pair: -pair[0])
        return ", ".join(f"{text(name, language)} {share:.0%}" for share, name in strongest[:NAMED] if share > 0)

    def picture(self, language: str) -> str:
        """Bars of what the result is made of."""
        if self.mode == "vector":
            rows = [
                row(text(name, language), f"{raw:.2f} → {share:.2f}", raw, share)
                for name, raw, share in zip(EMOTIONS, self.values, self.effective, strict=True)
            ]
            total, share = sum(self.values), sum(self.effective)
            rows.append(row(text("picture.sum", language), f"{total:.2f} → {share:.2f}", min(total, 1.0), share, True))
            note = text("picture.note", language, cap=LARGEST_SUM, voice=1 - share)
        elif self.mode == "audio":
            rows = [
                row(text("picture.own", language), f"{1 - self.weight:.2f}", 0.0, 1 - self.weight),
                row(text("picture.recording", language), f"{self.weight:.2f}", 0.0, self.weight),
            ]
            note = ""
        else:
            return f'<p class="note">{html.escape(choice_text("picture", self.mode, language))}</p>'
        label = html.escape(self.line(language), quote=True)
        bars = f'<div class="mood" role="img" aria-label="{label}">{"".join(rows)}</div>'
        return bars + (f'<p class="note">{html.escape(note)}</p>' if note else "")


def row(name: str, numbers: str, raw: float, effective: float, capped: bool = False) -> str:
    """One bar: the outline is what was asked for, the filling what is left of it; ``capped`` marks the cap."""
    outline = f'<i class="raw" style="width: {raw:.1%}"></i>' if raw else ""
    cap = f'<b style="inset-inline-start: {LARGEST_SUM:.1%}"></b>' if capped else ""
    return (
        f'<span>{html.escape(name)}</span><span class="bar">{outline}'
        f'<i class="effective" style="width: {effective:.1%}"></i>{cap}</span><span dir="ltr">{numbers}</span>'
    )
