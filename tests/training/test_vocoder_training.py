"""Critics, losses, batches and the training step of the vocoder, on tiny networks."""

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from indextts.audio import log_mel
from indextts.config import SpectrogramConfig, VocoderConfig
from indextts.models.bigvgan import BigVGAN
from indextts.models.weight_norm import fold_weight_norm
from training import train_vocoder
from training.discriminators import PERIODS, WINDOWS, VocoderDiscriminator
from training.train_vocoder import TrainStep, draw_batch, export, initialise
from training.vocoder_losses import (
    adversarial_loss,
    discriminator_loss,
    feature_matching_loss,
    multi_scale_mel_loss,
    stft_distance,
)

TINY = VocoderConfig(
    upsample_rates=(16, 16),
    upsample_kernel_sizes=(32, 32),
    upsample_initial_channel=8,
    resblock_kernel_sizes=(3,),
    resblock_dilation_sizes=((1, 3),),
)
CPU = torch.device("cpu")


class Tones:
    """Stands in for ``SpeechData``: utterances of 1 and 0.1 seconds."""

    device = CPU
    length_s = torch.tensor([1.0, 0.1])

    def __len__(self) -> int:
        return 2

    def num_samples(self, rows: torch.Tensor) -> torch.Tensor:
        return (self.length_s[rows] * 22050).long()

    def wave(self, rows: torch.Tensor, start: torch.Tensor, num_samples: int) -> torch.Tensor:
        at = start[:, None] + torch.arange(num_samples)
        inside = (at >= 0) & (at < self.num_samples(rows)[:, None])
        return 0.5 * torch.sin(0.1 * at) * inside


def make_step() -> TrainStep:
    torch.manual_seed(0)
    generator = BigVGAN(TINY)
    initialise(generator)
    step = TrainStep(generator, CPU, width=0.125)
    for group in step.optimizer.param_groups:
        group["lr"] = 1e-3
    return step


def make_batch(num_frames: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    wave = 0.3 * torch.randn(2, 256 * num_frames)
    return log_mel(wave, SpectrogramConfig()), wave


@pytest.mark.parametrize("num_samples", [4096, 5003])
def test_critics_judge_waves_of_any_length(num_samples: int) -> None:
    judgements = VocoderDiscriminator(0.125)(torch.randn(2, num_samples))
    assert len(judgements) == len(PERIODS) + len(WINDOWS)
    for score, features in judgements:
        assert score.shape[:2] == (2, 1) and torch.isfinite(score).all()
        assert len(features) == 5


def test_spectral_losses_vanish_only_for_the_same_wave() -> None:
    real = 0.1 * torch.randn(2, 4096, generator=torch.Generator().manual_seed(0))
    for loss in (multi_scale_mel_loss, stft_distance):
        assert loss(real, real) == 0
        assert loss(0.5 * real, real) > loss(0.9 * real, real) > 0


def test_adversarial_losses() -> None:
    one, zero = torch.ones(2, 1, 5), torch.zeros(2, 1, 5)
    good, bad = [(one, [one, one]), (one, [one])], [(zero, [zero, one]), (zero, [zero])]
    assert discriminator_loss(good, bad) == 0
    assert discriminator_loss(bad, good) == 2
    assert adversarial_loss(good) == 0
    assert adversarial_loss(bad) == 2
    assert feature_matching_loss(good, good) == 0
    assert feature_matching_loss(good, bad) == 2


def test_spectrograms_belong_to_their_waves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_vocoder, "DEGRADED_SHARE", 0.0)
    config = SpectrogramConfig()
    generator = torch.Generator().manual_seed(0)
    mel, wave = draw_batch(Tones(), config, 16, 20, generator)  # type: ignore[arg-type]
    assert mel.shape == (16, 80, 20) and wave.shape == (16, 20 * 256)
    inner = slice(2, -2)  # frames that see no edge of the excerpt
    torch.testing.assert_close(mel[..., inner], log_mel(wave, config)[..., inner])
    peaks = wave.abs().amax(1)
    assert peaks.max() <= train_vocoder.MAX_PEAK + 1e-6 and peaks.std() > 0.01


def test_initial_generator_is_neither_silent_nor_loud() -> None:
    step = make_step()
    with torch.no_grad():
        level = step.generator(make_batch()[0]).std()
    assert 1e-3 < level < 0.5


def test_spectral_step_leaves_the_critics_alone() -> None:
    step = make_step()
    before = copy.deepcopy(step.discriminator.state_dict())
    old = [p.detach().clone() for p in step.generator_weights]
    figures = step.compute(*make_batch(), adversarial=False)
    assert set(figures) == {"mel", "stft", "norm"}
    assert all(torch.equal(before[key], value) for key, value in step.discriminator.state_dict().items())
    assert any(not torch.equal(a, b) for a, b in zip(old, step.generator_weights, strict=True))


def test_critics_learn_from_their_own_loss_only() -> None:
    """Their gradient must be that of telling apart, not the generator's wish to be mistaken for a recording."""
    step = make_step()
    mel, wave = make_batch()
    reference = copy.deepcopy(step.discriminator)
    with torch.autocast("cpu", torch.bfloat16):
        fake = step.generator(mel).squeeze(1).float().detach()
        discriminator_loss(reference(wave), reference(fake)).backward()
    torch.nn.utils.clip_grad_norm_(reference.parameters(), train_vocoder.MAX_DISCRIMINATOR_NORM)
    step.compute(mel, wave, adversarial=True)
    for got, want in zip(step.discriminator.parameters(), reference.parameters(), strict=True):
        assert got.grad is not None and want.grad is not None
        torch.testing.assert_close(got.grad, want.grad, rtol=2e-2, atol=1e-3 * float(want.grad.abs().max()))


def test_a_step_that_is_not_finite_is_left_out() -> None:
    step = make_step()
    mel, wave = make_batch()
    step.compute(mel, wave, adversarial=True)
    old = [p.detach().clone() for p in step.generator_weights + step.discriminator_weights]
    wave[0, 0] = float("nan")
    step.compute(mel, wave, adversarial=True)
    for before, after in zip(old, step.generator_weights + step.discriminator_weights, strict=True):
        assert torch.equal(before, after)


def test_exported_weights_are_folded_and_make_the_same_sound(tmp_path: Path) -> None:
    model = make_step().average
    export(model, TINY, tmp_path / "vocoder.safetensors")
    tensors = load_file(tmp_path / "vocoder.safetensors")
    assert "conv_pre.weight" in tensors and not any("weight_" in key for key in tensors)
    plain = fold_weight_norm(BigVGAN(TINY))
    plain.load_state_dict(tensors)
    mel = make_batch()[0]
    with torch.no_grad():
        torch.testing.assert_close(plain(mel), model(mel), rtol=1e-4, atol=1e-5)
