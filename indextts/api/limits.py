"""Who may ask, how much and how often."""

from __future__ import annotations

import hmac
import math
import time
from collections import OrderedDict
from collections.abc import Callable

from fastapi import HTTPException, Request

from indextts.api.errors import ApiError, error_response
from indextts.api.settings import ApiSettings

MAX_REMEMBERED_CLIENTS = 10_000
UPLOAD_PATH = "/gradio_api/upload"
"""Where the page, if it is served here as well, takes files."""

FORM_BYTES = 2**16
"""What the form around an uploaded file may take."""


def client_of(request: Request) -> str:
    """Who asks: the address that the request comes from."""
    return request.client.host if request.client else "unknown"


class Gatekeeper:
    """A dependency of routes: lets requests in that have the key and do not come too often."""

    def __init__(self, settings: ApiSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self.api_key = settings.api_key
        self.rate = None
        if settings.max_requests_per_minute is not None:
            self.rate = RateLimit(settings.max_requests_per_minute, clock)

    async def check_key(self, request: Request) -> None:
        """Raises ``ApiError`` 401 for a request without the key."""
        if self.api_key is None:
            return
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(token.strip().encode(), self.api_key.encode()):
            return
        message = "send the API key as 'Authorization: Bearer KEY'"
        raise ApiError(401, "invalid_api_key", message, headers={"WWW-Authenticate": "Bearer"})

    async def check_rate(self, request: Request) -> None:
        """Raises ``ApiError`` 429 for a client that asks too often."""
        if self.rate is None:
            return
        retry_after_s = self.rate.ask(client_of(request))
        if retry_after_s > 0:
            raise ApiError(
                429,
                "rate_limit_exceeded",
                f"at most {self.rate.per_minute} requests a minute: try again in {retry_after_s:.0f} s",
                headers={"Retry-After": str(math.ceil(retry_after_s))},
            )


class RateLimit:
    """A bucket of tokens for each client, refilled steadily: up to a minute's requests at once, no more in the mean."""

    def __init__(self, per_minute: int, clock: Callable[[], float]) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, and when that was

    def ask(self, client: str) -> float:
        """Take a token. Returns 0, or the seconds until there is one."""
        now_s, per_s = self._clock(), self.per_minute / 60
        tokens, then_s = self._buckets.pop(client, (float(self.per_minute), now_s))
        tokens = min(float(self.per_minute), tokens + (now_s - then_s) * per_s)
        allowed = tokens >= 1
        self._buckets[client] = (tokens - allowed, now_s)
        if len(self._buckets) > MAX_REMEMBERED_CLIENTS:
            self._buckets.popitem(last=False)  # who has not asked for longest
        return 0.0 if allowed else (1 - tokens) / per_s


class BodyLimit:
    """ASGI middleware: a request whose body is too large is refused before it has been read to its end."""

    def __init__(self, app, max_bytes: int, max_upload_bytes: int | None = None) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.max_upload_bytes = max_bytes if max_upload_bytes is None else max_upload_bytes + FORM_BYTES

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        max_bytes = self.max_upload_bytes if scope["path"] == UPLOAD_PATH else self.max_bytes
        message = f"the request is too large: at most {max_bytes} bytes are taken"
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if int(length) > max_bytes:
            # The connection stays open, and the server drops what still comes: closed at once, it would be reset
            # before the client has read the answer.
            await error_response(413, "request_too_large", message)(scope, receive, send)
            return
        received = 0

        async def counted() -> dict:
            nonlocal received
            part = await receive()
            received += len(part.get("body", b""))
            if received > max_bytes:
                raise HTTPException(413, message)
            return part

        await self.app(scope, counted, send)
