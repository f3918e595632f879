from __future__ import annotations

import base64
import io
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

from leanet.inference.heatmap import overlay
from leanet.records import Prediction
from leanet.serve.drift_service import Drift
from leanet.serve.live import Live, Model
from leanet.serve.store import Store

Png = Callable[..., bytes]
Serve = Callable[..., TestClient]
IMAGE = {"Content-Type": "image/png"}


def as_form(data: bytes, name: str = "part.png") -> dict[str, tuple[str, bytes]]:
    return {"file": (name, data)}


def test_a_picture_in_a_form_and_as_the_body_gets_the_same_answer(
    client: TestClient, png: Png
) -> None:
    form = client.post("/predict", files=as_form(png(200))).json()
    body = client.post("/predict", content=png(200), headers=IMAGE).json()
    assert form["score"] == pytest.approx(200 / 255)
    assert (form["verdict"], form["review"], form["threshold"]) == ("anomalous", False, 0.5)
    assert form["parts"] == {"red": pytest.approx(200 / 255)}
    assert (form["width"], form["height"], form["file"], body["file"]) == (24, 20, "part.png", "")
    assert form["map"] is form["image"] is form["probability"] is form["predicted"] is None
    for one in (form, body):
        one.pop("milliseconds"), one.pop("file")
    assert form == body


def test_a_score_in_the_review_zone_asks_for_a_person(client: TestClient, png: Png) -> None:
    answer = client.post("/predict", content=png(115), headers=IMAGE).json()
    assert (answer["verdict"], answer["review"]) == ("normal", True)


def test_the_raw_map_comes_back_bit_by_bit(client: TestClient, png: Png) -> None:
    answer = client.post("/predict?map=raw", content=png(51), headers=IMAGE).json()["map"]
    values = np.frombuffer(base64.b64decode(answer["data"]), "<f4")
    assert (answer["width"], answer["height"], answer["top"]) == (16, 16, 1.0)
    np.testing.assert_array_equal(values, np.full(256, np.float32(0.2)))


def test_the_drawn_map_is_the_heat_map_at_the_pictures_own_resolution(
    client: TestClient, png: Png
) -> None:
    answer = client.post("/predict?map=png", content=png(255), headers=IMAGE).json()["map"]
    drawn = np.array(Image.open(io.BytesIO(base64.b64decode(answer["data"]))))
    rgb = np.array(Image.open(io.BytesIO(png(255))))
    np.testing.assert_array_equal(drawn, overlay(rgb, np.ones((16, 16), np.float32), top=1.0))


def test_several_classes_without_a_normal_one_are_answered_without_a_score(
    serve: Serve, make_model: Callable[..., Any], png: Png
) -> None:
    class Kinds:
        img_size, classes = 16, ("rust", "spot")

        def __call__(self, image: torch.Tensor) -> Prediction:
            p = image[:, 0].mean(dim=(1, 2))
            return Prediction(torch.zeros(len(image)), probs=torch.stack([p, 1 - p], dim=1))

    model = make_model(Kinds(), classes=["rust", "spot"])
    model = model._replace(point=model.point._replace(threshold=None))
    client = serve(model)
    answer = client.post("/predict?map=png", content=png(255), headers=IMAGE).json()
    assert answer["score"] is answer["verdict"] is answer["threshold"] is answer["map"] is None
    assert (answer["predicted"], answer["parts"]) == ("rust", {})
    assert answer["probabilities"] == {"rust": 1.0, "spot": 0.0}
    assert 'verdict="rust"' in client.get("/metrics").text


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"no picture at all"])
def test_what_is_no_picture_is_refused(client: TestClient, data: bytes) -> None:
    answer = client.post("/predict", content=data, headers=IMAGE)
    assert (answer.status_code, answer.json()["error"]) == (400, "unreadable")
    assert answer.json()["detail"]


def test_a_truncated_picture_is_refused(client: TestClient, png: Png) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, format="PNG")
    answer = client.post("/predict", content=buffer.getvalue()[:-900], headers=IMAGE)
    assert answer.status_code == 400


def test_too_many_pixels_are_refused_by_the_header(serve: Serve, png: Png) -> None:
    client = serve(max_pixels=100)
    answer = client.post("/predict", content=png(0, (11, 10)), headers=IMAGE)
    assert answer.status_code == 400
    assert answer.json()["detail"] == "11x10 pixels are more than the limit 100"


def test_a_bad_file_of_a_batch_does_not_spoil_the_others(serve: Serve, png: Png) -> None:
    client = serve()
    files = [("files", ("a.png", png(255))), ("files", ("../x/b.png", b"no picture"))]
    answer = client.post("/predict/batch", files=[*files, ("files", ("c.png", png(0)))])
    good, bad, last = answer.json()["results"]
    assert (good["file"], good["verdict"], last["verdict"]) == ("a.png", "anomalous", "normal")
    assert (bad["file"], bad["error"], answer.json()["failed"]) == ("b.png", "unreadable", 1)
    assert 'reason="file"} 1.0' in client.get("/metrics").text


def test_a_batch_keeps_the_order_and_shares_passes(
    serve: Serve, make_model: Callable[..., Any], png: Png
) -> None:
    model = make_model()
    client = serve(model, max_batch=4)
    files = [("files", (f"{k}.png", png(10 * k))) for k in range(12)]
    results = client.post("/predict/batch", files=files).json()["results"]
    assert [one["file"] for one in results] == [f"{k}.png" for k in range(12)]
    assert [one["score"] for one in results] == pytest.approx([10 * k / 255 for k in range(12)])
    assert max(model.detector.sizes) <= 4
    assert sum(model.detector.sizes) == 12


