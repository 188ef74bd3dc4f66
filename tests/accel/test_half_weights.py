"""Steps on weights read as half floats: found where they are exact, and then equal to the plain ones."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import Tensor, nn

from indextts.accel import half_weights
from indextts.accel.half_weights import MAX_ROWS, Factors, HalfLinear, HalfWeightsStep, factorise, step_kind
from indextts.checkpoints import BUNDLED_DIR
from indextts.config import ConformerConfig, EngineConfig, GPTConfig, SamplingParams
from indextts.decoding.backend import PLAIN, DecodeStep, EagerBackend, StepKind
from indextts.decoding.search import generate
from indextts.engine import Engine
from indextts.models.gpt import UnifiedVoice
from indextts.types import SynthesisRequest, VoicePrompt

ENCODER = ConformerConfig(output_size=16, linear_units=16, attention_heads=2, num_blocks=1, perceiver_dim_head=8)
CONFIG = GPTConfig(
    model_dim=64,
    layers=2,
    heads=2,
    max_mel_tokens=100,
    number_text_tokens=10,
    number_mel_codes=130,
    start_mel_token=128,
    stop_mel_token=129,
    cond_input_dim=12,
    emo_perceiver_dim=8,
    condition_module=ENCODER,
    emo_condition_module=ENCODER,
)
PREFIX = 9

needs_products = pytest.mark.skipif(
    "fbgemm" not in torch.backends.quantized.supported_engines, reason="FBGEMM wants an x86 processor with AVX2"
)


def int8_rows(weight: Tensor) -> Tensor:
    """``weight`` after it was stored as int8 with a scale for each row."""
    scale = (weight.abs().amax(1, keepdim=True) / 127).clamp(min=1e-12)
    return (weight / scale).round() * scale


def stored_as_int8(model: UnifiedVoice) -> None:
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and name.startswith(("gpt.", "mel_head.")):
            parameter.copy_(int8_rows(parameter))


def stored_as_halves(model: UnifiedVoice) -> None:
    model.half().float()


@pytest.fixture
def random_model() -> UnifiedVoice:
    torch.manual_seed(0)
    model = UnifiedVoice(CONFIG).eval().requires_grad_(False)
    for parameter in model.gpt.parameters():  # biases and gains that make a difference, scores that differ
        if parameter.ndim == 2:
            parameter.mul_(8)
        else:
            parameter += 0.1 * torch.randn_like(parameter)
    model.mel_head.bias[CONFIG.stop_mel_token] = -20.0  # goes on for as long as it may
    return model


@pytest.fixture(params=[stored_as_int8, stored_as_halves])
def model(request: pytest.FixtureRequest, random_model: UnifiedVoice) -> UnifiedVoice:
    request.param(random_model)
    return random_model


def kind_of(model: UnifiedVoice) -> StepKind:
    kind = step_kind(model)
    assert kind is not None
    return kind


def prefixes(segments: int) -> tuple[Tensor, Tensor]:
    """Ragged ones."""
    embeddings = torch.randn(segments, PREFIX, CONFIG.model_dim, generator=torch.Generator().manual_seed(1))
    return embeddings, torch.arange(PREFIX) >= torch.arange(segments)[:, None] % 5


def logits_of(backend: EagerBackend, segments: int, beams: int, steps: int = 5) -> Tensor:
    """What some steps give, with codes and beams that are drawn beforehand."""
    generator = torch.Generator().manual_seed(segments)
    codes = torch.randint(0, CONFIG.start_mel_token, (steps, segments, beams), generator=generator)
    chosen = torch.randint(0, beams, codes.shape, generator=generator)
    with torch.inference_mode():
        backend.prefill(*prefixes(segments), num_beams=beams, max_codes=steps + 1)
        return torch.stack([backend.step(c, b) for c, b in zip(codes, chosen, strict=True)])


@pytest.mark.parametrize("axis", [0, 1])
def test_int8_rows_are_found_along_either_axis(axis: int) -> None:
    stored = int8_rows(torch.randn(40, 30, generator=torch.Generator().manual_seed(axis)))
    stored[3] = 0
    weight = stored if axis == 0 else stored.t()
    factors = factorise(weight)
    assert factors is not None
    scale, other = factors.output_scale, factors.input_scale
    product = factors.halves
    if axis == 1:
        scale, other = other, scale
        product = product.t()
    assert scale is not None and other is None
    assert torch.equal(factors.halves, factors.halves.round()) and factors.halves.abs().max() == 127
    assert ((product * scale[:, None] - stored).abs() <= 2**-22 * stored.abs()).all()


def test_half_floats_need_no_scales() -> None:
    weight = torch.randn(40, 30).half().float()
    factors = factorise(weight)
    assert factors is not None and factors.input_scale is None and factors.output_scale is None
    assert torch.equal(factors.halves, weight)


def test_what_is_not_exact_is_refused(random_model: UnifiedVoice) -> None:
    assert factorise(torch.randn(40, 30)) is None
    assert factorise(int8_rows(torch.randn(40, 30)) * (1 + 2**-16 * torch.rand(40, 30))) is None
    assert factorise(torch.full((2, 2), 1e6) + torch.eye(2)) is None  # no half float is so large
    assert step_kind(random_model) is None
    stored_as_int8(random_model)
    random_model.gpt.h[1].mlp.c_proj.weight[0, 0] += 1e-4  # type: ignore[union-attr]
    assert step_kind(random_model) is None


def test_without_such_products_steps_stay_plain(model: UnifiedVoice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(half_weights, "_has_products", lambda: False)
    assert step_kind(model) is None


@needs_products
@pytest.mark.parametrize("scaled", ["input", "output", "neither"])
@pytest.mark.parametrize("has_norm", [False, True])
def test_a_layer_applies_its_scales(scaled: str, has_norm: bool) -> None:
    torch.manual_seed(0)
    halves = torch.randint(-127, 128, (40, 30)).float()
    scales = {"input": (torch.rand(30), None), "output": (None, torch.rand(40)), "neither": (None, None)}[scaled]
    norm = nn.LayerNorm(30) if has_norm else None
    if norm is not None:
        norm.weight.data, norm.bias.data = torch.randn(30), torch.randn(30)
    x, bias = torch.randn(3, 30), torch.randn(40)
    with torch.inference_mode():
        found = HalfLinear(Factors(halves, *scales), bias, norm)(x)
        of_input, of_output = (1 if scale is None else scale.double() for scale in scales)
        expected = (x if norm is None else norm(x)).double() * of_input
        expected = expected @ halves.double().t() * of_output + bias
    assert (found - expected).norm() < 1e-6 * expected.norm()


@needs_products
@pytest.mark.parametrize(("segments", "beams"), [(1, 1), (1, 3), (2, 1), (2, 3), (MAX_ROWS, 1), (MAX_ROWS // 2, 3)])
def test_steps_give_the_plain_logits(model: UnifiedVoice, segments: int, beams: int) -> None:
    expected = logits_of(EagerBackend(model), segments, beams)
    found = logits_of(EagerBackend(model, kind_of(model)), segments, beams)
    assert (found - expected).norm() < 1e-5 * expected.norm()
    assert torch.equal(found, expected) == (segments * beams > MAX_ROWS)


@needs_products
@pytest.mark.parametrize("beams", [1, 3])
def test_the_same_codes_are_drawn(model: UnifiedVoice, beams: int) -> None:
    params = SamplingParams(max_mel_tokens=60, num_beams=beams)
    plain, halves = (
        generate(EagerBackend(model, kind), *prefixes(2), params, generator=torch.Generator().manual_seed(0)).codes
        for kind in (PLAIN, kind_of(model))
    )
    assert [len(codes) for codes in plain] == [60, 60]
    assert all(torch.equal(*pair) for pair in zip(plain, halves, strict=True))


@needs_products
def test_weights_are_packed_once(model: UnifiedVoice, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = EagerBackend(model, kind_of(model))
    monkeypatch.setattr(half_weights, "HalfLinear", None)
    steps: list[DecodeStep] = []
    for segments in (1, 2):
        logits_of(backend, segments, 1)
        steps.append(backend.decode_step)
    first, second = steps
    assert isinstance(first, HalfWeightsStep) and isinstance(second, HalfWeightsStep)
    assert first is not second and first.weights is second.weights


def test_other_precisions_are_left_alone(model: UnifiedVoice) -> None:
    assert step_kind(copy.deepcopy(model).double()) is None


def test_random_weights_are_decoded_plainly(tiny_engine: Engine) -> None:
    backend = tiny_engine.stages.speech.backend
    assert isinstance(backend, EagerBackend) and backend.kind is PLAIN


@needs_products
def test_the_bundled_voice_says_the_same() -> None:
    engine = Engine.load(EngineConfig(model_dir=BUNDLED_DIR, device="cpu", qwen_emotion=False))
    backend = engine.stages.speech.backend
    assert isinstance(backend, EagerBackend) and backend.kind is not PLAIN
    voice = VoicePrompt.from_path(BUNDLED_DIR.parents[1] / "examples" / "voice_01.wav")
    sampling = dataclasses.replace(engine.sampling_defaults, num_beams=1)
    request = SynthesisRequest("Hello there.", voice, seed=0, sampling=sampling)
    found = engine.synthesize(request)
    assert isinstance(backend.decode_step, HalfWeightsStep)
    backend.kind = PLAIN
    expected = engine.synthesize(request)
    assert not isinstance(backend.decode_step, HalfWeightsStep)
    assert found.duration_s == expected.duration_s > 0.3
    assert abs(found.samples.astype(int) - expected.samples.astype(int)).max() <= 1
