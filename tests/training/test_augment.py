"""Augmentation keeps time, shape and sense."""

from __future__ import annotations

import dataclasses

import torch

from training.augment import Augmentation, augment

NOTHING = Augmentation(
    clean=0,
    room=0,
    noise=0,
    babble=0,
    equalizer=0,
    low_cut=0,
    high_cut=0,
    telephone=0,
    clip=0,
    peak=(0.5, 0.5),
)


def speech() -> torch.Tensor:
    wave = torch.randn(8, 16000, generator=torch.Generator().manual_seed(1)) * 0.1
    wave[3, 9000:] = 0
    return wave


def run(effects: Augmentation, seed: int = 0) -> torch.Tensor:
    return augment(speech(), 16000, torch.Generator().manual_seed(seed), effects)


def test_no_effect_only_sets_the_level() -> None:
    got, wave = run(NOTHING), speech()
    torch.testing.assert_close(got, wave / wave.abs().amax(1, keepdim=True) * 0.5, atol=1e-4, rtol=1e-3)


def test_every_effect_changes_the_sound_but_not_its_time() -> None:
    base = run(NOTHING)
    for name in ("room", "noise", "babble", "equalizer", "low_cut", "high_cut", "telephone", "clip"):
        got = run(dataclasses.replace(NOTHING, **{name: 1.0}))
        assert got.isfinite().all() and got.abs().max() <= 0.5001
        assert (got - base).abs().amax(1).min() > 1e-3, name
        spectra = torch.fft.rfft(got, 32000) * torch.fft.rfft(base, 32000).conj()
        lag = torch.fft.irfft(spectra, 32000).argmax(1)
        assert torch.where(lag > 16000, lag - 32000, lag).abs().max() <= 2, name


def test_seed_decides() -> None:
    torch.testing.assert_close(run(Augmentation(), 5), run(Augmentation(), 5))
    assert (run(Augmentation(), 5) - run(Augmentation(), 6)).abs().max() > 0.01


def test_silent_rows_stay_finite() -> None:
    assert augment(torch.zeros(3, 4000), 16000, torch.Generator().manual_seed(0)).isfinite().all()
