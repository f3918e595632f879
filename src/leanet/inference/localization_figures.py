"""The figures of `localization`: what was seen of every image and map, and tables made of it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from leanet.inference.ground_truth import PRO_LIMIT
from leanet.inference.subject import (
    FEWEST_GROUPS,
    INFORMATIVE,
    Figure,
    by_group,
    group_names,
    is_baseline,
    mean_figure,
    verdict,
)
from leanet.ops.localize import size_bin
from leanet.ops.pixels import PixelCounts, aupro, pixel_auroc, pixel_average_precision
from leanet.ops.stats import Interval, bootstrap_interval
from leanet.records import Sample

ALL: Final = "all"
MEAN_MEASURES: Final = ("energy", "energy_over_chance", "pointing")
PIXEL_MEASURES: Final[dict[str, Callable[[PixelCounts], float]]] = {
    "pixel_auroc": pixel_auroc,
    "pixel_ap": pixel_average_precision,
    "aupro": partial(aupro, limit=PRO_LIMIT),
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measure of one method on one subset: "all", "kind: crack", "size: below 1 %", "right" or
    "wrong". `chance` is the mean share of the area in the masks; `no_evidence` are images whose map
    has no positive value, which have no energy."""

    method: str
    subset: str
    measure: str
    figure: Figure
    chance: float
    no_evidence: int
    verdict: str


