"""The flow with fused layers is the flow, up to the rounding of half precision."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from indextts.accel import flow_graphs
from indextts.accel.flow_graphs import apply_flow_graphs
from indextts.accel.fused_flow import SOURCE, FusedBlock, apply_fused_flow, cannot_fuse, definitions
from indextts.accel.nvrtc import compiled
from indextts.accel.precision import apply_precision
from indextts.config import S2MelConfig
from indextts.models.dit import Block
from indextts.models.flow_matching import solve
from tests.accel.test_flow_graphs import CASES, of
from tests.accel.test_on_a_gpu import full_size, s2mel
from tests.models.test_s2mel import CONFIG

FULL = S2MelConfig()
WIDE = dataclasses.replace(
    CONFIG,
    DiT=dataclasses.replace(CONFIG.DiT, hidden_dim=256, num_heads=4),
    wavenet=dataclasses.replace(CONFIG.wavenet, hidden_dim=256),
)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("capability", [(8, 0), (9, 0), (12, 0)])
def test_the_kernels_compile_where_there_is_no_gpu(dtype: torch.dtype, capability: tuple[int, int]) -> None:
    pytest.importorskip("cuda.bindings", reason="comes with PyTorch for CUDA")
    assert compiled(SOURCE, definitions(dtype, 512, 8), capability).startswith(b"\x7fELF")


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 1e-3), (torch.bfloat16, 8e-3)])
@torch.inference_mode()
def test_the_streams_are_joined_as_they_are_slowly(dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    block = Block(16, 2, takes_skip=True).to(dtype)
    x, skip = 1e5 * torch.randn(2, 5, 16), torch.randn(2, 5, 16)  # beyond what float16 holds
    slow, fast = block.take_in(x, skip), FusedBlock.take_in(block, x, skip)  # type: ignore[arg-type]
    exact = block.float().take_in(x, skip)
    assert slow.dtype == fast.dtype == torch.float32
    for joined in (slow, fast):
        assert (joined - exact).norm() < tolerance * exact.norm()


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.01), (torch.bfloat16, 0.06)])
@pytest.mark.parametrize("cfg_rate", [0.7, 0.0])
@pytest.mark.parametrize("case", CASES)
def test_fused_layers_of_a_small_flow(
    case: str, cfg_rate: float, dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = s2mel(WIDE)
    expected = of(case, "cuda")(solve, model, cfg_rate=cfg_rate)
    apply_precision("s2mel", model, dtype)
    plain = of(case, "cuda")(solve, model, cfg_rate=cfg_rate)
    assert cannot_fuse(model.estimator) is None
    apply_fused_flow(model.estimator)
    fused = of(case, "cuda")(solve, model, cfg_rate=cfg_rate)
    errors = [((mel - expected).norm() / expected.norm()).item() for mel in (fused, plain)]
    assert 0 < errors[0] < tolerance and errors[0] < 1.5 * errors[1], errors
    graphed = of(case, "cuda")(apply_flow_graphs(model), model, cfg_rate=cfg_rate)
    assert ((graphed - expected).norm() / expected.norm()).item() < 2 * errors[1]
    monkeypatch.setattr(flow_graphs, "MAX_ROW_FRAMES", 0)
    aligned = of(case, "cuda")(apply_flow_graphs(model), model, cfg_rate=cfg_rate)
    assert ((aligned - expected).norm() / expected.norm()).item() < 2 * errors[1]


@pytest.mark.gpu
def test_fused_layers_go_beyond_the_range_of_float16() -> None:
    model = s2mel(WIDE)
    with torch.no_grad():
        for layer in model.estimator.transformer.layers:
            forward = layer.feed_forward
            for weight, factor in ((forward.w1.weight, 30), (forward.w3.weight, 300), (forward.w2.weight, 30)):
                weight.mul_(factor)
    peaks: list[float] = []
    hooks = [
        layer.feed_forward.register_forward_hook(lambda _, x, y: peaks.append(y.abs().max().item()))
        for layer in model.estimator.transformer.layers
    ]
    expected = of("one row", "cuda")(solve, model)
    assert max(peaks) > torch.finfo(torch.float16).max
    for hook in hooks:
        hook.remove()
    apply_precision("s2mel", model, torch.float16)
    plain = of("one row", "cuda")(solve, model)
    apply_fused_flow(model.estimator)
    fused = of("one row", "cuda")(solve, model)
    errors = [((mel - expected).norm() / expected.norm()).item() for mel in (fused, plain)]
    assert 0 < errors[0] < 0.02 and errors[0] < 1.5 * errors[1], errors


@pytest.mark.gpu
@pytest.mark.parametrize("rows", [1, 3])
def test_fused_layers_at_full_size(rows: int) -> None:
    model = s2mel(FULL)
    expected = full_size(model, solve, rows)
    apply_precision("s2mel", model, torch.float16)
    plain = full_size(model, solve, rows)
    apply_fused_flow(model.estimator)
    fused = full_size(model, solve, rows)
    errors = [((mel - expected).norm() / expected.norm()).item() for mel in (fused, plain)]
    assert 0 < errors[0] < 1.2 * errors[1], errors


@pytest.mark.gpu
def test_what_cannot_be_fused_says_why() -> None:
    model = s2mel(CONFIG)
    assert cannot_fuse(model.estimator) == "its weights are not in half precision"
    apply_precision("s2mel", model, torch.float16)
    assert cannot_fuse(model.estimator) == f"there are no kernels for a width of {CONFIG.DiT.hidden_dim}"
