"""The routes of the review page that change the model: retrain, compare, switch, roll back."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field

from leanet.ops.stats import clopper_pearson
from leanet.serve.entries import MAX_WORD
from leanet.serve.errors import RefusedError, answers
from leanet.serve.jobs import Job
from leanet.serve.review_state import Review, review_of
from leanet.trained import CARD, read_card

MOST_CHANGED: Final = 60  # pictures of a comparison, both heat maps each
FIGURES: Final = {  # name: (title, what it is, whether more is better)
    "auroc": ("AUROC", "how well scores rank defects above good pictures", True),
    "escapes": ("Escapes", "defects that pass, at each model's own threshold", False),
    "overkill": ("Overkill", "good pictures rejected, at each model's own threshold", False),
    "accuracy": ("Accuracy", "right classes", True),
}
COUNTED: Final = {"escapes": "num_anomalous", "overkill": "num_normal"}
Parts = Annotated[Review, Depends(review_of)]
Name = Annotated[str, Query(max_length=MAX_WORD)]

router = APIRouter()


class By(BaseModel):
    """Who does it."""

    who: str = Field(default="", max_length=MAX_WORD)


class Switch(By):
    """Which model is to answer."""

    name: str = Field(max_length=MAX_WORD)


@router.post("/review/retrain", responses=answers(401, 409))
def retrain(review: Parts, given: By) -> dict[str, Any]:
    """Train anew with the labels as they stand; the live model goes on answering."""
    services = review.services
    try:
        return job_of(services.retraining.start(given.who or services.settings.who))
    except ValueError as error:
        raise RefusedError(409, str(error)) from error


@router.get("/review/retrain", responses=answers(401))
def job(review: Parts) -> dict[str, Any]:
    """The training that runs, or the last one."""
    return job_of(review.services.retraining.status())


@router.post("/review/retrain/cancel", responses=answers(401, 409))
def cancel(review: Parts) -> dict[str, Any]:
    """End the training that runs; labels stay."""
    try:
        return job_of(review.services.retraining.cancel())
    except ValueError as error:
        raise RefusedError(409, str(error)) from error


@router.get("/review/models", responses=answers(401))
def models(review: Parts) -> dict[str, Any]:
    """All models, which one answers, and who changed that."""
    services, versions = review.services, review.services.versions
    return {
        "live": versions.live(),
        "back": versions.before(),
        "models": [_model(review, name) for name in versions.names()],
        "history": [change._asdict() for change in versions.history()],
        "job": job_of(services.retraining.status()),
        "new_labels": review.new_labels()._asdict(),
    }


@router.get("/review/compare", responses=answers(401, 409))
def compare(review: Parts, old: Name, new: Name) -> dict[str, Any]:
    """Two models on the same pictures, none judged by a model that has learned from it."""
    try:
        found = review.services.retraining.comparison(old, new)
    except ValueError as error:
        raise RefusedError(409, str(error)) from error
    for name in (old, new):
        review.learned.of(review.services.versions.run_of(name))  # their pictures can be shown then
    return {
        **{name: found[name] for name in ("old", "new", "num_normal", "num_anomalous", "right")},
        "has_map": review.model.card.get("map_top") is not None,
        "figures": [_figure(name, found) for name in FIGURES if found["figures"].get(name)],
        "origins": found["origins"],
        "remarks": found["remarks"],
        "num_changed": len(found["changed"]),
        "changed": [_changed(one) for one in found["changed"][:MOST_CHANGED]],
    }


@router.post("/review/switch", responses=answers(401, 404, 409))
def switch(review: Parts, given: Switch) -> dict[str, Any]:
    """Let another model answer."""
    services = review.services
    review.go_live(lambda: services.versions.switch(given.name, given.who or services.settings.who))
    return {"live": services.versions.live()}


@router.post("/review/roll_back", responses=answers(401, 409))
def roll_back(review: Parts, given: By) -> dict[str, Any]:
    """Let the model answer that did before."""
    services = review.services
    review.go_live(lambda: services.versions.roll_back(given.who or services.settings.who))
    return {"live": services.versions.live()}


def job_of(job: Job) -> dict[str, Any]:
    """A job as the page reads it."""
    return job._asdict()


def _model(review: Review, name: str) -> dict[str, Any]:
    run = review.services.versions.run_of(name)
    card = read_card(run)
    return {
        "name": name,
        "num_normal": card.get("num_normal"),
        "num_anomalous": card.get("num_anomalous"),
        "finished": (run / CARD).stat().st_mtime,
    }


def _figure(name: str, found: dict[str, Any]) -> dict[str, Any]:
    title, about, more_is_better = FIGURES[name]
    figure = found["figures"][name]
    change = figure["difference"]
    total = found[COUNTED[name]] if name in COUNTED else None
    return {
        "title": title,
        "about": about,
        "old": _value(figure["old"], total),
        "new": _value(figure["new"], total),
        "change": {key: figure[key] for key in ("difference", "low", "high", "clear")},
        "better": None if change == 0 else (change > 0) == more_is_better,
    }


def _value(value: float, total: int | None) -> dict[str, Any]:
    """A figure; a share of `total` pictures with its exact 95 % interval."""
    if not total:
        return {"value": value}
    count = round(value * total)
    low, high = clopper_pearson(count, total)
    return {"value": value, "count": count, "of": total, "low": low, "high": high}


def _changed(one: dict[str, Any]) -> dict[str, Any]:
    """A picture whose verdict changes; its path is named by its last part alone."""
    path = str(one["path"]).replace("\\", "/")
    return {**{k: v for k, v in one.items() if k != "path"}, "name": path.rpartition("/")[2]}
