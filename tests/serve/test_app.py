from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from leanet.api import predict
from leanet.data.scan import scan
from leanet.files import write_json
from leanet.methods.given_maps import GivenMaps
from leanet.serve import app
from leanet.serve.app import create_app
from leanet.serve.live import Model
from leanet.serve.settings import make_settings

BASE_URL = "http://127.0.0.1:8000"


def test_answers_are_those_of_predict_alone_and_in_a_batch(
    lea_run: Path, toy: Path, tmp_path: Path
) -> None:
    paths = [sample.path for sample in scan(toy).samples][::3]
    predict(lea_run, paths, tmp_path / "out", device="cpu", heatmaps=False, batch_size=1)
    with (tmp_path / "out" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    server = create_app(make_settings(lea_run, {"device": "cpu"}, state=tmp_path / "state"))
    with TestClient(server, base_url=BASE_URL) as client:
        files = [("files", (path.name, path.read_bytes())) for path in paths]
        batch = client.post("/predict/batch", files=files).json()["results"]
        alone = [client.post("/predict", files={"file": one[1]}).json() for one in files]
    for row, *both in zip(rows, batch, alone, strict=True):
        for answer in both:
            assert answer["score"] == pytest.approx(float(row["score"]), abs=1e-5)
            assert answer["verdict"] == row["verdict"]
            for part, value in answer["parts"].items():
                assert value == pytest.approx(float(row[part]), rel=1e-5, abs=1e-4)


def test_no_page_loads_anything_from_elsewhere(client: TestClient) -> None:
    assert client.get("/docs").status_code == 404
    assert client.get("/redoc").status_code == 404
    assert client.get("/openapi.json").json()["info"]["title"] == "leanet"


def test_a_folder_that_is_no_finished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no run folder"):
        create_app(make_settings(tmp_path, {"device": "cpu"}))


def test_a_run_that_needs_given_maps_is_refused_with_what_to_use_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_model: Callable[..., Model]
) -> None:
    model = make_model(GivenMaps(16, "dE00"))
    monkeypatch.setattr(app, "open_model", lambda *args, **options: model)
    write_json(tmp_path / "run" / "card.json", {})
    (tmp_path / "run" / "config.yaml").touch()
    with pytest.raises(ValueError, match=r"cannot be served: 1 image.*--maps_from"):
        create_app(make_settings(tmp_path / "run", {"device": "cpu"}))


def test_an_engine_without_an_export_is_refused(lea_run: Path, tmp_path: Path) -> None:
    options = {"device": "cpu", "engine": "onnx"}
    with pytest.raises(ValueError, match="leanet export"):
        create_app(make_settings(lea_run, options, state=tmp_path / "state"))
