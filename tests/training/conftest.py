"""A toy set of generated speech whose labels are known."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

PHONE_SAMPLES = 4 * 551.25  # four frames of 25 ms
FIRST_PHONE = 42  # the symbols before are silent, or marks


def tone(hz: float, samples: int) -> np.ndarray:
    t = np.arange(samples) / 22050
    return sum(np.sin(2 * math.pi * hz * k * t) / k for k in range(1, 6)) * 0.2


@pytest.fixture
def toy_speech(tmp_path: Path) -> Path:
    """Two voices at 100 and 200 Hz; every phone is a louder or softer stretch of 100 ms."""
    (tmp_path / "voices.json").write_text(json.dumps([{"name": n, "heldout": False} for n in "ab"]))
    sentence = {"text": "x", "language": "en", "phonemes": "x", "heldout": False}
    (tmp_path / "sentences.json").write_text(json.dumps([sentence] * 3))
    rows = [(voice, sentence) for voice in range(2) for sentence in range(3)]
    counts = [10 + 3 * i for i in range(len(rows))]
    phones = [np.arange(1, n + 1) % 5 + 1 for n in counts]  # how loud
    waves = []
    for (voice, _), ids in zip(rows, phones, strict=True):
        gain = np.repeat(ids / 5, round(PHONE_SAMPLES))
        waves.append((tone(100.0 * (voice + 1), len(gain)) * gain * 32767).astype("<i2"))
    lengths = np.array([len(w) for w in waves], np.int64)
    np.concatenate(waves).tofile(tmp_path / "shard_00000.pcm")
    np.savez(
        tmp_path / "shard_00000.npz",
        offset=np.cumsum(lengths) - lengths,
        length=lengths,
        voice=np.array([v for v, _ in rows], np.int32),
        sentence=np.array([s for _, s in rows], np.int32),
        language=np.zeros(len(rows), np.int8),
        style=np.zeros(len(rows), np.int8),
        intensity=np.zeros(len(rows), np.float32),
        phone_ids=np.concatenate(phones).astype(np.int16) + FIRST_PHONE,
        phone_frames=np.full(sum(counts), 4, np.int16),
        phone_offset=np.cumsum([0, *counts]).astype(np.int64),
    )
    (tmp_path / "shard_00000.json").write_text("{}")
    return tmp_path
