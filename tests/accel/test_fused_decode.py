"""A fused decode step computes what the plain one does: the same logits, up to the rounding of half precision."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from indextts.accel.fused_decode import (
    FUSED,
    MAX_ROWS,
    SEARCH_SOURCE,
    SOURCE,
    apply_fused_decode,
    cannot_fuse,
    choose_codes,
    definitions,
    draw_list,
    search_definitions,
    show_slots,
)
from indextts.accel.nvrtc import compiled
from indextts.config import GPTConfig, SamplingParams
from indextts.decoding import backend
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
    told = search_definitions(8194, beams)
    assert compiled(SEARCH_SOURCE, told, capability).startswith(b"\x7fELF")


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
def test_kernels_choose_what_pytorch_chooses(beams: int, options: dict[str, Any]) -> None:
    params = SamplingParams(num_beams=beams, **options)
    segments, codes, stop, steps = 4, 8194, 8193, 60
    generator = torch.Generator("cuda").manual_seed(beams)
    kind = Sampling if beams == 1 else BeamSearch
    logits = torch.randn(segments, beams, codes, generator=generator, device="cuda")
    plain = kind.start(logits[:, 0], params, codes - 2, stop, steps)
    fused, different, ended = plain.select(range(segments)), 0, 0
    for step in range(steps):
        spread = (0.5, 3.0, 8.0)[step % 3]
        logits = spread * torch.randn(segments, beams, codes, generator=generator, device="cuda")
        logits[:, :, stop] = logits.amax() - 30 / (step + 1)
        plain.noise.exponential_(1, generator=generator)
        fused.copy_(plain)
        plain.choose(logits)
        choose_codes(fused, logits)
        theirs, ours = plain.tensors(), fused.tensors()
        same = torch.ones(segments, dtype=torch.bool, device="cuda")
        for name in ("codes", "seen", "continued", "trace", "history"):
            if name in theirs:
                same &= (theirs[name] == ours[name]).flatten(1).all(1)
        # PyTorch draws what was filtered out where all else has no probability left; the kernels never do.
        sensible = plain.running.isfinite().all(1) if isinstance(plain, BeamSearch) else torch.ones_like(same)
        different += int((sensible & ~same).sum())
        for name, value in theirs.items():
            torch.testing.assert_close(ours[name][same], value[same], atol=1e-4, rtol=1e-5, msg=name)
        ended += int(plain.done.sum())
    assert different <= 4  # of 240: where a sum of probabilities is rounded to the other side of top_p
    assert ended > 0


@pytest.mark.gpu
@pytest.mark.parametrize("beams", [1, 3, 8])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_kernels_give_up_where_scores_are_undefined(beams: int, value: float) -> None:
    params, codes, stop = SamplingParams(num_beams=beams), 514, 513
    kind = Sampling if beams == 1 else BeamSearch
    logits = torch.randn(3, beams, codes, device="cuda")
    search = kind.start(logits[:, 0], params, 512, stop, 20)
    logits[1, -1, 17] = value
    for step in range(1, 4):
        search.noise.exponential_(1)
        choose_codes(search, logits)
        assert search.undefined.tolist() == [False, True, False] and search.done[1]
        assert search.step.tolist() == [step] * 3 and search.done_after[1] == 0
        assert ((search.codes >= 0) & (search.codes < codes)).all()
    search.done[[0, 2]] = False
    choose_codes(search, torch.full_like(logits, value))  # nothing at all to choose from
    assert search.undefined.all() and ((search.codes >= 0) & (search.codes < codes)).all()


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("beams", [1, 3, 8])
def test_a_kernel_shows_the_slots_that_pytorch_shows(beams: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    room = torch.zeros(3, beams, 640, device="cuda", dtype=dtype)
    room.masked_fill_(torch.rand(room.shape, device="cuda") < 0.5, float("-inf"))
    for slot in (40, 41, 640 - beams):
        parents = torch.randint(0, beams, (3, beams), device="cuda")
        theirs, ours = room.clone(), room.clone()
        for bias, show in ((theirs, backend.show_slots), (ours, show_slots)):
            show(bias[..., :], parents, torch.tensor([slot], device="cuda"))
        assert torch.equal(theirs, ours) and not torch.equal(theirs, room)


def test_lists_of_the_kernels_are_as_long_as_the_host_thinks() -> None:
    assert "#define LIST (BEAMS > 2 ? 2048 / BEAMS : 1024)" in SEARCH_SOURCE.read_text(encoding="utf-8")
    assert [draw_list(beams) for beams in (1, 2, 3, 8)] == [1024, 1024, 682, 256]


@pytest.mark.gpu
def test_what_cannot_be_fused_says_why() -> None:
    model = model_of(SMALL)
    assert cannot_fuse(model) == "its weights are not in half precision"
    odd = model_of(dataclasses.replace(SMALL, heads=4)).half()
    assert cannot_fuse(odd) == "there are no kernels for 4 heads of a width of 320"
