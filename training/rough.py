"""Prompts as people record them: the clean ones with noise, a room, a telephone line, clipping, music or silence."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import soundfile
import torch

from training.augment import Augmentation, augment
from training.clips import Clip, read_clips, write_clips
from training.dataset import SAMPLE_RATE_HZ

NOTHING = dict(
    clean=0.0, room=0.0, noise=0.0, babble=0.0, equalizer=0.0, low_cut=0.0, high_cut=0.0, telephone=0.0, clip=0.0
)
PEAK = (0.5, 0.5)
EFFECTS = {
    "noise": Augmentation(**NOTHING | {"noise": 1.0}, noise_snr_db=(15.0, 15.0), noise_slope=(1.0, 1.0), peak=PEAK),
    "room": Augmentation(**NOTHING | {"room": 1.0}, room_rt60_s=(0.5, 0.5), room_direct_db=(3.0, 3.0), peak=PEAK),
    "telephone": Augmentation(**NOTHING | {"telephone": 1.0}, peak=PEAK),
    "clipped": Augmentation(**NOTHING | {"clip": 1.0}, clip_level=(0.3, 0.3), peak=PEAK),
}
MUSIC_BELOW_DB = 12.0
CHORDS_HZ = ((130.8, 164.8, 196.0), (110.0, 130.8, 164.8), (87.3, 110.0, 130.8), (98.0, 123.5, 146.8))
CHORD_S = 1.0
SILENCE_S = (2.0, 3.0)
QUIET_GAIN = 0.05
KINDS = (*EFFECTS, "music", "silence", "quiet")


def degraded(wave: np.ndarray, kind: str, seed: int) -> np.ndarray:
    """A recording, float32 ``[N]`` at 22.05 kHz, as one of ``KINDS``; the same every time.

    Silence is put in front of it and behind it, and "quiet" is 26 dB softer.
    """
    if kind == "music":
        level = math.sqrt(float(np.mean(wave**2))) * 10 ** (-MUSIC_BELOW_DB / 20)
        return wave + level * music(len(wave))
    if kind == "silence":
        before, behind = (np.zeros(int(s * SAMPLE_RATE_HZ), np.float32) for s in SILENCE_S)
        return np.concatenate([before, wave, behind])
    if kind == "quiet":
        return wave * QUIET_GAIN
    generator = torch.Generator().manual_seed(seed)
    return augment(torch.from_numpy(wave)[None], SAMPLE_RATE_HZ, generator, EFFECTS[kind])[0].numpy()


def music(samples: int) -> np.ndarray:
    """Plucked chords, float32 ``[samples]`` with a root mean square of one."""
    time_s = np.arange(samples) / SAMPLE_RATE_HZ
    chord = (time_s / CHORD_S).astype(int) % len(CHORDS_HZ)
    fade = np.exp(-2.0 * (time_s % CHORD_S))
    tones = np.array(CHORDS_HZ)[chord].T
    wave = sum(np.sin(2 * np.pi * k * hz * time_s) / k for hz in tones for k in (1, 2, 3, 4)) * fade
    return (wave / np.sqrt(np.mean(wave**2))).astype(np.float32)


def degrade_prompts(folder: Path, out: Path, seed: int) -> None:
    """Write every prompt of a folder in every kind, ``<name>_<kind>.flac``."""
    out.mkdir(parents=True, exist_ok=True)
    clips = []
    for number, clip in enumerate(read_clips(folder)):
        wave, rate_hz = soundfile.read(folder / clip.file, dtype="float32")
        if rate_hz != SAMPLE_RATE_HZ or wave.ndim != 1:
            raise ValueError(f"{clip.file} must be mono at {SAMPLE_RATE_HZ} Hz, not {wave.shape} at {rate_hz} Hz")
        for kind in KINDS:
            file = f"{Path(clip.file).stem}_{kind}.flac"
            soundfile.write(out / file, np.clip(degraded(wave, kind, seed + number), -1, 1), rate_hz, subtype="PCM_16")
            clips.append(Clip(file, clip.text, clip.voice, case=kind))
    write_clips(out, clips)
