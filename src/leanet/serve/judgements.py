"""What models said of pictures, in the review database: one row per picture and model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from sqlalchemy import Connection, bindparam, delete, insert, select, update

from leanet.ops.working_point import WorkingPoint, decide
from leanet.serve.entries import UnknownImageError, now
from leanet.serve.live import Judgement
from leanet.serve.tables import IMAGES, JUDGEMENTS, META

VERDICTS = ("normal", "anomalous")
_COPIED = ("model", "score", "verdict", "review", "probability", "predicted", "parts")


def put(connection: Connection, given: Mapping[str, Judgement]) -> None:
    """Enter judgements by picture, in place of earlier ones of the same model.

    Raises UnknownImageError, and enters none."""
    for image, judgement in given.items():
        if connection.execute(select(IMAGES.c.id).where(IMAGES.c.id == image)).first() is None:
            raise UnknownImageError(image)
        same = (JUDGEMENTS.c.image == image) & (JUDGEMENTS.c.model == judgement.model)
        connection.execute(delete(JUDGEMENTS).where(same))
        values: dict[str, Any] = {name: getattr(judgement, name) for name in _COPIED}
        connection.execute(insert(JUDGEMENTS).values(image=image, at=now(), **values))


def bind(connection: Connection, model: str, weights: str) -> None:
    """Forget the judgements of a model whose weights are not those that it had before."""
    name = f"weights of {model}"
    before = connection.scalar(select(META.c.value).where(META.c.name == name))
    if before == weights:
        return
    connection.execute(delete(JUDGEMENTS).where(JUDGEMENTS.c.model == model))
    connection.execute(delete(META).where(META.c.name == name))
    connection.execute(insert(META).values(name=name, value=weights))


def decide_anew(
    connection: Connection, model: str, found: Mapping[str, float], point: WorkingPoint
) -> None:
    """Decide scores of a model, by picture, again."""
    decision = decide(point, torch.tensor(list(found.values()), dtype=torch.float64))
    chances = decision.probability
    columns = (
        found,
        decision.anomalous.tolist(),
        decision.review.tolist(),
        [None] * len(found) if chances is None else chances.tolist(),
    )
    rows = [
        {"of": image, "verdict": VERDICTS[bad], "review": doubtful, "probability": chance}
        for image, bad, doubtful, chance in zip(*columns, strict=True)
    ]
    same = (JUDGEMENTS.c.image == bindparam("of")) & (JUDGEMENTS.c.model == model)
    connection.execute(update(JUDGEMENTS).where(same), rows)


def scores(connection: Connection, model: str) -> dict[str, float]:
    """Score by picture, where there is one."""
    query = select(JUDGEMENTS.c.image, JUDGEMENTS.c.score).where(
        JUDGEMENTS.c.model == model, JUDGEMENTS.c.score.is_not(None)
    )
    return {row.image: float(row.score) for row in connection.execute(query)}
