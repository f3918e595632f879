"""The tables of a run of several classes: figures, confusions, and what limits them.

Counts come from the test images of all parts together, each judged by a detector that had not seen
it; means and SDs are over the parts. The order of the classes is that of the run's card and of no
folder listing, so that no row of a table can bear another class's name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from leanet.ops.classes import ClassFigures, Counts, accuracy, confusion_matrix, majority, per_class
from leanet.ops.stats import MeanSD, mean_sd, wilson
from leanet.report.run import Named, Run
from leanet.report.tables import number, percent, spread

COLUMNS = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced acc.",
    "macro_f1": "Macro F1",
    "nll": "NLL",
    "ece": "ECE",
    "majority": "Majority class",
}
FEW_IMAGES = 10  # of a class in the test: below, its recall is called uncertain
MOST_CONFUSIONS = 10
_CLASS_WIDTH = 24  # of a class's name on the terminal, in characters


class ClassRow(NamedTuple):
    """A class, its figures, and the class that most of its wrong images were given ("" if none)."""

    name: str
    figures: ClassFigures
    taken_for: str


class Confused(NamedTuple):
    """So many images of one class were given another; `share` of the true class's images."""

    true: str
    predicted: str
    images: int
    share: float


@dataclass(frozen=True, kw_only=True)
class ClassSummary:
    """The result of a run of several classes."""

    method: str
    data: str
    classes: tuple[str, ...]
    num_folds: int  # 0: no cross-validation
    counts: Counts  # [K, K], rows true: all test images together
    figures: dict[str, MeanSD]  # of `COLUMNS`, over the parts; {} when nothing was tested
    rows: tuple[ClassRow, ...]
    confused: tuple[Confused, ...]  # most images first

    @property
    def num_images(self) -> int:
        """Test images."""
        return int(self.counts.sum())

    @property
    def num_right(self) -> int:
        """Those that were given their class."""
        return int(np.trace(self.counts))

    @property
    def verdict(self) -> str:
        """The result in one sentence."""
        if not self.num_images:
            return "Nothing was tested: no image was kept for it."
        how = f"cross-validated, {self.num_folds} folds" if self.num_folds else "kept test images"
        naming = 100 * majority(self.counts)
        return (
            f"Names the class of {percent(self.num_right, self.num_images)} of the images; always "
            f"naming the most frequent class would reach {naming:.0f} % ({how})"
        )


def summarize_classes(run: Run) -> ClassSummary:
    """The figures of a run of several classes."""
    counts = counts_of(run.named, run.classes)
    parts = run.tested_parts
    return ClassSummary(
        method=str(run.card["method"]),
        data=run.data_name,
        classes=run.classes,
        num_folds=len(run.folds),
        counts=counts,
        figures={
            name: mean_sd([_figure(part.metrics["classes"][name]) for part in parts])
            for name in (COLUMNS if parts else ())
        },
        rows=_rows(counts, run.classes),
        confused=_confused(counts, run.classes),
    )


def counts_of(images: Sequence[Named], classes: Sequence[str]) -> Counts:
    """Counts [K, K] of these images, rows true, in the order of the classes."""
    place = {name: k for k, name in enumerate(classes)}
    true = [place[image.true] for image in images]
    return confusion_matrix(true, [place[image.predicted] for image in images], len(classes))


def notices(summary: ClassSummary) -> list[str]:
    """What limits the figures of this run, one sentence or two each."""
    return list(_notices(summary)) if summary.num_images else []


def class_text(summary: ClassSummary) -> str:
    """The figures for a terminal, at most 100 characters wide."""
    title = (
        f"{summary.method} on {summary.data}: {summary.num_images} test images of "
        f"{len(summary.classes)} classes"
    )
    if not summary.num_images:
        return f"{title}\n{summary.verdict}"
    figures = summary.figures
    shown = (f"{title} {spread(figures[name])}" for name, title in COLUMNS.items())
    lines = [title, ", ".join(shown)]
    head = "".join(f"{name:>11}" for name in ("images", "precision", "recall", "F1"))
    lines.append(f"{'':<{_CLASS_WIDTH}}{head}   most often taken for")
    for row in summary.rows:
        f = row.figures
        cells = (str(f.support), *(number(v, missing="-") for v in (f.precision, f.recall, f.f1)))
        text = "".join(f"{cell:>11}" for cell in cells)
        lines.append(f"{short(row.name):<{_CLASS_WIDTH}}{text}   {short(row.taken_for)}".rstrip())
    return "\n".join([*lines, f"{summary.verdict}."])


def short(name: str, most: int = _CLASS_WIDTH - 1) -> str:
    """A name of at most so many characters, its middle left out.

    >>> short("early_blight"), short("a_very_long_name_of_a_class", 11)
    ('early_blight', 'a_ver…class')
    """
    half = (most - 1) // 2
    return name if len(name) <= most else f"{name[: most - 1 - half]}…{name[-half:]}"


def _rows(counts: Counts, classes: Sequence[str]) -> tuple[ClassRow, ...]:
    wrong = counts - np.diag(np.diag(counts))
    return tuple(
        ClassRow(name, figures, classes[int(row.argmax())] if row.any() else "")
        for name, figures, row in zip(classes, per_class(counts), wrong, strict=True)
    )


def _confused(counts: Counts, classes: Sequence[str]) -> tuple[Confused, ...]:
    support = counts.sum(axis=1)
    found = [
        Confused(classes[i], classes[j], int(counts[i, j]), float(counts[i, j] / support[i]))
        for i, j in np.argwhere(counts)
        if i != j
    ]
    return tuple(sorted(found, key=lambda one: (-one.images, -one.share)))


def _notices(summary: ClassSummary) -> Iterator[str]:
    reached, lazy = accuracy(summary.counts), majority(summary.counts)
    if reached <= lazy:
        yield (
            f"The accuracy of {number(reached)} is not above {number(lazy)}, which always naming "
            "the most frequent class would reach."
        )
    missing = [row.name for row in summary.rows if not row.figures.support]
    if missing:
        yield (
            f"No test image of {', '.join(missing)}: the balanced accuracy is the mean recall of "
            "the other classes."
        )
    tested = [row for row in summary.rows if row.figures.support]
    unnamed = [row.name for row in tested if math.isnan(row.figures.precision)]
    if unnamed:
        yield f"No image was ever given the class {' or '.join(unnamed)}."
    few = [row for row in tested if row.figures.support < FEW_IMAGES]
    if few:
        row = min(few, key=lambda row: row.figures.support)
        low, high = (100 * end for end in row.figures.interval)
        yield (
            f"Only {row.figures.support} test images of {row.name}: its recall may lie anywhere "
            f"between {low:.0f} % and {high:.0f} % (95 % interval)."
            + (f" {len(few) - 1} more classes have fewer than {FEW_IMAGES}." if few[1:] else "")
        )


def accuracy_interval(summary: ClassSummary) -> tuple[float, float]:
    """The Wilson interval (95 %) of the accuracy over all test images."""
    low, high = wilson(summary.num_right, summary.num_images)
    return low, high


def _figure(value: float | None) -> float:
    return math.nan if value is None else value  # JSON has no nan
