"""baseline.json: what the pictures that a run was trained on look like, and how they score.

Later pictures are held against it (`leanet.serve.drift`): a lamp that ages changes the statistics
of `leanet.ops.image_statistics` long before anybody can say which verdicts it has changed.

    img_size     side in pixels at which the statistics were taken
    u, rate      one picture: its limits in spreads, and the share of normal pictures beyond them
    statistics   by name: spread [median, low, high] and limits [low, high] of normal training
                 pictures, the summaries `normal` and `all` (see `leanet.ops.familiar`)
    scores       those of images that their model had not seen: `source`, `normal`, `all`; or null
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from leanet.data.cache import Cache, images_in_unit_range
from leanet.data.images import UnreadableImageError
from leanet.data.loader import stream
from leanet.files import read_csv, read_json, write_json
from leanet.inference.run_images import PREDICTIONS
from leanet.ops.familiar import limit_of, spread_of, summary
from leanet.ops.image_statistics import STATISTICS, image_statistics
from leanet.records import NORMAL, Sample

BASELINE: Final = "baseline.json"
MOST: Final = 4000  # pictures that are looked at, evenly chosen
FEWEST: Final = 8  # normal pictures that make a baseline
_BATCH: Final = 16
Values = dict[str, NDArray[np.float64]]  # statistic -> [N]


def write_baseline(run: Path, images: Cache, labels: Sequence[int], trained: Sequence[int]) -> None:
    """Write `run/baseline.json` from the decoded images of the samples `trained`, and from the
    predictions of a run whose folds are finished. Fewer than `FEWEST` normal images make none."""
    chosen = evenly(trained, MOST)
    parts = (chosen[k : k + _BATCH] for k in range(0, len(chosen), _BATCH))
    values = measured(images_in_unit_range(images.take(part)) for part in parts)
    normal = np.array([labels[i] == NORMAL for i in chosen])
    baseline = baseline_of(values, normal, images.array.shape[-1], scores_of(run))
    if baseline is not None:
        write_json(run / BASELINE, baseline)


def read_baseline(run: Path) -> dict[str, Any] | None:
    """What `write_baseline` wrote; None of a run that has none."""
    file = run / BASELINE
    return dict(read_json(file)) if file.exists() else None


def baseline_from_files(
    run: Path, samples: Sequence[Sample], img_size: int
) -> dict[str, Any] | None:
    """The baseline of a run that has none, from its training images; None if most are gone."""
    there = [one for one in samples if one.path.exists()]
    if 2 * len(there) < len(samples):
        return None
    normal_of = {one.path: one.label == NORMAL for one in evenly(there, MOST)}
    kept: list[Path] = []

    def batches() -> Iterator[Tensor]:
        bad: list[UnreadableImageError] = []
        for loaded in stream([*normal_of], img_size, batch_size=_BATCH, bad=bad):
            kept.extend(loaded.paths)
            yield loaded.image

    values = measured(batches())
    normal = np.array([normal_of[path] for path in kept], dtype=bool)
    return baseline_of(values, normal, img_size, scores_of(run))


def scores_of(run: Path) -> dict[str, Any] | None:
    """Summaries of the scores that models gave to images which they had not seen; None without."""
    found = [
        ("cross-validation", "test", sorted(run.glob(f"fold-*/{PREDICTIONS}"))),
        ("held-out", "held_out", sorted(run.glob(f"final/{PREDICTIONS}"))),
    ]
    for source, role, files in found:
        rows = [row for file in files for row in read_csv(file) if row["role"] == role]
        scored = [(float(row["score"]), row["label"]) for row in rows if row.get("score")]
        normal = [score for score, label in scored if label == str(NORMAL)]
        if len(normal) >= FEWEST:
            every = [score for score, _ in scored]
            return {"source": source, "normal": summary(normal), "all": summary(every)}
    return None


@torch.inference_mode()
def measured(batches: Iterable[Tensor]) -> Values:
    """The statistics of all images, batch by batch [B, 3, S, S] in [0, 1]."""
    collected: dict[str, list[Tensor]] = {name: [] for name in STATISTICS}
    for image in batches:
        for name, value in image_statistics(image).items():
            collected[name].append(value.double().cpu())
    return {
        name: torch.cat(parts).numpy() if parts else np.zeros(0)
        for name, parts in collected.items()
    }


def baseline_of(
    values: Values, normal: NDArray[np.bool_], img_size: int, scores: dict[str, Any] | None
) -> dict[str, Any] | None:
    """The contents of baseline.json from the statistics [N] of training images, of which some [N]
    are normal (where none is, all count as normal); None for fewer than `FEWEST`.

    The limits of one picture are those of normal ones, wide enough for 98 % of all others.
    """
    chosen = normal if normal.any() else np.ones_like(normal)
    if chosen.sum() < FEWEST:
        return None
    good = {name: value[chosen] for name, value in values.items()}
    spreads = {name: spread_of(good[name], STATISTICS[name].least) for name in STATISTICS}
    u, rate = limit_of(good, {name: one.least for name, one in STATISTICS.items()})
    statistics = {}
    for name, spread in spreads.items():
        every = summary(values[name])
        low, high = (every["quantiles"][share] for share in ("0.01", "0.99"))
        statistics[name] = {
            "spread": list(spread),
            "limits": [
                min(low, spread.median - u * spread.low),
                max(high, spread.median + u * spread.high),
            ],
            "normal": summary(good[name]),
            "all": every,
        }
    return {
        "img_size": img_size,
        "u": u,
        "rate": rate,
        "statistics": statistics,
        "scores": scores,
    }


def evenly(items: Sequence[Any], most: int) -> list[Any]:
    """At most so many of the items, evenly chosen, in order.

    >>> evenly("abcde", 3)
    ['a', 'c', 'e']
    """
    count = min(most, len(items))
    places = np.linspace(0, len(items) - 1, count).round().astype(int)
    return [items[k] for k in places]
