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
from typing import Any, Final, Protocol

import torch

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
from leanet.inference.ground_truth import PRO_LIMIT, PixelTally, empty_counts, spread
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
from leanet.ops.metrics import image_metrics
from leanet.ops.stats import Interval
from leanet.progress import Progress
from leanet.records import Detector, Sample

METRICS = "metrics.json"
_LEVEL: Final = f"{100 * LEVEL:g} %"

_IMAGE_COLUMNS: Final = {
    "auroc": "AUROC",
    "average_precision": "AP",
    "f1": "F1",
    "recall": "recall",
    "precision": "precision",
    "escapes": "escapes",
    "overkill": "overkill",
    "threshold": "threshold",
}
_CLASS_COLUMNS: Final = {
    "accuracy": "accuracy",
    "majority": "majority class",
    "balanced_accuracy": "balanced",
    "macro_f1": "macro F1",
    "nll": "NLL",
    "ece": "ECE",
}
_PIXEL_COLUMNS: Final = {
    "auroc": "AUROC",
    "aupro": f"AUPRO {PRO_LIMIT}",
    "average_precision": "AP",
    "best_f1": "best F1",
    "best_iou": "best IoU",
    "f1": "F1",
    "iou": "IoU",
    "threshold": "threshold",
}


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


def evaluate(  # noqa: PLR0913 - the options of a verb, by name
    detector: Detector,
    samples: Sequence[Sample],
    *,
    threshold: float | None,
    out: Path,
    device: torch.device,
    part_thresholds: Mapping[str, float] | None = None,
    map_threshold: float | None = None,
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
    is one of the map. `seed` draws the bootstrap. With `skip_bad`, unreadable images are left out,
    and images with an unreadable mask count for their score only.

    Raises:
        UnreadableImagesError: images or masks cannot be read, without `skip_bad`.
        ValueError: no samples, a mask of another size than its image, earlier results in `out`,
            an impossible option, a class that the detector does not know, or a detector without
            such a part or with scores that are not finite.
    """
    classes: tuple[str, ...] = getattr(detector, "classes", ())
    true = numbers_of(samples, classes) if classes else {}
    check_options(threshold, batch_size)
    refuse_earlier(out, (PREDICTIONS, METRICS), overwrite=overwrite)
    judging: _Judging = partial(judge, detector, device=device, batch_size=batch_size)
    pixel = _pixel_tally(samples, judging, map_threshold, seed)
    if pixel is None and any(sample.mask for sample in samples):
        tell("this detector draws no maps, so there are no pixel figures")
    bad: list[UnreadableImageError] = []
    outputs = judging([sample.path for sample in samples], bad=bad)
    judged, scores = _collect(outputs, samples, pixel, bad)
    bad += [] if pixel is None else pixel.bad_masks
    if bad and not skip_bad:
        raise UnreadableImagesError(bad)
    thresholds = {} if threshold is None else {"score": threshold, **(part_thresholds or {})}
    _require_scores(scores, thresholds)
    tell_left_out(bad, tell)
    labels = [sample.label for sample in judged]
    image = {name: image_metrics(labels, scores[name], at) for name, at in thresholds.items()}
    evaluation = Evaluation(
        image=image,
        interval={n: intervals(labels, scores[n], at, seed) for n, at in thresholds.items()},
        pixel=None if pixel is None else pixel.figures(map_threshold),
        num_unmasked=0 if pixel is None else pixel.num_unmasked,
        unreadable=tuple(error.path for error in bad),
        classes=write_class_tables(
            out, classes, [true[sample.path] for sample in judged], probabilities(scores, classes)
        )
        if classes
        else None,
    )
    write_csv(out / PREDICTIONS, _rows(judged, scores, threshold, classes))
    write_json(out / METRICS, to_json(evaluation))
    return evaluation


def to_json(evaluation: Evaluation) -> dict[str, Any]:
    """What `metrics.json` holds: the fields of the record, nan as null, paths as text."""
    return {"level": LEVEL} | {name: _plain(value) for name, value in asdict(evaluation).items()}


def to_text(evaluation: Evaluation) -> str:
    """Aligned tables for the terminal and, below each, what it means in plain words; undefined
    figures are shown as "-"."""
    lines = []
    if evaluation.classes is not None:
        lines = [*_table("images", {"classes": evaluation.classes}, _CLASS_COLUMNS), ""]
    if evaluation.image:
        lines += [*_table("images", evaluation.image, _IMAGE_COLUMNS), "", *_in_words(evaluation)]
    if evaluation.pixel is not None:
        shown = {key: name for key, name in _PIXEL_COLUMNS.items() if key in evaluation.pixel}
        lines += ["", *_table("pixels", {"map": evaluation.pixel}, shown), ""]
        lines += _pixels_in_words(evaluation)
    return "\n".join(lines)


class _Judging(Protocol):
    """`judge` with everything said but which images."""

    def __call__(
        self, paths: Sequence[Path], *, bad: list[UnreadableImageError]
    ) -> Iterator[Outputs]: ...


def _pixel_tally(
    samples: Sequence[Sample], judging: _Judging, map_threshold: float | None, seed: int
) -> PixelTally | None:
    """Empty pixel counts; None without masks or maps."""
    if not any(sample.mask for sample in samples):
        return None
    few = [sample.path for sample in spread(samples)]
    counts = empty_counts(judging(few, bad=[]), map_threshold, seed)
    return None if counts is None else PixelTally(counts)


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


def _table(
    title: str, rows: Mapping[str, Mapping[str, float]], columns: Mapping[str, str]
) -> list[str]:
    cells = [[title, *columns.values()]]
    cells += [[name, *(_figure(row[key]) for key in columns)] for name, row in rows.items()]
    widths = [max(len(row[k]) for row in cells) for k in range(len(cells[0]))]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in cells
    ]


def _in_words(evaluation: Evaluation) -> list[str]:
    figures, interval = evaluation.image["score"], evaluation.interval["score"]
    bad, good = int(figures["num_anomalous"]), int(figures["num_normal"])
    lines = []
    if bad:
        missed = _share(figures["fn"], bad, interval["escapes"])
        lines.append(f"misses {int(figures['fn'])} of {bad} defects ({missed})")
    if good:
        rejected = _share(figures["fp"], good, interval["overkill"])
        lines.append(f"rejects {int(figures['fp'])} of {good} good images ({rejected})")
    if not bad or not good:
        absent = "anomalous" if good else "normal"
        return [*lines, f"without {absent} images the ranking is undefined (-)"]
    low, high = interval["auroc"]
    return [
        *lines,
        f"AUROC {figures['auroc']:.3f} ({_LEVEL} interval {low:.3f}-{high:.3f})",
        f"F1 {figures['f1']:.3f}; calling everything anomalous gives "
        f"{figures['all_positive_f1']:.3f}",
    ]


def _pixels_in_words(evaluation: Evaluation) -> list[str]:
    figures = evaluation.pixel or {}
    lines = [
        f"over {int(figures['num_images'])} images with {int(figures['num_regions'])} marked "
        "regions; best: at the threshold that suits these very images best"
    ]
    if evaluation.num_unmasked:
        lines.append(f"left out {evaluation.num_unmasked} anomalous images without a mask")
    return lines


def _share(count: float, total: int, interval: Interval) -> str:
    low, high = (_percent(end) for end in interval)
    return f"{_percent(count / total)} %, {_LEVEL} interval {low}-{high} %"


def _percent(share: float) -> str:
    """Whole percent, with a decimal where that would read as none or all.

    >>> _percent(0.0), _percent(0.004), _percent(0.0125), _percent(0.997), _percent(1.0)
    ('0', '0.4', '1', '99.7', '100')
    """
    percent = 100 * share
    whole = f"{percent:.0f}"
    return f"{percent:.1f}" if whole in ("0", "100") and percent not in (0, 100) else whole


def _figure(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
