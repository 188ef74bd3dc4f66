"""The estimator of the flow's velocity: a transformer over frames with a WaveNet on top (spec 9.4).

What does not depend on the noisy mel is computed apart: `prepare` once for a call, `modulate` once for all times of a
solver. The weights may be in half precision but for those around the mel, the time and the norms, which stay float32
with the stream of the transformer; a layer takes its input in the precision of its weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from indextts.config import S2MelConfig
from indextts.errors import ConfigError, SynthesisError
from indextts.models.conformer import length_mask
from indextts.models.wavenet import Edges, WaveNet
from indextts.models.weight_norm import weight_norm

MAX_FRAMES = 16384
"""Longest prompt and target together: the released model's table of rotary angles ends there (190 s)."""
TIME_FREQUENCIES = 128
FEED_FORWARD_MULTIPLE = 256
STREAM_SCALE = 1 / 32
"""Of what makes up the stream of the transformer while it is in half precision: a few channels of a trained flow are
beyond 5e4, and float16 ends at 6.5e4. As a power of two it changes no digit."""


class TimestepEmbedder(nn.Module):
    """Sines and cosines of the flow time, through a small MLP."""

    freqs: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        exponents = torch.arange(TIME_FREQUENCIES, dtype=torch.float32) / TIME_FREQUENCIES
        self.register_buffer("freqs", torch.exp(-math.log(10000) * exponents), persistent=False)
        self.mlp = nn.Sequential(nn.Linear(2 * TIME_FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))

    def sinusoids(self, t: Tensor) -> Tensor:
        """Flow time ``[B]`` in 0..1 -> ``[B, 256]``, cosines first; float32."""
        phase = 1000 * t.float()[:, None] * self.freqs
        return torch.cat([phase.cos(), phase.sin()], dim=1)

    def forward(self, t: Tensor) -> Tensor:
        """``[B]`` -> ``[B, width]``."""
        return self.mlp(self.sinusoids(t))


class RMSNorm(nn.Module):
    """Root-mean-square norm in float32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), self.weight.shape, self.weight, eps=1e-5)


class AdaptiveNorm(nn.Module):
    """RMS norm whose gain and offset come from the time embedding. There is no ``1 +`` in the gain."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = RMSNorm(width)
        self.project_layer = nn.Linear(width, 2 * width)
        with torch.no_grad():  # an untrained network starts with a gain around one
            self.project_layer.bias.copy_(torch.arange(2 * width) < width)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """``x [B, F, C]``, ``modulation [B, 1, 2C]`` from ``project_layer`` -> ``[B, F, C]``."""
        gain, offset = modulation.chunk(2, dim=-1)
        return torch.addcmul(offset, gain, self.norm(x))


def rotary_angles(frames: int, head_dim: int, device: torch.device) -> Tensor:
    """The rotary position embedding ``[2, F, head_dim]``: cosines, and sines that are negative in the even columns.

    Raises:
        SynthesisError: more frames than ``MAX_FRAMES``.
    """
    if frames > MAX_FRAMES:
        raise SynthesisError(
            f"prompt and speech together have {frames} mel frames, the limit is {MAX_FRAMES}: "
            "use a shorter recording or shorter segments"
        )
    frequencies = 10000.0 ** -(torch.arange(0, head_dim, 2, device=device, dtype=torch.float32) / head_dim)
    phase = torch.outer(torch.arange(frames, device=device, dtype=torch.float32), frequencies)
    cosines, sines = phase.cos(), phase.sin()
    return torch.stack([cosines, cosines, -sines, sines], dim=-1).unflatten(-1, (2, 2)).permute(2, 0, 1, 3).flatten(2)


def rotate(x: Tensor, rotary: Tensor) -> Tensor:
    """Turn the pairs (2i, 2i + 1) of ``x [..., F, head_dim]`` by the rotary angles; computed in float32."""
    cosines, sines = rotary.unbind(0)
    swapped = x.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
    return torch.addcmul(x * cosines, swapped, sines).to(x.dtype)


def last(x: Tensor, wanted: Tensor) -> Tensor:
    """As many of the last frames of ``x [..., F, C]`` as ``wanted [2, W, head_dim]`` has."""
    return x[..., x.shape[-2] - wanted.shape[1] :, :]


