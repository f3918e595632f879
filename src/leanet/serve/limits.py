"""Who may ask, and how much: the layer that every request passes before any route.

* Names: a page elsewhere can let its own host name point to 127.0.0.1 and so reach a local server
  through a visitor's browser (DNS rebinding). The Host header must therefore be a name that the
  server is known by. It is not checked where a token protects a server on all addresses and no
  names were given: such a page has neither the token nor the cookie.
* Origin: a browser says which page sent a request that changes something; it must be our own.
* Token: `Authorization: Bearer TOKEN`, or the cookie that POST /login gives a browser. The cookie
  holds a signed time of expiry, not the token.
* Bytes: counted while they come, whatever Content-Length says.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from leanet.serve.errors import RefusedError, error_response
from leanet.serve.settings import Settings, is_loopback

COOKIE: Final = "leanet_session"
SESSION_SECONDS: Final = 12 * 3600
OPEN_PATHS: Final = frozenset({"/", "/health", "/login", "/logout"})  # need no token
OPEN_FOLDER: Final = "/static/"  # the page's own script and style
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
SMALL_BODY: Final = 1_000_000  # bytes, of every route without pictures
FORM_BYTES: Final = 16_384  # what a form may add to its files
MAX_HEADER_BYTES: Final = 16_384
WILDCARDS: Final = frozenset({"0.0.0.0", "::", ""})
SECURITY_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'; "
        "base-uri 'none'; form-action 'self'; object-src 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Sessions:
    """Proofs, for a browser, that the token was given: made and checked with a key derived from
    the token, so that they outlive a restart and end when the token changes."""

    def __init__(self, token: str, now: Callable[[], float] = time.time) -> None:
        self._token = token.encode()
        self._key = hashlib.sha256(b"leanet session\0" + self._token).digest()
        self._now = now

    def is_token(self, given: str) -> bool:
        """Compared in constant time."""
        return hmac.compare_digest(_bytes(given), self._token)

    def new(self) -> str:
        """The value of a cookie that is good for `SESSION_SECONDS`."""
        claim = f"{int(self._now()) + SESSION_SECONDS}.{secrets.token_hex(8)}"
        return f"{claim}.{self._sign(claim)}"

    def is_session(self, given: str) -> bool:
        """Whether `new` made this value, not too long ago."""
        claim, _, signature = given.rpartition(".")
        if not hmac.compare_digest(_bytes(signature), self._sign(claim).encode()):
            return False
        return int(claim.partition(".")[0]) > self._now()

    def _sign(self, claim: str) -> str:
        return hmac.new(self._key, _bytes(claim), hashlib.sha256).hexdigest()


class Guard:
    """Refuses what may not come in, counts the bytes of the rest, and puts the security headers on
    every answer."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings = app, settings
        self._names = allowed_names(settings)
        self._sessions = None if settings.token is None else Sessions(settings.token)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as the layers below do, or with an error."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 1008})
            return
        guarded = _with_headers(send)
        try:
            limit = self._check(scope)
        except RefusedError as refused:
            headers = dict(refused.headers or {})
            answer = error_response(refused.status_code, refused.detail, headers=headers)
            await answer(scope, receive, guarded)
            return
        await self._app(scope, _counted(receive, limit), guarded)

    def _check(self, scope: Scope) -> int:
        """The bytes that the body may have. Raises `RefusedError`."""
        headers, path = Headers(scope=scope), str(scope["path"])
        if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADER_BYTES:
            raise RefusedError(431, f"headers of more than {MAX_HEADER_BYTES} bytes")
        check_host(headers.get("host", ""), self._names)
        if scope["method"] not in SAFE_METHODS:
            check_origin(headers)
        if path not in OPEN_PATHS and not path.startswith(OPEN_FOLDER):
            self._check_token(headers)
        limit = body_limit(path, self._settings)
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()):
            raise RefusedError(400, "Content-Length is no number")
        if len(length) > 18 or int(length) > limit:
            raise too_large(limit)
        return limit

    def _check_token(self, headers: Headers) -> None:
        if self._sessions is None:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._sessions.is_token(given.strip()):
            return
        cookie = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
        if cookie and self._sessions.is_session(cookie):
            return
        raise RefusedError(
            401,
            "this server needs its token: send `Authorization: Bearer TOKEN`",
            headers={"WWW-Authenticate": "Bearer"},
        )


def allowed_names(settings: Settings) -> frozenset[str] | None:
    """The host names by which the server is known; None for any."""
    given = {name.lower().strip("[]") for name in settings.hosts}
    if settings.host in WILDCARDS and not given:
        return None
    own = set() if settings.host in WILDCARDS else {settings.host.lower()}
    return frozenset({"localhost", "127.0.0.1", "::1"} | own | given)


def check_host(host: str, names: frozenset[str] | None) -> None:
    """Refuse a Host header that is none of the names, whatever its port."""
    if names is None:
        return
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        name = ""
    if name not in names and not (is_loopback(name) and "localhost" in names):
        raise RefusedError(421, "this server is not known by that name; see --hosts")


def check_origin(headers: Headers) -> None:
    """Refuse what a page of another origin sends; programs send no Origin."""
    origin = headers.get("origin")
    foreign = origin is not None and origin.partition("://")[2] != headers.get("host", "")
    if foreign or headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        raise RefusedError(403, "a page of another origin may not do this")


def body_limit(path: str, settings: Settings) -> int:
    """Bytes that the body of a request to this path may have."""
    if path in ("/predict", "/review/upload"):
        return settings.max_bytes + FORM_BYTES
    if path == "/predict/batch":
        return settings.max_batch_bytes
    return SMALL_BODY


def too_large(limit: int) -> RefusedError:
    """The refusal of a body, or of a file."""
    return RefusedError(413, f"more than the {limit:,} bytes that are allowed")


def _counted(receive: Receive, limit: int) -> Receive:
    total = 0

    async def counted() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > limit:
            raise too_large(limit)
        return message

    return counted


def _with_headers(send: Send) -> Send:
    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return guarded


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
