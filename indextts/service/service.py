"""The one service in front of an ``Engine``, which the page, the HTTP interface and the command line share.

Requests wait in a bounded queue in which clients take turns, some of them run side by side (their segments take turns
on the model, see ``turns``), and each can be cancelled at any time. What a request makes is delivered as it comes, from
the thread that makes it, so that a client that reads slowly keeps nobody waiting. A model that nobody has used for a
while is unloaded, and loaded again when it is needed.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from indextts.config import SamplingParams
from indextts.errors import (
    AudioError,
    Cancelled,
    ConfigError,
    EmotionError,
    QueueFull,
    ServiceBusy,
    ServiceClosed,
    TextError,
)
from indextts.memory import limit_arenas, limit_kernel_cache, return_freed_memory
from indextts.service.fair_queue import Deliver, FairQueue, Job, ServiceConfig, Work
from indextts.text.glossary import NO_TERMS, Glossary
from indextts.types import (
    AccelerationReport,
    AudioChunk,
    Progress,
    ProgressCallback,
    Queued,
    Segment,
    StopCallback,
    SynthesisRequest,
    SynthesisResult,
)

if TYPE_CHECKING:
    from indextts.checkpoints import ModelFiles
    from indextts.engine import Engine

logger = logging.getLogger(__name__)

LOOK_S = 0.1
"""How often a reader that waits for sound looks whether it is still wanted."""

FIRST_GUESS_S = 10.0
"""How long a request is expected to take before the first one has shown it."""

TRIM_EVERY_S = 10.0
"""How often freed memory is given back while requests come: that takes 20 to 50 ms on a CPU."""

NEWEST_WEIGHT = 0.2
"""How much the latest request counts in the mean duration of requests."""


@dataclass(frozen=True)
class ModelFacts:
    """What is known of the model even while it is unloaded; the properties of ``Engine`` of the same names."""

    model_name: str
    report: AccelerationReport
    sample_rate_hz: int
    sampling_defaults: SamplingParams
    max_text_tokens: int
    max_mel_tokens: int
    languages: tuple[str, ...]
    text_emotion_model: str | None
    files: ModelFiles | None

    @classmethod
    def of(cls, engine: Engine) -> ModelFacts:
        return cls(**{name: getattr(engine, name) for name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class ServiceStats:
    """Counters since the start, and how things stand."""

    served: int = 0
    failed: int = 0
    cancelled: int = 0
    refused: int = 0
    audio_s: float = 0.0
    waiting: int = 0
    running: int = 0
    loaded: bool = False
    loads: int = 0
    mean_request_s: float = FIRST_GUESS_S


@dataclass(frozen=True)
class Finished:
    """The last thing that a job delivers. ``error`` None: it came to its end."""

    error: Exception | None = None


class Service:
    """Runs requests of many clients on one engine. Safe to share between threads; ``close`` ends it."""

    facts: ModelFacts

    def __init__(self, load: Callable[[], Engine], config: ServiceConfig | None = None) -> None:
        """Load the engine, and get ready. Raises what ``load`` raises."""
        self.config = config or ServiceConfig()
        self._load = load
        self._engine: Engine | None = None
        self._users = 0
        self._last_used_s = time.monotonic()
        self._last_trim_s = time.monotonic()
        self._loading = threading.Lock()
        self._changed = threading.Condition()
        self._queue = FairQueue(self.config)
        self._stats = ServiceStats()
        self._closed = False
        limit_arenas()  # before there are threads that get their own
        limit_kernel_cache()
        with self.engine():
            pass
        self._workers = [
            threading.Thread(target=self._serve, name=f"service-{number}", daemon=True)
            for number in range(self.config.simultaneous)
        ]
        for worker in self._workers:
            worker.start()

    # ------------------------------------------------------------------------------------- what clients call

    def stream(
        self,
        request: SynthesisRequest,
        client: str = "",
        on_progress: ProgressCallback | None = None,
        should_stop: StopCallback | None = None,
    ) -> Iterator[AudioChunk]:
        """As ``Engine.stream``, when it is the turn of ``client``. ``on_progress`` is called in the reader's thread.

        Raises:
            QueueFull: too many wait already.
            ServiceClosed: the service is shutting down.
            IndexTTSError: as ``Engine.stream``.
        """

        yield from told(self.follow(request, client, should_stop), on_progress)

    def follow(
        self, request: SynthesisRequest, client: str = "", should_stop: StopCallback | None = None
    ) -> Iterator[AudioChunk | Progress]:
        """As ``stream``, with the progress among the sound, for readers that show both as they come."""

        def work(engine: Engine, tell: ProgressCallback, stop: StopCallback) -> Iterator[AudioChunk]:
            return engine.stream(request, tell, stop)

        yield from self._read(work, client, should_stop)

    def synthesize(
        self,
        request: SynthesisRequest,
        client: str = "",
        on_progress: ProgressCallback | None = None,
        should_stop: StopCallback | None = None,
    ) -> SynthesisResult:
        """As ``Engine.synthesize``, when it is the turn of ``client``. Raises as ``stream`` does."""

        def work(engine: Engine, tell: ProgressCallback, stop: StopCallback) -> Iterator[SynthesisResult]:
            yield engine.synthesize(request, tell, stop)

        (result,) = told(self._read(work, client, should_stop), on_progress)
        return result

    def emotion_from_text(
        self, text: str, client: str = "", should_stop: StopCallback | None = None
    ) -> tuple[float, ...]:
        """As ``Engine.emotion_from_text``, when it is the turn of ``client``. Raises as ``stream`` does."""

        def work(engine: Engine, tell: ProgressCallback, stop: StopCallback) -> Iterator[tuple[float, ...]]:
            yield engine.emotion_from_text(text)

        (weights,) = told(self._read(work, client, should_stop))
        return weights

    def segment(self, text: str, max_tokens: int = 120, glossary: Glossary = NO_TERMS) -> list[Segment]:
        """As ``Engine.segment``; does not wait for anybody."""
        with self.engine() as engine:
            return engine.segment(text, max_tokens, glossary=glossary)

    def normalize(self, text: str, glossary: Glossary = NO_TERMS) -> str:
        """As ``Engine.normalize``; does not wait for anybody."""
        with self.engine() as engine:
            return engine.normalize(text, glossary)

    def unload(self) -> None:
        """Free the memory that the model takes, until the next request loads it again.

        Raises:
            ServiceBusy: somebody uses it, or waits for it.
        """
        with self._changed:
            busy = max(self._users, len(self._queue.running) + len(self._queue.waiting))
            if busy:
                raise ServiceBusy(f"the model is in use by {busy} requests: wait until they are finished")
            self._engine = None
        release()
        logger.info("unloaded the model: told to")

    def reload(self) -> None:
        """Load the model anew from its files. Raises ``ServiceBusy`` as ``unload``, and what loading raises."""
        self.unload()
        with self.engine():
            logger.info("loaded the model anew: told to")

    def submit(self, work: Work, client: str, deliver: Deliver) -> Job:
        """Accept a job, or refuse it at once.

        Args:
            work: Its results are delivered one by one.
            client: Who asks; jobs of different clients take turns.
            deliver: Called from another thread with every ``Progress`` and result, and at last with ``Finished``.
                It must not wait for anything.

        Raises:
            QueueFull, ServiceClosed: it is not accepted.
        """
        job = Job(self, client, work, deliver)
        with self._changed:
            try:
                if self._closed:
                    raise ServiceClosed("the server is shutting down and takes no new requests")
                self._queue.add(job, self._stats.mean_request_s)
            except (QueueFull, ServiceClosed):
                self._count(refused=1)
                raise
            self._changed.notify_all()
        return job

    def stats(self) -> ServiceStats:
        """The counters at this moment."""
        with self._changed:
            return replace(
                self._stats,
                waiting=len(self._queue.waiting),
                running=len(self._queue.running),
                loaded=self._engine is not None,
            )

    @property
    def accepting(self) -> bool:
        """Whether the service takes requests, if there is room for them."""
        return not self._closed

    def close(self, grace_s: float | None = None) -> None:
        """Take nothing new, finish what was accepted, and stop.

        Args:
            grace_s: Cancel what is not finished by then; None: wait as long as it takes.
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            finished = self._changed.wait_for(lambda: not (self._queue.waiting or self._queue.running), grace_s)
            jobs = [] if finished else [*self._queue.waiting, *self._queue.running]
        unfinished = [job for job in jobs if not job.stopped.is_set()]
        if unfinished:
            logger.warning("cancelling %d requests that are not finished after %g s", len(unfinished), grace_s)
        for job in unfinished:
            job.cancel()
        for worker in self._workers:
            worker.join()
        self._engine = None

    # ------------------------------------------------------------------------------------------ what jobs call

    def forget(self, job: Job) -> None:
        """Take ``job`` out of the queue, if it is still waiting."""
        with self._changed:
            waited = self._queue.remove(job)
            if waited:
                self._count(cancelled=1)
                self._changed.notify_all()
        if waited:
            job.deliver(Finished(Cancelled("the synthesis was cancelled while it waited for its turn")))

    def waiting(self, job: Job) -> Queued | None:
        """See ``Job.waiting``."""
        with self._changed:
            turns, mean_s = self._queue.turns(), self._stats.mean_request_s
        if job not in turns:
            return None
        place = turns.index(job) + 1
        wait_s = mean_s * place / self.config.simultaneous
        return Queued(0.0, f"waiting in place {place}, about {wait_s:.0f} s", place=place, wait_s=wait_s)

    @contextmanager
    def engine(self) -> Iterator[Engine]:
        """The engine, loaded if need be, and not unloaded meanwhile."""
        with self._changed:
            self._users += 1
        try:
            yield self._loaded()
        finally:
            with self._changed:
                self._users -= 1
                self._last_used_s = time.monotonic()
                self._changed.notify_all()

    def _loaded(self) -> Engine:
        with self._loading:  # those who come while it is being loaded wait for it
            if self._engine is None:
                self._engine = self._load()
                self.facts = ModelFacts.of(self._engine)  # the files may be others by now
                self._count(loads=1)
            return self._engine

    # ------------------------------------------------------------------------------------------------ the inside

    def _read(self, work: Work, client: str, should_stop: StopCallback | None) -> Iterator[Any]:
        """Submit ``work``, read its progress and results as they come. Whoever stops reading cancels it."""
        items: queue.SimpleQueue[object] = queue.SimpleQueue()
        last: Queued | None = None
        job = self.submit(work, client, items.put)
        try:
            while True:
                if should_stop is not None and should_stop():
                    raise Cancelled("the synthesis was cancelled")
                try:
                    item = items.get(timeout=LOOK_S)
                except queue.Empty:
                    if (waiting := job.waiting()) and waiting != last:
                        yield (last := waiting)
                    continue
                if not isinstance(item, Finished):
                    yield item
                elif item.error is not None:
                    raise item.error
                else:
                    return
        finally:
            job.cancel()

    def _serve(self) -> None:
        """A worker: one job after the other, until the service is closed and has none left."""
        while (job := self._next()) is not None:
            try:
                self._perform(job)
            except Exception:  # the listener failed, not the job: nobody is left to tell
                logger.exception("a result could not be delivered")
            self._trim()

    def _trim(self) -> None:
        """Between jobs: give back what they have freed, if that was not done lately."""
        with self._changed:
            now_s = time.monotonic()
            if now_s - self._last_trim_s < TRIM_EVERY_S:
                return
            self._last_trim_s = now_s
        return_freed_memory()

    def _next(self) -> Job | None:
        """Wait for a job; unload the model when it has been idle for long enough. None: the service is closed."""
        while True:
            with self._changed:
                while not self._idle_for_too_long():
                    if (job := self._queue.start_next()) is not None:
                        return job
                    if self._closed and not self._queue.waiting:
                        return None
                    self._changed.wait(self._until_idle_for_too_long_s())
                self._engine = None
            release()
            logger.info("unloaded the model: nobody has used it for %g s", self.config.idle_unload_s)

    def _idle_for_too_long(self) -> bool:
        remaining_s = self._until_idle_for_too_long_s()
        return remaining_s is not None and remaining_s <= 0 and not self._queue.waiting

    def _until_idle_for_too_long_s(self) -> float | None:
        """None while the model is in use, not loaded, or to be kept."""
        if self._engine is None or self._users or self.config.idle_unload_s is None:
            return None
        return max(0.0, self._last_used_s + self.config.idle_unload_s - time.monotonic())

    def _perform(self, job: Job) -> None:
        started_s, error = time.monotonic(), None
        try:
            with self.engine() as engine:
                for item in job.work(engine, job.deliver, job.stopped.is_set):
                    if isinstance(item, (AudioChunk, SynthesisResult)):
                        self._count(audio_s=len(item.samples) / item.sample_rate_hz)
                    job.deliver(item)
                self.facts = ModelFacts.of(engine)  # what is reported of the acceleration can change
        except Exception as caught:  # whatever it is, the client is told, and the next job is none the worse for it
            error = caught
        with self._changed:  # before it is told, so that who was told finds the place free and the request counted
            self._count(**{outcome_of(error): 1})
            if error is None:
                took_s = time.monotonic() - started_s
                self._count(mean_request_s=NEWEST_WEIGHT * (took_s - self._stats.mean_request_s))
            self._queue.running.remove(job)
            self._changed.notify_all()
        job.deliver(Finished(error))

    def _count(self, **more: float) -> None:
        """Add to fields of the stats."""
        with self._changed:
            self._stats = replace(self._stats, **{name: getattr(self._stats, name) + n for name, n in more.items()})


def told(items: Iterator[Any], on_progress: ProgressCallback | None = None) -> Iterator[Any]:
    """The results among ``items``; the progress goes to ``on_progress``."""
    with closing(items):  # type: ignore[type-var]  # it is a generator
        for item in items:
            if not isinstance(item, Progress):
                yield item
            elif on_progress is not None:
                on_progress(item)


def release() -> None:
    """Give back the memory of a model that nobody holds any more."""
    from indextts.loading import release_memory  # needs torch, which importing this module need not wait for

    release_memory()


def outcome_of(error: Exception | None) -> str:
    """The counter of ``ServiceStats`` that a job with this end belongs to."""
    if error is None:
        return "served"
    if isinstance(error, Cancelled):
        return "cancelled"
    if isinstance(error, (TextError, AudioError, EmotionError, ConfigError)):  # the request was wrong
        return "refused"
    return "failed"
