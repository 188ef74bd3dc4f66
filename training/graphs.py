"""Training steps as CUDA graphs: thousands of small kernels become one launch, and the host is free to prepare data."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

Figures = dict[str, Tensor]
Compute = Callable[..., Figures]
Log = Callable[..., None]


def trainable_step(
    compute: Compute, optimizer: torch.optim.Optimizer, device: torch.device, log: Log, *, graphed: bool = True
) -> Compute:
    """A function that takes the step ``compute``: as a graph on a GPU, plainly elsewhere.

    The learning rates that stand in the groups of the optimiser, as numbers, count at every call.
    """
    rates = TensorLearningRates(optimizer, device)
    if graphed and device.type == "cuda":
        return GraphedStep(compute, rates.place, log)

    def plain(*tensors: Tensor, **choices: Hashable) -> Figures:
        rates.place()
        return compute(*tensors, **choices)

    return plain


class TensorLearningRates:
    """Keeps the learning rates of an optimiser in tensors, which a captured step reads anew at each replay."""

    def __init__(self, optimizer: torch.optim.Optimizer, device: torch.device) -> None:
        self.optimizer = optimizer
        self.tensors = [torch.zeros((), device=device) for _ in optimizer.param_groups]

    def place(self) -> None:
        """Move the rates that stand in the groups as numbers into the tensors."""
        for group, tensor in zip(self.optimizer.param_groups, self.tensors, strict=True):
            tensor.fill_(float(group["lr"]))
            group["lr"] = tensor


@dataclass
class Case:
    """One combination of shapes and choices: its input buffers, how often it is still to run plainly, its graph."""

    buffers: list[Tensor]
    warmup_runs: int
    graph: torch.cuda.CUDAGraph | None = None
    figures: Figures | None = None
    hopeless: bool = False


class GraphedStep:
    """A training step that runs plainly a few times for each combination of shapes, and is replayed from then on.

    Args:
        compute: The whole step, optimiser included, as a function of tensors and keyword choices. It must not look
            at values on the host, and takes no randomness but torch's default generator.
        prepare: Called before each step, outside the graph (learning rates).
        log: Takes a format and its values.
    """

    FIRST_WARMUP_RUNS = 3  # libraries and the optimiser set themselves up
    WARMUP_RUNS = 1  # of every further case

    def __init__(self, compute: Compute, prepare: Callable[[], None], log: Log) -> None:
        self.compute, self.prepare, self.log = compute, prepare, log
        self.cases: dict[Hashable, Case] = {}
        self.stream = torch.cuda.Stream()
        # The graphs never run at the same time and leave nothing behind for one another, so they share their memory.
        self.pool = torch.cuda.graph_pool_handle()

    def __call__(self, *tensors: Tensor, **choices: Hashable) -> Figures:
        key = (*((t.shape, t.dtype) for t in tensors), *sorted(choices.items()))
        if key not in self.cases:
            warmup_runs = self.WARMUP_RUNS if self.cases else self.FIRST_WARMUP_RUNS
            self.cases[key] = Case([tensor.clone() for tensor in tensors], warmup_runs)
        case = self.cases[key]
        for buffer, value in zip(case.buffers, tensors, strict=True):
            buffer.copy_(value)
        self.prepare()
        if case.graph is None and not case.hopeless and case.warmup_runs <= 0:
            self._capture(case, choices)
        if case.graph is not None and case.figures is not None:
            case.graph.replay()
            return case.figures
        case.warmup_runs -= 1
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            figures = self.compute(*case.buffers, **choices)
        torch.cuda.current_stream().wait_stream(self.stream)
        return figures

    def _capture(self, case: Case, choices: dict[str, Hashable]) -> None:
        """Capture the case; where this machine cannot, it says so and stays plain."""
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        shapes = " ".join("x".join(map(str, buffer.shape)) for buffer in case.buffers[:2])
        try:
            with torch.cuda.graph(graph, stream=self.stream, pool=self.pool):
                case.figures = self.compute(*case.buffers, **choices)
        except RuntimeError as error:
            case.hopeless = True
            self.log("the step stays plain for %s, it cannot be captured: %s", shapes, error)
            torch.cuda.synchronize()
        else:
            case.graph = graph
            self.log("captured the step for %s %s, case %d", shapes, choices or "", len(self.cases))


def step_unless_broken(optimizer: torch.optim.Optimizer, norms: Iterable[Tensor]) -> None:
    """Take a step of a fused optimiser, or leave it out where a gradient norm is not finite; the host never looks."""
    broken = sum((~torch.isfinite(norm)).float() for norm in norms)
    optimizer.found_inf = broken.clamp(max=1)  # type: ignore[attr-defined, union-attr]
    optimizer.step()
