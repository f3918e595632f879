from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from leanet.serve.live import Judgement, Live, Model
from leanet.serve.metrics import SCORE_STEPS, Metrics, score_edges

MakeModel = Callable[..., Model]
Serve = Callable[..., TestClient]


def values(text: str, name: str) -> dict[tuple[str, ...], float]:
    """The samples of one name by the values of their labels."""
    families = text_string_to_metric_families(text)
    samples = [one for family in families for one in family.samples if one.name == name]
    return {tuple(one.labels.values()): one.value for one in samples}


def judgement(score: float | None, **changes: Any) -> Judgement:
    verdict = None if score is None else "anomalous" if score >= 0.5 else "normal"
    given = Judgement("original", score, verdict, False, None, {}, "", None)  # type: ignore[arg-type]
    return given._replace(**changes)


def test_requests_are_counted_by_route_and_status(serve: Serve) -> None:
    client = serve()
    client.get("/health"), client.get("/health"), client.get("/no/such/page/1")
    client.post("/predict", content=b"", headers={"Content-Type": "image/png"})
    counted = values(client.get("/metrics").text, "leanet_requests_total")
    assert counted == {
        ("GET", "/health", "200"): 2,
        ("any", "other", "404"): 1,
        ("POST", "/predict", "400"): 1,
    }


def test_strange_paths_and_methods_make_no_series_of_their_own(serve: Serve) -> None:
    client = serve()
    for k in range(20):
        client.get(f"/a{k}")
        client.request(f"METHOD{k}", "/health")
    text = client.get("/metrics").text
    assert len(values(text, "leanet_requests_total")) <= 3
    assert len(values(text, "leanet_request_seconds_count")) <= 2


def test_refusals_are_counted_by_reason(serve: Serve) -> None:
    client = serve()
    client.post("/predict", content=b"x", headers={"Content-Type": "text/plain"})
    client.get("/health", headers={"Host": "evil.example"})
    counted = values(client.get("/metrics").text, "leanet_rejected_total")
    assert counted == {("type",): 1, ("host",): 1}


def test_verdicts_reviews_and_batches_are_counted(make_model: MakeModel) -> None:
    metrics = Metrics(Live(make_model()), "1.2")
    metrics.batch(3)
    for score in (0.1, 0.5, 0.9):
        metrics.judged(judgement(score), 0.5)
    metrics.judged(judgement(0.45, review=True), 0.5)
    metrics.judged(judgement(None, predicted="rust"), None)
    text = metrics.text().decode()
    assert values(text, "leanet_verdicts_total") == {
        ("original", "normal"): 2,
        ("original", "anomalous"): 2,
        ("original", "rust"): 1,
    }
    assert values(text, "leanet_review_total") == {("original",): 1}
    assert values(text, "leanet_batch_images_sum") == {(): 3}
    assert values(text, "leanet_score_count") == {("original",): 4}
    assert values(text, "leanet_score_sum")[("original",)] == pytest.approx(1.95)


def test_the_score_histogram_counts_as_numpy_does(make_model: MakeModel) -> None:
    metrics = Metrics(Live(make_model()), "1.2")
    scores = np.random.default_rng(0).uniform(-0.2, 1.3, 500)
    for score in [*scores, 0.5, 1.0]:
        metrics.judged(judgement(float(score)), 0.5)
    buckets = values(metrics.text().decode(), "leanet_score_bucket")
    assert len(buckets) == SCORE_STEPS + 2
    for labels, count in buckets.items():
        (edge,) = set(labels) - {"original"}
        assert count == np.sum(np.append(scores, [0.5, 1.0]) <= float(edge))


@pytest.mark.parametrize("threshold", [0.5, 30.0, 0.0, -0.9, -40.0])
def test_the_threshold_lies_in_the_middle_of_the_score_histogram(threshold: float) -> None:
    edges = score_edges(threshold)
    assert edges[SCORE_STEPS // 2] == pytest.approx(threshold)
    assert (np.diff(edges) > 0).all()
    assert edges[-1] > 0


def test_only_the_model_that_answers_is_named(make_model: MakeModel) -> None:
    live = Live(make_model(name="original"))
    metrics = Metrics(live, "1.2")
    metrics.text()
    live.switch(make_model(name="001"))
    info = values(metrics.text().decode(), "leanet_model_info")
    assert info == {("fake", "001", "1.2"): 1}


def test_two_servers_count_apart(make_model: MakeModel) -> None:
    one, other = (Metrics(Live(make_model()), "1") for _ in range(2))
    one.rejected("type")
    assert values(other.text().decode(), "leanet_rejected_total") == {}
