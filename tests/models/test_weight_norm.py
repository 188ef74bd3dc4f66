"""Weight norm: same numbers as torch's, official names, and both checkpoint forms load."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from indextts.models.weight_norm import fold_weight_norm, weight_norm

LAYERS: list[Callable[[], nn.Module]] = [
    lambda: nn.Conv1d(6, 4, 3),
    lambda: nn.Conv2d(6, 4, 3),
    lambda: nn.ConvTranspose1d(6, 4, 3),
    lambda: nn.Linear(6, 4),
]


@pytest.fixture(params=LAYERS)
def layer(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return request.param()


def example(layer: nn.Module) -> torch.Tensor:
    shape = {"Linear": (2, 6), "Conv2d": (2, 6, 5, 5)}.get(
        type(layer).__name__.removeprefix("WeightNorm"), (2, 6, 5)
    )
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def test_value_is_unchanged_and_names_are_official(layer: nn.Module) -> None:
    x, before = example(layer), copy.deepcopy(layer)
    normed = weight_norm(layer)
    assert set(normed.state_dict()) == {"bias", "weight_g", "weight_v"}
    torch.testing.assert_close(normed(x), before(x))


def test_agrees_with_torch(layer: nn.Module) -> None:
    reference = nn.utils.parametrizations.weight_norm(copy.deepcopy(layer), dim=0)
    normed = weight_norm(layer)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        normed.weight_g.copy_(torch.rand(normed.weight_g.shape, generator=generator))
        normed.weight_v.copy_(torch.randn(normed.weight_v.shape, generator=generator))
        reference.parametrizations.weight.original0.copy_(normed.weight_g)
        reference.parametrizations.weight.original1.copy_(normed.weight_v)
    torch.testing.assert_close(normed(example(layer)), reference(example(layer)))


def test_gradients_reach_both_parameters(layer: nn.Module) -> None:
    normed = weight_norm(layer)
    normed(example(layer)).square().sum().backward()
    for name in ("weight_g", "weight_v"):
        assert getattr(normed, name).grad.abs().sum() > 0


def test_fold_gives_a_plain_layer_that_loads_back(layer: nn.Module) -> None:
    x = example(layer)
    normed = nn.Sequential(weight_norm(layer))
    with torch.no_grad():
        normed[0].weight_g.mul_(1.7)
    folded = fold_weight_norm(copy.deepcopy(normed))
    assert set(folded.state_dict()) == {"0.weight", "0.bias"}
    assert "WeightNorm" not in type(folded[0]).__name__
    torch.testing.assert_close(folded(x), normed(x))

    fresh = nn.Sequential(weight_norm(copy.deepcopy(folded[0])))
    with torch.no_grad():
        fresh[0].weight_v.zero_()
    fresh.load_state_dict(folded.state_dict(), strict=True)
    torch.testing.assert_close(fresh(x), normed(x))


def test_strict_loading_still_reports_a_missing_weight() -> None:
    normed = weight_norm(nn.Linear(3, 2))
    with pytest.raises(RuntimeError, match="weight_g"):
        normed.load_state_dict({"bias": torch.zeros(2)}, strict=True)
