"""Errors of the server, all in one shape: {"error": a word, "detail": what to do}."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from leanet.serve.batching import QueueFullError, StoppingError
from leanet.serve.schemas import ErrorAnswer

RETRY_AFTER: Final = {"Retry-After": "1"}  # seconds
WORDS: Final = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "timeout",
    409: "conflict",
    413: "too_large",
    415: "unsupported_type",
    421: "unknown_host",
    422: "invalid",
    429: "queue_full",
    431: "headers_too_large",
    500: "internal",
    503: "stopping",
}


class RefusedError(HTTPException):
    """A request that is answered with a status, a word for programs and a sentence for people."""

    def __init__(
        self, status: int, detail: str, *, word: str = "", headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(status, detail, headers)
        self.word = word or WORDS.get(status, "error")


def error_response(
    status: int, detail: str, *, word: str = "", headers: dict[str, str] | None = None
) -> JSONResponse:
    """The one shape of an error."""
    body = {"error": word or WORDS.get(status, "error"), "detail": detail}
    return JSONResponse(body, status, headers)


def answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors of a route, for its OpenAPI description."""
    return {status: {"model": ErrorAnswer, "description": WORDS[status]} for status in statuses}


def add_errors(app: FastAPI) -> None:
    """Let an app answer every error in the one shape; what nobody foresaw says nothing of why."""

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        word = getattr(error, "word", "")
        headers = dict(error.headers) if error.headers else None
        return error_response(error.status_code, str(error.detail), word=word, headers=headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return error_response(422, "; ".join(_told(one) for one in error.errors()[:5]))

    @app.exception_handler(QueueFullError)
    async def full(request: Request, error: QueueFullError) -> JSONResponse:
        return error_response(429, "all places are taken; come again", headers=RETRY_AFTER)

    @app.exception_handler(StoppingError)
    async def stopping(request: Request, error: StoppingError) -> JSONResponse:
        return error_response(503, "the server is about to end", headers=RETRY_AFTER)

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> JSONResponse:
        return error_response(499, "the client has gone", word="gone")

    @app.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> JSONResponse:
        return error_response(500, "something went wrong; the server's log says what")


def _told(one: dict[str, Any]) -> str:
    """Where and why a value is wrong, without the value."""
    return f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}"