def test_a_file_of_a_batch_that_is_too_large_is_an_error_of_its_own(serve: Serve, png: Png) -> None:
    client = serve(max_bytes=200)
    files = [("files", ("a.png", png())), ("files", ("b.png", b"x" * 201))]
    results = client.post("/predict/batch", files=files).json()["results"]
    assert [one.get("error") for one in results] == [None, "too_large"]


class Slow:
    """Waits for a sign before it answers."""

    img_size = 16

    def __init__(self) -> None:
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self, image: torch.Tensor) -> Prediction:
        self.begun.set()
        assert self.go.wait(10)
        return Prediction(image.mean(dim=(1, 2, 3)))


def test_a_full_house_refuses_with_429_and_answers_those_inside(
    serve: Serve, make_model: Callable[..., Any], png: Png
) -> None:
    slow = Slow()
    client = serve(make_model(slow), queue=2)
    with ThreadPoolExecutor(2) as pool:
        inside = [pool.submit(client.post, "/predict", files=as_form(png())) for _ in range(2)]
        assert slow.begun.wait(10)
        wait_until(lambda: "leanet_queue_images 2.0" in client.get("/metrics").text)
        refused = client.post("/predict", files=as_form(png()))
        slow.go.set()
        assert [one.result().status_code for one in inside] == [200, 200]
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
    assert refused.json()["error"] == "queue_full"
    assert client.post("/predict", files=as_form(png())).status_code == 200


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_health_tells_what_answers_and_says_when_the_server_ends(serve: Serve) -> None:
    client = serve()
    answer = client.get("/health")
    assert answer.status_code == 200
    assert answer.json() | {"uptime_seconds": 0, "version": ""} == {
        "ready": True,
        "model": "original",
        "method": "fake",
        "img_size": 16,
        "engine": "torch",
        "threshold": 0.5,
        "classes": [],
        "uptime_seconds": 0,
        "version": "",
        "login": False,
    }
    app: Any = client.app
    app.state.services.batcher.close()
    assert client.get("/health").status_code == 503
    assert client.get("/health").json()["ready"] is False
    refused = client.post("/predict", content=b"", headers=IMAGE)
    assert (refused.status_code, refused.json()["error"]) == (503, "stopping")


def test_a_detector_that_fails_is_an_internal_error_that_tells_nothing(
    services_over: Callable[..., Any], make_model: Callable[..., Any], png: Png
) -> None:
    from leanet.serve.app import make_app

    class Broken:
        img_size = 16

        def __call__(self, image: torch.Tensor) -> Prediction:
            return Prediction(image.mean(dim=(1, 2, 3)) * float("nan"))

    app = make_app(services_over(make_model(Broken())))
    with TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False) as client:
        answer = client.post("/predict", content=png(), headers=IMAGE)
    assert (answer.status_code, answer.json()["error"]) == (500, "internal")
    assert "detector" not in answer.text


def test_pictures_are_kept_for_review_where_that_is_asked_for(
    serve: Serve, png: Png, tmp_path: Path
) -> None:
    store = Store(tmp_path)
    client = serve(keep=True, store=store)
    image = client.post("/predict", files=as_form(png(200), "x.tiff")).json()["image"]
    assert store.get(image).path.read_bytes() == png(200)
    assert store.get(image).path.suffix == ".png"
    assert store.scores("original") == {image: pytest.approx(200 / 255)}
    store.close()


def test_a_verdict_is_given_also_when_the_picture_cannot_be_kept(
    serve: Serve, png: Png, tmp_path: Path
) -> None:
    class Full(Store):
        def add_bytes(self, data: bytes, suffix: str, source: str) -> str:
            raise OSError(28, "No space left on device")

    client = serve(keep=True, store=Full(tmp_path))
    answer = client.post("/predict", files=as_form(png(200)))
    assert (answer.json()["verdict"], answer.json()["image"]) == ("anomalous", None)
    assert 'reason="not_kept"} 1.0' in client.get("/metrics").text


def test_the_answer_names_in_what_the_picture_is_unlike_the_training_pictures(
    serve: Serve, make_model: Callable[..., Model], png: Png, tmp_path: Path
) -> None:
    seen: list[tuple[Any, ...]] = []

    class Unlike(Drift):
        def start(self) -> None:
            pass

        def observe(self, picture: Any, score: float | None) -> tuple[str, ...]:
            seen.append((picture.shape, score))
            return ("brightness",)

    model = make_model()
    client = serve(model, drift=Unlike(Live(model), tmp_path))
    answer = client.post("/predict", files=as_form(png(255))).json()
    assert answer["unusual"] == ["brightness"]
    assert seen == [((16, 16, 3), 1.0)]


def test_the_description_names_bodies_and_errors(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    predict = paths["/predict"]["post"]
    assert set(predict["requestBody"]["content"]) == {
        "multipart/form-data",
        "image/*",
        "application/octet-stream",
    }
    assert {"200", "400", "401", "413", "415", "422", "429", "503"} <= set(predict["responses"])
    assert {"/predict", "/predict/batch", "/health", "/metrics", "/login"} <= set(paths)


def test_the_description_names_the_token_where_there_is_one(
    serve: Serve, client: TestClient
) -> None:
    token = "a token of more than sixteen"
    given = {"Authorization": f"Bearer {token}"}
    described = serve(token=token).get("/openapi.json", headers=given).json()
    assert described["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    assert "securitySchemes" not in client.get("/openapi.json").json()["components"]
