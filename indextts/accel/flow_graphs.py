"""``--cuda-graph`` for the flow: one step of the solver as a CUDA graph, replayed for each step.

A step has some four hundred small kernels, which the host needs longer to launch than the GPU to run, as long as there
are not many frames. A graph is for one number of rows and of frames. So the frames are filled up to the next of a few
sizes, and the rows of a batch, also a single one, know their lengths as ragged rows do: they come out as they would
alone. Where the GPU is busy enough with a step (``MAX_ROW_FRAMES``), a graph gains nothing, and its memory and the
frames filled up would be lost: such a batch is integrated as it comes, but for a few frames that align its rows.

DeepSpeed's own graphs, which decoding has with ``--deepspeed``, are not used here. An engine of DeepSpeed converts all
weights to one precision, and each has a pool of memory of its own, which for the flow is hundreds of megabytes a shape.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from indextts.cuda_graphs import Capture, CudaCapture, LatestUsed, Replay, StaticMemory, captured
from indextts.models.dit import DiT
from indextts.models.flow_matching import Flow, euler_step, start_flow
from indextts.models.s2mel import S2Mel

logger = logging.getLogger(__name__)

FRAME_BLOCK = 128
"""Numbers of frames are filled up to a multiple of this, larger ones to one of 8 sizes between two powers of two."""

START_BLOCK = 256
"""The solver begins at a multiple of this in the prompt, instead of at its end: prompts have many lengths."""

MAX_ROW_FRAMES = 8192
"""Rows times frames up to which there are graphs."""

ALIGNMENT = 8
"""Without a graph, numbers of frames are filled up to a multiple of this: matrix products of other widths are slow."""

MAX_GRAPHS = 32
"""The graphs that are kept, the latest used ones."""


def apply_flow_graphs(s2mel: S2Mel, is_compiled: bool = False) -> FlowGraphs:
    """Let ``s2mel``, which is on a CUDA device, integrate its flow by graphs.

    ``is_compiled``: its layers are, or will be, compiled; then they must not see lengths, or each has its own variant.
    """
    graphs = FlowGraphs(s2mel.estimator, CudaCapture(s2mel.estimator.conv2.weight.device), is_compiled)
    s2mel.solve = graphs
    return graphs


class FlowGraphs:
    """`indextts.models.flow_matching.solve` by replayed steps."""

    def __init__(self, estimator: DiT, capture: Capture, is_compiled: bool = False) -> None:
        self.capture, self.is_compiled = capture, is_compiled
        self.memory = StaticMemory(estimator.conv2.weight.device)
        self.known_address = self.memory.address
        self.replays: LatestUsed[Replay] = LatestUsed(MAX_GRAPHS)

    def __call__(
        self, estimator: DiT, noise: Tensor, mu: Tensor, prompt: Tensor, style: Tensor, *, steps: int, cfg_rate: float,
        x_lens: Tensor | None = None, prompt_lens: Tensor | None = None, before_step: Callable[[], None] | None = None,
    ) -> Tensor:  # fmt: skip
        """See `indextts.models.flow_matching.solve`."""
        rows, _, frames = noise.shape
        is_graphed = rows * filled_up(frames) <= MAX_ROW_FRAMES
        filled = filled_up(frames) if is_graphed else -(-frames // ALIGNMENT) * ALIGNMENT
        start_block = START_BLOCK if is_graphed else ALIGNMENT
        if x_lens is None:
            x_lens = torch.full((rows,), frames, device=noise.device)
        shortest = prompt.shape[2] if prompt_lens is None else int(prompt_lens.min())
        start = shortest // start_block * start_block
        noise, mu = F.pad(noise, (0, filled - frames)), F.pad(mu, (0, 0, 0, filled - frames))
        flow = start_flow(
            estimator, noise, mu, prompt, style, steps=steps, cfg_rate=cfg_rate, x_lens=x_lens,
            prompt_lens=prompt_lens, start=start,
            lengths=None if is_graphed or self.is_compiled else tuple(x_lens.tolist()),
        )  # fmt: skip
        step = partial(euler_step, estimator, flow)
        if is_graphed:
            flow, step = self.ready(estimator, flow)
        for _ in range(steps):
            if before_step is not None:
                before_step()
            step()
        mel = torch.zeros_like(noise[..., :frames], dtype=flow.x.dtype)
        mel[..., start:] = flow.x[..., : frames - start]
        return mel

    def ready(self, estimator: DiT, flow: Flow) -> tuple[Flow, Replay]:
        """``flow`` where the graph of its shape expects it, and this graph, which is captured if there is none."""
        held = self.memory.hold(flow)
        if self.memory.address != self.known_address:  # the graphs of the old address are worthless
            self.replays.clear()
            self.known_address = self.memory.address
        steps = len(flow.durations)
        key = (*flow.x.shape, flow.known.start, steps, flow.cfg_rate)
        return held, self.replays.get(key, lambda: self._captured(estimator, held, flow))

    def _captured(self, estimator: DiT, held: Flow, flow: Flow) -> Replay:
        def set_back() -> None:
            held.x.copy_(flow.x)
            held.step.copy_(flow.step)

        rows, _, moving = flow.x.shape
        logger.debug("capturing a step of the flow for %d rows of %d frames", rows, flow.known.start + moving)
        replay = captured("a step of the flow", self.capture, lambda: euler_step(estimator, held), set_back)
        set_back()
        return replay


def filled_up(frames: int) -> int:
    """The number of frames that ``frames`` are filled up to."""
    block = max(FRAME_BLOCK, (1 << frames.bit_length()) // 16)
    return -(-frames // block) * block
