"""The gallery as queries: which pictures, in which order, with what one model says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Row, Select, and_, func, select

from leanet.config import nearest
from leanet.serve.entries import WORDS, Shown
from leanet.serve.tables import IMAGES, JUDGEMENTS, LABELS, PLACES

_SCORE, _VERDICT = JUDGEMENTS.c.score, JUDGEMENTS.c.verdict
_said: Final = func.coalesce(LABELS.c.label, "none")
_typed: Final = func.coalesce(LABELS.c.kind, "")
_LAST: Final = (_SCORE.is_(None), _SCORE.desc(), IMAGES.c.id)
ORDERS: Final[dict[str, tuple[ColumnElement[Any], ...]]] = {  # then the highest score first
    "score": (),
    "lowest": (_SCORE.is_(None), _SCORE),
    "verdict": (_VERDICT.is_(None), _VERDICT),
    "label": (_said,),
    "kind": (_typed,),
    "newest": (IMAGES.c.added.desc(),),
}
VERDICTS: Final[dict[str, ColumnElement[bool]]] = {
    "normal": _VERDICT == "normal",
    "anomalous": _VERDICT == "anomalous",
    "review": JUDGEMENTS.c.review.is_(True),
    "unjudged": JUDGEMENTS.c.image.is_(None),
}
STATES: Final[dict[str, ColumnElement[bool]]] = {
    **{word: _said == word for word in WORDS},
    "labeled": _said != "none",
}


class Filter(NamedTuple):
    """What to show; None = everything. verdict: a key of `VERDICTS`, label: one of `STATES`,
    search: part of the path of a file, in any case."""

    verdict: str | None = None
    label: str | None = None
    kind: str | None = None
    source: str | None = None
    search: str | None = None


def shown_rows(model: str, wanted: Filter, order: str, near: float | None = None) -> Select[Any]:
    """The rows of the gallery, the scores nearest to `near` first if that is given.

    Raises ValueError for an unknown order or filter."""
    place = select(func.min(PLACES.c.path)).where(PLACES.c.image == IMAGES.c.id).scalar_subquery()
    judged = [JUDGEMENTS.c[name] for name in ("score", "verdict", "review", "probability")]
    columns = select(
        IMAGES.c.id,
        place.label("path"),
        IMAGES.c.source,
        IMAGES.c.width,
        IMAGES.c.height,
        IMAGES.c.added,
        _said.label("label"),
        _typed.label("kind"),
        JUDGEMENTS.c.image.is_not(None).label("judged"),
        *judged,
        JUDGEMENTS.c.predicted,
        JUDGEMENTS.c.parts,
    )
    keys = _one_of("order", order, ORDERS)
    if near is not None:
        keys = (_SCORE.is_(None), func.abs(_SCORE - near))
    return _filtered(columns, model, wanted).order_by(*keys, *_LAST)


def counted(model: str, wanted: Filter) -> Select[Any]:
    """How many rows there are. Raises ValueError for an unknown filter."""
    return _filtered(select(func.count(IMAGES.c.id)), model, wanted)


def totals(model: str) -> Select[Any]:
    """(verdict, or None if unjudged, label, kind, source, how many) over all pictures."""
    values = (_VERDICT, _said, _typed, IMAGES.c.source)
    query = _filtered(select(*values, func.count(IMAGES.c.id)), model, Filter())
    return query.group_by(*values)


def shown_of(row: Row[Any]) -> Shown:
    """A row of `shown_rows` as a record."""
    values = {name: getattr(row, name) for name in Shown._fields}
    values |= {
        "path": Path(row.path),
        "judged": bool(row.judged),
        "predicted": row.predicted or "",
        "parts": row.parts or {},
    }
    return Shown(**values)


def _filtered(columns: Select[Any], model: str, wanted: Filter) -> Select[Any]:
    """Of pictures that a file is known of."""
    of_model = and_(JUDGEMENTS.c.image == IMAGES.c.id, JUDGEMENTS.c.model == model)
    joined = IMAGES.outerjoin(JUDGEMENTS, of_model).outerjoin(LABELS, LABELS.c.image == IMAGES.c.id)
    here = select(PLACES.c.path).where(PLACES.c.image == IMAGES.c.id)
    query = columns.select_from(joined).where(here.exists())
    if wanted.verdict is not None:
        query = query.where(_one_of("verdict", wanted.verdict, VERDICTS))
    if wanted.label is not None:
        query = query.where(_one_of("label", wanted.label, STATES))
    if wanted.kind is not None:
        query = query.where(_typed == wanted.kind)
    if wanted.source is not None:
        query = query.where(IMAGES.c.source == wanted.source)
    if wanted.search:
        named = here.where(PLACES.c.path.icontains(wanted.search, autoescape=True))
        query = query.where(named.exists())
    return query


def _one_of(what: str, name: str, allowed: dict[str, Any]) -> Any:
    if name not in allowed:
        raise ValueError(
            f"{what} {name[:40]!r} is unknown{nearest(name[:40], allowed)}; allowed: "
            f"{', '.join(allowed)}"
        )
    return allowed[name]
