"""Whatever goes wrong, as an error object of OpenAI's: ``{"error": {"message", "type", "param", "code"}}``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from indextts.errors import (
    AudioError,
    Cancelled,
    ConfigError,
    EmotionError,
    IndexTTSError,
    InferenceTimeout,
    QueueFull,
    ServiceClosed,
    TextError,
    VoiceError,
    VoiceExists,
    VoiceNotFound,
)

# The first class that an error belongs to says its status and code.
KINDS: tuple[tuple[type[IndexTTSError], int, str], ...] = (
    (QueueFull, 429, "queue_full"),
    (ServiceClosed, 503, "shutting_down"),
    (InferenceTimeout, 504, "inference_timeout"),
    (Cancelled, 499, "cancelled"),
    (VoiceNotFound, 404, "voice_not_found"),
    (VoiceExists, 409, "voice_exists"),
    (VoiceError, 400, "invalid_voice"),
    (AudioError, 400, "invalid_audio"),
    (TextError, 400, "invalid_text"),
    (EmotionError, 400, "invalid_emotion"),
    (ConfigError, 400, "invalid_value"),
    (IndexTTSError, 500, "synthesis_failed"),
)
HTTP_CODES = {400: "invalid_body", 404: "not_found", 405: "method_not_allowed", 413: "request_too_large"}
TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """A refusal by the interface itself."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.headers = headers


def error_response(
    status: int, code: str, message: str, param: str | None = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """The answer that tells of an error."""
    kind = TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return JSONResponse({"error": {"message": message, "type": kind, "param": param, "code": code}}, status, headers)


def answer(error: Exception) -> JSONResponse:
    """The answer to any error. Of bugs the client is told only that; the server's log has the rest."""
    if isinstance(error, ApiError):
        return error_response(error.status, error.code, str(error), error.param, error.headers)
    for kind, status, code in KINDS:
        if isinstance(error, kind):
            headers = {"Retry-After": str(math.ceil(error.retry_after_s))} if isinstance(error, QueueFull) else None
            return error_response(status, code, str(error), headers=headers)
    return error_response(500, "internal_error", f"something went wrong inside the server ({type(error).__name__})")


def add_handlers(app: FastAPI) -> None:
    """Let ``app`` answer all errors in this form."""

    async def handle(request: Request, error: Exception) -> JSONResponse:
        return answer(error)

    async def handle_invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        param, message = first_problem(error)
        return error_response(400, "invalid_value", message, param)

    async def handle_http(request: Request, error: Exception) -> JSONResponse:
        status = getattr(error, "status_code", 500)
        return error_response(status, HTTP_CODES[status], str(getattr(error, "detail", error)))

    for kind in (ApiError, IndexTTSError, Exception):
        app.add_exception_handler(kind, handle)
    app.add_exception_handler(RequestValidationError, handle_invalid)
    for status in HTTP_CODES:
        app.add_exception_handler(status, handle_http)


def first_problem(error: RequestValidationError) -> tuple[str, str]:
    """The parameter that is wrong, and what is wrong with it."""
    problem: Mapping[str, Any] = error.errors()[0]
    # Parts in angle brackets say which kind of value was taken for meant (see Voice in speech.py).
    param = ".".join(str(part) for part in problem["loc"][1:] if not str(part).startswith("<"))
    if problem["type"] == "extra_forbidden":
        return param, f"there is no parameter {param!r}"
    if problem["type"] == "json_invalid":
        return param, f"the request is not valid JSON: {problem['ctx']['error']}"
    return param, f"{param or 'the request'}: {problem['msg']}"
