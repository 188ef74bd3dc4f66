"""Spec 11: the vocoder and its anti-aliased activation, with weight-norm pairs and folded."""

from __future__ import annotations

import torch

from indextts.checkpoints import load_strictly
from indextts.config import VocoderConfig
from indextts.config_file import build_dataclass
from indextts.models.bigvgan import BigVGAN
from indextts.models.snake import TAPS, AntiAliasedSnake, downsample_2x, upsample_2x
from indextts.models.weight_norm import fold_weight_norm


def interleave(even: torch.Tensor, odd: torch.Tensor) -> torch.Tensor:
    return torch.stack([even, odd], dim=-1).flatten(-2)


@torch.no_grad()
def test_bigvgan(golden):
    case = golden.component("bigvgan")
    model = BigVGAN(build_dataclass(VocoderConfig, case.config, "vocoder"))
    load_strictly(model, case.weights, "bigvgan")
    case.check("wav", model(case.input("mel")))
    case.check("wav", fold_weight_norm(model)(case.input("mel")))


@torch.no_grad()
def test_anti_aliased_snake(golden):
    case = golden.component("aa_activation")
    activation = AntiAliasedSnake(case.config["channels"])
    load_strictly(activation, case.weights, "aa_activation")
    x = case.input("x")
    case.check("y", activation(x))
    case.check("snake_only", activation.act(x))
    case.check("upsampled", interleave(*upsample_2x(x)))
    short_frames = case.output("y_short").shape[-1]
    case.check("y_short", activation(x[..., :short_frames]))


def test_low_pass_filter(golden):
    case = golden.component("aa_activation")
    taps = torch.tensor(TAPS).view(1, 1, -1)
    case.check("up_filter", taps)
    case.check("down_filter", taps)


def test_downsampling(golden):
    case = golden.component("aa_activation")
    x = case.input("x")
    if x.shape[-1] % 2:  # the signal is constant beyond its end, so one more sample changes nothing
        x = torch.cat([x, x[..., -1:]], dim=-1)
    case.check("downsampled", downsample_2x(x[..., 0::2], x[..., 1::2]))
