"""A fused decode step computes what the plain one does: the same logits, up to the rounding of half precision."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from indextts.accel.fused_decode import (
    DRAW_SOURCE,
    FUSED,
    MAX_ROWS,
    SOURCE,
    apply_fused_decode,
    cannot_fuse,
    definitions,
    draw_definitions,
    draw_list,
    fused_candidates,
)
from indextts.accel.nvrtc import compiled
from indextts.config import GPTConfig, SamplingParams
from indextts.decoding.backend import EagerBackend
from indextts.decoding.beams import BeamSearch
from indextts.decoding.graphs import GraphBackend
from indextts.decoding.sampling import Sampling
from indextts.decoding.search import generate
from indextts.models.gpt import UnifiedVoice

FULL = GPTConfig(layers=2)
SMALL = dataclasses.replace(FULL, model_dim=320, heads=5, number_mel_codes=514, start_mel_token=512, stop_mel_token=513)
PREFIX = 40
SHAPES = [(1, 3, 200), (1, 1, 150), (8, 3, 60), (5, 3, 30), (2, 8, 30), (7, 1, 30), (8, 5, 3)]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("capability", [(8, 0), (9, 0), (12, 0)])
@pytest.mark.parametrize(("beams", "row_tiles"), [(1, 1), (3, 3), (8, 4)])
def test_the_kernels_compile_where_there_is_no_gpu(
    dtype: torch.dtype, capability: tuple[int, int], beams: int, row_tiles: int
) -> None:
    pytest.importorskip("cuda.bindings", reason="comes with PyTorch for CUDA")
    told = definitions(dtype, 320, 5, beams, row_tiles)
    assert compiled(SOURCE, told, capability).startswith(b"\x7fELF")
    told = draw_definitions(8194, beams, max(1, 2 * beams if beams > 1 else 1))
    assert compiled(DRAW_SOURCE, told, capability).startswith(b"\x7fELF")


def model_of(config: GPTConfig) -> UnifiedVoice:
    torch.manual_seed(0)
    with torch.device("cuda"):
        model = UnifiedVoice(config).eval().requires_grad_(False)
    for parameter in model.gpt.parameters():  # biases and gains that make a difference
        parameter += 0.02 * torch.randn_like(parameter)
    return model


def logits_of(backend: EagerBackend, segments: int, beams: int, steps: int) -> Tensor:
    """What some steps give after ragged prefixes, with codes and beams that are drawn beforehand."""
    model = backend.model
    generator = torch.Generator("cuda").manual_seed(segments)
    prefix = torch.randn(segments, PREFIX, model.config.model_dim, generator=generator, device="cuda")
    mask = torch.arange(PREFIX, device="cuda") >= torch.arange(segments, device="cuda")[:, None] % 7
    shape = (steps, segments, beams)
    codes = torch.randint(0, backend.start_code, shape, generator=generator, device="cuda")
    chosen = torch.randint(0, beams, shape, generator=generator, device="cuda")
    with torch.inference_mode():
        backend.prefill(prefix.to(model.dtype), mask, num_beams=beams, max_codes=steps + 1)
        return torch.stack([backend.step(c, b).float() for c, b in zip(codes, chosen, strict=True)])


@pytest.mark.gpu
@pytest.mark.parametrize("config", [FULL, SMALL], ids=["full", "small"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 4e-3), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize(("segments", "beams", "steps"), SHAPES)
def test_fused_steps_give_the_plain_logits(
    config: GPTConfig, dtype: torch.dtype, tolerance: float, segments: int, beams: int, steps: int
) -> None:
    model = model_of(config)
    expected = logits_of(EagerBackend(model), segments, beams, steps)
    half = copy.deepcopy(model).to(dtype)
    plain = logits_of(EagerBackend(half), segments, beams, steps)
    assert cannot_fuse(half) is None
    apply_fused_decode(half)
    fused = [logits_of(EagerBackend(half, FUSED), segments, beams, steps) for _ in range(2)]
    assert torch.equal(*fused)
    errors = [((logits - expected).norm() / expected.norm()).item() for logits in (fused[0], plain)]
    assert 0 < errors[0] < tolerance, errors
    if segments * beams <= MAX_ROWS:
        assert errors[0] < 1.2 * errors[1], errors


@pytest.mark.gpu
@pytest.mark.parametrize("beams", [1, 3])
def test_captured_fused_steps_equal_those_that_are_launched(beams: int) -> None:
    model = model_of(SMALL).half()
    apply_fused_decode(model)
    prefix = torch.randn(3, PREFIX, model.config.model_dim, device="cuda", dtype=model.dtype)
    mask = torch.ones(3, PREFIX, dtype=torch.bool, device="cuda")
    params = SamplingParams(max_mel_tokens=300, num_beams=beams)
    graphed = GraphBackend(model, None, FUSED)
    for seed in range(3):
        results = [
            generate(backend, prefix, mask, params, generator=torch.Generator("cuda").manual_seed(seed)).codes
            for backend in (EagerBackend(model, FUSED), graphed)
        ]
        for ours, theirs in zip(*results, strict=True):
            assert len(ours) > 0
            assert torch.equal(ours, theirs)


@pytest.mark.gpu
@pytest.mark.parametrize("beams", [1, 2, 3, 8])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"top_k": 1},
        {"top_k": 200, "top_p": 0.99, "temperature": 1.3},
        {"top_p": 1.0, "repetition_penalty": 1.0, "temperature": 1.0},
        {"top_k": 0},
        {"do_sample": False},
        {"typical_sampling": True},
    ],
)
def test_kernels_draw_the_codes_that_pytorch_draws(beams: int, options: dict[str, Any]) -> None:
    params = SamplingParams(num_beams=beams, **options)
    segments, codes, stop = 4, 8194, 8193
    generator = torch.Generator("cuda").manual_seed(beams)
    kind = Sampling if beams == 1 else BeamSearch
    different = 0
    for spread in (0.5, 3.0, 8.0):
        logits = spread * torch.randn(segments, beams, codes, generator=generator, device="cuda")
        logits = logits.half().float()  # equal ones are common
        search = kind.start(logits[:, 0], params, codes - 2, stop, 50)
        for _ in range(30):
            search.noise.exponential_(1, generator=generator)
            search.seen |= torch.rand(search.seen.shape, generator=generator, device="cuda") < 0.01
            if isinstance(search, BeamSearch):
                search.running.copy_(-10 * torch.rand(segments, beams, generator=generator, device="cuda"))
            expected, index = search.candidates(logits)
            scores, ours = fused_candidates(search, logits)
            same = (index.sort(1).values == ours.sort(1).values).all(1)  # equal sums may change places
            different += int((~same).sum())
            torch.testing.assert_close(scores[same], expected[same], atol=1e-4, rtol=1e-5)
    assert different <= 2  # of 360: where a sum of probabilities is rounded to the other side of top_p


@pytest.mark.gpu
def test_kernels_draw_something_from_undefined_scores() -> None:
    params, logits = SamplingParams(num_beams=3), torch.full((2, 3, 514), torch.nan, device="cuda")
    search = BeamSearch.start(logits[:, 0], params, 512, 513, 50)
    _, index = fused_candidates(search, logits)
    assert ((index >= 0) & (index < 3 * 514)).all()
    logits[:, :, 5] = 0.0
    _, index = fused_candidates(search, logits)
    assert ((index >= 0) & (index < 3 * 514)).all()


def test_lists_of_the_kernels_are_as_long_as_the_host_thinks() -> None:
    assert "#define LIST (BEAMS > 2 ? 2048 / BEAMS : 1024)" in DRAW_SOURCE.read_text(encoding="utf-8")
    assert [draw_list(beams) for beams in (1, 2, 3, 8)] == [1024, 1024, 682, 256]


@pytest.mark.gpu
def test_what_cannot_be_fused_says_why() -> None:
    model = model_of(SMALL)
    assert cannot_fuse(model) == "its weights are not in half precision"
    odd = model_of(dataclasses.replace(SMALL, heads=4)).half()
    assert cannot_fuse(odd) == "there are no kernels for 4 heads of a width of 320"
