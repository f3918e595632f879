"""The routes and the page of drift."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends
from fastapi.responses import FileResponse
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from pydantic import BaseModel, Field

from leanet.serve.drift import VERDICTS
from leanet.serve.drift_service import Drift
from leanet.serve.errors import RefusedError, answers
from leanet.serve.services import Services, services_of

PAGE: Final = Path(__file__).with_name("static") / "drift.html"
Parts = Annotated[Services, Depends(services_of)]

router = APIRouter()


class Who(BaseModel):
    """Who asks for a change."""

    who: str = Field(default="", max_length=80)


@router.get("/drift", include_in_schema=False)
def page() -> FileResponse:
    """The page."""
    return FileResponse(PAGE, media_type="text/html")


@router.get("/drift/status", responses=answers(401))
def status(services: Parts) -> dict[str, Any]:
    """Statistics of the last pictures and their scores against the training baseline, and the
    alarms: none of them is a defect."""
    return _drift(services).status()


@router.post("/drift/reset", responses=answers(401))
def reset(services: Parts) -> dict[str, Any]:
    """Forget the last pictures and the alarms, after the cause was mended."""
    _drift(services).reset()
    return _drift(services).status()


@router.post("/drift/accept", responses=answers(401, 409, 422))
def accept(services: Parts, body: Who) -> dict[str, Any]:
    """Make the last pictures the baseline, after a change that was wanted."""
    try:
        _drift(services).accept(body.who or services.settings.who)
    except ValueError as error:
        raise RefusedError(409, str(error)) from error
    return _drift(services).status()


@router.post("/drift/training", responses=answers(401, 422))
def training(services: Parts, body: Who) -> dict[str, Any]:
    """Go back from an accepted baseline to that of the training."""
    _drift(services).give_up(body.who or services.settings.who)
    return _drift(services).status()


class DriftCollector(Collector):
    """Drift in the words of Prometheus: `leanet_drift_...`."""

    def __init__(self, drift: Drift) -> None:
        self._drift = drift

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The figures at the time of asking."""
        monitor = self._drift.monitor
        alarms, distances = dict(monitor.alarms), dict(monitor.distances)
        family = GaugeMetricFamily(
            "leanet_drift_distance",
            "Distance of the last images to the training images (Kolmogorov-Smirnov), 0 to 1.",
            labels=("statistic",),
        )
        for name, value in distances.items():
            family.add_metric((name,), value)
        yield family
        family = GaugeMetricFamily(
            "leanet_drift_alarm",
            "1 while the last images are unlike the training images; no defect.",
            labels=("statistic",),
        )
        for name in [*distances, VERDICTS]:
            family.add_metric((name,), float(name in alarms))
        yield family
        for name, text, (count, num) in (
            ("unusual", "unlike the training images", monitor.share_unusual()),
            ("anomalous", "judged anomalous", monitor.share_anomalous()),
        ):
            told = f"Share of the last images that were {text}."
            yield GaugeMetricFamily(f"leanet_drift_{name}_share", told, value=count / max(num, 1))
        ready = float(monitor.baseline is not None)
        yield GaugeMetricFamily("leanet_drift_baseline", "1 if there is a baseline.", value=ready)


def _drift(services: Services) -> Drift:
    if services.drift is None:
        raise RefusedError(404, "this server does not look at drift")
    return services.drift
