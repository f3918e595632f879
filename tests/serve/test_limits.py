from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.datastructures import Headers
from starlette.testclient import TestClient

from leanet.serve.errors import RefusedError
from leanet.serve.limits import (
    COOKIE,
    FORM_BYTES,
    SESSION_SECONDS,
    Sessions,
    allowed_names,
    body_limit,
    check_host,
    check_origin,
)
from leanet.serve.settings import Settings

Serve = Callable[..., TestClient]
TOKEN = "a token of more than sixteen"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
IMAGE = {"Content-Type": "image/png"}


def settings(**options: object) -> Settings:
    return Settings(run=Path("run"), state=Path("state"), **options)  # type: ignore[arg-type]


def test_without_the_token_only_health_and_the_login_answer(serve: Serve) -> None:
    client = serve(token=TOKEN)
    assert client.get("/health").status_code == 200
    for path in ("/metrics", "/openapi.json", "/no/such/page"):
        answer = client.get(path)
        assert (answer.status_code, answer.json()["error"]) == (401, "unauthorized")
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert client.post("/predict", content=b"x", headers=IMAGE).status_code == 401


def test_the_token_opens_every_route(serve: Serve, png: Callable[..., bytes]) -> None:
    client = serve(token=TOKEN)
    assert client.get("/metrics", headers=BEARER).status_code == 200
    answer = client.post("/predict", content=png(), headers={**IMAGE, **BEARER})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "given", ["", "Bearer", "Bearer ", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}"]
)
def test_another_token_does_not(serve: Serve, given: str) -> None:
    assert serve(token=TOKEN).get("/metrics", headers={"Authorization": given}).status_code == 401


def test_a_session_ends_with_its_time_with_another_token_and_with_a_changed_letter() -> None:
    clock = [1000.0]
    sessions = Sessions(TOKEN, lambda: clock[0])
    value = sessions.new()
    assert TOKEN not in value
    assert sessions.is_session(value)
    assert not Sessions(TOKEN + "x", lambda: clock[0]).is_session(value)
    later = str(int(value.partition(".")[0]) + 1) + value[value.index(".") :]
    assert not sessions.is_session(later)
    clock[0] += SESSION_SECONDS
    assert not sessions.is_session(value)


@pytest.mark.parametrize("value", ["", ".", "..", "a.b.c", "9" * 5000, "99999999999.ab.", "é.é.é"])
def test_what_is_no_session_is_none(serve: Serve, value: str) -> None:
    assert not Sessions(TOKEN).is_session(value)
    cookie = f"{COOKIE}={value}".encode()
    assert serve(token=TOKEN).get("/metrics", headers={"Cookie": cookie}).status_code == 401


@pytest.mark.parametrize("host", ["evil.example", "", "127.0.0.1.evil.example", "[::1", "@"])
def test_a_name_that_is_not_the_servers_is_refused(client: TestClient, host: str) -> None:
    answer = client.get("/health", headers={"Host": host})
    assert (answer.status_code, answer.json()["error"]) == (421, "unknown_host")


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:99", "[::1]:8000"])
def test_its_own_names_are_taken(client: TestClient, host: str) -> None:
    assert client.get("/health", headers={"Host": host}).status_code == 200


def test_further_names_are_given_and_a_token_on_all_addresses_takes_any() -> None:
    names = allowed_names(settings(hosts=("Inspect.Example",)))
    check_host("inspect.example:443", names)
    assert allowed_names(settings(host="0.0.0.0", token=TOKEN)) is None
    check_host("whatever", None)
    narrow = allowed_names(settings(host="0.0.0.0", token=TOKEN, hosts=("a",)))
    assert narrow == {"a", "localhost", "127.0.0.1", "::1"}


@pytest.mark.parametrize(
    "sent",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:8001"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_a_page_of_another_origin_may_not_post(client: TestClient, sent: dict[str, str]) -> None:
    answer = client.post("/predict", content=b"x", headers={**IMAGE, **sent})
    assert (answer.status_code, answer.json()["error"]) == (403, "forbidden")
    with pytest.raises(RefusedError):
        check_origin(Headers({"host": "127.0.0.1:8000", **sent}))


def test_the_own_page_and_programs_may() -> None:
    check_origin(Headers({"host": "localhost:8000"}))
    check_origin(
        Headers(
            {
                "host": "localhost:8000",
                "origin": "http://localhost:8000",
                "sec-fetch-site": "same-origin",
            }
        )
    )


def test_bytes_are_limited_by_what_is_announced(serve: Serve) -> None:
    client = serve(max_bytes=1000)
    answer = client.post("/predict", content=b"x" * (1001 + FORM_BYTES), headers=IMAGE)
    assert (answer.status_code, answer.json()["error"]) == (413, "too_large")
    assert client.post("/predict", content=b"x" * 1001, headers=IMAGE).status_code == 413
    assert client.post("/predict", content=b"x" * 1000, headers=IMAGE).status_code == 400


def test_bytes_are_limited_while_they_come(serve: Serve) -> None:
    """Without a Content-Length, in one body and in a form."""
    client, sent = serve(max_bytes=1000), 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(10_000):
            sent += 1000
            yield b"x" * 1000

    assert client.post("/predict", content=endless(), headers=IMAGE).status_code == 413
    form = {"Content-Type": "multipart/form-data; boundary=b"}
    assert client.post("/predict", content=endless(), headers=form).status_code in (400, 413)
    assert client.post("/login", content=endless()).status_code in (413, 422)


@pytest.mark.parametrize("length", ["-1", "x", "1e3", "9" * 400, "²"])
def test_a_length_that_is_none_is_refused(client: TestClient, length: str) -> None:
    headers = {**IMAGE, "Content-Length": length.encode("utf-8")}
    answer = client.request("POST", "/predict", content=b"x", headers=headers)  # type: ignore[arg-type]
    assert answer.status_code in (400, 413)


def test_headers_are_limited(client: TestClient) -> None:
    assert client.get("/health", headers={"X-Long": "x" * 20_000}).status_code == 431


def test_limits_follow_the_route() -> None:
    given = settings(max_bytes=5, max_batch_bytes=50)
    assert body_limit("/predict", given) == 5 + FORM_BYTES
    assert body_limit("/predict/batch", given) == 50
    assert body_limit("/review/label", given) == 1_000_000


@pytest.mark.parametrize("path", ["/health", "/no/such/page", "/metrics"])
def test_every_answer_has_the_security_headers(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