@dataclass(frozen=True)
class Keys:
    """Which frames are attended to, where rows differ in length.

    Attributes:
        bias: ``[B, 1, 1, F]``, minus infinity where a frame must not be attended to, else 0.
        lengths: The same in other words, where the host knows it: row i counts as far as ``lengths[i % n]``, if there
            are n of them.
    """

    bias: Tensor
    lengths: tuple[int, ...] | None = None


def attend(q: Tensor, k: Tensor, v: Tensor, keys: Keys | None) -> Tensor:
    """Attention ``[B, heads, Q, head_dim]`` over F frames; ``keys`` None means all of them."""
    if keys is None or keys.lengths is None:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=None if keys is None else keys.bias)
    # The kernels are nearly twice as fast without a mask.
    mixed, count = torch.empty_like(q), len(keys.lengths)
    for first, length in enumerate(keys.lengths):
        rows = slice(first, None, count)
        mixed[rows] = F.scaled_dot_product_attention(q[rows], k[rows, :, :length], v[rows, :, :length])
    return mixed


class Attention(nn.Module):
    """Self-attention over all frames, with rotary positions."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.wqkv = nn.Linear(width, 3 * width, bias=False)
        self.wo = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, keys: Keys | None, rotary: Tensor, wanted: Tensor) -> Tensor:
        """``x [B, F, C]`` -> ``[B, W, C]``: frames before the ``wanted`` ones are attended to, but do not attend."""
        qkv = self.wqkv(x.to(self.wqkv.weight.dtype)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = rotate(qkv[:2], rotary)
        mixed = attend(last(q, wanted), k, qkv[2], keys)
        return self.wo(mixed.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Gated feed-forward; the inner width is 8/3 of the outer, rounded up to a multiple of 256.

    What it adds to the stream is float32, as the stream is.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = math.ceil(int(8 * width / 3) / FEED_FORWARD_MULTIPLE) * FEED_FORWARD_MULTIPLE
        self.w1 = nn.Linear(width, inner, bias=False)
        self.w2 = nn.Linear(inner, width, bias=False)
        self.w3 = nn.Linear(width, inner, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.w1.weight.dtype)
        return self.w2(F.silu(self.w1(x)) * (STREAM_SCALE * self.w3(x))).float() / STREAM_SCALE


class Block(nn.Module):
    """One transformer layer; in the second half of the stack it first takes in the output of an early one."""

    def __init__(self, width: int, heads: int, takes_skip: bool) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.feed_forward = FeedForward(width)
        self.attention_norm = AdaptiveNorm(width)
        self.ffn_norm = AdaptiveNorm(width)
        self.skip_in_linear = nn.Linear(2 * width, width) if takes_skip else None

    def take_in(self, x: Tensor, skip: Tensor) -> Tensor:
        """The streams ``[B, F, C]`` of the layer before and of an early one, joined."""
        joint = self.skip_in_linear
        assert joint is not None
        both = (STREAM_SCALE * torch.cat([x, skip], dim=-1)).to(joint.weight.dtype)
        return F.linear(both, joint.weight, STREAM_SCALE * joint.bias).float() / STREAM_SCALE

    def forward(
        self, x: Tensor, skip: Tensor | None, modulations: Sequence[Tensor], keys: Keys | None, rotary: Tensor,
        wanted: Tensor,
    ) -> Tensor:  # fmt: skip
        """``x [B, F, C]`` -> ``[B, W, C]``, its last frames.

        ``modulations`` are of both norms. ``wanted`` is ``rotary`` for its last W frames. It tells W by a shape: with a
        number, the compiler's cache (torch 2.11) takes what was compiled for all frames for what is for some.
        """
        if skip is not None:
            x = self.take_in(x, skip)
        x = last(x, wanted) + self.attention(self.attention_norm(x, modulations[0]), keys, rotary, wanted)
        return x + self.feed_forward(self.ffn_norm(x, modulations[1]))


class Transformer(nn.Module):
    """Blocks with U-shaped skips: the last takes the output of the first, and so on inwards."""

    def __init__(self, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(width, heads, takes_skip=i > depth // 2) for i in range(depth))
        self.norm = AdaptiveNorm(width)
        self.head_dim = width // heads

    def norms(self) -> list[AdaptiveNorm]:
        """Both of every layer, and the last one."""
        norms: list[AdaptiveNorm] = []
        for layer in self.layers:
            assert isinstance(layer, Block)
            norms += [layer.attention_norm, layer.ffn_norm]
        return [*norms, self.norm]

    def forward(
        self, x: Tensor, modulations: Sequence[Tensor], keys: Keys | None, rotary: Tensor, begin: int = 0
    ) -> Tensor:
        """Run the stack.

        Args:
            x: ``[B, F, C]``.
            modulations: ``[B, 1, 2C]`` for each of ``norms``.
            keys: Which frames are attended to; None means all.
            rotary: ``rotary_angles`` of F frames.
            begin: First frame that is wanted. The last layer computes nothing else for the frames before it than
                their keys and values.

        Returns:
            ``[B, F - begin, C]``.
        """
        half, final = len(self.layers) // 2, len(self.layers) - 1
        stack: list[Tensor] = []
        for i, layer in enumerate(self.layers):
            skip = stack.pop() if i > half else None
            x = layer(x, skip, modulations[2 * i : 2 * i + 2], keys, rotary, rotary[:, begin if i == final else 0 :])
            if i < half:
                stack.append(x)
        return self.norm(x, modulations[-1])


class FinalLayer(nn.Module):
    """Layer norm shifted and scaled by the time embedding, then a linear layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = weight_norm(nn.Linear(width, width))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """``x [B, F, C]``, ``modulation [B, 1, 2C]`` from ``adaLN_modulation`` -> ``[B, F, C]``."""
        shift, scale = modulation.chunk(2, dim=-1)
        return self.linear(F.layer_norm(x.float(), x.shape[-1:], eps=1e-6) * (1 + scale) + shift)


