"""Continuing prefixes until they stop: the host's side of decoding.

All segments of a batch advance together, and everything that a step decides stays on the device (`sampling`, `beams`).
The host only looks in every few steps, to see who is finished and whether the caller wants to stop. Finished segments
then give up their places, and the rest goes on in a smaller batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from indextts.config import SamplingParams
from indextts.decoding.backend import DecodeBackend
from indextts.decoding.beams import BeamSearch
from indextts.decoding.sampling import Sampling
from indextts.decoding.state import Hypothesis, Search
from indextts.errors import Cancelled, ConfigError, UndefinedValues

DEVICE_STEPS_PER_LOOK = 8
"""Steps between two looks of the host where a look makes the device wait."""


@dataclass(frozen=True)
class Generation:
    """The codes of a batch of segments.

    Attributes:
        codes: One int64 tensor ``[M]`` a segment, without the stop code; M can be 0.
        hit_limit: Whether a segment was cut off by ``max_mel_tokens`` before it came to its stop code.
        scores: Sum of the processed scores over ``length ** length_penalty``; None with one beam.
    """

    codes: list[Tensor]
    hit_limit: list[bool]
    scores: list[float] | None = None


def generate(
    backend: DecodeBackend,
    embeddings: Tensor,
    mask: Tensor,
    params: SamplingParams,
    *,
    generator: torch.Generator | None = None,
    should_stop: Callable[[], bool] | None = None,
    steps_per_look: int | None = None,
) -> Generation:
    """Continue every prefix until its stop code.

    Args:
        backend: The model to decode from.
        embeddings: Prefixes ``[S, P, D]``, padded on the left.
        mask: ``[S, P]``, true where a prefix is real.
        params: How to draw.
        generator: Source of randomness on the device of the model; None means torch's default one.
        should_stop: Asked at every look.
        steps_per_look: The host looks in after so many steps, which changes no result. None: after each on the CPU,
            where a look costs nothing, else after ``DEVICE_STEPS_PER_LOOK``.

    Raises:
        ConfigError: ``max_mel_tokens`` exceeds the model's position table.
        Cancelled: ``should_stop`` said so.
        UndefinedValues: scores of the model are not finite.
    """
    limit = params.max_mel_tokens
    if limit > backend.max_codes:
        raise ConfigError(f"max_mel_tokens is {limit}, but this model has positions for {backend.max_codes}")
    if steps_per_look is None:
        steps_per_look = 1 if embeddings.device.type == "cpu" else DEVICE_STEPS_PER_LOOK
    with torch.inference_mode():
        logits = backend.prefill(embeddings, mask, num_beams=params.num_beams, max_codes=limit).float()
        kind = Sampling if params.num_beams == 1 else BeamSearch
        search: Search = kind.start(logits, params, backend.start_code, backend.stop_code, backend.max_codes)
        batch = _Batch(backend, search, _Noise(search.noise, generator))
        batch.choose_first(logits)
        while batch.steps < limit:
            if batch.steps >= steps_per_look:
                if should_stop is not None and should_stop():
                    raise Cancelled("the synthesis was stopped on request")
                if batch.look():
                    break
            batch.advance(min(steps_per_look, limit - batch.steps))
        found = batch.finish()
        if batch.undefined:
            raise UndefinedValues("the language model computed undefined scores (NaN or infinity)")
    # Cloned outside, for tensors made in inference mode cannot take part in training.
    return Generation(
        [hypothesis.codes.clone() for hypothesis in found],
        [hypothesis.hit_limit for hypothesis in found],
        None if params.num_beams == 1 else [hypothesis.score for hypothesis in found if hypothesis.score is not None],
    )


class _Noise:
    """The random numbers of all segments, whoever still needs them: what is drawn depends on the seed alone.

    Neither the places that the segments have got nor how often the host looks make a difference, not even to what the
    caller draws from the generator afterwards (`rewind`).
    """

    def __init__(self, like: Tensor, generator: torch.Generator | None) -> None:
        self.noise = torch.empty_like(like)
        self.generator = generator
        self.mark()

    def draw(self) -> Tensor:
        """``[S, B * V]`` for the next step."""
        self.draws += 1
        return self.noise.exponential_(1, generator=self.generator) if self.noise.numel() else self.noise

    def mark(self) -> None:
        """Remember where the generator stands."""
        self.draws = 0
        self.state = None if self.generator is None else self.generator.get_state()

    def rewind(self, draws: int) -> None:
        """Take back the last ``draws`` steps since the mark."""
        if self.generator is not None and self.state is not None and draws:
            self.generator.set_state(self.state)
            for _ in range(self.draws - draws):
                self.draw()


class _Batch:
    """Segments on their way, and the places that they have."""

    def __init__(self, backend: DecodeBackend, search: Search, noise: _Noise) -> None:
        self.backend, self.search, self.noise = backend, search, noise
        self.segments = list(range(len(search.done)))  # by place; places beyond hold copies that nobody reads
        self.index: Tensor | None = None  # the same on the device, where places and segments are not the same
        self.rows: list[int] | None = self._rows_of(self.segments)
        self.found: dict[int, Hypothesis] = {}
        self.steps = 0
        self.needed_steps = 0
        self.undefined = False

    def choose_first(self, logits: Tensor) -> None:
        """Choose from the logits ``[S, V]`` of the prefixes."""
        self.search.noise.copy_(self.noise.draw())
        self.search.choose(logits[:, None].expand(-1, self.search.codes.shape[1], -1))
        self.steps += 1

    def advance(self, steps: int) -> None:
        """Run ``steps`` steps. Nothing here waits for the device."""
        search = self.search = self.backend.settle(self.search, self.rows, steps)
        if self.rows is not None:
            search.done[len(self.segments) :] = True
            copies = self.segments[:1] * (len(self.rows) - len(self.segments))
            self.index, self.rows = torch.tensor(self.segments + copies, device=search.done.device), None
        self.noise.mark()
        for _ in range(steps):
            noise = self.noise.draw()
            search.noise.copy_(noise if self.index is None else noise.index_select(0, self.index))
            self.backend.advance(search)
        self.steps += steps

    def look(self) -> bool:
        """Whether all segments are finished. If fewer places are enough for those that are not, change to them."""
        done = self.search.done.tolist()[: len(self.segments)]
        alive = [place for place, finished in enumerate(done) if not finished]
        if alive and self.backend.places_for(len(alive)) < len(self.search.done):
            self._harvest([place for place, finished in enumerate(done) if finished])
            self.rows = self._rows_of(alive)
            self.segments = [self.segments[place] for place in alive]
        return not alive

    def finish(self) -> list[Hypothesis]:
        """The results in the order of the segments."""
        self._harvest(list(range(len(self.segments))))
        self.noise.rewind(self.steps - self.needed_steps)
        return [self.found[segment] for segment in range(len(self.found))]

    def _harvest(self, places: list[int]) -> None:
        hypotheses = self.search.hypotheses(places)
        self.found.update(zip((self.segments[place] for place in places), hypotheses, strict=True))
        self.undefined |= any(self.search.undefined[places].tolist())
        self.needed_steps = max([self.needed_steps, *self.search.done_after[places].tolist()])

    def _rows_of(self, alive: list[int]) -> list[int] | None:
        """The rows to select for ``alive`` places, copies of the first in places too many; None: just as they are."""
        rows = alive + alive[:1] * (self.backend.places_for(len(alive)) - len(alive))
        return None if rows == list(range(len(self.search.done))) else rows
