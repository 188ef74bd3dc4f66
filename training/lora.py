"""LoRA (Hu et al., 2021, arXiv:2106.09685): a matrix learns a change of low rank, and stays as it is itself.

An adapter is all such changes of one language model. It is trained while it hangs on the model, kept in a small file,
and added to the weights in the end: the model then is as large and as fast as before.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils import parametrize

from indextts.errors import CheckpointError, ConfigError
from indextts.models.gpt import UnifiedVoice

PROJECTIONS = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
"""The matrices of a block: attention in and out, feed-forward in and out."""

SAVED = ("down", "up", "scale", "norm")
NORM_TOLERANCE = 1e-3  # weights stored as half floats or int8 rows differ by less, those of another training by more


class LowRank(nn.Module):
    """A change of a matrix ``[in, out]`` by ``scale * down @ up``, which begins as nothing.

    Attributes:
        down: ``[in, rank]``.
        up: ``[rank, out]``.
        norm: Of the matrix that it was made for.
    """

    def __init__(self, down: Tensor, up: Tensor, scale: float, norm: float) -> None:
        super().__init__()
        self.down, self.up, self.scale, self.norm = nn.Parameter(down), nn.Parameter(up), scale, norm

    @classmethod
    def beginning(cls, weight: Tensor, rank: int, alpha: float) -> LowRank:
        """For a weight ``[in, out]``; its scale is ``alpha / rank``."""
        inputs, outputs = weight.shape
        down = torch.randn(inputs, rank) / math.sqrt(inputs)
        up = torch.zeros(rank, outputs, device=weight.device)
        return cls(down.to(weight.device), up, alpha / rank, float(weight.norm()))

    @classmethod
    def of(cls, down: Tensor, up: Tensor, scale: Tensor, norm: Tensor) -> LowRank:
        """From what an adapter's file holds; ``ValueError`` where that does not go together."""
        if down.ndim != 2 or up.ndim != 2 or down.shape[1] != len(up):
            raise ValueError(f"{list(down.shape)} and {list(up.shape)} are no matrices of one rank")
        return cls(down, up, scale.item(), norm.item())

    def refuse_others(self, weight: Tensor | None, name: str) -> None:
        """Raise ``CheckpointError`` unless ``weight`` is the matrix that this was made for, rounding aside."""
        shape = [len(self.down), self.up.shape[1]]
        if weight is None or list(weight.shape) != shape:
            found = "missing" if weight is None else list(weight.shape)
            raise CheckpointError(f"the adapter is for another model: {name} should be {shape}, and is {found}")
        if abs(float(weight.float().norm()) - self.norm) > NORM_TOLERANCE * self.norm:
            raise CheckpointError(f"the adapter is for other weights of such a model, or in these already: see {name}")

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):
            return weight + self.scale * (self.down @ self.up)


class Adapter(nn.Module):
    """Changes of some matrices of a language model, by the names of the layers that they belong to."""

    def __init__(self, parts: Mapping[str, LowRank]) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({name.replace(".", "/"): part for name, part in parts.items()})

    @classmethod
    def beginning(cls, model: UnifiedVoice, rank: int, alpha: float, layers: Iterable[int]) -> Adapter:
        """One that changes nothing yet, for all projections of the given ``layers``."""
        names = [f"gpt.h.{layer}.{projection}" for layer in layers for projection in PROJECTIONS]
        weights = {name: model.get_parameter(f"{name}.weight") for name in names}
        return cls({name: LowRank.beginning(weight, rank, alpha) for name, weight in weights.items()})

    def by_name(self) -> dict[str, LowRank]:
        return {key.replace("/", "."): part for key, part in self.parts.items()}  # type: ignore[misc]

    def attach(self, model: UnifiedVoice) -> None:
        """Let the model compute with the changed matrices, and the gradients reach this adapter."""
        for name, part in self.by_name().items():
            parametrize.register_parametrization(model.get_submodule(name), "weight", part)

    @torch.no_grad()
    def merged(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The changed matrices of a model's ``weights``, in float32.

        Raises:
            CheckpointError: the adapter is for another model.
        """
        merged = {}
        for name, part in self.by_name().items():
            weight = weights.get(f"{name}.weight")
            part.refuse_others(weight, name)
            merged[f"{name}.weight"] = part(weight.float())  # type: ignore[union-attr]
        return merged

    def save(self, path: Path) -> None:
        """Write a safetensors file with ``down``, ``up``, ``scale []`` and ``norm []`` of each layer."""
        tensors = {
            f"{name}.{key}": torch.as_tensor(getattr(part, key)).detach().cpu().contiguous()
            for name, part in self.by_name().items()
            for key in SAVED
        }
        save_file(tensors, path)

    @classmethod
    def load(cls, path: Path) -> Adapter:
        """Read what ``save`` has written.

        Raises:
            CheckpointError: it is no such file.
        """
        try:
            tensors = load_file(path)
            names = dict.fromkeys(key.rpartition(".")[0] for key in tensors)
            parts = {name: LowRank.of(*(tensors[f"{name}.{key}"] for key in SAVED)) for name in names}
            if not parts or len(tensors) != len(parts) * len(SAVED):
                raise ValueError(f"it should have {', '.join(SAVED)} of each layer, and nothing else")
        except (OSError, SafetensorError, LookupError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{path} is not an adapter: {error}") from error
        return cls(parts)


def parse_layers(text: str, count: int) -> list[int]:
    """``all``, or numbers and ranges such as ``0,4-7``, of ``count`` layers.

    Raises:
        ConfigError: it is something else, or there is no such layer.
    """
    if text == "all":
        return list(range(count))
    layers: set[int] = set()
    try:
        for piece in text.split(","):
            first, _, last = piece.partition("-")
            layers |= set(range(int(first), int(last or first) + 1))
    except ValueError as error:
        raise ConfigError(f"--layers should be all, or such as 0,4-7, not {text!r}") from error
    if not layers or max(layers) >= count:
        raise ConfigError(f"--layers {text}: the model has layers 0 to {count - 1}")
    return sorted(layers)
