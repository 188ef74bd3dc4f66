"""Serving an app until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from indextts.errors import ConfigError

logger = logging.getLogger(__name__)

KEEP_ALIVE_S = 5
BACKLOG = 128


class Server(uvicorn.Server):
    """A server of its own port: listens before it starts, so that an address that cannot be had is one clear error."""

    def __init__(
        self,
        app: FastAPI,
        host: str,
        port: int,
        grace_s: float | None = None,
        finish: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Listen on ``host`` and ``port`` (0: any free one).

        Args:
            grace_s: When told to stop, the server lets requests go on for so long; None: to their end.
            finish: Awaited when told to stop, while the requests go on.

        Raises:
            ConfigError: the address cannot be listened on.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self.socket = socket.create_server((host, port), family=family, backlog=BACKLOG)
        except OSError as error:
            raise ConfigError(f"cannot listen on {host}, port {port}: {error.strerror or error}") from error
        shown = f"[{host}]" if family == socket.AF_INET6 else host
        self.address = f"http://{shown}:{self.socket.getsockname()[1]}"
        config = uvicorn.Config(
            app,
            log_config=None,  # the program's own
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=None if grace_s is None else round(grace_s),
        )
        super().__init__(config)
        self.finish = finish

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more requests, and see those through that were accepted."""
        finishing = asyncio.ensure_future(self.finish()) if self.finish is not None else None
        await super().shutdown(sockets)
        if finishing is not None:
            await finishing

    def serve_until_stopped(self) -> None:
        """Answer requests until a signal comes; then finish those under way."""
        logger.info("listening on %s", self.address)
        with signals_as_wishes():
            self.run(sockets=[self.socket])


@contextmanager
def signals_as_wishes() -> Iterator[None]:
    """Uvicorn sends itself the signal again when it has ended; let that not kill a program that is about to tidy up."""
    if threading.current_thread() is not threading.main_thread():  # where signals do not come
        yield
        return
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
