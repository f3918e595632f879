"""The routes of the review page: gallery, pictures, labels, threshold, uploads.

Pictures are named by the sha256 of their bytes; no route takes a path.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from leanet.data.images import UnreadableImageError, decode_image, suffix_of
from leanet.inference.threshold import PointOptions, settle
from leanet.report.page import write_report
from leanet.serve import review_models, review_page
from leanet.serve.drawing import scale_of
from leanet.serve.entries import MAX_WORD, Event, Shown, UnknownImageError
from leanet.serve.errors import RefusedError, answers
from leanet.serve.review_pictures import File, shown_file
from leanet.serve.review_scores import intervals, scores_of
from leanet.serve.review_state import Review, review_of, reviewing
from leanet.serve.uploads import ONE_BODY, one_upload
from leanet.trained import read_card, update_card

MOST_ITEMS: Final = 200  # of the gallery in one answer
FOREVER: Final = {"Cache-Control": "private, max-age=86400, immutable"}  # named by their content
AN_HOUR: Final = {"Cache-Control": "private, max-age=3600"}  # a model may be trained anew
Parts = Annotated[Review, Depends(review_of)]
Image = Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="sha256 of the picture")]
Who = Annotated[str, Field(default="", max_length=MAX_WORD)]
Order = Literal["score", "threshold", "newest"]

router = APIRouter(lifespan=reviewing)
router.include_router(review_page.router)
router.include_router(review_models.router)


@dataclass
class Wanted:
    """Which pictures the gallery shows; null = all. `search` is part of a path."""

    verdict: Literal["normal", "anomalous", "review", "unjudged"] | None = None
    label: Literal["ok", "ng", "unsure", "none", "labeled"] | None = None
    kind: Annotated[str | None, Query(max_length=MAX_WORD)] = None
    source: Annotated[str | None, Query(max_length=MAX_WORD)] = None
    search: Annotated[str | None, Query(max_length=MAX_WORD)] = None


class LabelGiven(BaseModel):
    """A label of a person; `key` tells it from another one that is the same."""

    id: str = Field(pattern="^[0-9a-f]{64}$")
    label: Literal["ok", "ng", "unsure", "none"]
    kind: str = Field(default="", max_length=MAX_WORD)
    who: Who
    key: str = Field(default="", max_length=64)


class UndoGiven(BaseModel):
    """Whose last label is to be taken back."""

    who: Who
    key: str = Field(default="", max_length=64)


class PointGiven(BaseModel):
    """A working point; `review` None: no review zone."""

    value: float = Field(allow_inf_nan=False)
    review: tuple[float, float] | None = None
    who: Who


@router.get("/review/state", responses=answers(401))
def state(review: Parts) -> dict[str, Any]:
    """What the head of the page shows."""
    services, model = review.services, review.model
    low, top = scale_of(model)
    return {
        "run": services.versions.run.resolve().name,
        "model": {
            "name": model.name,
            "method": model.card.get("method"),
            "has_map": model.card.get("map_top") is not None,
            "low": low,
            "top": top,
            "unit": model.card.get("map_unit") or "",
        },
        "judging": review.judging.progress()._asdict(),
        "job": review_models.job_of(services.retraining.status()),
        **_counted(review),
    }


@router.get("/review/gallery", responses=answers(401, 422))
def gallery(
    review: Parts,
    wanted: Annotated[Wanted, Depends()],
    order: Order = "score",
    offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
    limit: Annotated[int, Query(ge=0, le=MOST_ITEMS)] = 60,
) -> dict[str, Any]:
    """Some pictures in an order, with what the live model says of them."""
    store, model = review.services.store, review.model
    filters = vars(wanted)
    near = model.point.threshold if order == "threshold" else None
    sorting = "score" if order == "threshold" else order
    rows = store.gallery(
        model.name, order=sorting, near=near, limit=limit, offset=offset, **filters
    )
    return {"total": store.count(model.name, **filters), "items": [_item(row) for row in rows]}


@router.get("/review/images/{image}", responses=answers(401, 404))
def details(review: Parts, image: Image) -> dict[str, Any]:
    """All that is known of a picture."""
    store, model = review.services.store, review.model
    picture = _found(lambda: store.get(image))
    return {
        "id": image,
        "model": model.name,
        "threshold": model.point.threshold,
        "history": [_event(event) for event in store.history(image)],
        "source": picture.source,
        "folder": "/".join(picture.path.parent.parts[-2:]),
        "added": picture.added,
        "learned": image in review.learned.of(model.run),
    }


@router.get("/review/images/{image}/thumb", responses=answers(401, 404))
def thumbnail(review: Parts, image: Image) -> Response:
    """A small picture."""
    return _file(_found(lambda: review.pictures.thumbnail(image)), FOREVER)


@router.get("/review/images/{image}/picture", responses=answers(401, 404))
def picture(review: Parts, image: Image) -> Response:
    """The picture at its own resolution."""
    return _file(_found(lambda: review.pictures.picture(image)), FOREVER)


@router.get("/review/images/{image}/overlay", responses=answers(401, 404, 429))
async def overlay(
    review: Parts, image: Image, model: Annotated[str, Query(max_length=MAX_WORD)]
) -> Response:
    """The heat map of a model over the picture, at the picture's resolution."""
    try:
        return _file(await review.pictures.overlay(image, model), AN_HOUR)
    except UnknownImageError as error:
        raise RefusedError(404, str(error)) from error


