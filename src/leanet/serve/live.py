"""The model that answers now: what it says of pictures, and how another takes its place.

A model is used by one thread at a time per call and never changed; switching replaces the one
reference that all read, so a request is answered by one model from beginning to end.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from leanet.data.cache import images_in_unit_range
from leanet.data.images import resize_image
from leanet.inference.class_tables import most_probable
from leanet.inference.judge import judge_batch
from leanet.ops.working_point import WorkingPoint, decide, point_of
from leanet.records import Detector
from leanet.trained import CARD, Engine, open_detector, read_card


class Model(NamedTuple):
    """A detector that is ready to answer, with its card and how it decides."""

    name: str
    run: Path
    card: dict[str, Any]
    detector: Detector
    point: WorkingPoint
    device: torch.device
    engine: Engine = "torch"


class Judgement(NamedTuple):
    """What a model says of a picture. score, verdict, review and probability are None where it
    knows no normal class; map [S, S] is None where it draws none; predicted is "" without classes;
    parts: named single scores, or the probabilities of classes (p_CLASS)."""

    model: str
    score: float | None
    verdict: Literal["normal", "anomalous"] | None
    review: bool | None
    probability: float | None
    parts: dict[str, float]
    predicted: str
    map: NDArray[np.float32] | None


def open_model(
    run: Path,
    name: str,
    *,
    engine: Engine = "torch",
    device: torch.device | str = "cpu",
    or_torch: bool = False,
) -> Model:
    """Load a finished run; `or_torch` where the engine has no file, as of a model that was trained
    here and that nobody has exported yet.

    Raises ValueError as `leanet.trained.open_detector` does.
    """
    card = read_card(run)
    try:
        detector = open_detector(run, engine, device)
    except ValueError:
        if engine == "torch" or not or_torch:
            raise
        engine, detector = "torch", open_detector(run, "torch", device)
    return Model(name, run, card, detector, point_of(card), torch.device(device), engine)


class Live:
    """Holds the model that answers."""

    def __init__(self, model: Model) -> None:
        self._held = (model, _stamp(model))

    @property
    def model(self) -> Model:
        """The one that answers now; keep the reference for the length of a request. A card that
        `leanet threshold` has changed meanwhile is read again."""
        model, stamp = self._held
        now = _stamp(model)
        if now not in (stamp, None):
            card = read_card(model.run)
            model = model._replace(card=card, point=point_of(card))
            self._held = (model, now)
        return model

    def switch(self, model: Model) -> None:
        """Let another answer from the next request on."""
        self._held = (model, _stamp(model))


def _stamp(model: Model) -> int | None:
    """Changes when the card does; None where the run is gone, whose model answers on."""
    try:
        return (model.run / CARD).stat().st_mtime_ns
    except OSError:
        return None


def shown(model: Model, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture [H, W, 3] at the side that the model looks at, [S, S, 3]: as `predict` does it."""
    return resize_image(image, model.detector.img_size)


def judge_pictures(model: Model, pictures: Sequence[NDArray[np.uint8]]) -> list[Judgement]:
    """What the model says of pictures [S, S, 3] (see `shown`), as one batch.

    Raises ValueError if a score or a map is not finite.
    """
    planes = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
    image = images_in_unit_range(planes.to(model.device))
    classes: tuple[str, ...] = tuple(model.card.get("classes") or ())
    scores, maps = judge_batch(model.detector, image, classes)
    decided = None
    if model.point.threshold is not None:
        decided = decide(model.point, torch.tensor(scores["score"], dtype=torch.float64))
    judged = []
    for k in range(len(pictures)):
        parts = {name: values[k] for name, values in scores.items() if name != "score"}
        predicted = most_probable(parts, classes) if classes else ""
        plane = None if maps is None else maps[k]
        if decided is None:
            judged.append(Judgement(model.name, None, None, None, None, parts, predicted, plane))
            continue
        judged.append(
            Judgement(
                model.name,
                scores["score"][k],
                "anomalous" if decided.anomalous[k] else "normal",
                bool(decided.review[k]),
                None if decided.probability is None else float(decided.probability[k]),
                parts,
                predicted,
                plane,
            )
        )
    return judged
