"""The flow by replayed steps equals the flow as it comes, in every shape. `tests.recorder` stands in for CUDA."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from indextts.accel import flow_graphs
from indextts.accel.flow_graphs import FlowGraphs, apply_flow_graphs, filled_up
from indextts.accel.precision import apply_precision
from indextts.errors import Cancelled, UnsupportedOption
from indextts.models.flow_matching import solve
from indextts.models.s2mel import S2Mel
from tests.models.test_s2mel import CONFIG
from tests.recorder import record

assert_close = partial(torch.testing.assert_close, atol=2e-5, rtol=1e-4)

CASES = {
    "one row": (1, 40, 17, None, None),
    "one row, a little longer, which needs the same graph": (1, 44, 18, None, None),
    "a prompt that ends in another block": (1, 44, 9, None, None),
    "a batch": (3, 35, 17, None, None),
    "a ragged batch": (3, 45, 20, (45, 30, 38), (20, 17, 9)),
    "a ragged batch of very short speech": (2, 23, 21, (23, 22), (21, 21)),
    "exactly a size": (2, 48, 16, None, None),
    "a longer one": (1, 90, 30, None, None),
}


@pytest.fixture(scope="module")
def model() -> S2Mel:
    torch.manual_seed(0)
    return S2Mel(CONFIG).eval().requires_grad_(False)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_graphs, "FRAME_BLOCK", 16)
    monkeypatch.setattr(flow_graphs, "START_BLOCK", 8)


Integrate = Callable[..., Tensor]


def of(case: str, device: str = "cpu") -> Callable[..., Tensor]:
    """A solver's result on the inputs of a case."""
    rows, frames, prompt_frames, x_lens, prompt_lens = CASES[case]
    generator = torch.Generator().manual_seed(rows * frames)
    shapes = ((rows, 8, frames), (rows, frames, 12), (rows, 8, prompt_frames), (rows, 6))
    inputs = [torch.randn(shape, generator=generator).to(device) for shape in shapes]
    ragged = {}
    if x_lens is not None and prompt_lens is not None:
        ragged = {"x_lens": torch.tensor(x_lens).to(device), "prompt_lens": torch.tensor(prompt_lens).to(device)}

    def run(solver: Integrate, model: S2Mel, **options: object) -> Tensor:
        with torch.inference_mode():
            return solver(model.estimator, *inputs, **{"steps": 3, "cfg_rate": 0.7, **ragged, **options})

    return run


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("cfg_rate", [0.7, 0.0])
def test_replayed_steps_equal_steps_as_they_come(model: S2Mel, case: str, cfg_rate: float) -> None:
    graphs = FlowGraphs(model.estimator, record)
    expected = of(case)(solve, model, cfg_rate=cfg_rate)
    assert_close(of(case)(graphs, model, cfg_rate=cfg_rate), expected)
    assert_close(of(case)(graphs, model, cfg_rate=cfg_rate), expected)  # replayed alone
    assert len(graphs.replays) == 1


def test_graphs_are_shared_dropped_when_memory_grows_and_bounded(model: S2Mel) -> None:
    graphs = FlowGraphs(model.estimator, record)
    expected = {case: of(case)(solve, model) for case in CASES}
    numbers = []
    for case in CASES:
        assert_close(of(case)(graphs, model), expected[case])
        numbers.append(len(graphs.replays))
    assert numbers == [1, 1, 2, 1, 2, 3, 4, 5]  # a batch needs more memory than there was
    for case in reversed(CASES):
        assert_close(of(case)(graphs, model), expected[case])
    assert len(graphs.replays) == 7
    graphs.replays.limit = 2
    for case in CASES:
        assert_close(of(case)(graphs, model), expected[case])
        assert len(graphs.replays) <= 2


def test_the_host_is_asked_before_every_step(model: S2Mel) -> None:
    graphs, asked = FlowGraphs(model.estimator, record), []
    of("a batch")(graphs, model, before_step=lambda: asked.append(1))
    assert len(asked) == 3

    def stop() -> None:
        asked.append(1)
        if len(asked) == 5:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        of("a batch")(graphs, model, before_step=stop)
    assert_close(of("a batch")(graphs, model), of("a batch")(solve, model))  # what was left behind does no harm


def test_what_keeps_the_device_busy_gets_no_graph(model: S2Mel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_graphs, "MAX_ROW_FRAMES", 100)
    graphs = FlowGraphs(model.estimator, record)
    for case, count in (("one row", 1), ("a ragged batch", 1), ("a longer one", 2)):
        assert_close(of(case)(graphs, model), of(case)(solve, model))
        assert len(graphs.replays) == count


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_replayed_steps_in_half_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = S2Mel(CONFIG).eval().requires_grad_(False)
    apply_precision("s2mel", model, dtype)
    run = of("a ragged batch")
    replayed = run(FlowGraphs(model.estimator, record), model)
    assert replayed.dtype == torch.float32
    assert_close(replayed, run(solve, model), atol=2e-2, rtol=2e-2)


def test_sizes_are_few_and_waste_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    sizes = {filled_up(frames) for frames in range(1, flow_graphs.MAX_ROW_FRAMES + 1)}
    assert len(sizes) == 32 and max(sizes) == flow_graphs.MAX_ROW_FRAMES
    for frames in range(1, flow_graphs.MAX_ROW_FRAMES + 1):
        assert frames <= filled_up(frames) < max(frames + 128, frames * 1.125)


def test_what_cannot_be_captured_is_an_error(model: S2Mel, monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.cuda.is_available():
        with pytest.raises(UnsupportedOption, match="cpu"):
            apply_flow_graphs(model)
    velocity = model.estimator.velocity

    def looking(*args: object) -> Tensor:
        result = velocity(*args)  # type: ignore[arg-type]
        assert float(result.sum()) == float(result.sum())
        return result

    monkeypatch.setattr(model.estimator, "velocity", looking)
    with pytest.raises(UnsupportedOption, match=r"a step of the flow cannot be captured.*aten\.item"):
        of("one row")(FlowGraphs(model.estimator, record), model)


def test_a_batch_too_large_for_graphs_is_the_same(model: S2Mel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_graphs, "MAX_ROW_FRAMES", 0)
    for is_compiled in (False, True):
        graphs = FlowGraphs(model.estimator, record, is_compiled)
        for case in CASES:
            for cfg_rate in (0.7, 0.0):
                run = partial(of(case), model=model, cfg_rate=cfg_rate)
                assert_close(run(graphs), run(solve))
        assert len(graphs.replays) == 0
