"""Continuing prefixes until they stop: the host's side of decoding.

All segments of a batch advance together, and everything that a step decides stays on the device (`sampling`, `beams`).
The host only looks in every few steps, to see who is finished and whether the caller wants to stop. Finished segments
then give up their places, and the rest goes on in a smaller batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from indextts.config import SamplingParams
from indextts.decoding.backend import DecodeBackend, Parked
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
    """Continue every prefix until its stop code. Arguments and errors as of `Decoding`."""
    with torch.inference_mode():
        decoding = Decoding(
            backend, embeddings, mask, params, generator=generator, should_stop=should_stop,
            steps_per_look=steps_per_look,
        )  # fmt: skip
        decoding.run()
        found = decoding.result()
    # Cloned outside, for tensors made in inference mode cannot take part in training.
    return dataclasses.replace(found, codes=[codes.clone() for codes in found.codes])


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


class Decoding:
    """Segments on their way from their prefixes to their stop codes, and the places that they have in the batch.

    To be used in inference mode. Where there is nothing to do in between, `generate` is all of it.
    """

    def __init__(
        self,
        backend: DecodeBackend,
        embeddings: Tensor,
        mask: Tensor,
        params: SamplingParams,
        *,
        generator: torch.Generator | None = None,
        should_stop: Callable[[], bool] | None = None,
        steps_per_look: int | None = None,
    ) -> None:
        """Choose the first code of every segment.

        Args:
            backend: The model to decode from.
            embeddings: Prefixes ``[S, P, D]``, padded on the left.
            mask: ``[S, P]``, true where a prefix is real.
            params: How to draw.
            generator: Source of randomness on the device of the model; None means torch's default one.
            should_stop: Asked at every look.
            steps_per_look: The host looks in after so many steps, which changes no result. None: after each on the
                CPU, where a look costs nothing, else after ``DEVICE_STEPS_PER_LOOK``.

        Raises:
            ConfigError: ``max_mel_tokens`` exceeds the model's position table.
        """
        self.limit = params.max_mel_tokens
        if self.limit > backend.max_codes:
            raise ConfigError(f"max_mel_tokens is {self.limit}, but this model has positions for {backend.max_codes}")
        if steps_per_look is None:
            steps_per_look = 1 if embeddings.device.type == "cpu" else DEVICE_STEPS_PER_LOOK
        self.steps_per_look, self.should_stop = steps_per_look, should_stop
        logits = backend.prefill(embeddings, mask, num_beams=params.num_beams, max_codes=self.limit).float()
        kind = Sampling if params.num_beams == 1 else BeamSearch
        self.search: Search = kind.start(logits, params, backend.start_code, backend.stop_code, backend.max_codes)
        self.backend, self.noise = backend, _Noise(self.search.noise, generator)
        self.parked: Parked | None = None
        self.segments = list(range(len(mask)))  # by place; places beyond hold copies that nobody reads
        self.index: Tensor | None = None  # the same on the device, where places and segments are not the same
        self.alive = self.segments  # places of those that are not finished, as of the last look
        self.rows: list[int] | None = self._rows_of(self.segments)
        self.found: dict[int, Hypothesis] = {}
        self.steps = 0
        self.needed_steps = 0
        self.undefined = False
        self.finished = self.limit == 1
        self._choose_first(logits)

    def run(self, steps: int | None = None) -> None:
        """Go on until ``steps`` codes have been chosen in all, or until all segments are finished (None).

        Raises:
            Cancelled: ``should_stop`` said so.
        """
        if self.parked is not None:
            self.backend.resume(self.parked)
            self.parked = None
        end = self.limit if steps is None else min(steps, self.limit)
        while self.steps < end and not self.finished:
            self._give_up_places()
            self._advance(min(self.steps_per_look, end - self.steps))
            done = self.search.done.tolist()[: len(self.segments)]
            self.alive = [place for place, finished in enumerate(done) if not finished]
            self.finished = not self.alive or self.steps == self.limit
            if self.should_stop is not None and self.should_stop():
                raise Cancelled("the synthesis was stopped on request")

    def settled(self, segment: int) -> Tensor:
        """The codes ``[M]`` that a segment begins with, whatever the steps to come. Makes the host wait."""
        found = self.found.get(segment)
        return self.search.settled(self.segments.index(segment)) if found is None else found.codes

    def park(self) -> None:
        """Leave the backend to others. `run` takes it again."""
        self.parked, self.search = self.backend.park(self.search)

    def result(self) -> Generation:
        """What has been found. To be called once, at the end.

        Raises:
            UndefinedValues: scores of the model are not finite.
        """
        self._harvest(list(range(len(self.segments))))
        self.noise.rewind(self.steps - self.needed_steps)
        if self.undefined:
            raise UndefinedValues("the language model computed undefined scores (NaN or infinity)")
        found = [self.found[segment] for segment in range(len(self.found))]
        return Generation(
            [hypothesis.codes for hypothesis in found],
            [hypothesis.hit_limit for hypothesis in found],
            None if self.search.params.num_beams == 1 else [h.score for h in found if h.score is not None],
        )

    def _choose_first(self, logits: Tensor) -> None:
        """Choose from the logits ``[S, V]`` of the prefixes."""
        self.search.noise.copy_(self.noise.draw())
        self.search.choose(logits[:, None].expand(-1, self.search.codes.shape[1], -1))
        self.steps += 1

    def _advance(self, steps: int) -> None:
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

    def _give_up_places(self) -> None:
        """If fewer places are enough for those segments that are not finished, change to them."""
        if self.backend.places_for(len(self.alive)) < len(self.search.done):
            self._harvest([place for place in range(len(self.segments)) if place not in self.alive])
            self.rows = self._rows_of(self.alive)
            self.segments = [self.segments[place] for place in self.alive]

    def _harvest(self, places: list[int]) -> None:
        hypotheses = self.search.hypotheses(places)
        self.found.update(zip((self.segments[place] for place in places), hypotheses, strict=True))
        self.undefined |= any(self.search.undefined[places].tolist())
        self.needed_steps = max([self.needed_steps, *self.search.done_after[places].tolist()])

    def _rows_of(self, alive: list[int]) -> list[int] | None:
        """The rows to select for ``alive`` places, copies of the first in places too many; None: just as they are."""
        rows = alive + alive[:1] * (self.backend.places_for(len(alive)) - len(alive))
        return None if rows == list(range(len(self.search.done))) else rows
