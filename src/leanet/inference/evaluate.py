"""From labeled images to figures with their uncertainty.

Image figures come from the scores: ranking (AUROC, average precision) and what the working point
does (`leanet.ops.metrics`), and the most important ones have an interval
(`leanet.inference.intervals`). Pixel figures come from maps and masks
(`leanet.inference.ground_truth`). A figure that is undefined, such as AUROC with one class, is nan;
null in `metrics.json`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from leanet.data.cache import UnreadableImagesError
from leanet.data.class_list import class_of
from leanet.data.images import UnreadableImageError
from leanet.files import write_csv, write_json
from leanet.inference.class_tables import (
    most_probable,
    numbers_of,
    probabilities,
    write_class_tables,
)
from leanet.inference.ground_truth import PixelTally, map_points, start_tally
from leanet.inference.intervals import LEVEL, intervals
from leanet.inference.judge import Outputs, judge
from leanet.inference.predict import (
    PREDICTIONS,
    Tell,
    check_options,
    refuse_earlier,
    tell_left_out,
    verdict,
)
from leanet.ops.covered import in_words
from leanet.ops.metrics import image_metrics, transductive_metrics
from leanet.ops.metrics import transductive as scale_by_test
from leanet.ops.point_rules import zone_figures
from leanet.ops.stats import Interval
from leanet.progress import Progress
from leanet.records import Detector, Sample

METRICS = "metrics.json"


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Figures by output: "score", and each part that had a threshold.

    `image` holds what `ops.metrics.image_metrics` gives, `interval` the 95 % intervals of auroc,
    escapes and overkill. `pixel` (None without masks or maps): auroc, average_precision, aupro,
    best_f1 and best_iou (at the threshold that suits these very images best, an oracle), num_images
    and num_regions, and with a map threshold f1 and iou at it, and threshold.
    """

    image: dict[str, dict[str, float]]
    interval: dict[str, dict[str, Interval]]
    pixel: dict[str, float] | None
    num_unmasked: int  # anomalous images left out of `pixel` for want of a readable mask
    unreadable: tuple[Path, ...]  # images and masks that were left out
    classes: dict[str, float] | None = None  # `ops.classes.class_metrics`, of several classes
    transductive: dict[str, float] | None = None  # `ops.metrics.transductive_metrics`, if asked for
    review: dict[str, dict[str, Any]] | None = None  # `ops.point_rules.Zone`, with a review zone


def evaluate(  # noqa: PLR0913 - the options of a verb, by name
    detector: Detector,
    samples: Sequence[Sample],
    *,
    threshold: float | None,
    out: Path,
    device: torch.device,
    part_thresholds: Mapping[str, float] | None = None,
    review: tuple[float, float] | None = None,
    map_threshold: float | None = None,
    transductive: bool = False,
    batch_size: int = 16,
    seed: int = 0,
    skip_bad: bool = False,
    overwrite: bool = False,
    tell: Tell = print,
) -> Evaluation:
    """Judge labeled images; writes `out/predictions.csv` and `out/metrics.json`; for a detector of
    several classes also `confusion.csv` and `per_class.csv` (`leanet.inference.class_tables`).

    `threshold` is None for a detector that knows no normal class: its score says nothing.
    `part_thresholds` are working points of the detector's single scores, by name; `map_threshold`
    is one of the map. `review` is a zone (low, high) of scores that a person looks at.
    `transductive` adds the score scaled by the smallest and largest of this very test set, as a
    column and figures of their own. `seed` draws the bootstrap. With `skip_bad`, unreadable images
    are left out, and images with an unreadable mask count for their score only.

    Raises:
        UnreadableImagesError: images or masks cannot be read, without `skip_bad`.
        ValueError: no samples, a mask of another size than its image, earlier results in `out`,
            an impossible option, a class that the detector does not know, a detector without such
            a part or with scores that are not finite, or, with `transductive`, equal scores, fewer
            than two, or none that says anything.
    """
    classes: tuple[str, ...] = getattr(detector, "classes", ())
    true = numbers_of(samples, classes) if classes else {}
    check_options(threshold, batch_size)
    if transductive:
        _require_normal_class(threshold)
    refuse_earlier(out, (PREDICTIONS, METRICS), overwrite=overwrite)
    judging: _Judging = partial(judge, detector, device=device, batch_size=batch_size)
    points = map_points(detector, map_threshold)
    pixel = start_tally(samples, lambda few: judging(_paths(few), bad=[]), points, seed)
    _tell_of_map(detector.img_size, points.border, samples, pixel, tell)
    bad: list[UnreadableImageError] = []
    judged, scores = _collect(judging(_paths(samples), bad=bad), samples, pixel, bad)
    bad += [] if pixel is None else pixel.bad_masks
    if bad and not skip_bad:
        raise UnreadableImagesError(bad)
    thresholds = {} if threshold is None else {"score": threshold, **(part_thresholds or {})}
    _require_scores(scores, thresholds)
    tell_left_out(bad, tell)
    labels = [sample.label for sample in judged]
    scaled = scale_by_test(scores["score"]) if transductive else None
    evaluation = Evaluation(
        image={n: image_metrics(labels, scores[n], at) for n, at in thresholds.items()},
        interval={n: intervals(labels, scores[n], at, seed) for n, at in thresholds.items()},
        pixel=None if pixel is None else pixel.figures(),
        num_unmasked=0 if pixel is None else pixel.num_unmasked,
        unreadable=tuple(error.path for error in bad),
        classes=_of_classes(out, classes, [true[p] for p in _paths(judged) if true], scores),
        transductive=transductive_metrics(labels, scores["score"]) if transductive else None,
        review=None if review is None else _of_zone(labels, scores["score"], review),
    )
    write_csv(out / PREDICTIONS, _rows(judged, scores, threshold, classes, scaled))
    write_json(out / METRICS, to_json(evaluation))
    return evaluation


