"""``--cuda-kernel`` for the flow: what passes over the frames between the products of a layer, by kernels of our own.

Norms with what modulates them, the rotary embedding, gates and residuals are a dozen passes over memory in PyTorch, and
five here. With ``--compile`` the compiler makes such kernels by itself, and these are not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from indextts.accel.nvrtc import Kernels
from indextts.errors import UnsupportedOption
from indextts.models.dit import STREAM_SCALE, AdaptiveNorm, Block, DiT, Keys, attend, last

SOURCE = Path(__file__).with_name("fused_flow.cu")
STORED = {torch.float16: 16, torch.bfloat16: 17}
THREADS = 256
CAPABILITY = (8, 0)
"""The least compute capability: the conversions to pairs in half precision."""


def cannot_fuse(estimator: DiT) -> str | None:
    """Why the layers of ``estimator``, which is where it is to run, cannot be fused here; None if they can."""
    weight = estimator.conv1.weight
    if weight.dtype not in STORED:
        return "its weights are not in half precision"
    if torch.cuda.get_device_capability(weight.device) < CAPABILITY:
        return "the GPU has a compute capability below 8.0"
    if weight.shape[0] % 256:
        return f"there are no kernels for a width of {weight.shape[0]}"
    return None


def apply_fused_flow(estimator: DiT) -> None:
    """Let the layers of ``estimator`` run by the kernels.

    Raises:
        UnsupportedOption: the kernels cannot be compiled or loaded here.
    """
    weight, transformer = estimator.conv1.weight, estimator.transformer
    width = weight.shape[0]
    try:
        kernels = _kernels(weight.dtype, weight.device.index or 0, width, width // transformer.head_dim)
    except (ImportError, RuntimeError) as error:
        raise UnsupportedOption(f"--cuda-kernel: the kernels cannot be compiled here: {error}") from error
    for number, layer in enumerate(transformer.layers):
        assert isinstance(layer, Block)
        transformer.layers[number] = FusedBlock(layer, kernels)

    def gate(x: Tensor, bias: Tensor) -> Tensor:
        x = x.contiguous()
        rows, _, frames = x.shape
        y = x.new_empty(rows, width, frames)
        blocks = (-(-frames // THREADS), width, rows)
        kernels.launch("gate_by_sigmoid", blocks, THREADS, x, bias.contiguous(), y, frames)
        return y

    estimator.wavenet.gate = gate


class FusedBlock(Block):
    """A `Block` with the same parameters."""

    def __init__(self, block: Block, kernels: Kernels) -> None:
        nn.Module.__init__(self)
        self.kernels = kernels
        self.attention, self.feed_forward = block.attention, block.feed_forward
        self.attention_norm, self.ffn_norm = block.attention_norm, block.ffn_norm
        self.skip_in_linear = block.skip_in_linear

    def forward(
        self, x: Tensor, skip: Tensor | None, modulations: Sequence[Tensor], keys: Keys | None, rotary: Tensor,
        wanted: Tensor,
    ) -> Tensor:  # fmt: skip
        """See `Block.forward`."""
        if skip is not None:
            x = self.take_in(x, skip)
        attended = self._attend(self._norm(self.attention_norm, x, modulations[0]), keys, rotary, wanted)
        x, normed = self._add_norm(self.ffn_norm, last(x, wanted), attended, modulations[1])
        forward = self.feed_forward
        inner, gated = forward.w1(normed), forward.w3(normed)
        eighths = inner.numel() // 8
        self.kernels.launch("gate_by_silu", -(-eighths // THREADS), THREADS, inner, gated, eighths)
        return torch.add(x, forward.w2(inner), alpha=1 / STREAM_SCALE)  # in float32, as x is

    def take_in(self, x: Tensor, skip: Tensor) -> Tensor:
        """See `Block.take_in`; with each number read and written once."""
        joint = self.skip_in_linear
        assert joint is not None
        width = x.shape[-1]
        both = x.new_empty(*x.shape[:-1], 2 * width, dtype=joint.weight.dtype)
        torch.mul(x, STREAM_SCALE, out=both[..., :width])
        torch.mul(skip, STREAM_SCALE, out=both[..., width:])
        return torch.add(joint.bias.float(), F.linear(both, joint.weight), alpha=1 / STREAM_SCALE)

    def _attend(self, x: Tensor, keys: Keys | None, rotary: Tensor, wanted: Tensor) -> Tensor:
        attention = self.attention
        qkv = attention.wqkv(x)
        rows, frames, width = x.shape
        eighths = rows * frames * 2 * width // 8
        self.kernels.launch("rotate", -(-eighths // THREADS), THREADS, qkv, rotary.contiguous(), frames, eighths)
        q, k, v = qkv.unflatten(-1, (3, attention.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = attend(last(q, wanted), k, v, keys)
        return attention.wo(mixed.transpose(1, 2).flatten(2))

    def _norm(self, norm: AdaptiveNorm, x: Tensor, modulation: Tensor) -> Tensor:
        normed = torch.empty(x.shape, dtype=self.attention.wqkv.weight.dtype, device=x.device)
        self._launch("adaptive_norm", x, [x], norm, modulation, [normed])
        return normed

    def _add_norm(self, norm: AdaptiveNorm, x: Tensor, delta: Tensor, modulation: Tensor) -> tuple[Tensor, Tensor]:
        grown = torch.empty(x.shape, dtype=torch.float32, device=x.device)
        normed = torch.empty_like(grown, dtype=delta.dtype)
        self._launch("add_adaptive_norm", x, [x, delta.contiguous()], norm, modulation, [grown, normed])
        return grown, normed

    def _launch(
        self, name: str, x: Tensor, inputs: list[Tensor], norm: AdaptiveNorm, modulation: Tensor, outputs: list[Tensor]
    ) -> None:
        """Launch a norm over ``x [B, F, C]``, of which rows may be longer than what is wanted of them."""
        rows, frames, width = x.shape
        assert x.dtype == torch.float32 and x.stride(1) == width and x.stride(2) == 1 and modulation.stride(-1) == 1
        of_row = modulation.stride(0) if len(modulation) > 1 else 0
        self.kernels.launch(
            name, -(-rows * frames // (THREADS // 32)), THREADS, *inputs, norm.norm.weight, modulation, *outputs,
            frames, x.stride(0), of_row, rows * frames,
        )  # fmt: skip


def definitions(dtype: torch.dtype, width: int, heads: int) -> dict[str, str]:
    """What the source wants to be told from outside."""
    return {
        "WIDTH": str(width),
        "HEADS": str(heads),
        "STORED": str(STORED[dtype]),
        "STREAM_SCALE": f"{STREAM_SCALE}f",
    }


@cache
def _kernels(dtype: torch.dtype, device_index: int, width: int, heads: int) -> Kernels:
    return Kernels(SOURCE, definitions(dtype, width, heads), device_index)
