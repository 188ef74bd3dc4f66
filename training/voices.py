"""The voices of the training data: the teacher's stock voices and any number of new ones sampled around them.

A style pack of Kokoro is a row of 256 numbers for every length of the text. New voices are drawn in the space that
the principal components of the training stock voices span; some are also played at another rate, which moves pitch
and formants together and so makes one more speaker. Held-out stock voices do not enter the components.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.teacher import STYLE

ROW_STEP = 5
"""Neighbouring rows of a style pack hardly differ: every fifth is kept."""

NEAR_DUPLICATES = ("pf_dora", "pm_alex", "em_santa", "pm_santa", "jf_nezumi", "jf_tebukuro", "hm_psi")
UNCLEAR = ("zm_yunyang",)
HELDOUT_STOCK = ("af_bella", "af_nova", "am_puck", "am_eric", "bf_emma", "bm_lewis", "am_onyx", "zf_xiaoni")
NUM_SAMPLED, NUM_SAMPLED_HELDOUT = 3000, 50
SIGMA, WIDE_SIGMA = 1.0, 1.25
"""Spread of the drawn voices, in standard deviations of the stock; the wide one is of those that read English alone."""
PITCHED_SHARE = 0.4
TIMBRE = STYLE
"""The first half of a style vector is the timbre, the second the prosody: lengths, F0 and energy."""
MANDARIN_TIMBRE = 0.4
"""How far the timbre of a drawn voice that reads Mandarin goes to the mean of the Mandarin stock voices."""
PITCHES = tuple(p / 160 for p in (141, 145, 149, 153, 156, 164, 168, 172, 175, 179))
"""Rates 0.88 to 1.12 whose ratio to 22,050 Hz is one of small numbers."""


@dataclass(frozen=True)
class Voice:
    """One row of ``voices.json``.

    Attributes:
        name: A stock voice's own name, or ``sampled_NNNN``.
        heldout: Never used in training.
        languages: What it reads.
        pitch: Rate at which it is played; 1 is unchanged.
        stock: Whether it is one of the teacher's own.
        row: Number among the stock voices, or among the sampled ones.
        mandarin_timbre: How much of its timbre, in every language, is that of the Mandarin stock voices.
    """

    name: str
    heldout: bool
    languages: tuple[str, ...]
    pitch: float
    stock: bool
    row: int
    mandarin_timbre: float = 0.0


class VoiceBank:
    """Style vectors of all voices.

    Args:
        path: ``voices.npz`` as ``python -m training.voices`` packs it.
        seed: Decides the sampled voices.
    """

    def __init__(self, path: str | Path, seed: int = 0) -> None:
        with np.load(path) as arrays:
            names, packs = [str(n) for n in arrays["names"]], torch.from_numpy(arrays["styles"]).float()
        train = [i for i, name in enumerate(names) if name not in HELDOUT_STOCK]
        self.mean = packs[train].mean(0)  # [rows, 256]
        self.mandarin = packs[[i for i in train if _language(names[i]) == "zh"]].mean(0)  # [rows, 256]
        centred = (packs[train] - self.mean).flatten(1)
        eigenvalues, vectors = torch.linalg.eigh(centred @ centred.T / (len(train) - 1))
        keep = eigenvalues > 1e-6 * eigenvalues.max()
        # Columns of scores are the training voices' unit-variance coordinates; components take them back.
        scores = vectors[:, keep] * (len(train) - 1) ** 0.5
        components = scores.T @ centred / (len(train) - 1)
        self.components = components.unflatten(1, self.mean.shape)  # [K, rows, 256]

        generator = np.random.default_rng(seed)
        self.voices = [_stock_voice(i, name) for i, name in enumerate(names)]
        for i in range(NUM_SAMPLED + NUM_SAMPLED_HELDOUT):
            pitch = float(generator.choice(PITCHES)) if generator.random() < PITCHED_SHARE else 1.0
            heldout = i < NUM_SAMPLED_HELDOUT
            reads_mandarin = heldout or i % 2 == 0
            languages = ("en", "zh") if reads_mandarin else ("en",)
            timbre = MANDARIN_TIMBRE if reads_mandarin and not heldout else 0.0
            self.voices.append(Voice(f"sampled_{i:04d}", heldout, languages, pitch, False, i, timbre))
        drawn = [voice for voice in self.voices if not voice.stock]
        sigma = np.array([SIGMA if "zh" in voice.languages else WIDE_SIGMA for voice in drawn], np.float32)
        coordinates = generator.standard_normal((len(drawn), len(self.components)), np.float32)
        self.coordinates = torch.from_numpy(sigma[:, None] * coordinates)
        self.stock = packs
        size = components.norm(dim=1)
        stock = (packs - self.mean).flatten(1) @ (components / size[:, None]).T
        self._places = (torch.cat([stock, self.coordinates * size]) / size.max()).tolist()

    def to(self, device: str | torch.device) -> VoiceBank:
        """Moves the style vectors to a device."""
        for name in ("mean", "mandarin", "components", "coordinates", "stock"):
            setattr(self, name, getattr(self, name).to(device))
        return self

    def style(self, voice: int, symbols: int, language: str = "en") -> Tensor:
        """Style vector ``[256]`` of a voice for a text of so many symbols.

        A drawn voice reads Mandarin with the prosody of the Mandarin stock voices: with its own, which is that of
        English, it is understood less (``training/README.md`` has the figures).
        """
        row = min((symbols - 1) // ROW_STEP, len(self.mean) - 1)
        one = self.voices[voice]
        if one.stock:
            return self.stock[one.row, row]
        own, mandarin = self.mean[row] + self.coordinates[one.row] @ self.components[:, row], self.mandarin[row]
        timbre = torch.lerp(own[:TIMBRE], mandarin[:TIMBRE], one.mandarin_timbre)
        return torch.cat((timbre, (mandarin if language == "zh" else own)[TIMBRE:]))

    def table(self) -> list[dict]:
        """Rows for ``voices.json``.

        ``place`` is where a voice lies along the principal components, in units of the widest of them;
        that of a drawn voice is told without its Mandarin timbre.
        """
        first_sampled = len(self.stock)
        return [
            {**asdict(v), "place": [round(x, 4) for x in self._places[v.row + (0 if v.stock else first_sampled)]]}
            for v in self.voices
        ]


def _stock_voice(index: int, name: str) -> Voice:
    return Voice(name, name in HELDOUT_STOCK, (_language(name),), 1.0, True, index)


def _language(stock_name: str) -> str:
    return "zh" if stock_name[0] == "z" else "en"


def pack_voices(folder: Path, out: Path) -> None:
    """Packs the usable ``*.bin`` voices of the npm package ``kokoro-js`` in half precision."""
    left_out = {*NEAR_DUPLICATES, *UNCLEAR}
    files = [f for f in sorted(folder.glob("*.bin")) if f.stem not in left_out]
    styles = np.stack([np.fromfile(f, "<f4").reshape(-1, 256)[::ROW_STEP] for f in files])
    np.savez_compressed(out, names=np.array([f.stem for f in files]), styles=styles.astype(np.float16))


def main() -> None:
    parser = argparse.ArgumentParser(description="Packs the stock voices.")
    parser.add_argument("folder", type=Path, help="kokoro-js/voices")
    parser.add_argument("--out", type=Path, required=True, help="voices.npz")
    args = parser.parse_args()
    pack_voices(args.folder, args.out)


if __name__ == "__main__":
    main()