def to_json(evaluation: Evaluation) -> dict[str, Any]:
    """What `metrics.json` holds: the fields of the record, nan as null, paths as text."""
    return {"level": LEVEL} | {name: _plain(value) for name, value in asdict(evaluation).items()}


class _Judging(Protocol):
    """`judge` with everything said but which images."""

    def __call__(
        self, paths: Sequence[Path], *, bad: list[UnreadableImageError]
    ) -> Iterator[Outputs]: ...


def _tell_of_map(
    side: int, border: int, samples: Sequence[Sample], pixel: PixelTally | None, tell: Tell
) -> None:
    if border:
        tell(in_words(side, border))
    if pixel is None and any(sample.mask for sample in samples):
        tell("this detector draws no maps, so there are no pixel figures")


def _paths(samples: Sequence[Sample]) -> list[Path]:
    return [sample.path for sample in samples]


def _require_normal_class(threshold: float | None) -> None:
    if threshold is None:
        raise ValueError(
            "this detector knows no normal class, so its score says nothing and cannot be scaled; "
            "leave out transductive"
        )


def _of_zone(
    labels: Sequence[int], scores: Sequence[float], zone: tuple[float, float]
) -> dict[str, dict[str, Any]]:
    shares = zone_figures(labels, scores, *zone)._asdict()
    return {name: asdict(share) for name, share in shares.items()}


def _of_classes(
    out: Path,
    classes: tuple[str, ...],
    true: Sequence[int],
    scores: Mapping[str, Sequence[float]],
) -> dict[str, float] | None:
    """Write the tables of several classes; None where there are none."""
    if not classes:
        return None
    return write_class_tables(out, classes, true, probabilities(scores, classes))


def _collect(
    batches: Iterator[Outputs],
    samples: Sequence[Sample],
    pixel: PixelTally | None,
    bad: Sequence[UnreadableImageError],
) -> tuple[list[Sample], dict[str, list[float]]]:
    """The readable samples with their scores by name; maps are added to `pixel`."""
    judged: list[Sample] = []
    scores: dict[str, list[float]] = {}
    ahead = iter(samples)
    with Progress("evaluating images", total=len(samples)) as bar:
        for batch in batches:
            own = [next(s for s in ahead if s.path == path) for path in batch.paths]
            judged += own
            for name, values in batch.scores.items():
                scores.setdefault(name, []).extend(values)
            if pixel is not None and batch.maps is not None:
                for sample, size, plane in zip(own, batch.sizes, batch.maps, strict=True):
                    pixel.add(sample, size, plane)
            bar.advance(steps=len(judged) + len(bad) - bar.done)
    return judged, scores


def _require_scores(scores: Mapping[str, Sequence[float]], thresholds: Mapping[str, float]) -> None:
    if not scores:
        raise ValueError("there is no readable image to evaluate; give a data set with labels")
    unknown = [name for name in thresholds if name not in scores]
    if unknown:
        raise ValueError(
            f"the detector gives no score called {', '.join(unknown)}; it gives {', '.join(scores)}"
        )


def _rows(
    samples: Sequence[Sample],
    scores: Mapping[str, Sequence[float]],
    threshold: float | None,
    classes: tuple[str, ...],
    scaled: NDArray[np.float64] | None,
) -> list[dict[str, Any]]:
    """The rows of predictions.csv."""
    rows = []
    for k, sample in enumerate(samples):
        parts = {name: values[k] for name, values in scores.items()}
        score = parts.pop("score")
        row: dict[str, Any] = {
            "path": sample.path.as_posix(),
            "label": sample.label,
            "kind": sample.kind,
            "score": score,
            "verdict": "" if threshold is None else verdict(score, threshold),
            "threshold": threshold,
        }
        if scaled is not None:
            row["transductive"] = float(scaled[k])
        if threshold is None:
            row |= {"label": "", "score": "", "threshold": ""}
        if classes:
            row |= {"true": class_of(sample), "predicted": most_probable(parts, classes)}
        rows.append(row | parts)
    return rows


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, Path):
        return value.as_posix()
    return None if isinstance(value, float) and math.isnan(value) else value