@dataclass(frozen=True)
class Conditions:
    """What the estimator knows besides the noisy mel and the time: the same at every step of a solver.

    Attributes:
        merged: ``[B, F, C]``, the share of prompt, style and conditions in the input of the transformer.
        rotary: Rotary angles of F frames.
        keys: The frames that count; None where every frame does.
        edges: What the WaveNet must know of ragged rows; None where there are none.
        start: First frame of the noisy mel, and of the velocity. The mel is zero in the frames before it.
    """

    merged: Tensor
    rotary: Tensor
    keys: Keys | None
    edges: Edges | None
    start: int


class DiT(nn.Module):
    """Velocity of the flow at a noisy mel, given prompt, style and conditions.

    ``forward`` computes it from scratch. A solver prepares the conditions and modulates once, then calls ``velocity``.
    """

    def __init__(self, config: S2MelConfig) -> None:
        super().__init__()
        width, mels = config.DiT.hidden_dim, config.DiT.in_channels
        self.mels = mels
        if config.wavenet.hidden_dim != width:
            raise ConfigError(
                f"s2mel.wavenet.hidden_dim ({config.wavenet.hidden_dim}) must equal s2mel.DiT.hidden_dim ({width})"
            )
        self.t_embedder = TimestepEmbedder(width)
        self.t_embedder2 = TimestepEmbedder(width)
        self.cond_projection = nn.Linear(config.DiT.content_dim, width)
        self.cond_x_merge_linear = nn.Linear(2 * mels + width + config.style_encoder.dim, width)
        self.transformer = Transformer(width, config.DiT.num_heads, config.DiT.depth)
        self.skip_linear = nn.Linear(width + mels, width)
        self.conv1 = nn.Linear(width, width)
        self.wavenet = WaveNet(config.wavenet)
        self.res_projection = nn.Linear(width, width)
        self.final_layer = FinalLayer(width)
        self.conv2 = nn.Conv1d(width, mels, 1)

    def forward(
        self, x: Tensor, prompt_x: Tensor, x_lens: Tensor | None, t: Tensor, style: Tensor, cond: Tensor,
        edges: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """One evaluation of the velocity.

        Args:
            x: ``[B, 80, F]`` noisy mel.
            prompt_x: ``[B, 80, F]`` mel of the prompt in its frames, zero elsewhere.
            x_lens: int64 ``[B]`` valid frames of each row; None means all.
            t: ``[B]`` flow time, 0 (noise) to 1 (mel).
            style: ``[B, S]`` style vector.
            cond: ``[B, F, C]`` output of the length regulator.
            edges: int64 ``[B]``, where the WaveNet mirrors a row. With ``edges = x_lens`` a row gives what it would
                give alone. The default is F for all rows, as released.

        Returns:
            ``[B, 80, F]``; meaningless beyond ``x_lens``.
        """
        return self.velocity(x, self.modulate(t), self.prepare(prompt_x, x_lens, style, cond, edges))

    def prepare(
        self, prompt_x: Tensor, x_lens: Tensor | None, style: Tensor, cond: Tensor, edges: Tensor | None = None,
        start: int = 0, lengths: tuple[int, ...] | None = None,
    ) -> Conditions:  # fmt: skip
        """All that does not depend on the noisy mel and the time. Arguments as for ``forward`` and its dataclasses."""
        rows, _, frames = prompt_x.shape
        begin = self._begin(start)
        widest = max(max(padding) for padding in self.wavenet.paddings)
        whole = torch.full((rows,), frames, device=prompt_x.device)
        valid = length_mask(whole if x_lens is None else x_lens, frames)
        is_ragged = x_lens is not None or edges is not None or frames - begin <= widest
        parts = [prompt_x.transpose(1, 2), self.cond_projection(cond), style[:, None].expand(-1, frames, -1)]
        merge = self.cond_x_merge_linear
        return Conditions(
            merged=F.linear(torch.cat(parts, dim=-1), merge.weight[:, self.mels :], merge.bias),
            rotary=rotary_angles(frames, self.transformer.head_dim, prompt_x.device),
            keys=None if x_lens is None else Keys(self._hidden(~valid)[:, None, None], lengths),
            edges=self.wavenet.edges((whole if edges is None else edges) - begin, valid[:, None, begin:])
            if is_ragged
            else None,
            start=start,
        )

    def modulate(self, t: Tensor) -> Tensor:
        """What every layer makes of the flow times ``t [B]``, 0 to 1, side by side: ``[B, N]``."""
        time = self.t_embedder(t)
        parts = [norm.project_layer(time) for norm in self.transformer.norms()]
        parts += [self.final_layer.adaLN_modulation(time)]
        parts += [self.wavenet.cond_layer(self.t_embedder2(t)[:, :, None])[:, :, 0]]
        return torch.cat(parts, dim=1)

    def velocity(self, x: Tensor, modulation: Tensor, known: Conditions) -> Tensor:
        """Velocity ``[B, 80, F - start]`` at a noisy mel of that shape and at the times of ``modulation [B or 1, N]``.

        It is float32, whatever the weights are.
        """
        *norms, final, local = self._split(modulation)
        begin = self._begin(known.start)
        before, between = known.start, known.start - begin
        noisy = x.transpose(1, 2)
        h = F.linear(noisy, self.cond_x_merge_linear.weight[:, : self.mels])
        h = known.merged + F.pad(h, (0, 0, before, 0))
        h = self.transformer(h, norms, known.keys, known.rotary, begin)
        h = torch.cat([h, F.pad(noisy, (0, 0, between, 0))], dim=-1)
        h = self.skip_linear(h.to(self.skip_linear.weight.dtype))
        local = self.wavenet(self.conv1(h).transpose(1, 2), local.transpose(1, 2), known.edges)
        h = local.transpose(1, 2) + self.res_projection(h)
        return self.conv2(self.final_layer(h[:, between:], final).transpose(1, 2))

    def _begin(self, start: int) -> int:
        """The first frame that the velocity from ``start`` on needs behind the attention of the last layer.

        Later frames feel those before the start through attention, and through the WaveNet as far as it reaches.
        """
        return max(0, start - self.wavenet.reach)

    def _split(self, modulation: Tensor) -> tuple[Tensor, ...]:
        """The parts of a modulation, ``[B, 1, n]`` each: for every norm, for the final layer, for the WaveNet."""
        width = self.conv1.in_features
        twos = len(self.transformer.norms()) + 1
        rest = modulation.shape[1] - twos * 2 * width
        return modulation[:, None].split([2 * width] * twos + [rest], dim=-1)

    def _hidden(self, frames: Tensor) -> Tensor:
        """The addend to the scores of attention that hides ``frames``, in the precision of attention."""
        first = self.transformer.layers[0]
        assert isinstance(first, Block)
        hidden = torch.zeros(frames.shape, dtype=first.attention.wqkv.weight.dtype, device=frames.device)
        return hidden.masked_fill_(frames, float("-inf"))
