"""The teacher: Kokoro-82M (Apache-2.0) as a torch module that synthesises whole batches with control of prosody.

The network code is that of the PyPI package ``kokoro`` 0.9.4 (``modules.py`` and ``istftnet.py``, unpacked
in a folder, since its ``__init__`` needs spaCy); the weights are packed by ``training/pack_teacher.py``.

Kokoro itself reads one utterance a call: padding would change its instance norms and the ends of its convolutions.
``Teacher`` makes padding harmless by taking the statistics of every norm over the frames that are there, and by
zeroing the others in front of every convolution. A batch gives the same speech as its utterances one by one.
"""

from __future__ import annotations

import importlib
import json
import lzma
import sys
import types
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

SAMPLE_RATE_HZ = 24000
FRAME_SAMPLES = 600
"""Samples of the 25 ms frames in which durations are counted."""
MAX_SYMBOLS = 508
UNVOICED_HZ = 40.0
"""The predictor means unvoiced when its F0 is below this."""

HIDDEN, STYLE, SYMBOLS = 512, 128, 178
ALBERT = dict(
    vocab_size=SYMBOLS, hidden_size=768, num_attention_heads=12, intermediate_size=2048,
    max_position_embeddings=512, num_hidden_layers=12,
)  # fmt: skip
ISTFTNET = dict(
    upsample_kernel_sizes=[20, 12], upsample_rates=[10, 6], gen_istft_hop_size=5, gen_istft_n_fft=20,
    resblock_dilation_sizes=[[1, 3, 5]] * 3, resblock_kernel_sizes=[3, 7, 11], upsample_initial_channel=512,
)  # fmt: skip


@dataclass(frozen=True)
class Speech:
    """A batch of synthesised utterances.

    Attributes:
        samples: float32 ``[B, N]`` at 24 kHz, zero after the end of each utterance.
        frames: int64 ``[B]`` on the CPU, length of each utterance in frames of 25 ms.
        durations: For each utterance the frames of its symbols, int64 ``[symbols + 2]`` on the CPU; the first and
            the last are the silence before and after.
    """

    samples: Tensor
    frames: Tensor
    durations: list[Tensor]


def build_network(kokoro_source: Path) -> nn.Module:
    """The empty network, its weight norms folded; parameter names are those of the released checkpoint."""
    package = types.ModuleType("kokoro")
    package.__path__ = [str(kokoro_source / "kokoro")]
    unused = types.ModuleType("kokoro.custom_stft")  # for devices without complex numbers
    vars(unused)["CustomSTFT"] = None
    sys.modules |= {"kokoro": package, "kokoro.custom_stft": unused}
    modules, istftnet = (importlib.import_module(f"kokoro.{name}") for name in ("modules", "istftnet"))
    from transformers import AlbertConfig

    net = nn.Module()
    net.bert = modules.CustomAlbert(AlbertConfig(**ALBERT))
    net.bert_encoder = nn.Linear(ALBERT["hidden_size"], HIDDEN)
    net.predictor = modules.ProsodyPredictor(style_dim=STYLE, d_hid=HIDDEN, nlayers=3, max_dur=50, dropout=0.2)
    net.text_encoder = modules.TextEncoder(channels=HIDDEN, kernel_size=5, depth=3, n_symbols=SYMBOLS)
    net.decoder = istftnet.Decoder(dim_in=HIDDEN, style_dim=STYLE, dim_out=80, **ISTFTNET)
    for module in net.modules():
        if hasattr(module, "weight_g"):
            nn.utils.remove_weight_norm(module)
    return net.eval()


def load_weights(pack: Path) -> dict[str, Tensor]:
    """The state dict from the parts ``teacher.xz.0``, ``.1``, … that ``pack_teacher.py`` wrote."""
    parts = sorted(pack.glob("teacher.xz.*"))
    if not parts:
        raise FileNotFoundError(f"no teacher.xz.* in {pack}")
    arrays = np.load(BytesIO(lzma.decompress(b"".join(part.read_bytes() for part in parts))))
    weights = {}
    for name in arrays.files:
        if name.endswith(":scale") or name.endswith(":low"):
            continue
        value = arrays[name].astype(np.float32)
        if f"{name}:scale" in arrays.files:
            value = (value + np.float32(arrays[f"{name}:low"])) * arrays[f"{name}:scale"]
        weights[name] = torch.from_numpy(value)
    return weights


