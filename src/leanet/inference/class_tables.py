"""Figures and tables of a classifier of several classes.

`confusion.csv`: the column `true`, then for every predicted class how many. `per_class.csv`: class,
support (its images), precision, recall, F1, and the 95 % Wilson interval of the recall; figures
that are undefined, as the recall of a class without images, are empty.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leanet.config import nearest
from leanet.data.class_list import class_of
from leanet.files import write_csv
from leanet.ops.classes import class_metrics, confusion_matrix, per_class
from leanet.records import PROBABILITY, Sample

CONFUSION, PER_CLASS = "confusion.csv", "per_class.csv"


def probabilities(
    scores: Mapping[str, Sequence[float]], classes: Sequence[str]
) -> NDArray[np.float64]:
    """Probabilities [N, K] from the columns p_CLASS."""
    return np.array([scores[f"{PROBABILITY}{name}"] for name in classes], dtype=np.float64).T


def most_probable(probs: Mapping[str, float], classes: Sequence[str]) -> str:
    """The class with the highest p_CLASS, the first of equals.

    >>> most_probable({"p_a": 0.2, "p_b": 0.8}, ("a", "b"))
    'b'
    """
    return max(classes, key=lambda name: probs[f"{PROBABILITY}{name}"])


def numbers_of(samples: Sequence[Sample], classes: Sequence[str]) -> dict[Path, int]:
    """The place in `classes` of the class of every image, by path.

    Raises:
        ValueError: an image of another class.
    """
    place = {name: k for k, name in enumerate(classes)}
    unknown = [sample for sample in samples if class_of(sample) not in place]
    if unknown:
        name = class_of(unknown[0])
        raise ValueError(
            f"{unknown[0].path} is of the class {name!r}{nearest(name, classes)}; this run tells "
            f"apart {', '.join(classes)}"
        )
    return {sample.path: place[class_of(sample)] for sample in samples}


def write_class_tables(
    out: Path, classes: Sequence[str], true: Sequence[int], probs: NDArray[np.float64]
) -> dict[str, float]:
    """Write both tables for true class numbers [N] and probabilities [N, K]; returns the figures of
    `ops.classes.class_metrics`."""
    counts = confusion_matrix(true, probs.argmax(axis=1), len(classes))
    rows = [
        {"true": name, **dict(zip(classes, row, strict=True))}
        for name, row in zip(classes, counts.tolist(), strict=True)
    ]
    write_csv(out / CONFUSION, rows)
    figures = [
        {
            "class": name,
            "support": one.support,
            "precision": one.precision,
            "recall": one.recall,
            "f1": one.f1,
            "recall_low": one.interval.low,
            "recall_high": one.interval.high,
        }
        for name, one in zip(classes, per_class(counts), strict=True)
    ]
    write_csv(out / PER_CLASS, [{k: _plain(v) for k, v in row.items()} for row in figures])
    return class_metrics(true, probs)


def _plain(value: object) -> object:
    return "" if isinstance(value, float) and math.isnan(value) else value
