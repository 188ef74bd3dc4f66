"""What advances from step to step, as bundles of device tensors with one row for each segment."""

from __future__ import annotations

import copy
import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from indextts.config import SamplingParams

PREFIX_HISTORY_CODE = 1
"""The history that the repetition penalty looks at holds this code in place of the prefix (spec quirk 17)."""

State = TypeVar("State", bound="SegmentState")


@dataclasses.dataclass
class SegmentState:
    """A dataclass whose tensors all have the segment as first dimension, counters too.

    A step changes the tensors in place and never puts another one into a field, for a captured graph knows them by
    their address.
    """

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by the names of their fields."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    def select(self: State, rows: Sequence[int]) -> State:
        """A copy with the segments ``rows``, of which some may be missing or double."""
        selected, index = copy.copy(self), None
        for name, value in self.tensors().items():
            index = torch.tensor(rows, device=value.device) if index is None else index
            setattr(selected, name, value.index_select(0, index))
        return selected

    def copy_(self, other: SegmentState) -> None:
        """Take over the contents of a bundle of the same shapes."""
        theirs = other.tensors()
        for name, value in self.tensors().items():
            value.copy_(theirs[name])


@dataclasses.dataclass
class Search(SegmentState, ABC):
    """Chooses codes: the half of a step that is not the model.

    Attributes:
        params: How to choose.
        start_code, stop_code: The codes of the model that are no speech.
        step: ``[S]`` how many codes have been chosen.
        done: ``[S]``, true for a finished segment. Nothing that is done to it any more changes its result.
        done_after: ``[S]`` how many codes had been chosen when it was finished; ``step`` while it is not.
        undefined: ``[S]``, true for a segment whose logits were not finite; it is done.
        codes: ``[S, B]`` chosen last.
        noise: ``[S, B * V]`` draws from the exponential distribution, for the next choice; empty without sampling.
    """

    params: SamplingParams
    start_code: int
    stop_code: int
    step: Tensor
    done: Tensor
    done_after: Tensor
    undefined: Tensor
    codes: Tensor
    noise: Tensor

    @property
    @abstractmethod
    def parents(self) -> Tensor | None:
        """``[S, B]``, the beams that ``codes`` continue; None when there is only one."""

    @abstractmethod
    def candidates(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Draw from ``logits [S, B, V]``, or take the best of them.

        Returns:
            Sums of scores ``[S, n]``, and what they are of: entries ``[S, n]`` of ``B * V``. Largest sums first.
        """

    @abstractmethod
    def choose(self, logits: Tensor) -> None:
        """Choose the next codes from ``logits [S, B, V]`` in float32. On the device alone, and in place."""

    def give_up_where_undefined(self, logits: Tensor) -> None:
        """End the segments of which ``logits [S, B, V]`` hold a NaN or an infinity: nothing sensible can follow."""
        self.undefined |= ~torch.isfinite(logits.amax((1, 2))) & ~self.done  # the largest is NaN if any is
        self.done |= self.undefined

    @abstractmethod
    def settled(self, row: int) -> Tensor:
        """The codes ``[M]`` that the result of a segment begins with, whatever comes. Makes the host wait."""

    @abstractmethod
    def hypotheses(self, rows: list[int]) -> list[Hypothesis]:
        """The results of the segments ``rows`` as they stand. Makes the host wait."""


@dataclasses.dataclass(frozen=True)
class Hypothesis:
    """The result of one segment.

    Attributes:
        codes: int64 ``[M]`` without the stop code; M can be 0.
        hit_limit: Whether it came to no stop code.
        score: Sum of the processed scores over ``length ** length_penalty``; None with one beam.
    """

    codes: Tensor
    hit_limit: bool
    score: float | None = None


def initial_history(logits: Tensor, start_code: int) -> Tensor:
    """Which codes the history of each row holds before the first is drawn: of the shape of ``logits [..., V]``."""
    seen = torch.zeros(logits.shape, dtype=torch.bool, device=logits.device)
    seen[..., [PREFIX_HISTORY_CODE, start_code]] = True
    return seen


def race(probabilities: Tensor, noise: Tensor) -> Tensor:
    """What to take the largest of, to draw without replacement: ``torch.multinomial``, draw for draw.

    With exponential noise E, the order of p / E is that of drawing by p, one after the other (Efraimidis and
    Spirakis 2006). Torch's own function does this too, but makes the host wait for a check of p.
    """
    return probabilities / noise