class Teacher(nn.Module):
    """Text to speech for batches of phoneme strings.

    Args:
        pack: Folder with ``teacher.xz.*``, ``vocab.json`` and the ``kokoro`` sources.
    """

    def __init__(self, pack: str | Path) -> None:
        super().__init__()
        pack = Path(pack)
        self.vocab: dict[str, int] = json.loads((pack / "vocab.json").read_text(encoding="utf-8"))["vocab"]
        self.net = build_network(pack)
        self.net.load_state_dict(load_weights(pack))
        self._lengths: Tensor | None = None  # frames of each utterance while the acoustic half runs
        self._max_frames = 0
        self._masks: dict[int, tuple[Tensor, Tensor]] = {}
        self._make_padding_harmless()

    def _make_padding_harmless(self) -> None:
        generator = self.net.decoder.generator
        for module in self.net.modules():
            if type(module).__name__ == "AdaIN1d":
                module.forward = types.MethodType(_masked_adain, module)
                module.frame_mask = self._mask
        after_pool = [m.conv1 for m in self.net.modules() if type(m).__name__ == "AdainResBlk1d"]
        for conv in [*after_pool, *generator.ups, *generator.noise_convs, generator.conv_post]:
            conv.register_forward_pre_hook(lambda _, args: (args[0] * self._mask(args[0].shape[-1])[0],))

    def _mask(self, length: int) -> tuple[Tensor, Tensor]:
        """Which of ``length`` positions are there, ``[B, 1, length]``, and how many, ``[B, 1, 1]``.

        Every length inside the network is a whole multiple of the number of frames, or that plus one.
        """
        assert self._lengths is not None
        if length not in self._masks:
            rate = length // self._max_frames
            lengths = (self._lengths * rate + (length - rate * self._max_frames))[:, None, None]
            inside = torch.arange(length, device=lengths.device) < lengths
            self._masks[length] = inside.float(), lengths.float()
        return self._masks[length]

    def symbol_ids(self, phonemes: str) -> list[int]:
        """Symbol ids of a phoneme string; unknown symbols are an error."""
        return [self.vocab[symbol] for symbol in phonemes]

    @torch.inference_mode()
    def synthesise(
        self,
        phonemes: Sequence[str],
        style: Tensor,
        speed: Tensor,
        f0_scale: Tensor,
        f0_range: Tensor,
        energy: Tensor,
        register: Tensor | None = None,
    ) -> Speech:
        """Reads a batch of phoneme strings.

        Args:
            phonemes: B strings of at most ``MAX_SYMBOLS`` symbols.
            style: ``[B, 256]``, row ``symbols - 1`` of the voice's pack.
            speed: ``[B]``, 1 is normal.
            f0_scale: ``[B]``, factor on F0.
            f0_range: ``[B]``, factor on the deviation of log F0 from its mean over the utterance.
            energy: ``[B]``, added to the log energy that the predictor gives.
            register: ``[B, 256]``, styles of the voices whose mean F0 the speech takes, if not that of ``style``.
        """
        net, device = self.net, style.device
        ids = [torch.tensor([0, *self.symbol_ids(p), 0]) for p in phonemes]
        symbols = torch.tensor([len(i) for i in ids])
        tokens = nn.utils.rnn.pad_sequence(ids, batch_first=True).to(device)
        padding = (torch.arange(tokens.shape[1]) >= symbols[:, None]).to(device)
        timbre, prosody = style.split(STYLE, dim=1)

        context = net.bert_encoder(net.bert(tokens, attention_mask=(~padding).int())).transpose(1, 2)
        context = net.predictor.text_encoder(context, prosody, symbols, padding)
        logits = net.predictor.duration_proj(_lstm(net.predictor.lstm, context, symbols))
        durations = (logits.sigmoid().sum(-1) / speed[:, None]).round().clamp(min=1).masked_fill(padding, 0).long()
        text = net.text_encoder(tokens, symbols, padding)

        durations_cpu = durations.cpu()
        frames = durations_cpu.sum(1)
        self._lengths, self._max_frames = frames.to(device), int(frames.max())
        try:
            spread = _alignment(durations, self._max_frames)
            shared = _lstm(net.predictor.shared, spread.transpose(1, 2) @ context, frames).transpose(1, 2)
            f0, log_energy = self._curve(shared, prosody, "F0"), self._curve(shared, prosody, "N")
            if register is not None:
                own = self._curve(shared, register[:, STYLE:], "F0")
                f0_scale = f0_scale * (self._mean_log_f0(own) - self._mean_log_f0(f0)).exp().squeeze(1)
            f0 = self._shape_f0(f0, f0_scale, f0_range)
            samples = net.decoder(text @ spread, f0, log_energy + energy[:, None], timbre).squeeze(1)
            samples = samples * self._mask(samples.shape[1])[0].squeeze(1)
        finally:
            self._lengths = None
            self._masks.clear()
        split = [d[:n] for d, n in zip(durations_cpu, symbols.tolist(), strict=True)]
        return Speech(samples, frames, split)

    def _curve(self, shared: Tensor, prosody: Tensor, name: str) -> Tensor:
        for block in getattr(self.net.predictor, name):
            shared = block(shared, prosody)
        return getattr(self.net.predictor, f"{name}_proj")(shared).squeeze(1)

    def _shape_f0(self, f0: Tensor, scale: Tensor, span: Tensor) -> Tensor:
        mean, log_f0 = self._mean_log_f0(f0), f0.clamp(min=UNVOICED_HZ).log()
        shaped = torch.exp(mean + scale.log()[:, None] + (log_f0 - mean) * span[:, None])
        return torch.where(self._voiced(f0), shaped, f0)

    def _mean_log_f0(self, f0: Tensor) -> Tensor:
        """Of the voiced frames of each utterance, ``[B, 1]``."""
        voiced = self._voiced(f0)
        total = (f0.clamp(min=UNVOICED_HZ).log() * voiced).sum(1, keepdim=True)
        return total / voiced.sum(1, keepdim=True).clamp(min=1)

    def _voiced(self, f0: Tensor) -> Tensor:
        return (f0 > UNVOICED_HZ) & (self._mask(f0.shape[1])[0].squeeze(1) > 0)


