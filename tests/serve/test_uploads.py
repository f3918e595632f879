from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import Request
from starlette.testclient import TestClient

from leanet.serve import uploads
from leanet.serve.errors import RefusedError
from leanet.serve.settings import Settings
from leanet.serve.uploads import one_upload, shown_name

Serve = Callable[..., TestClient]
Png = Callable[..., bytes]


@pytest.mark.parametrize("kind", ["", "text/plain", "application/json", "multipart/mixed; a=b"])
def test_another_kind_of_body_is_refused_with_what_to_send(client: TestClient, kind: str) -> None:
    for path in ("/predict", "/predict/batch"):
        answer = client.post(path, content=b"x", headers={"Content-Type": kind})
        assert (answer.status_code, answer.json()["error"]) == (415, "unsupported_type")
        assert "multipart/form-data" in answer.json()["detail"]


def test_a_form_without_the_file_is_invalid(client: TestClient, png: Png) -> None:
    for files in ({"other": ("a.png", png())}, {"file": (None, "text")}):
        answer = client.post("/predict", files=files)
        assert (answer.status_code, answer.json()["error"]) == (422, "invalid")
    assert client.post("/predict/batch", files={"x": ("a.png", png())}).status_code == 422
    assert client.post("/predict/batch", files={"files": (None, "text")}).status_code == 422


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary=b"])
def test_a_form_that_is_none_is_refused(client: TestClient, kind: str) -> None:
    answer = client.post("/predict", content=b"no form", headers={"Content-Type": kind})
    assert answer.status_code in (400, 422)


def test_two_files_where_one_is_asked_for_are_refused(client: TestClient, png: Png) -> None:
    files = [("file", ("a.png", png())), ("file", ("b.png", png()))]
    assert client.post("/predict", files=files).status_code == 400


def test_more_files_than_allowed_are_refused(serve: Serve, png: Png) -> None:
    files = [("files", (f"{k}.png", png())) for k in range(3)]
    assert serve(max_files=2).post("/predict/batch", files=files).status_code == 400


def test_more_bytes_of_all_files_than_allowed_are_refused(serve: Serve, png: Png) -> None:
    files = [("files", (f"{k}.png", b"x" * 800)) for k in range(3)]
    answer = serve(max_batch_bytes=2000).post("/predict/batch", files=files)
    assert (answer.status_code, answer.json()["error"]) == (413, "too_large")


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\temp\\a.png", "a.png"),
        ("a\x00\x1b\u202eb.png", "ab.png"),
        ("/", ""),
        (None, ""),
        ("x" * 999 + ".png", "x" * 196 + ".png"),
    ],
)
def test_a_name_is_shown_without_folders_and_signs_that_do_not_print(
    given: str | None, name: str
) -> None:
    assert shown_name(given) == name


def test_a_body_that_does_not_come_in_time_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "BODY_SECONDS", 0.01)

    async def never() -> Any:
        await asyncio.sleep(60)

    scope = {"type": "http", "method": "POST", "headers": [(b"content-type", b"image/png")]}
    settings = Settings(run=Path("run"), state=Path("state"))
    with pytest.raises(RefusedError) as caught:
        asyncio.run(one_upload(Request(scope, never), settings))
    assert caught.value.status_code == 408
