from __future__ import annotations

from collections.abc import Callable

from starlette.testclient import TestClient

from leanet.serve.limits import COOKIE

Serve = Callable[..., TestClient]
TOKEN = "a token of more than sixteen"


def test_the_cookie_stands_for_the_token_and_scripts_cannot_read_it(serve: Serve) -> None:
    client = serve(token=TOKEN)
    answer = client.post("/login", json={"token": TOKEN})
    assert answer.status_code == 204
    said = answer.headers["Set-Cookie"].lower()
    assert "httponly" in said
    assert "samesite=strict" in said
    assert TOKEN not in said
    assert client.get("/metrics").status_code == 200


def test_a_wrong_token_gets_no_cookie(serve: Serve) -> None:
    answer = serve(token=TOKEN).post("/login", json={"token": "another"})
    assert (answer.status_code, answer.json()["error"]) == (401, "unauthorized")
    assert "Set-Cookie" not in answer.headers


def test_the_cookie_is_for_https_only_where_the_page_came_by_it(serve: Serve) -> None:
    client = serve(token=TOKEN)
    client.base_url = str(client.base_url).replace("http:", "https:")  # type: ignore[assignment]
    answer = client.post("/login", json={"token": TOKEN})
    assert "secure" in answer.headers["Set-Cookie"].lower()


def test_logging_out_ends_it(serve: Serve) -> None:
    client = serve(token=TOKEN)
    client.post("/login", json={"token": TOKEN})
    assert client.post("/logout").status_code == 204
    assert COOKIE not in client.cookies
    assert client.get("/metrics").status_code == 401


def test_a_server_without_a_token_needs_no_login(client: TestClient) -> None:
    answer = client.post("/login", json={"token": "whatever"})
    assert answer.status_code == 204
    assert "Set-Cookie" not in answer.headers


def test_a_body_that_is_no_login_is_invalid_and_not_echoed(serve: Serve) -> None:
    client = serve(token=TOKEN)
    for body in (b"", b"[]", b"{", b'{"token": 3}', b'{"token": "' + b"secret" * 200 + b'"}'):
        answer = client.post("/login", content=body)
        assert (answer.status_code, answer.json()["error"]) == (422, "invalid")
        assert "secret" not in answer.text
