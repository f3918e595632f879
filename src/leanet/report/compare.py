"""Several runs beside each other: which differences are there, and which could be chance.

The first run's variant is the baseline. The main figure is the accuracy on the test images; a
difference is taken repeat by repeat (same seed and draw) and image by image, and judged by the rule
of `leanet.ops.comparing`. Figures beside it (balanced accuracy, NLL, ...) are described and not
tested. Runs of several classes are compared by their classes, others by their verdicts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from leanet.files import read_csv
from leanet.ops.classes import Counts, class_metrics
from leanet.ops.comparing import (
    DISCORDANT,
    Contrast,
    contrasts,
    could_have_seen,
    detectable_difference,
    images_needed,
    over_draws,
    two_level_interval,
)
from leanet.ops.stats import (
    Interval,
    McNemar,
    MeanSD,
    PairedDifference,
    mcnemar,
    mean_sd,
    paired_difference,
)
from leanet.report.classes import counts_of
from leanet.report.run import Part, Run
from leanet.report.variants import (
    REPEATS,
    Repeat,
    Variant,
    read_variants,
    shown,
    unfair_keys,
)

CLASS_FIGURES = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced acc.",
    "macro_f1": "Macro F1",
    "nll": "NLL",
    "ece": "ECE",
}
VERDICT_FIGURES = {
    "accuracy": "Accuracy",
    "auroc": "AUROC",
    "average_precision": "AP",
    "f1": "F1",
    "balanced_accuracy": "Balanced acc.",
}
SMALL = 0.044  # a difference of accuracies that papers report, and that takes many images

Right = NDArray[np.float64]  # [repeats, images]: 1 where the image was given its class


class Duel(NamedTuple):
    """Two single runs of one repeat: images that only one of them got right."""

    variant: str
    repeat: str
    test: McNemar  # a: the variant, b: the baseline


class Plan(NamedTuple):
    """What McNemar's test can see at 80 % power, when only one of two runs is right on a share
    `discordant` of the images."""

    discordant: float
    detectable: float  # with the images that there are; nan: nothing
    images_for_small: float  # for a difference of `SMALL`


class NoiseFloor(NamedTuple):
    """Runs of the baseline among themselves: `pair` compares repeats that no other variant has with
    as many that they have; None without such repeats."""

    accuracy: MeanSD
    largest: float  # difference between two of its runs; nan for one run
    pair: tuple[PairedDifference, Interval] | None


@dataclass(frozen=True, kw_only=True)
class Row:
    """A variant, its figures over its repeats, and what sets it apart from the baseline (None for
    the baseline itself)."""

    variant: Variant
    figures: Mapping[str, MeanSD]
    differences: Mapping[str, PairedDifference]  # of each figure, over the shared repeats
    contrast: Contrast | None
    counts: Counts | None  # [K, K], all repeats together; None without classes
    parameters: float
    seconds: MeanSD
    epochs: MeanSD
    shared: tuple[Repeat, ...]  # repeats that the baseline has too
    of_repeats: tuple[float, ...]  # difference of the accuracies in each shared repeat
    unfair: tuple[str, ...]  # options, other than attention, that the baseline has otherwise


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Everything that the page, the tables and the terminal show."""

    rows: tuple[Row, ...]  # the baseline first
    classes: tuple[str, ...]
    num_images: int
    num_groups: int  # of images that belong together; num_images without such
    titles: Mapping[str, str]  # figure -> name, in the order of the columns
    duels: tuple[Duel, ...]
    plans: tuple[Plan, ...]
    could_have_seen: float
    noise: NoiseFloor
    warnings: tuple[str, ...]

    @property
    def baseline(self) -> Row:
        """The first variant."""
        return self.rows[0]


def compare_runs(folders: Sequence[Path]) -> Comparison:
    """Compare runs on the same images.

    Raises:
        ValueError: what `read_variants` refuses.
    """
    variants = read_variants(folders)
    baseline, *others = variants
    first = next(iter(baseline.runs.values()))
    paths = sorted(_rightness(first))
    right = {id(v): _table(v, list(v.runs), paths) for v in variants}
    groups = _groups(first, paths)
    rng = np.random.default_rng(0)
    shared = {id(v): tuple(r for r in v.runs if r in baseline.runs) for v in variants}
    found = contrasts(
        [_table(v, shared[id(v)], paths) - _table(baseline, shared[id(v)], paths) for v in others],
        rng=rng,
        groups=groups,
    )
    judged: list[Contrast | None] = [None, *found]
    titles = dict(CLASS_FIGURES if first.classes else VERDICT_FIGURES)
    if first.classes and all(run.tested for v in variants for run in v.runs.values()):
        titles["auroc"] = "AUROC"
    return Comparison(
        rows=tuple(
            _row(variant, baseline, contrast, titles)
            for variant, contrast in zip(variants, judged, strict=True)
        ),
        classes=first.classes,
        num_images=len(paths),
        num_groups=len(set(groups)),
        titles=titles,
        duels=tuple(duel for v in others for duel in _duels(v, baseline, shared[id(v)], paths)),
        plans=tuple(plan(len(paths), share) for share in DISCORDANT),
        could_have_seen=could_have_seen(len(paths)),
        noise=_noise(baseline, others, right[id(baseline)], groups, rng),
        warnings=tuple(_warnings(variants)),
    )


def plan(num_images: int, discordant: float) -> Plan:
    """What so many images can show, and how many a small difference needs."""
    detectable = detectable_difference(num_images, discordant)
    return Plan(discordant, detectable, images_needed(SMALL, discordant))


