"""Weight normalisation in the old parameter form, ``weight = weight_g * weight_v / ||weight_v||`` (spec 2.3).

The released checkpoints store the pair ``weight_g``, ``weight_v``; torch's own function for this form is
deprecated and its successor renames the parameters, so the few lines live here. The norm goes over all axes
but the first (for a transposed convolution that is the input channel axis).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def _norm(weight: Tensor) -> Tensor:
    """Norm over all axes but the first, which keep size 1."""
    return torch.linalg.vector_norm(weight, dim=tuple(range(1, weight.dim())), keepdim=True)


class _WeightNorm(nn.Module):
    """Mixin: ``weight`` is computed from ``weight_g`` and ``weight_v`` at every use."""

    weight_g: nn.Parameter
    weight_v: nn.Parameter

    if TYPE_CHECKING:
        weight: Tensor  # as the layers declare it
    else:

        @property
        def weight(self) -> Tensor:
            return self.weight_v * (self.weight_g / _norm(self.weight_v))

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # A checkpoint whose weight norm was folded holds a plain weight: the pair (||w||, w) equals it.
        if prefix + "weight" in state_dict:
            weight = state_dict.pop(prefix + "weight")
            state_dict[prefix + "weight_g"], state_dict[prefix + "weight_v"] = _norm(weight), weight
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class WeightNormConv1d(_WeightNorm, nn.Conv1d):
    """``nn.Conv1d`` after :func:`weight_norm`."""


class WeightNormConv2d(_WeightNorm, nn.Conv2d):
    """``nn.Conv2d`` after :func:`weight_norm`."""


class WeightNormConvTranspose1d(_WeightNorm, nn.ConvTranspose1d):
    """``nn.ConvTranspose1d`` after :func:`weight_norm`."""


class WeightNormLinear(_WeightNorm, nn.Linear):
    """``nn.Linear`` after :func:`weight_norm`."""


_NORMED: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv1d: WeightNormConv1d,
    nn.Conv2d: WeightNormConv2d,
    nn.ConvTranspose1d: WeightNormConvTranspose1d,
    nn.Linear: WeightNormLinear,
}
_PLAIN = {normed: plain for plain, normed in _NORMED.items()}


def unfold_plain_weights(tensors: Mapping[str, Tensor], expected: Collection[str]) -> dict[str, Tensor]:
    """Give a checkpoint whose weight norms were folded the pairs that the keys in ``expected`` ask for."""
    result = dict(tensors)
    for key in tensors:
        if key.endswith("weight") and key not in expected and f"{key}_g" in expected:
            weight = result.pop(key)
            result[f"{key}_g"], result[f"{key}_v"] = _norm(weight.float()), weight
    return result


def _change_class(module: nn.Module, classes: Mapping[type[nn.Module], type[nn.Module]]) -> None:
    """Make a layer an instance of the class that ``classes`` has for its own; its parameters stay."""
    module.__class__ = classes[type(module)]


def weight_norm(module: ModuleT) -> ModuleT:
    """Replace the parameter ``weight`` of a layer by ``weight_g`` and ``weight_v`` of the same value.

    The layer also loads checkpoints that hold a plain ``weight``.

    Args:
        module: an ``nn.Conv1d``, ``nn.Conv2d``, ``nn.ConvTranspose1d`` or ``nn.Linear``; changed in place.

    Returns:
        The same module.
    """
    weight = module.weight
    assert isinstance(weight, nn.Parameter)
    del module.weight
    module.weight_g = nn.Parameter(_norm(weight.detach()))
    module.weight_v = nn.Parameter(weight.detach())
    _change_class(module, _NORMED)
    return module


def fold_weight_norm(module: ModuleT) -> ModuleT:
    """Turn every weight-normed layer inside ``module`` back into a plain one, for inference; in place.

    Returns:
        The same module, whose state dict now holds ``weight`` instead of ``weight_g`` and ``weight_v``.
    """
    for layer in module.modules():
        if isinstance(layer, _WeightNorm):
            weight = layer.weight.detach()
            del layer.weight_g, layer.weight_v
            _change_class(layer, _PLAIN)
            layer.register_parameter("weight", nn.Parameter(weight))
    return module
