"""Two models on the same images, each image scored by a model that has not seen it.

Of its own training images a model's scores are those of its cross-validation (without folds: of
the part that was held out of its training), of all others those of the model itself. Images for
which one of the two has no such score are left out and counted, never scored in-sample. What is
true is what stands in the review database today, else what the runs say.

Both models see every image, so their difference gets a paired bootstrap: images are drawn with
replacement within each label, and both models are judged on the same draws. Each decides by its
own threshold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from leanet.data.class_list import class_of
from leanet.ops.stats import bootstrap_interval, mcnemar
from leanet.ops.working_point import point_of
from leanet.records import ANOMALOUS, NORMAL
from leanet.serve.evidence import Evidence, Row, Side, gather
from leanet.serve.store import Store
from leanet.serve.versions import Versions

DRAWS: Final = 1000  # of the bootstrap
Values: TypeAlias = NDArray[np.float64]
Labels: TypeAlias = NDArray[np.int64]
Figure: TypeAlias = Callable[[Labels, Values], float]  # of labels and scores - threshold, each [N]


def ranking(label: Labels, margin: Values) -> float:
    """`leanet.ops.metrics.auroc` from the sum of ranks, which is fast enough to be drawn again and
    again.

    >>> ranking(np.array([0, 0, 1, 1]), np.array([-7.0, 3.0, 3.0, 40.0]))
    0.875
    """
    num = int(np.sum(label == ANOMALOUS))
    if num in (0, label.size):
        return math.nan
    ranks = float(rankdata(margin)[label == ANOMALOUS].sum())
    return (ranks - num * (num + 1) / 2) / (num * (label.size - num))


def escapes(label: Labels, margin: Values) -> float:
    """The share of anomalous images below the threshold."""
    return _share(margin[label == ANOMALOUS] < 0)


def overkill(label: Labels, margin: Values) -> float:
    """The share of normal images from the threshold on."""
    return _share(margin[label == NORMAL] >= 0)


FIGURES: Final[dict[str, Figure]] = {"auroc": ranking, "escapes": escapes, "overkill": overkill}


def side_by_side(
    store: Store, versions: Versions, old: str, new: str, *, device: str = "auto"
) -> dict[str, Any]:
    """What changes when `new` takes the place of `old`, as JSON values:

    old, new, thresholds {old, new}, num_normal, num_anomalous, left_out {reason: count};
    comparable: whether there are images of both labels; remarks: what to keep in mind, in words;
    figures {auroc, escapes, overkill, accuracy (of several classes)}: each {old, new, difference,
    low, high: 95 % of the difference, clear: that excludes 0} or None where undefined;
    right {only_old, only_new, p}: exact test of McNemar of the verdicts;
    kinds [{kind, label, num, old_right, new_right}]; origins {run, labeled: {num, old_wrong,
    new_wrong}}; changed [{id, path, label, kind, old_score, new_score, old_verdict, new_verdict,
    better}]: images whose verdict, or class, is another.

    Raises:
        ValueError: an unknown or unfinished model, or images that are gone.
    """
    found = gather(store, versions, old, new, device)
    rows, sides = found.rows, (found.old, found.new)
    limits = [point_of(side.card).threshold for side in sides]
    label = np.array([row.sample.label for row in rows], dtype=np.int64)
    counts = {"num_normal": int(np.sum(label == NORMAL)), "num_anomalous": int(np.sum(label))}
    verdicts = [_verdicts(rows, k, limit) for k, limit in enumerate(limits)]
    true = [_true(row, classes=bool(found.new.card.get("classes"))) for row in rows]
    right = [[v == t for v, t in zip(side, true, strict=True)] for side in verdicts]
    only = mcnemar(*(np.array(one, dtype=bool) for one in right))
    return {
        "old": old,
        "new": new,
        "thresholds": {"old": limits[0], "new": limits[1]},
        **counts,
        "left_out": found.left_out,
        "comparable": all(counts.values()) and None not in limits,
        "remarks": _remarks(found, counts),
        "figures": _figures(rows, label, limits, right),
        "right": {"only_old": only.only_a, "only_new": only.only_b, "p": only.p},
        "kinds": _kinds(rows, right),
        "origins": _origins(rows, right),
        "changed": _changed(rows, verdicts, right),
    }


def difference(figure: Figure, label: Labels, old: Values, new: Values) -> dict[str, Any] | None:
    """A figure of both models, and the paired bootstrap of new - old; None where it is undefined.
    Labels and scores [N], the scores as distances from each one's own threshold."""
    values = figure(label, old), figure(label, new)
    if any(map(math.isnan, values)):
        return None
    low, high = bootstrap_interval(
        lambda y, a, b: figure(y, b) - figure(y, a),
        label,
        old,
        new,
        rng=np.random.default_rng(0),
        num=DRAWS,
        label=label,
    )
    return {
        "old": values[0],
        "new": values[1],
        "difference": values[1] - values[0],
        "low": low,
        "high": high,
        "clear": not low <= 0 <= high,
    }


