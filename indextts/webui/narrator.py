"""Speaks the rows of a narration through the service, a few at a time, and tells what becomes of each.

One request speaks several rows, which the engine makes in one batch. A narration is many requests, one after the
other: each of them waits for its turn as everybody's, and one that fails loses no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING

from indextts.errors import Cancelled, QueueFull, SynthesisError, TextError
from indextts.text.normalizer import is_chinese
from indextts.types import AudioChunk, FromText, Progress, SynthesisRequest
from indextts.webui.narration import Narration, Row

if TYPE_CHECKING:
    from indextts.service import Service

PASSAGE_END = "\u2029"  # see SynthesisRequest
WAIT_S = 5.0
"""How long to wait at most, before a queue that was full is asked again."""

Ask = Callable[[Row], SynthesisRequest]
"""How a row shall be spoken; the text of the request is not looked at. The same object for rows that go together."""


@dataclass(frozen=True)
class Job:
    """A row to be spoken, and the seed for it if it is the first of its request."""

    row: Row
    seed: int


class Narrator:
    """Speaks rows of one narration."""

    def __init__(self, service: Service, client: str, narration: Narration, ask: Ask, batch_size: int) -> None:
        self.service = service
        self.client = client
        self.narration = narration
        self.ask = ask
        self.batch_size = batch_size
        self.numbers_language = "zh" if is_chinese(" ".join(row.text for row in narration.rows)) else "en"

    def speak(self, jobs: Sequence[Job]) -> Iterator[Row | Progress]:
        """Speak the rows in their order. Yields each when it is ready or has failed, and the progress in between.

        Raises:
            Cancelled: ``narration.stop`` was set.
            IndexTTSError: no row can be spoken like this: the voice, a setting, the service. What is ready stays.
        """
        for number, group in enumerate(grouped(jobs, self.ask, self.batch_size)):
            rows = [job.row for job in group]
            for row in rows:
                row.speaking, row.error = True, None
            try:
                yield from self._group(group, patient=number > 0)
            finally:
                for row in rows:
                    row.speaking = False

    def _group(self, group: Sequence[Job], patient: bool) -> Iterator[Row | Progress]:
        """One request for all; if it fails, one each for those that it has not spoken."""
        try:
            yield from self._request(group, patient)
            return
        except (SynthesisError, TextError) as error:
            if len(group) == 1:
                group[0].row.error = error
                group[0].row.speaking = False
                yield group[0].row
                return
        for job in group:
            if job.row.speaking:
                yield from self._group([job], patient=True)

    def _request(self, group: Sequence[Job], patient: bool) -> Iterator[Row | Progress]:
        first, texts = group[0], [job.row.text for job in group]
        request = replace(
            self.ask(first.row),
            text=PASSAGE_END.join(texts),
            seed=first.seed,
            batch_size=self.batch_size,
            numbers_language=self.numbers_language,
        )
        ends = [0] if len(group) == 1 else self._ends(texts, request)
        spoken, pieces, rate_hz = 0, [], 0

        def finish() -> Row:
            nonlocal spoken, pieces
            row = group[spoken].row
            self.narration.keep(row, pieces, rate_hz, first.seed, texts[spoken])
            row.speaking = False
            spoken, pieces = spoken + 1, []
            return row

        with closing(self._chunks(request, patient)) as chunks:  # type: ignore[type-var]  # it is a generator
            for chunk in chunks:
                if isinstance(chunk, Progress):
                    yield chunk
                    continue
                if len(group) > 1 and chunk.segments != ends[-1]:
                    raise SynthesisError(f"{chunk.segments} segments came, not {ends[-1]}")
                while len(group) > 1 and chunk.segment >= ends[spoken]:
                    yield finish()
                rate_hz = chunk.sample_rate_hz
                if len(group) == 1 or not (chunk.is_silence and chunk.segment + 1 == ends[spoken]):
                    pieces.append(chunk.samples)
        yield finish()

    def _ends(self, texts: Sequence[str], request: SynthesisRequest) -> list[int]:
        """The number of the segment behind the last of each text, spoken as ``request`` is."""
        limit, glossary = request.max_text_tokens_per_segment, request.glossary
        return list(accumulate(len(self.service.segment(text, limit, glossary)) for text in texts))

    def _chunks(self, request: SynthesisRequest, patient: bool) -> Iterator[AudioChunk | Progress]:
        """The sound of a request. A patient one waits while the queue is full."""
        stop = self.narration.stop
        while True:
            try:
                yield from self.service.follow(request, self.client, stop.is_set)
                return
            except QueueFull as full:
                if not patient:
                    raise
                yield Progress(0.0, str(full))
                if stop.wait(min(full.retry_after_s, WAIT_S)):
                    raise Cancelled("the synthesis was cancelled") from full


def grouped(jobs: Sequence[Job], ask: Ask, batch_size: int) -> Iterator[list[Job]]:
    """Neighbours that are spoken in the same way, at most ``batch_size`` together, the first alone: it sounds soon.

    Where the emotion is that of the text, each row has its own.
    """
    group: list[Job] = []
    room = 1
    for job in jobs:
        if group and (len(group) == room or ask(job.row) is not ask(group[0].row)):
            yield group
            group, room = [], batch_size
        emotion = ask(job.row).emotion
        if isinstance(emotion, FromText) and emotion.text is None:
            room = 1
        group.append(job)
    if group:
        yield group
