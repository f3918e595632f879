from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient

from leanet.inference.baseline import baseline_of, measured
from leanet.serve.app import make_app
from leanet.serve.drift_service import Drift
from leanet.serve.live import Live
from leanet.serve.services import Services

BASE_URL = "http://127.0.0.1:8000"
STATIC = Path(__file__).parents[2] / "src/leanet/serve/static"


def images(num: int, level: float) -> torch.Tensor:
    draw = torch.Generator().manual_seed(num)
    lamp = 0.03 * torch.randn(num, 1, 1, 1, generator=draw)
    return (level + lamp + 0.1 * torch.rand(num, 3, 16, 16, generator=draw)).clamp(0, 1)


@pytest.fixture
def services(services_over: Callable[..., Services], tmp_path: Path) -> Services:
    plain = services_over()
    drift = Drift(Live(plain.live.model), tmp_path / "state", window=50)
    drift.start()
    drift.wait(10)
    drift.monitor.adopt(baseline_of(measured([images(60, 0.5)]), np.ones(60, bool), 16, None))
    return services_over(plain.live.model, drift=drift)


@pytest.fixture
def client(services: Services) -> TestClient:
    return TestClient(make_app(services), base_url=BASE_URL)


def feed(services: Services, num: int, level: float) -> None:
    assert services.drift is not None
    for one in (255 * images(num, level)).byte().permute(0, 2, 3, 1).numpy():
        services.drift.observe(one, 0.1)


def test_status_tells_the_alarms(client: TestClient, services: Services) -> None:
    assert client.get("/drift/status").json()["alarms"] == []
    feed(services, 40, 0.2)
    told = client.get("/drift/status").json()
    assert "brightness" in {one["name"] for one in told["alarms"]}
    assert told["pictures"] == 40


def test_reset_accept_and_back(client: TestClient, services: Services) -> None:
    feed(services, 20, 0.2)
    refused = client.post("/drift/accept", json={"who": "Mia"})
    assert refused.status_code == 409
    assert refused.json()["detail"].startswith("a new baseline needs the last 25 pictures")
    assert client.post("/drift/reset").json()["pictures"] == 0
    feed(services, 30, 0.2)
    accepted = client.post("/drift/accept", json={}).json()
    assert accepted["baseline"]["who"] == services.settings.who
    back = client.post("/drift/training", json={"who": "Mia"}).json()
    assert back["baseline"] is None  # this run has none of its own


@pytest.mark.parametrize("body", [{"who": "x" * 81}, {"who": 3}, []])
def test_a_strange_body_is_refused(client: TestClient, body: Any) -> None:
    assert client.post("/drift/accept", json=body).status_code == 422


def test_a_server_without_drift_says_so(services_over: Callable[..., Services]) -> None:
    plain = TestClient(make_app(services_over()), base_url=BASE_URL)
    assert plain.get("/drift/status").status_code == 404
    assert "leanet_drift" not in plain.get("/metrics").text


def test_prometheus_sees_distances_alarms_and_shares(
    client: TestClient, services: Services
) -> None:
    feed(services, 40, 0.2)
    lines = dict(
        line.rsplit(" ", 1)
        for line in client.get("/metrics").text.splitlines()
        if line.startswith("leanet_drift")
    )
    assert float(lines['leanet_drift_alarm{statistic="brightness"}']) == 1
    assert float(lines['leanet_drift_alarm{statistic="verdicts"}']) == 0
    assert float(lines['leanet_drift_distance{statistic="brightness"}']) > 0.9
    assert float(lines["leanet_drift_unusual_share"]) > 0.5
    assert float(lines["leanet_drift_anomalous_share"]) == 0
    assert float(lines["leanet_drift_baseline"]) == 1


def test_an_answer_names_what_is_unusual(client: TestClient, png: Callable[..., bytes]) -> None:
    with client:
        answer = client.post("/predict", files={"file": png(red=255)}).json()
    assert {"red", "white"} <= set(answer["unusual"])
    assert answer["verdict"] == "anomalous"  # by its score, not by its light


def test_the_page_loads_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/drift")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    for name in ("drift.html", "drift.css", "drift.js"):
        text = (STATIC / name).read_text()
        assert "http://" not in text.replace("http://www.w3.org", "")
        assert "https://" not in text
    assert "<style" not in page.text
    assert "style=" not in page.text
    assert page.text.count("<script") == page.text.count('src="/static/') == 1
    for used in ("drift.js", "drift.css", "page.js", "server.js"):
        assert client.get(f"/static/{used}").status_code == 200
