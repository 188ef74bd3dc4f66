"""What the HTTP interface allows."""

from __future__ import annotations

import math
from dataclasses import dataclass

from indextts.errors import ConfigError


@dataclass(frozen=True)
class ApiSettings:
    """Limits of single requests, and who may ask.

    Attributes:
        api_key: What clients must send as bearer token; None: everybody may ask.
        max_body_bytes: Largest request, recordings included.
        max_upload_bytes: Largest upload on the page; None: as any request.
        max_text_characters: Longest text of a request.
        max_requests_per_minute: Of one client; None: as many as it likes.
    """

    api_key: str | None = None
    max_body_bytes: int = 20 * 2**20
    max_text_characters: int = 10_000
    max_requests_per_minute: int | None = None
    max_upload_bytes: int | None = None

    def __post_init__(self) -> None:
        for name in ("max_body_bytes", "max_text_characters", "max_requests_per_minute", "max_upload_bytes"):
            value = getattr(self, name)
            if (math.inf if value is None else value) < 1:
                raise ConfigError(f"{name} must be at least 1, not {value}")
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable() and self.api_key):
            raise ConfigError("the API key must be of printable ASCII characters")
