"""The vocoder: fast filters against their definition, keys, folding, gradients, half precision."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from indextts.config import VocoderConfig
from indextts.models.bigvgan import BigVGAN
from indextts.models.snake import TAPS, AntiAliasedSnake
from indextts.models.weight_norm import fold_weight_norm

TINY = VocoderConfig(
    num_mels=10,
    upsample_rates=(4, 2),
    upsample_kernel_sizes=(8, 4),
    upsample_initial_channel=16,
    resblock_kernel_sizes=(3, 7),
    resblock_dilation_sizes=((1, 3), (1, 3)),
)


def literal_anti_aliased_snake(activation: AntiAliasedSnake, x: torch.Tensor) -> torch.Tensor:
    """Spec 11 word by word: padded, strided depthwise convolutions."""
    channels = x.shape[1]
    taps = torch.tensor(TAPS, dtype=x.dtype).expand(channels, 1, -1)
    up = F.conv_transpose1d(F.pad(x, (5, 5), mode="replicate"), taps, stride=2, groups=channels)
    snake = activation.act(2 * up[..., 15:-15])
    return F.conv1d(F.pad(snake, (5, 6), mode="replicate"), taps, stride=2, groups=channels)


def random_activation(channels: int) -> AntiAliasedSnake:
    activation = AntiAliasedSnake(channels)
    with torch.no_grad():
        activation.act.alpha.normal_()
        activation.act.beta.normal_()
    return activation


def test_low_pass_taps_are_symmetric_and_keep_the_level():
    taps = torch.tensor(TAPS, dtype=torch.float64)
    torch.testing.assert_close(taps, taps.flip(0), rtol=0, atol=1e-12)
    torch.testing.assert_close(taps[0::2].sum(), taps[1::2].sum(), rtol=0, atol=1e-12)
    assert taps.sum().item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("frames", [1, 2, 3, 8, 101])
def test_polyphase_equals_definition(frames: int):
    torch.manual_seed(0)
    activation = random_activation(5)
    x = torch.randn(2, 5, frames, requires_grad=True)
    fast, plain = activation(x), literal_anti_aliased_snake(activation, x)
    torch.testing.assert_close(fast, plain, rtol=1e-6, atol=1e-6 * plain.abs().max().item())
    weights = torch.randn_like(fast)
    inputs = [x, activation.act.alpha, activation.act.beta]
    for got, want in zip(
        torch.autograd.grad((fast * weights).sum(), inputs),
        torch.autograd.grad((plain * weights).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5 * want.abs().max().item())


def test_activation_computes_in_float32():
    torch.manual_seed(0)
    activation = random_activation(3)
    x = (30 * torch.randn(1, 3, 40)).bfloat16()
    torch.testing.assert_close(activation(x), activation(x.float()).bfloat16(), rtol=0, atol=0)


def test_activation_suppresses_aliases():
    """The square of a tone at 0.36 of the rate would fold back from 0.72 to 0.28 of the rate."""
    activation = AntiAliasedSnake(1)
    tone = torch.sin(2 * torch.pi * 0.36 * torch.arange(500)).view(1, 1, -1)
    window = torch.hann_window(500)

    def level_at_alias(x: torch.Tensor) -> float:
        return torch.fft.rfft(x[0, 0] * window).abs()[140].item()

    with torch.no_grad():
        assert level_at_alias(activation(tone)) < 0.3 * level_at_alias(activation.act(tone))


@torch.no_grad()
def test_shape_range_and_folding():
    torch.manual_seed(0)
    model = BigVGAN(TINY)
    mel = torch.randn(2, TINY.num_mels, 9)
    wave = model(mel)
    assert wave.shape == (2, 1, 9 * 8)
    assert wave.abs().max() <= 1
    keys = set(model.state_dict())
    assert {"conv_pre.weight_g", "ups.1.0.weight_v", "resblocks.3.convs2.1.bias"} <= keys
    assert "activation_post.act.alpha" in keys and "conv_post.bias" not in keys
    folded = fold_weight_norm(BigVGAN(TINY))
    folded.load_state_dict(fold_weight_norm(model).state_dict())
    torch.testing.assert_close(folded(mel), wave, rtol=1e-5, atol=1e-6)
    unfolded = BigVGAN(TINY)
    unfolded.load_state_dict(folded.state_dict())  # plain weights fit the weight-normed form too
    torch.testing.assert_close(unfolded(mel), wave, rtol=1e-5, atol=1e-6)


def test_final_tanh_and_bias_follow_the_configuration():
    config = VocoderConfig(**{**TINY.__dict__, "use_tanh_at_final": True, "use_bias_at_final": True})
    model = BigVGAN(config)
    with torch.no_grad():
        assert model.conv_post.bias is not None
        model.conv_post.bias.fill_(2.0)
        wave = model(torch.zeros(1, TINY.num_mels, 4))
    assert wave.max() < 1 < 1 / wave.mean()


def test_every_parameter_learns():
    torch.manual_seed(0)
    model = BigVGAN(TINY)
    (0.1 * model(torch.randn(2, TINY.num_mels, 12))).square().sum().backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not idle


def test_samples_feel_mel_frames_within_reach():
    torch.manual_seed(0)
    model = BigVGAN(TINY).double()
    reach, hop = model.reach_frames, 8
    mel = torch.randn(1, TINY.num_mels, 2 * reach + 11, dtype=torch.float64, requires_grad=True)
    middle = reach + 5
    (gradient,) = torch.autograd.grad(model(mel)[..., middle * hop : (middle + 1) * hop].sum(), mel)
    felt = gradient.abs().sum((0, 1)).nonzero().flatten() - middle
    assert (int(felt[0]), int(felt[-1])) == (-reach, reach)
