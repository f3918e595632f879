from __future__ import annotations

import pytest
from fastapi import FastAPI, Request
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.testclient import TestClient

from leanet.serve.batching import QueueFullError, StoppingError
from leanet.serve.errors import RefusedError, add_errors, answers


class Given(BaseModel):
    number: int


@pytest.fixture
def client() -> TestClient:
    app = FastAPI()
    add_errors(app)
    raised = {
        "full": QueueFullError(),
        "stopping": StoppingError(),
        "refused": RefusedError(409, "twice", word="again", headers={"X-A": "b"}),
        "plain": HTTPException(404, "gone"),
        "unforeseen": RuntimeError("/secret/path"),
    }

    @app.get("/{name}")
    async def one(name: str, request: Request) -> None:
        raise raised[name]

    @app.post("/")
    async def two(given: Given) -> None:
        return

    return TestClient(app, raise_server_exceptions=False)


@pytest.mark.parametrize(
    ("name", "status", "word", "detail"),
    [
        ("full", 429, "queue_full", "all places are taken; come again"),
        ("stopping", 503, "stopping", "the server is about to end"),
        ("refused", 409, "again", "twice"),
        ("plain", 404, "not_found", "gone"),
        ("unforeseen", 500, "internal", "something went wrong; the server's log says what"),
    ],
)
def test_every_error_has_the_same_shape(
    client: TestClient, name: str, status: int, word: str, detail: str
) -> None:
    answer = client.get(f"/{name}")
    assert answer.status_code == status
    assert answer.json() == {"error": word, "detail": detail}


def test_headers_of_an_error_arrive(client: TestClient) -> None:
    assert client.get("/refused").headers["X-A"] == "b"
    assert client.get("/full").headers["Retry-After"] == "1"


def test_an_invalid_value_is_named_but_not_repeated(client: TestClient) -> None:
    answer = client.post("/", json={"number": "secret"})
    assert (answer.status_code, answer.json()["error"]) == (422, "invalid")
    assert answer.json()["detail"].startswith("body.number: ")
    assert "secret" not in answer.text


def test_a_missing_route_and_method_are_told_in_the_same_shape(client: TestClient) -> None:
    assert set(client.get("/a/b").json()) == {"error", "detail"}
    assert client.delete("/x").json()["error"] == "method_not_allowed"


def test_a_description_names_the_errors_of_a_route() -> None:
    assert [one["description"] for one in answers(400, 429).values()] == [
        "bad_request",
        "queue_full",
    ]
