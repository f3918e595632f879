"""What a server counts, in the words of Prometheus; every app has a registry of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from leanet.serve.live import Judgement, Live

SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BATCHES: Final = (1, 2, 4, 8, 16, 32, 64)
SCORE_STEPS: Final = 20  # of the score histogram
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
REASONS: Final = {  # of a refusal, by status
    400: "unusable",
    401: "token",
    403: "origin",
    408: "slow",
    413: "too_large",
    415: "type",
    421: "host",
    422: "invalid",
    429: "queue_full",
    503: "stopping",
}


class Metrics:
    """The counters of one server; `text` is what /metrics answers."""

    def __init__(self, live: Live, version: str) -> None:
        self.registry = CollectorRegistry()
        self._requests = self._counter("requests", "Requests.", "route", "method", "status")
        self._seconds = self._histogram("request_seconds", "Time to the answer.", SECONDS, "route")
        self._batches = self._histogram("batch_images", "Images in one pass.", BATCHES)
        self._verdicts = self._counter("verdicts", "Judged images.", "model", "verdict")
        self._review = self._counter("review", "Judged images that a person should see.", "model")
        self._rejected = self._counter("rejected", "Requests and files refused.", "reason")
        self._model = Gauge(
            "leanet_model_info",
            "The model that answers.",
            ("model", "method", "version"),
            registry=self.registry,
        )
        self._scores = _Scores()
        self._live, self._version, self._start = live, version, time.monotonic()
        self.registry.register(self._scores)

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Show what `read` gives at the time of asking, as leanet_NAME."""
        Gauge(f"leanet_{name}", text, registry=self.registry).set_function(read)

    def batch(self, size: int) -> None:
        """One pass of the model over so many images."""
        self._batches.observe(size)

    def judged(self, judgement: Judgement, threshold: float | None) -> None:
        """One image judged."""
        word = judgement.verdict or judgement.predicted or "none"
        self._verdicts.labels(judgement.model, word).inc()
        if judgement.review:
            self._review.labels(judgement.model).inc()
        if judgement.score is not None and threshold is not None:
            self._scores.observe(judgement.model, judgement.score, threshold)

    def rejected(self, reason: str) -> None:
        """A request, or a file of a batch, refused."""
        self._rejected.labels(reason).inc()

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """One request answered; `route` is the template, not the path."""
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)
        if status in REASONS:
            self.rejected(REASONS[status])

    def uptime(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    def text(self) -> bytes:
        """All figures in Prometheus' text format."""
        model = self._live.model
        self._model.clear()
        self._model.labels(model.name, str(model.card.get("method", "")), self._version).set(1)
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"leanet_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: Iterable[float], *labels: str) -> Histogram:
        edges = tuple(buckets)
        return Histogram(f"leanet_{name}", text, labels, buckets=edges, registry=self.registry)


class _Scores(Collector):
    """Scores per model: each has a scale of its own, so the edges follow from its threshold."""

    def __init__(self) -> None:
        self._edges: dict[str, np.ndarray[Any, Any]] = {}
        self._counts: dict[str, np.ndarray[Any, Any]] = {}
        self._sums: dict[str, float] = {}

    def observe(self, model: str, score: float, threshold: float) -> None:
        if model not in self._edges:
            self._edges[model] = score_edges(threshold)
            self._counts[model] = np.zeros(SCORE_STEPS + 2, dtype=np.int64)
            self._sums[model] = 0.0
        self._counts[model][np.searchsorted(self._edges[model], score)] += 1
        self._sums[model] += score

    def collect(self) -> Iterator[HistogramMetricFamily]:
        family = HistogramMetricFamily("leanet_score", "Scores of images.", labels=("model",))
        for model, edges in list(self._edges.items()):
            names = [f"{edge:.6g}" for edge in edges] + ["+Inf"]
            buckets = list(zip(names, np.cumsum(self._counts[model]).tolist(), strict=True))
            family.add_metric((model,), buckets, self._sums[model])
        yield family


def score_edges(threshold: float) -> np.ndarray[Any, Any]:
    """Upper edges [SCORE_STEPS + 1] around a threshold: from 0 to twice as much, or, where it is
    not positive, as those of scores of both signs are, at least 2 to each side."""
    reach = threshold if threshold > 0 else max(2.0, -2 * threshold)
    return np.linspace(threshold - reach, threshold + reach, SCORE_STEPS + 1)


class Measured:
    """The outermost layer of an app: counts and times every request."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as the layers below do."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, start = 499, time.perf_counter()  # 499: the client had gone before the answer

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            known = route != "other" and scope["method"] in METHODS
            method = scope["method"] if known else "any"
            self._metrics.answered(route, method, status, time.perf_counter() - start)
