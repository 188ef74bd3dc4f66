"""Ragged batches give what each row gives alone; conditions act where they should; limits are named."""

from __future__ import annotations

import dataclasses
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from indextts.config import DiTConfig, LengthRegulatorConfig, S2MelConfig, StyleEncoderConfig, WaveNetConfig
from indextts.errors import ConfigError, SynthesisError
from indextts.models.dit import MAX_FRAMES, FeedForward, rotary_angles, rotate
from indextts.models.flow_matching import guided_conditions, guided_velocity, join_rows, solve
from indextts.models.length_regulator import nearest_indices
from indextts.models.s2mel import S2Mel
from indextts.models.wavenet import Edges, Mirror, mirrored

CONFIG = S2MelConfig(
    style_encoder=StyleEncoderConfig(dim=6),
    length_regulator=LengthRegulatorConfig(channels=12, in_channels=10),
    DiT=DiTConfig(hidden_dim=16, num_heads=2, depth=4, in_channels=8, content_dim=12),
    wavenet=WaveNetConfig(hidden_dim=16, num_layers=2, dilation_rate=2),
    gpt_layer_dims=(14, 7, 5, 10),
)
PROMPT_LENS, NUM_CODES = (9, 17, 3), (11, 5, 14)
assert_close = partial(torch.testing.assert_close, atol=2e-5, rtol=1e-4)


@pytest.fixture(scope="module")
def model() -> S2Mel:
    torch.manual_seed(0)
    return S2Mel(CONFIG).eval()


