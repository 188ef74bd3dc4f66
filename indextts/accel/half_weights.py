"""Decoding on the CPU with weights that are read as half floats, wherever these are exact.

For a row or a few, a step of the language model is as fast as its weights come from memory, and PyTorch's products in
float32 are slower still. FBGEMM reads weights in half precision and computes in float32. Weights that were stored in
half precision lose nothing by that, nor do those that were stored as int8 with a scale for each row: the integers are
exact, and the scales are applied to what goes in or comes out. So this is no option but a way to the same result.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from indextts.decoding.backend import DecodeStep, StepKind, choose_codes, show_slots, slots_from
from indextts.decoding.kv_cache import KVCache
from indextts.models.gpt import UnifiedVoice
from indextts.models.gpt2 import Block

MAX_ROWS = 32
"""With more rows (beams times segments), a step is left to PyTorch: a sixth is all that is gained there."""

MAX_ERROR = 2**-22
"""The most by which a product of factors may miss its weight, relatively: twice the rounding of scale and product."""


@dataclass(frozen=True)
class Factors:
    """A matrix ``[out, in]`` as ``output_scale[:, None] * halves * input_scale``; a scale that is None is 1.

    ``halves`` is float32 of values that half precision has.
    """

    halves: Tensor
    input_scale: Tensor | None = None
    output_scale: Tensor | None = None


def factorise(weight: Tensor) -> Factors | None:
    """Halves and scales of ``weight [out, in]`` in float32, exact up to its rounding; None if it has none."""
    if torch.equal(weight.half().float(), weight):
        return Factors(weight)
    if (found := _integers(weight, 0)) is not None:
        return Factors(found[0], input_scale=found[1])
    if (found := _integers(weight, 1)) is not None:
        return Factors(found[0], output_scale=found[1])
    return None


def _integers(weight: Tensor, dim: int) -> tuple[Tensor, Tensor] | None:
    """Integers of up to 127 in the shape of ``weight``, and the scales that reach along its dimension ``dim``."""
    scale = (weight.abs().amax(dim, keepdim=True) / 127).clamp(min=1e-12)
    integers = (weight / scale).round()
    is_exact = ((integers * scale - weight).abs() <= MAX_ERROR * weight.abs()).all()
    return (integers, scale.flatten()) if is_exact else None


class HalfLinear:
    """A linear layer, together with the norm in front of it if there is one: ``[n, in]`` to ``[n, out]``."""

    def __init__(self, factors: Factors, bias: Tensor, norm: nn.LayerNorm | None = None) -> None:
        self.bias, self.input_scale, self.output_scale = bias, factors.input_scale, factors.output_scale
        self.packed = torch.ops.quantized.linear_prepack_fp16.default(
            factors.halves.contiguous(), bias if self.output_scale is None else None
        )
        self.norm = norm
        if norm is not None:
            self.gain, self.shift = norm.weight, norm.bias
            if self.input_scale is not None:  # which the norm applies along with its own
                self.gain, self.shift = self.gain * self.input_scale, self.shift * self.input_scale

    def __call__(self, x: Tensor) -> Tensor:
        if self.norm is not None:
            x = F.layer_norm(x, self.norm.normalized_shape, self.gain, self.shift, self.norm.eps)
        elif self.input_scale is not None:
            x = x * self.input_scale
        y = torch.ops.quantized.linear_dynamic_fp16.default(x, self.packed)
        return y if self.output_scale is None else torch.addcmul(self.bias, y, self.output_scale)


@dataclass(frozen=True)
class HalfBlock:
    """The products of a `Block`."""

    attention_input: HalfLinear
    attention_output: HalfLinear
    feed_forward_input: HalfLinear
    feed_forward_output: HalfLinear


@dataclass(frozen=True)
class HalfWeights:
    """The products of a step: those of the trunk, and that of the logits."""

    blocks: list[HalfBlock]
    code_logits: HalfLinear


class HalfWeightsStep(DecodeStep):
    """`DecodeStep` on packed weights."""

    def __init__(self, weights: HalfWeights, model: UnifiedVoice, cache: KVCache) -> None:
        super().__init__(model, cache)
        self.weights = weights

    def forward(self, codes: Tensor, position: Tensor, slot: Tensor, bias: Tensor) -> Tensor:
        """See `DecodeStep.forward`."""
        segments, beams = codes.shape
        if codes.numel() > MAX_ROWS:
            return super().forward(codes, position, slot, bias)
        config, length = self.model.config, bias.shape[-1]
        split = segments, beams, 3, config.heads, config.model_dim // config.heads
        slots, mask = slots_from(slot, beams), bias[:, None]
        x = self.model.embed_codes(codes, position).flatten(0, 1)
        for block, layer in zip(self.weights.blocks, self.cache.storage[..., :length, :].unbind(1), strict=True):
            queries_keys_values = block.attention_input(x).view(split).permute(2, 0, 3, 1, 4)
            layer.index_copy_(3, slots, queries_keys_values[1:])
            y = F.scaled_dot_product_attention(queries_keys_values[0], layer[0], layer[1], attn_mask=mask)
            x = x + block.attention_output(y.transpose(1, 2).reshape(x.shape))
            x = x + block.feed_forward_output(F.gelu(block.feed_forward_input(x), approximate="tanh"))
        return self.weights.code_logits(self.model.gpt.ln_f(x)).view(segments, beams, -1)


def step_kind(model: UnifiedVoice) -> StepKind | None:
    """The kind of step for ``model``, whose weights are packed here, once: they must not change any more.

    Returns:
        None if the weights have no exact half floats, or if this processor has no such products.
    """
    if not _has_products() or model.dtype != torch.float32:
        return None
    weights = _half_weights(model)
    return None if weights is None else StepKind(partial(HalfWeightsStep, weights), show_slots, choose_codes)


def _half_weights(model: UnifiedVoice) -> HalfWeights | None:
    """All products of a step, or none: a step is one way or the other."""
    blocks = []
    for block in model.gpt.h:
        assert isinstance(block, Block)
        attention, mlp = block.attn, block.mlp
        products = []
        for layer, norm in (
            (attention.c_attn, block.ln_1), (attention.c_proj, None), (mlp.c_fc, block.ln_2), (mlp.c_proj, None),
        ):  # fmt: skip
            if (factors := factorise(layer.weight.t())) is None:
                return None
            products.append(HalfLinear(factors, layer.bias, norm))
        blocks.append(HalfBlock(*products))
    head = model.mel_head
    factors = factorise(head.weight)
    return None if factors is None else HalfWeights(blocks, HalfLinear(factors, head.bias, model.final_norm))


def _has_products() -> bool:
    """Whether FBGEMM runs here: it wants an x86 processor with AVX2."""
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        return False
    try:
        linear = HalfLinear(Factors(torch.ones(1, 1)), torch.zeros(1))
        return linear(torch.ones(1, 1)).item() == 1
    except RuntimeError:  # another engine was chosen
        return False