class Draw(NamedTuple):
    """How the bootstrap draws."""

    seed: int
    resamples: int


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One map of one image."""

    energy: float
    pointing: float


@dataclass(kw_only=True)
class Collected:
    """Images in order, their subsets, and per method a value per image."""

    samples: list[Sample] = field(default_factory=list)
    areas: list[float] = field(default_factory=list)
    right: list[bool | None] = field(default_factory=list)
    seen: dict[str, list[Seen]] = field(default_factory=lambda: defaultdict(list))
    counts: dict[str, list[PixelCounts]] = field(default_factory=lambda: defaultdict(list))
    edges: dict[str, NDArray[np.float64]] = field(default_factory=dict)


def figure_rows(found: Collected, seed: int, resamples: int) -> list[Row]:
    """All measures of all methods on all subsets; pixel figures on all images only."""
    draw = Draw(seed, resamples)
    rows = []
    for subset, chosen in _subsets(found).items():
        for measure in MEAN_MEASURES:
            figures = {name: _mean(found, name, measure, chosen, draw) for name in found.seen}
            rows += _of_measure(found, figures, measure, subset, chosen)
        if subset == ALL:
            for measure, formula in PIXEL_MEASURES.items():
                figures = {name: _pooled(found, name, formula, draw) for name in found.counts}
                rows += _of_measure(found, figures, measure, subset, chosen)
    return rows


def _subsets(found: Collected) -> dict[str, list[int]]:
    """Name -> numbers of the images; those that hold all images or none are left out, but "all"."""
    num = len(found.samples)
    parts: dict[str, list[int]] = defaultdict(list)
    for k, sample in enumerate(found.samples):
        if found.right[k] is not None:
            parts["right" if found.right[k] else "wrong"].append(k)
        parts[f"kind: {sample.kind or 'unknown'}"].append(k)
        parts[f"size: {size_bin(found.areas[k])}"].append(k)
    named = {name: parts[name] for name in sorted(parts) if len(parts[name]) < num}
    return {ALL: list(range(num)), **named}


def _of_measure(
    found: Collected,
    figures: Mapping[str, Figure],
    measure: str,
    subset: str,
    chosen: Sequence[int],
) -> list[Row]:
    return [
        Row(
            method=name,
            subset=subset,
            measure=measure,
            figure=figure,
            chance=float(np.mean([found.areas[k] for k in chosen])),
            no_evidence=sum(math.isnan(found.seen[name][k].energy) for k in chosen),
            verdict=verdict(name, figures),
        )
        for name, figure in figures.items()
    ]


def _mean(found: Collected, name: str, measure: str, chosen: Sequence[int], draw: Draw) -> Figure:
    groups = group_names([found.samples[k] for k in chosen])
    values = [_value(found, name, measure, k) for k in chosen]
    return mean_figure(values, groups, seed=draw.seed, resamples=draw.resamples)


def _value(found: Collected, name: str, measure: str, k: int) -> float:
    """`energy_over_chance` is the energy less the area of the mask: masks of all sizes side by side
    spread far more than methods do, and this takes the spread out."""
    seen = found.seen[name][k]
    if measure == "energy_over_chance":
        return seen.energy - found.areas[k]
    return seen.energy if measure == "energy" else seen.pointing


def _pooled(
    found: Collected, name: str, formula: Callable[[PixelCounts], float], draw: Draw
) -> Figure:
    """A pixel figure over all images, its interval over groups of them."""
    counts, groups = found.counts[name], group_names(found.samples)
    normal = by_group(np.stack([one.normal for one in counts]), groups)
    anomalous = by_group(np.stack([one.anomalous for one in counts]), groups)
    overlap = by_group(np.stack([one.overlap for one in counts]), groups)

    def figure(*rows: NDArray[np.float64]) -> float:
        total = PixelCounts(found.edges[name])
        total.normal, total.anomalous = (part.sum(axis=0).astype(np.int64) for part in rows[:2])
        total.overlap = rows[2].sum(axis=0)
        return formula(total)

    arrays = normal, anomalous, overlap
    interval = Interval(math.nan, math.nan)
    if len(normal) >= FEWEST_GROUPS:
        rng = np.random.default_rng(draw.seed)
        interval = bootstrap_interval(figure, *arrays, rng=rng, num=draw.resamples)
    return Figure(figure(*arrays), interval, len(counts))


def _other_reason(found: Collected, name: str, k: int) -> bool:
    """A right answer whose map lies in the mask no more than chance would."""
    energy = found.seen[name][k].energy
    return found.right[k] is True and (math.isnan(energy) or energy < found.areas[k])


def csv_row(row: Row) -> dict[str, Any]:
    """A row of `localization.csv`."""
    low, high = row.figure.interval
    numbers = {"mean": row.figure.mean, "low": low, "high": high, "chance": row.chance}
    return {
        "method": row.method,
        "baseline": int(is_baseline(row.method)),
        "subset": row.subset,
        "measure": row.measure,
        **{name: None if math.isnan(value) else value for name, value in numbers.items()},
        "images": row.figure.images,
        "no_evidence": row.no_evidence,
        "verdict": row.verdict,
    }


def image_rows(found: Collected) -> list[dict[str, Any]]:
    """The rows of `localization_images.csv`."""
    rows = []
    for k, sample in enumerate(found.samples):
        right = found.right[k]
        image = {
            "path": sample.path.as_posix(),
            "kind": sample.kind,
            "group": sample.group or "",
            "area": found.areas[k],
            "right": "" if right is None else int(right),
        }
        for name, seen in found.seen.items():
            energy = seen[k].energy
            rows.append(
                image
                | {"method": name, "energy": "" if math.isnan(energy) else energy}
                | {"pointing": seen[k].pointing}
                | {"right_for_another_reason": int(_other_reason(found, name, k))}
            )
    return rows


def facts(found: Collected, rows: Sequence[Row], tolerance: int, seed: int) -> dict[str, Any]:
    """What `localization.json` holds."""
    num = len(found.samples)
    informative: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row.subset == ALL and row.verdict == INFORMATIVE:
            informative[row.method].append(row.measure)
    return {
        "images": num,
        "groups": len(set(group_names(found.samples))),
        "tolerance": tolerance,
        "seed": seed,
        "area_share": float(np.mean(found.areas)),
        "median_area_share": float(np.median(found.areas)),
        "informative": informative,
        "right_for_another_reason": {
            name: sum(_other_reason(found, name, k) for k in range(num)) for name in found.seen
        },
    }