def ragged(lengths: tuple[int, ...], channels: int, seed: int) -> Tensor:
    """``[B, max(lengths), channels]`` with values in the padding, too."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(lengths), max(lengths), channels, generator=generator)


def mel_of_rows(model: S2Mel, rows: list[int]) -> list[Tensor]:
    """The mels of some rows of one fixed batch, solved together."""
    prompt_lens, codes = torch.tensor(PROMPT_LENS)[rows], torch.tensor(NUM_CODES)[rows]
    longest_prompt, longest_codes = int(prompt_lens.max()), int(codes.max())
    target_lens = model.target_frames(codes)
    prompt = ragged(PROMPT_LENS, 8, 1)[rows, :longest_prompt].transpose(1, 2)
    prompt_condition = ragged(PROMPT_LENS, 12, 2)[rows, :longest_prompt]
    embeddings = ragged(NUM_CODES, 10, 3)[rows, :longest_codes]
    latents = ragged(NUM_CODES, 14, 4)[rows, :longest_codes]
    condition = model.length_regulator(embeddings + model.gpt_layer(latents), target_lens, codes)
    mu = join_rows(prompt_condition, prompt_lens, condition, target_lens)
    x_lens = prompt_lens + target_lens
    noise = ragged((60, 60, 60), 8, 5)[rows].transpose(1, 2)[..., : mu.shape[1]]
    style = ragged((1, 1, 1), 6, 6)[rows, 0]
    mel = solve(
        model.estimator, noise, mu, prompt, style, steps=3, cfg_rate=0.7, x_lens=x_lens, prompt_lens=prompt_lens
    )
    return [mel[i, :, : x_lens[i]] for i in range(len(rows))]


@torch.no_grad()
def test_a_ragged_batch_equals_single_rows(model: S2Mel) -> None:
    together = mel_of_rows(model, [0, 1, 2])
    for row, mel in enumerate(together):
        assert_close(mel, mel_of_rows(model, [row])[0])
        assert not mel[:, : PROMPT_LENS[row]].any()
        assert mel[:, PROMPT_LENS[row] :].abs().min() > 0


@torch.no_grad()
def test_whole_rows_need_no_lengths(model: S2Mel) -> None:
    noise, mu, prompt, style = (torch.randn(2, *shape) for shape in ((8, 20), (20, 12), (8, 7), (6,)))
    lengths = {"x_lens": torch.tensor([20, 20]), "prompt_lens": torch.tensor([7, 7])}
    default = solve(model.estimator, noise, mu, prompt, style, steps=2, cfg_rate=0.5)
    explicit = solve(model.estimator, noise, mu, prompt, style, steps=2, cfg_rate=0.5, **lengths)
    assert_close(default, explicit)


@torch.no_grad()
def test_guidance_extrapolates_from_the_branch_without_conditions(model: S2Mel) -> None:
    x, prompt_x, mu, style = (torch.randn(1, *shape) for shape in ((8, 15), (8, 15), (15, 12), (6,)))
    lens, modulation = torch.tensor([15]), model.estimator.modulate(torch.tensor([0.3]))
    zeros = [torch.zeros_like(c) for c in (prompt_x, style, mu)]

    def velocity(prompt_x: Tensor, style: Tensor, mu: Tensor, cfg_rate: float) -> Tensor:
        known = guided_conditions(model.estimator, prompt_x, lens, style, mu, cfg_rate)
        return guided_velocity(model.estimator, x, modulation, known, cfg_rate)

    plain, null = velocity(prompt_x, style, mu, 0.0), velocity(zeros[0], zeros[1], zeros[2], 0.0)
    guided = velocity(prompt_x, style, mu, 0.7)
    assert (plain - null).abs().max() > 1e-3
    assert_close(guided, plain + 0.7 * (plain - null))


@torch.no_grad()
@pytest.mark.parametrize("start", [0, 1, 5, 6, 7, 19])
@pytest.mark.parametrize("ragged_rows", [False, True])
def test_velocity_from_a_later_frame_is_the_end_of_the_whole_velocity(
    model: S2Mel, start: int, ragged_rows: bool
) -> None:
    x, prompt_x, mu, style = (torch.randn(2, *shape) for shape in ((8, 23), (8, 23), (23, 12), (6,)))
    x[..., :start] = 0
    lens, t = torch.tensor([23, start + 2]) if ragged_rows else None, torch.tensor([0.3, 0.8])
    whole = model.estimator(x, prompt_x, lens, t, style, mu, edges=lens)
    known = model.estimator.prepare(prompt_x, lens, style, mu, lens, start)
    end = model.estimator.velocity(x[..., start:], model.estimator.modulate(t), known)
    assert end.shape == (2, 8, 23 - start)
    for row, length in enumerate([23, 23] if lens is None else lens.tolist()):
        assert_close(end[row, :, : length - start], whole[row, :, start:length])


@torch.inference_mode()
def test_a_feed_forward_in_half_precision_goes_beyond_its_range() -> None:
    torch.manual_seed(0)
    layer, x = FeedForward(64), torch.randn(1, 5, 64)
    for weight, factor in ((layer.w1.weight, 30), (layer.w3.weight, 300), (layer.w2.weight, 100)):
        weight.mul_(factor)
    inner = F.silu(layer.w1(x)) * layer.w3(x)
    expected = layer.w2(inner)
    assert torch.equal(layer(x), expected) and expected.abs().max() > torch.finfo(torch.float16).max
    got = layer.half()(x)
    assert got.dtype == torch.float32 and (got - expected).norm() < 2e-3 * expected.norm()


def test_gradients_reach_every_weight_under_autocast() -> None:
    model = S2Mel(CONFIG)
    codes, prompt_lens = torch.tensor([12, 6]), torch.tensor([8, 5])
    with torch.autocast("cpu", torch.bfloat16):
        embeddings = torch.randn(2, 12, 10) + model.gpt_layer(torch.randn(2, 12, 14))
        condition = model.length_regulator(embeddings, model.target_frames(codes), codes)
        mu = join_rows(torch.randn(2, 8, 12), prompt_lens, condition, model.target_frames(codes))
        x = torch.randn(2, 8, mu.shape[1])
        lens = prompt_lens + model.target_frames(codes)
        model.estimator(x, x, lens, torch.rand(2), torch.randn(2, 6), mu, edges=lens).float().sum().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None and torch.isfinite(weight.grad).all() and weight.grad.any(), name


@torch.no_grad()
def test_length_regulator_rows_are_independent_only_with_their_lengths(model: S2Mel) -> None:
    x = ragged((13, 8), 10, 7)
    source, target = torch.tensor([13, 8]), torch.tensor([22, 30])
    together = model.length_regulator(x, target, source)
    for row in range(2):
        alone = model.length_regulator(x[row : row + 1, : source[row]], target[row : row + 1])
        assert_close(together[row : row + 1, : target[row]], alone)
        assert not together[row, target[row] :].any()
    assert (model.length_regulator(x, target)[0, :22] - together[0, :22]).abs().max() > 1e-2


def test_nearest_indices_are_those_of_interpolate() -> None:
    for source in (1, 2, 7, 31, 314, 749):
        positions = torch.arange(source, dtype=torch.float32)[None, None]
        for target in {1, 2, source, int(source * 1.72) + 1, 542, 1291}:
            expected = F.interpolate(positions, size=target, mode="nearest")[0, 0].long()
            got = nearest_indices(torch.tensor([source]), torch.tensor([target]), target)[0]
            assert torch.equal(got, expected), (source, target)


def reflect_pad(x: Tensor, left: int, right: int, lengths: Tensor) -> Tensor:
    mask = torch.ones(len(x), 1, x.shape[2], dtype=torch.bool)
    edges = Edges(mask, {(left, right): Mirror.at(left, right, lengths, mask)})
    return mirrored(x, (left, right), edges, is_masked=True)


@pytest.mark.parametrize("frames", [3, 4, 9])
def test_reflection_at_each_rows_end(frames: int) -> None:
    x = torch.randn(2, 3, 9)
    padded = reflect_pad(x, 2, 2, torch.tensor([frames, 9]))
    expected = F.pad(x[:1, :, :frames], (2, 2), mode="reflect")
    assert torch.equal(padded[:1, :, : frames + 4], expected)
    assert torch.equal(padded[1:], F.pad(x[1:], (2, 2), mode="reflect"))
    assert torch.equal(padded[1:], mirrored(x[1:], (2, 2), None, is_masked=True))


@pytest.mark.parametrize("frames", [1, 2])
def test_rows_too_short_to_reflect_are_continued_with_zeros(frames: int) -> None:
    x = torch.randn(1, 2, frames)
    continued = F.pad(F.pad(x, (0, 3 - frames)), (2, 2), mode="reflect")
    assert torch.equal(reflect_pad(x, 2, 2, torch.tensor([frames])), continued[..., : frames + 4])


def test_target_frames_truncate_in_single_precision(model: S2Mel) -> None:
    codes = torch.arange(1, 1816)
    expected = (codes.float() * torch.tensor(1.72)).long()
    assert torch.equal(model.target_frames(codes), expected)
    assert [model.target_frames(int(n)) for n in codes] == expected.tolist()
    assert model.target_frames(400) == 688


def test_rotary_embedding_keeps_relative_positions() -> None:
    rotary = rotary_angles(50, 8, torch.device("cpu"))
    q, k = torch.randn(2, 8)
    q, k = (rotate(v.expand(1, 1, 50, 8), rotary)[0, 0] for v in (q, k))
    scores = q @ k.T
    torch.testing.assert_close(scores[3, 10], scores[30, 37])
    assert (scores[3, 10] - scores[3, 11]).abs() > 1e-3


def test_too_many_frames_are_named() -> None:
    with pytest.raises(SynthesisError, match=f"{MAX_FRAMES + 1} mel frames"):
        rotary_angles(MAX_FRAMES + 1, 64, torch.device("cpu"))


def test_contradictory_sizes_are_named() -> None:
    with pytest.raises(ConfigError, match="wavenet"):
        S2Mel(dataclasses.replace(CONFIG, wavenet=WaveNetConfig(hidden_dim=8)))
    with pytest.raises(ConfigError, match="content_dim"):
        S2Mel(dataclasses.replace(CONFIG, length_regulator=LengthRegulatorConfig(channels=8)))
