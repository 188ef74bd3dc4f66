"""Jobs that wait for the model, and in which order they get it: clients take turns."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from indextts.errors import ConfigError, QueueFull
from indextts.types import ProgressCallback, Queued, StopCallback

if TYPE_CHECKING:
    from indextts.engine import Engine
    from indextts.service.service import Service

Deliver = Callable[[object], None]
Work = Callable[["Engine", ProgressCallback, StopCallback], Iterable[object]]
"""What a job does with the engine: yields its results, tells its progress, and stops when it shall."""


@dataclass(frozen=True)
class ServiceConfig:
    """How much is done at a time.

    Attributes:
        simultaneous: Requests that run side by side. One client gets all of these places but one.
        max_queue: Requests that may wait. One client may fill half of the queue.
        idle_unload_s: Unload the model when nobody has used it for so long; None: never.
    """

    simultaneous: int = 4
    max_queue: int = 32
    idle_unload_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("simultaneous", "max_queue"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.idle_unload_s is not None and not self.idle_unload_s > 0:
            raise ConfigError(f"idle_unload_s must be more than 0 seconds, not {self.idle_unload_s:g}")

    @property
    def running_per_client(self) -> int:
        return max(1, self.simultaneous - 1)

    @property
    def waiting_per_client(self) -> int:
        return (self.max_queue + 1) // 2


class Job:
    """One request that the service has accepted."""

    def __init__(self, service: Service, client: str, work: Work, deliver: Deliver) -> None:
        self.service = service
        self.client = client
        self.work = work
        self.deliver = deliver
        self.stopped = threading.Event()

    def cancel(self) -> None:
        """Leave the queue, or stop at the next opportunity. Does nothing to a job that is finished."""
        self.stopped.set()
        self.service.forget(self)

    def waiting(self) -> Queued | None:
        """Which place it has in the queue, and for how long about; None once it runs."""
        return self.service.waiting(self)


class FairQueue:
    """Jobs that wait and jobs that run. Clients take turns, whoever has asked how much. The owner locks it."""

    def __init__(self, config: ServiceConfig) -> None:
        self.config = config
        self.running: list[Job] = []
        self._waiting: dict[str, deque[Job]] = {}  # clients in the order of their turns

    @property
    def waiting(self) -> list[Job]:
        return [job for jobs in self._waiting.values() for job in jobs]

    def turns(self) -> list[Job]:
        """The waiting jobs in the order in which they start if none comes in between."""
        waiting = {client: deque(jobs) for client, jobs in self._waiting.items()}
        runs = Counter(job.client for job in self.running)
        order = []
        while waiting:
            client = min(waiting, key=runs.__getitem__)  # as in start_next
            jobs = waiting.pop(client)
            order.append(jobs.popleft())
            runs[client] += 1
            if jobs:
                waiting[client] = jobs
        return order

    def add(self, job: Job, mean_s: float) -> None:
        """Append a job. Raises ``QueueFull``, with the time in which it would have had its turn."""
        places = self.config.simultaneous + self.config.max_queue
        waiting, running = self.waiting, self.running
        retry_after_s = mean_s * (len(waiting) + 1) / self.config.simultaneous
        if len(waiting) + len(running) >= places:
            raise QueueFull(
                f"the queue is full: {len(waiting)} requests are waiting; try again in {retry_after_s:.0f} s",
                retry_after_s,
            )
        own = sum(other.client == job.client for other in (*waiting, *running))
        if own >= self.config.running_per_client + self.config.waiting_per_client:
            raise QueueFull(
                f"{own} of your requests are under way, which is as many as one client may have; "
                f"try again in {retry_after_s:.0f} s",
                retry_after_s,
            )
        self._waiting.setdefault(job.client, deque()).append(job)

    def start_next(self) -> Job | None:
        """The next job, now running; None if none may run.

        The client with the fewest running jobs is next; among equal ones, the one whose last turn is longest ago.
        """
        if len(self.running) >= self.config.simultaneous:
            return None
        runs = Counter(job.client for job in self.running)
        ready = [client for client in self._waiting if runs[client] < self.config.running_per_client]
        if not ready:
            return None
        client = min(ready, key=runs.__getitem__)
        jobs = self._waiting.pop(client)
        job = jobs.popleft()
        if jobs:
            self._waiting[client] = jobs  # behind all others
        self.running.append(job)
        return job

    def remove(self, job: Job) -> bool:
        """Take a waiting job out; whether it was waiting."""
        jobs = self._waiting.get(job.client, deque())
        if job not in jobs:
            return False
        jobs.remove(job)
        if not jobs:
            del self._waiting[job.client]
        return True