@router.get("/review/images/{image}/nearest", responses=answers(401, 404))
def nearest(review: Parts, image: Image) -> dict[str, Any]:
    """The normal training picture that it is most like; none as long as they are not described."""
    found = _found(lambda: review.neighbors(image))
    items = [{"name": path.name, "distance": float(distance)} for path, distance in found]
    return {"model": review.model.name, "items": items}


@router.get("/review/images/{image}/nearest/{number}", responses=answers(401, 404))
def nearest_picture(
    review: Parts, image: Image, number: Annotated[int, Path(ge=0, le=100)]
) -> Response:
    """Its file, number 0."""
    found = _found(lambda: review.neighbors(image))
    if number >= len(found):
        raise RefusedError(404, f"only {len(found)} neighbors are known")
    return _file(shown_file(found[number][0]), {})


@router.post("/review/labels", responses=answers(401, 404, 422))
def label(review: Parts, given: LabelGiven) -> dict[str, Any]:
    """Label a picture; it is on the disk when the answer comes."""
    store, who = review.services.store, given.who or review.services.settings.who

    def act() -> Event:
        event: Event = store.label(given.id, given.label, given.kind, who)
        return event

    return _told(review, _found(lambda: review.once(given.key, act) if given.key else act()))


@router.post("/review/undo", responses=answers(401, 422))
def undo(review: Parts, given: UndoGiven) -> dict[str, Any]:
    """Take back the last label of a person; `event` is null if there is none."""
    store, who = review.services.store, given.who or review.services.settings.who

    def act() -> Event | None:
        event: Event | None = store.undo(who)
        return event

    return _told(review, _found(lambda: review.once(given.key, act) if given.key else act()))


@router.get("/review/scores", responses=answers(401))
def scores(review: Parts) -> dict[str, Any]:
    """The scores that a threshold may be judged by, and the interval of every share of them."""
    store, model = review.services.store, review.model
    if model.point.threshold is None:
        return {"threshold": None}
    learned = review.learned.of(model.run)
    found = scores_of(model, store.scores(model.name), store.labels(), learned)
    return {
        "threshold": model.point.threshold,
        "review": model.point.review,
        "normal": found.normal,
        "anomalous": found.anomalous,
        "intervals": {
            "normal": intervals(len(found.normal)),
            "anomalous": intervals(len(found.anomalous)),
        },
        "note": found.note,
        "here": found.here,
        "num_here": found.num_here,
    }


@router.post("/review/threshold", responses=answers(401, 409, 422))
def set_threshold(review: Parts, given: PointGiven) -> dict[str, Any]:
    """Store a working point in the card of the live model, as `leanet threshold --value` does, and
    decide by it from now on."""
    run = review.model.run
    zone = "none" if given.review is None else dict(zip(("low", "high"), given.review, strict=True))
    asked = PointOptions(value=given.value, review=zone)
    when = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        update_card(run, **settle(run, read_card(run), asked, when))
    except ValueError as error:
        raise RefusedError(422, str(error)) from error
    review.reload_point()
    if (run / "report.html").exists():
        write_report(run)
    point = review.model.point
    return {"threshold": point.threshold, "review": point.review}


@router.get("/review/unreadable", responses=answers(401))
def unreadable(review: Parts) -> dict[str, Any]:
    """Files that cannot be read, and why."""
    return {"items": [{"name": n, "reason": r} for n, r in review.judging.unreadable()]}


@router.post(
    "/review/upload",
    openapi_extra={"requestBody": ONE_BODY},
    responses=answers(400, 401, 408, 413, 415, 422, 429),
)
async def upload(request: Request, review: Parts) -> dict[str, Any]:
    """Keep a picture for review; the live model judges it at once."""
    services = review.services
    with services.batcher.place():
        given = await one_upload(request, services.settings)
        try:
            suffix = await asyncio.to_thread(suffix_of, given.data)
            limit = services.settings.max_pixels
            await asyncio.to_thread(decode_image, given.data, max_pixels=limit)
            image = await asyncio.to_thread(services.store.add_bytes, given.data, suffix, "upload")
        except UnreadableImageError as error:
            raise RefusedError(400, error.reason, word="unreadable") from error
    review.judging.wake()
    return {"id": image}


def _counted(review: Review) -> dict[str, Any]:
    store, model = review.services.store, review.model
    counts = store.totals(model.name)
    counts["verdict"]["review"] = store.count(model.name, verdict="review")
    return {
        "counts": {**counts, "all": sum(counts["source"].values())},
        "kinds": review.kinds(),
        "new_labels": review.new_labels()._asdict(),
    }


def _told(review: Review, event: Event | None) -> dict[str, Any]:
    return {"event": None if event is None else _event(event), **_counted(review)}


def _item(row: Shown) -> dict[str, Any]:
    values = row._asdict()
    for name in ("path", "added"):
        del values[name]
    return {**values, "name": row.path.name}


def _event(event: Event) -> dict[str, Any]:
    return {**event._asdict(), "when": event.at}


def _file(file: File, headers: dict[str, str]) -> Response:
    return Response(file.data, media_type=file.media_type, headers=headers)


def _found(get: Any) -> Any:
    """What `get` gives; 404 for an unknown picture, 422 for another mistake."""
    try:
        return get()
    except UnknownImageError as error:
        raise RefusedError(404, str(error)) from error
    except ValueError as error:
        raise RefusedError(422, str(error)) from error
