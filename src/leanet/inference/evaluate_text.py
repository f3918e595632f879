"""An evaluation for a terminal: aligned tables, and what they mean in plain words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from leanet.inference.evaluate import Evaluation
from leanet.inference.ground_truth import PRO_LIMIT
from leanet.inference.intervals import LEVEL
from leanet.ops.stats import Interval

_LEVEL: Final = f"{100 * LEVEL:g} %"

_IMAGE_COLUMNS: Final = {
    "auroc": "AUROC",
    "average_precision": "AP",
    "f1": "F1",
    "recall": "recall",
    "precision": "precision",
    "escapes": "escapes",
    "overkill": "overkill",
    "balanced_accuracy": "balanced",
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
_OVERLAP_COLUMNS: Final = {
    "iou": "IoU",
    "image_iou": "mean over images",
    "f1": "F1, all images",
    "threshold": "threshold",
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


def to_text(evaluation: Evaluation) -> str:
    """Aligned tables for the terminal and, below each, what it means in plain words; undefined
    figures are shown as "-"."""
    lines = []
    if evaluation.classes is not None:
        lines = [*_table("images", {"classes": evaluation.classes}, _CLASS_COLUMNS), ""]
    if evaluation.image:
        lines += [*_table("images", evaluation.image, _IMAGE_COLUMNS), "", *_in_words(evaluation)]
    if evaluation.review is not None:
        lines += _of_review(evaluation.review)
    if evaluation.pixel is not None:
        shown = {key: name for key, name in _PIXEL_COLUMNS.items() if key in evaluation.pixel}
        lines += ["", *_table("pixels", {"map": evaluation.pixel}, shown), ""]
        lines += [*_overlap_table(evaluation.pixel), *_pixels_in_words(evaluation)]
    if evaluation.transductive is not None:
        lines += ["", *_transductive(evaluation.transductive)]
    return "\n".join(lines)


def _overlap_table(figures: Mapping[str, float]) -> list[str]:
    """IoU over anomalous images at each threshold that the detector names, and the ceilings; []
    without such thresholds."""
    names = [key.removeprefix("threshold_") for key in figures if key.startswith("threshold_")]
    rows = {name: {k: figures[f"{k}_{name}"] for k in _OVERLAP_COLUMNS} for name in names}
    if not rows:
        return []
    empty = dict.fromkeys(_OVERLAP_COLUMNS, math.nan)
    rows["best (oracle)"] = empty | {"iou": figures["oracle_iou"]}
    if "oracle_iou_grid" in figures:
        side = int(figures["map_grid"])
        rows[f"ceiling, {side} x {side} map"] = empty | {"iou": figures["oracle_iou_grid"]}
    title = f"overlap on {int(figures['num_anomalous'])} anomalous images"
    return [*_table(title, rows, _OVERLAP_COLUMNS), ""]


def _transductive(figures: Mapping[str, float]) -> list[str]:
    """The figures of the scaled score, under a word that says what it is."""
    columns = {
        "mean_accuracy": "mean accuracy",
        "accuracy_normal": "on normal",
        "accuracy_anomalous": "on anomalous",
    }
    return [
        *_table("transductive", {"scaled score > 0.5": figures}, columns),
        "",
        f"transductive: the scale is 0 at {figures['low']:.4g} and 1 at {figures['high']:.4g}, the "
        "ends of this very test set; other images give other verdicts",
    ]


def _table(
    title: str, rows: Mapping[str, Mapping[str, float]], columns: Mapping[str, str]
) -> list[str]:
    cells = [[title, *columns.values()]]
    cells += [[name, *(_cell(key, row[key]) for key in columns)] for name, row in rows.items()]
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


def _of_review(shares: Mapping[str, Mapping[str, Any]]) -> list[str]:
    told = {
        "normal": "review: a person looks at {} of {} good images",
        "anomalous": "review: a person looks at {} of {} defects",
        "escapes": "review: {} of {} defects lie below the zone",
        "overkill": "review: {} of {} good images lie above the zone",
    }
    lines = []
    for name, text in told.items():
        count, total = shares[name]["count"], shares[name]["total"]
        if total:
            sure = _share(count, total, Interval(shares[name]["low"], shares[name]["high"]))
            lines.append(f"{text.format(count, total)} ({sure})")
    return lines


def _pixels_in_words(evaluation: Evaluation) -> list[str]:
    figures = evaluation.pixel or {}
    lines = [
        f"over {int(figures['num_images'])} images with {int(figures['num_regions'])} marked "
        "regions; best: at the threshold that suits these very images best"
    ]
    if outside := int(figures.get("num_regions_outside", 0)):
        lines.append(
            f"left out {outside} marked regions that the map does not cover; "
            f"{int(figures['num_outside'])} anomalous images have no other"
        )
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


def _cell(key: str, value: float) -> str:
    """A threshold has the unit of its map or score, so it may be very small or very large."""
    if key == "threshold" and 0 < abs(value) < 0.1:
        return f"{value:.3g}"
    return f"{value:.0f}" if abs(value) >= 1000 else _figure(value)


def _figure(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