def _masked_adain(self: nn.Module, x: Tensor, style: Tensor) -> Tensor:
    """``AdaIN1d.forward`` with statistics over the frames that are there, and zeros elsewhere."""
    mask, count = self.frame_mask(x.shape[-1])
    gamma, beta = self.fc(style)[:, :, None].chunk(2, dim=1)
    x = x * mask
    mean = x.sum(-1, keepdim=True) / count
    variance = ((x - mean) * mask).square_().sum(-1, keepdim=True) / count
    scale = (1 + gamma) * self.norm.weight[:, None] * torch.rsqrt(variance + self.norm.eps)
    shift = (1 + gamma) * self.norm.bias[:, None] + beta
    return torch.addcmul(shift - mean * scale, x, scale).mul_(mask)


def _lstm(lstm: nn.LSTM, x: Tensor, lengths: Tensor) -> Tensor:
    """Runs a bidirectional LSTM over ``[B, T, C]`` whose rows have the given lengths (on the CPU)."""
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    return pad_packed_sequence(lstm(packed)[0], batch_first=True, total_length=x.shape[1])[0]


def _alignment(durations: Tensor, frames: int) -> Tensor:
    """``[B, symbols, frames]`` with a one where a symbol is spoken."""
    ends = durations.cumsum(1)[:, :, None]
    at = torch.arange(frames, device=durations.device)
    return ((at < ends) & (at >= ends - durations[:, :, None])).float()