def _figures(
    rows: Sequence[Row],
    label: Labels,
    limits: Sequence[float | None],
    right: Sequence[Sequence[bool]],
) -> dict[str, Any]:
    figures: dict[str, Any] = dict.fromkeys(FIGURES)
    if rows and limits[0] is not None and limits[1] is not None:
        old = np.array([row.old.score for row in rows], dtype=np.float64) - limits[0]
        new = np.array([row.new.score for row in rows], dtype=np.float64) - limits[1]
        figures = {name: difference(f, label, old, new) for name, f in FIGURES.items()}
    if rows and rows[0].new.predicted:
        correct = [np.array(one, dtype=np.float64) for one in right]
        figures["accuracy"] = difference(lambda _, value: float(value.mean()), label, *correct)
    return figures


def _verdicts(rows: Sequence[Row], side: int, limit: float | None) -> list[str]:
    """Of several classes the most probable one, else normal or anomalous."""
    said = [(row.old, row.new)[side] for row in rows]
    if any(one.predicted for one in said):
        return [one.predicted for one in said]
    if limit is None:
        return [""] * len(said)
    return ["anomalous" if (one.score or 0.0) >= limit else "normal" for one in said]


def _true(row: Row, *, classes: bool) -> str:
    if classes:
        return class_of(row.sample)
    return "anomalous" if row.sample.label == ANOMALOUS else "normal"


def _kinds(rows: Sequence[Row], right: Sequence[Sequence[bool]]) -> list[dict[str, Any]]:
    """Right verdicts by label and kind."""
    kinds: dict[tuple[int, str], list[int]] = {}
    for k, row in enumerate(rows):
        kinds.setdefault((row.sample.label, row.sample.kind), []).append(k)
    return [
        {
            "kind": kind,
            "label": "ng" if label == ANOMALOUS else "ok",
            "num": len(members),
            "old_right": sum(right[0][k] for k in members),
            "new_right": sum(right[1][k] for k in members),
        }
        for (label, kind), members in sorted(kinds.items())
    ]


def _origins(rows: Sequence[Row], right: Sequence[Sequence[bool]]) -> dict[str, Any]:
    """Wrong verdicts on images of the runs, and on those that people have labeled since."""
    found = {}
    for name, labeled in (("run", False), ("labeled", True)):
        members = [k for k, row in enumerate(rows) if row.labeled == labeled]
        wrong = [sum(not one[k] for k in members) for one in right]
        found[name] = {"num": len(members), "old_wrong": wrong[0], "new_wrong": wrong[1]}
    return found


def _changed(
    rows: Sequence[Row], verdicts: Sequence[Sequence[str]], right: Sequence[Sequence[bool]]
) -> list[dict[str, Any]]:
    """Images whose verdict changes, those that become wrong first."""
    changed = [
        {
            "id": row.id,
            "path": str(row.sample.path),
            "label": "ng" if row.sample.label == ANOMALOUS else "ok",
            "kind": row.sample.kind,
            "old_score": row.old.score,
            "new_score": row.new.score,
            "old_verdict": verdicts[0][k],
            "new_verdict": verdicts[1][k],
            "better": bool(right[1][k]),
        }
        for k, row in enumerate(rows)
        if verdicts[0][k] != verdicts[1][k]
    ]
    return sorted(changed, key=lambda one: bool(one["better"]))


def _remarks(found: Evidence, counts: dict[str, int]) -> list[str]:
    remarks = [_source(side) for side in (found.old, found.new)]
    for reason, count in found.left_out.items():
        remarks.append(f"{count} images are left out: {reason}")
    if not all(counts.values()):
        remarks.append(
            f"{counts['num_normal']} normal and {counts['num_anomalous']} anomalous images are not "
            "enough to compare: both are needed"
        )
    return remarks


def _source(side: Side) -> str:
    """Where the scores of a model's own training images come from."""
    folds, num_scored = int(side.card.get("folds") or 0), len(side.learned & side.unseen.keys())
    if folds and not num_scored:
        return (
            f"{side.name}: an older version of leanet wrote the scores of its folds, each on a "
            f"scale of its own, so none of its {len(side.learned)} training images counts"
        )
    if folds:
        return (
            f"{side.name}: its {len(side.learned)} training images are scored by {folds} folds, "
            f"whose models learned from {100 * (folds - 1) // folds} % of them each"
        )
    return (
        f"{side.name}: trained without folds, so of its {len(side.learned)} training images only "
        f"those count that were held out ({num_scored})"
    )


def _share(hits: NDArray[np.bool_]) -> float:
    return float(hits.mean()) if hits.size else math.nan