def repeat_name(repeat: Repeat) -> str:
    """The values of a repeat in words.

    >>> repeat_name(("0", "3"))
    'seed 0, draw 3'
    """
    return ", ".join(f"{key} {value}" for key, value in zip(REPEATS, repeat, strict=True))


def figures_of(run: Run, names: Sequence[str]) -> dict[str, float]:
    """Figures of one run: of all test images together where a threshold does not matter, else the
    mean over its parts, whose scores are not on one scale."""
    scored = {
        name: mean_sd([_score_figure(part, name) for part in run.tested_parts]).mean
        for name in names
    }
    if not run.classes:
        return scored | {"accuracy": mean_sd(list(_rightness(run).values())).mean}
    place = {name: k for k, name in enumerate(run.classes)}
    probs = [[image.probs[name] for name in run.classes] for image in run.named]
    by_class = class_metrics([place[image.true] for image in run.named], probs)
    return scored | {name: by_class[name] for name in names if name in by_class}


def _row(
    variant: Variant, baseline: Variant, contrast: Contrast | None, titles: Mapping[str, str]
) -> Row:
    names, runs = list(titles), list(variant.runs.values())
    ours = {repeat: figures_of(run, names) for repeat, run in variant.runs.items()}
    theirs = {repeat: figures_of(run, names) for repeat, run in baseline.runs.items()}
    shared = tuple(repeat for repeat in ours if repeat in theirs)
    differences = {
        name: paired_difference([ours[r][name] for r in shared], [theirs[r][name] for r in shared])
        for name in (names if contrast else ())
    }
    counts = [counts_of(run.named, run.classes) for run in runs if run.classes]
    return Row(
        variant=variant,
        figures={name: mean_sd([one[name] for one in ours.values()]) for name in names},
        differences=differences,
        contrast=contrast,
        counts=np.sum(counts, axis=0) if counts else None,
        parameters=runs[0].final.parameters,
        seconds=mean_sd([run.seconds for run in runs]),
        epochs=mean_sd([part.epochs for run in runs for part in run.tested_parts]),
        shared=shared,
        of_repeats=tuple(ours[r]["accuracy"] - theirs[r]["accuracy"] for r in shared),
        unfair=tuple(unfair_keys(variant, baseline)),
    )


def _duels(
    variant: Variant, baseline: Variant, shared: Sequence[Repeat], paths: Sequence[str]
) -> list[Duel]:
    ours, theirs = _table(variant, shared, paths), _table(baseline, shared, paths)
    return [
        Duel(variant.name, repeat_name(repeat), mcnemar(ours[k], theirs[k]))
        for k, repeat in enumerate(shared)
    ]


def _noise(
    baseline: Variant,
    others: Sequence[Variant],
    right: Right,
    groups: Sequence[str],
    rng: np.random.Generator,
) -> NoiseFloor:
    """The baseline against itself."""
    accuracy = right.mean(axis=1)
    used = [any(repeat in other.runs for other in others) for repeat in baseline.runs]
    same, new = np.flatnonzero(used), np.flatnonzero(~np.asarray(used))
    num = min(len(same), len(new))
    pair = None
    if num > 1:
        difference = right[new[:num]] - right[same[:num]]
        pair = over_draws(difference), two_level_interval(difference, rng=rng, groups=groups)
    largest = float(np.ptp(accuracy)) if len(accuracy) > 1 else math.nan
    return NoiseFloor(mean_sd(accuracy), largest, pair)


def _rightness(run: Run) -> dict[str, bool]:
    """Test image -> whether it was given its class, or its verdict is right."""
    images = run.named if run.classes else run.tested
    return {image.path: not image.wrong for image in images}


def _table(variant: Variant, repeats: Sequence[Repeat], paths: Sequence[str]) -> Right:
    rows = [_rightness(variant.runs[repeat]) for repeat in repeats]
    return np.array([[row[path] for path in paths] for row in rows], dtype=np.float64)


def _groups(run: Run, paths: Sequence[str]) -> list[str]:
    """The group of each image, or its own path where it has none."""
    known = {row["path"]: row["group"] for row in read_csv(run.folder / "samples.csv")}
    return [f"group {known[path]}" if known.get(path) else path for path in paths]


def _score_figure(part: Part, name: str) -> float:
    value = part.metrics.get("score", {}).get(name)
    return math.nan if value is None else value


def _warnings(variants: Sequence[Variant]) -> list[str]:
    """What makes the comparison unfair or weak."""
    baseline, *others = variants
    found = []
    for variant in others:
        keys = unfair_keys(variant, baseline)
        if keys:
            told = ", ".join(
                f"{key} {shown(variant, key)} (baseline: {shown(baseline, key)})" for key in keys
            )
            found.append(
                f"NOT A FAIR COMPARISON of attention: {variant.name} differs from {baseline.name} "
                f"in more than that: {told}. A difference may come from this alone."
            )
        missing = len(variant.runs) - len(variant.runs.keys() & baseline.runs.keys())
        if missing:
            found.append(
                f"{missing} of {len(variant.runs)} runs of {variant.name} have no run of the "
                "baseline with the same seed and draw: they count in its mean and not in the "
                "difference."
            )
    places = dict.fromkeys(str(r.config["data"]) for v in variants for r in v.runs.values())
    if len(places) > 1:
        found.append(
            f"The runs read their data from different places ({', '.join(places)}); names and "
            "labels of the images are the same."
        )
    return found
