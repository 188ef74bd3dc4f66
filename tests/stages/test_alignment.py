"""How speech follows its text, read from attention by the heads that do, if there are any."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from indextts.config import ConformerConfig, GPTConfig
from indextts.decoding.backend import EagerBackend
from indextts.engine import Engine
from indextts.models.gpt import UnifiedVoice
from indextts.stages.alignment import TextFollower
from indextts.types import SynthesisRequest, VoicePrompt

ENCODER = ConformerConfig(output_size=16, linear_units=16, attention_heads=2, num_blocks=1, perceiver_dim_head=8)
CONFIG = GPTConfig(
    model_dim=32, layers=3, heads=4, max_mel_tokens=60, max_text_tokens=20, number_text_tokens=30, number_mel_codes=22,
    start_mel_token=20, stop_mel_token=21, condition_num_latent=3, cond_input_dim=12, emo_perceiver_dim=8,
    condition_module=ENCODER, emo_condition_module=ENCODER,
)  # fmt: skip
TEXTS = torch.tensor([5, 9, 3])
CODES = torch.tensor([20, 41, 12])


@pytest.fixture(scope="module")
def latents() -> Callable[..., Tensor]:
    """The second pass of a model of random weights over three segments."""
    torch.manual_seed(0)
    model = UnifiedVoice(CONFIG).eval().requires_grad_(False)
    texts, codes = torch.randint(2, 30, (3, 9)), torch.randint(20, (3, 41))
    return partial(model.latents, torch.randn(1, 3, 32), torch.randn(1, 32), texts, codes, TEXTS, CODES)


def test_watching_changes_nothing(latents: Callable[..., Tensor]) -> None:
    shown: list[Tensor] = []
    assert torch.equal(latents(), latents(watch=shown.append))
    assert [tuple(attention.shape) for attention in shown] == [(3, 4, 41, 11)] * 3


def test_a_row_of_a_batch_is_shown_as_alone(latents: Callable[..., Tensor]) -> None:
    together: list[Tensor] = []
    latents(watch=together.append)
    latent, emotion, texts, codes, *_ = latents.args  # type: ignore[attr-defined]
    for row, (text, code) in enumerate(zip(TEXTS, CODES, strict=True)):
        alone: list[Tensor] = []
        model: UnifiedVoice = latents.func.__self__  # type: ignore[attr-defined]
        model.latents(latent, emotion, texts[row : row + 1, :text], codes[row : row + 1, :code], watch=alone.append)
        for many, one in zip(together, alone, strict=True):
            torch.testing.assert_close(many[row, :, :code, : text + 2], one[0])
            assert not many[row, :, :code, text + 2 :].any()
            torch.testing.assert_close(one.sum(-1), torch.ones(one.shape[:3]))


def test_what_is_shown_is_the_attention_of_the_layer() -> None:
    """By the layer's own weights and the input that it gets, over the whole sequence, then on the text alone."""
    torch.manual_seed(0)
    model = UnifiedVoice(CONFIG).eval().requires_grad_(False)
    heard: list[Tensor] = []
    model.gpt.h[1].get_submodule("attn").register_forward_pre_hook(lambda _, arguments: heard.append(arguments[0]))
    shown: list[Tensor] = []
    model.latents(
        torch.randn(1, 3, 32), torch.randn(1, 32), torch.randint(2, 30, (1, 6)), torch.randint(20, (1, 15)),
        watch=shown.append,
    )  # fmt: skip
    projected = model.gpt.h[1].get_submodule("attn.c_attn")(heard[0])
    queries, keys = (x.unflatten(-1, (4, 8)).transpose(1, 2) for x in projected.chunk(3, dim=-1)[:2])
    weights = (queries @ keys.transpose(2, 3) / 8**0.5).masked_fill(~torch.ones(28, 28).tril().bool(), -torch.inf)
    on_text = weights.softmax(-1)[:, :, 13:, 5:13]  # three latents and two rows of speed, start, six ids, stop; codes
    torch.testing.assert_close(shown[1], on_text / on_text.sum(-1, keepdim=True))


def follow(codes: int, tokens: int) -> Tensor:
    """Attention ``[codes, tokens + 2]`` that goes through the text at an even pace."""
    at = torch.linspace(1, tokens, codes).round().long()
    return 0.8 * torch.nn.functional.one_hot(at, tokens + 2) + 0.2 / (tokens + 2)


def batch(*rows: Tensor) -> Tensor:
    """Rows ``[codes, n]`` as ``[B, 1, most codes, most n]``."""
    shape = [max(row.shape[i] for row in rows) for i in (0, 1)]
    whole = torch.zeros(len(rows), 1, *shape)
    for target, row in zip(whole, rows, strict=True):
        target[0, : len(row), : row.shape[1]] = row
    return whole


def test_the_heads_that_follow_are_found_for_each_row() -> None:
    follower = TextFollower(torch.tensor([10, 6]), torch.tensor([60, 30]))
    noise = torch.rand(2, 3, 60, 12, generator=torch.Generator().manual_seed(0)).softmax(-1)
    sink = torch.zeros(2, 2, 60, 12)
    sink[..., 0] = 1.0  # as sharp and as steady as can be, but it says nothing of where the speech is
    good = batch(follow(60, 10), follow(30, 6))
    only_first = good.clone()
    only_first[1] = noise[1, :1]
    for attention in (torch.cat((noise, sink), 1), torch.cat((sink, only_first), 1), torch.cat((good, noise), 1)):
        follower(attention)
    first, second = follower.alignments()
    assert first is not None and second is not None
    torch.testing.assert_close(first, follow(60, 10))
    torch.testing.assert_close(second, follow(30, 6))


@pytest.mark.parametrize("kind", ["noise", "sink", "jumps"])
def test_nothing_is_said_where_no_head_follows(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    attention = torch.zeros(1, 4, 50, 12)
    if kind == "noise":
        attention = torch.randn(1, 4, 50, 12, generator=generator).softmax(-1)
    elif kind == "sink":
        attention[..., 1] = 1.0
    else:
        attention.scatter_(3, torch.randint(12, (1, 4, 50, 1), generator=generator), 1.0)
    follower = TextFollower(torch.tensor([10]), torch.tensor([50]))
    assert follower.alignments() == [None]
    follower(attention)
    assert follower.alignments() == [None]


def test_random_weights_do_not_follow(latents: Callable[..., Tensor]) -> None:
    follower = TextFollower(TEXTS, CODES)
    latents(watch=follower)
    assert follower.alignments() == [None] * 3


def test_an_untrained_model_says_nothing(tiny_engine: Engine, recordings: tuple) -> None:
    request = SynthesisRequest("Hello there, my friend.", VoicePrompt.from_path(recordings[0]))
    conditioning = tiny_engine.stages.conditioning(request.voice, request.emotion, request.text, 0)
    segments = tiny_engine.segment(request.text, 12)
    stage, sampling = tiny_engine.stages.speech, tiny_engine.sampling_defaults
    assert isinstance(stage.backend, EagerBackend)
    plain, aligned = (
        stage(segments, conditioning, sampling, torch.Generator().manual_seed(1), aligned=wanted)
        for wanted in (False, True)
    )
    assert [speech.alignment for speech in (*plain, *aligned)] == [None] * 2 * len(segments)
    for one, other in zip(plain, aligned, strict=True):
        assert torch.equal(one.codes, other.codes) and torch.equal(one.latent, other.latent)
