"""Can the maps of a network be believed? Measured on images, beside four baselines.

Every measure changes images by what a map says and watches the score (`leanet.ops.faithful`), for
every method and every baseline on the same images, with the same order of equal pixels and the same
noise. A figure has a bootstrap interval over images (over groups, where samples have them), and a
method is called informative by a measure only if its interval lies beyond those of all baselines.

`out` gets `faithfulness.csv` (a row per method and measure), `faithfulness_images.csv` (a row per
image and method), `faithfulness.json` (settings, mean curves) and `faithfulness.png` (the curves).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from leanet.data.cache import UnreadableImagesError
from leanet.data.images import UnreadableImageError
from leanet.data.loader import stream
from leanet.files import write_csv, write_json
from leanet.inference.faithfulness_curves import Curves, save_curves
from leanet.inference.predict import Tell, refuse_earlier, tell_left_out
from leanet.inference.subject import (
    NOT_INFORMATIVE,
    RESAMPLES,
    Figure,
    Subject,
    all_maps,
    group_names,
    is_baseline,
    mean_figure,
    verdict,
)
from leanet.ops.faithful import (
    ROAD_SHARES,
    STEPS,
    Reference,
    ScoreOf,
    curve_area,
    deletion,
    drop,
    increase,
    insertion,
    ranking,
    reference_images,
    road,
    shown_only,
    spearman,
    stability,
    tie_order,
)
from leanet.progress import Progress
from leanet.records import Sample
from leanet.runtime import derived_seed

TABLE, IMAGES = "faithfulness.csv", "faithfulness_images.csv"
FACTS, PICTURE = "faithfulness.json", "faithfulness.png"
NUM_IMAGES: Final = 200
GAINS: Final = (0.9, 1.0, 1.1)  # of brightness, for stability, each with and without a mirror
MEASURES: Final = {
    "deletion": False,
    "deletion_logit": False,
    "insertion": True,
    "insertion_logit": True,
    "road": True,
    "road_accuracy": True,
    "increase": True,
    "drop": False,
    "stability": True,
}
"""Measure -> whether higher is better."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How much is measured, and with what. `normal` [3, S, S] is the mean image of normal ones,
    needed for the reference of that name."""

    num: int = NUM_IMAGES
    steps: int = STEPS
    reference: Reference = "blur"
    normal: Tensor | None = None
    shares: tuple[float, ...] = ROAD_SHARES
    seed: int = 0
    batch_size: int = 16
    resamples: int = RESAMPLES


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measure of one method."""

    method: str
    measure: str
    figure: Figure
    verdict: str  # "" where there are no baselines to compare with


@dataclass(kw_only=True)
class _Collected:
    """Per method: measure -> a value per image, and curves summed over images."""

    samples: list[Sample] = field(default_factory=list)
    values: dict[str, dict[str, list[float]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    curves: dict[str, dict[str, Any]] = field(default_factory=lambda: defaultdict(dict))
    redrawn: dict[str, dict[str, list[float]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )


def faithfulness(  # noqa: PLR0913 - the options of a verb, by name
    subject: Subject,
    samples: Sequence[Sample],
    *,
    out: Path,
    device: torch.device,
    settings: Settings | None = None,
    skip_bad: bool = False,
    overwrite: bool = False,
    tell: Tell = print,
) -> list[Row]:
    """Measure on up to `settings.num` of the samples, drawn evenly over labels and kinds.

    Raises:
        UnreadableImagesError: without `skip_bad`, before anything is measured, which takes long.
        ValueError: no samples, earlier results in `out`, or impossible settings.
    """
    how = settings or Settings()
    refuse_earlier(out, (TABLE, FACTS), overwrite=overwrite)
    chosen = stratified(samples, how.num, how.seed)
    by_path = {one.path: one for one in chosen}
    paths = [one.path for one in chosen]
    if not skip_bad:
        _require_readable(paths, subject.img_size)
    found, bad = _Collected(), list[UnreadableImageError]()
    with Progress("measuring maps", total=len(chosen)) as bar:
        for loaded in stream(paths, subject.img_size, batch_size=how.batch_size, bad=bad):
            own = [by_path[path] for path in loaded.paths]
            _measure(subject, loaded.image.to(device), own, how, found)
            bar.advance(steps=len(found.samples) + len(bad) - bar.done)
    tell_left_out(bad, tell)
    rows = _rows(found, how)
    _write(out, rows, found, how, subject)
    return rows


def _require_readable(paths: Sequence[Path], img_size: int) -> None:
    bad: list[UnreadableImageError] = []
    for _ in stream(paths, img_size, batch_size=1, bad=bad):
        pass
    if bad:
        raise UnreadableImagesError(bad)


def stratified(samples: Sequence[Sample], num: int, seed: int) -> list[Sample]:
    """Up to `num` samples, in their order, with every label and kind in its share.

    Raises:
        ValueError: no samples, or `num` below 1.
    """
    if not samples or num < 1:
        raise ValueError(
            f"there must be samples, and at least 1 to draw, not {len(samples)} and {num}"
        )
    rng = np.random.default_rng(seed)
    strata: dict[tuple[int, str], list[int]] = defaultdict(list)
    for index, one in enumerate(samples):
        strata[one.label, one.kind].append(index)
    queue: list[
        tuple[float, int]
    ] = []  # every stratum spread evenly over [0, 1): a prefix has all of them in their share
    for members in strata.values():
        places = (np.arange(len(members)) + rng.random()) / len(members)
        queue += zip(places.tolist(), rng.permutation(members).tolist(), strict=True)
    return [samples[index] for index in sorted(index for _, index in sorted(queue)[:num])]


def to_text(rows: Sequence[Row]) -> str:
    """A table: methods and baselines down, measures across; a star where a method is informative,
    and below in words what that means."""
    measures = [m for m in MEASURES if any(row.measure == m for row in rows)]
    cells = [["", *(f"{m} {'↑' if MEASURES[m] else '↓'}" for m in measures)]]
    for method in dict.fromkeys(row.method for row in rows):
        own = {row.measure: row for row in rows if row.method == method}
        cells.append([method, *(_cell(own.get(measure)) for measure in measures)])
    widths = [max(len(line[k]) for line in cells) for k in range(len(cells[0]))]
    table = [
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()
        for line in cells
    ]
    return "\n".join([*table, "* informative: beyond the 95 % intervals of all four baselines"])


# --- measuring -----------------------------------------------------------------------------------


@torch.no_grad()
def _measure(
    subject: Subject, images: Tensor, samples: list[Sample], how: Settings, found: _Collected
) -> None:
    """All measures of one batch, into `found`."""
    maps = all_maps(subject, images, samples, seed=how.seed)
    size = (images.shape[-2], images.shape[-1])
    score_of = subject.scorer(images, samples)
    generators = [_generator(how.seed, one) for one in samples]
    ties = torch.cat([tie_order(1, size[0] * size[1], one) for one in generators])
    gone = reference_images(images, how.reference, how.normal)
    for name, heat in maps.items():
        order = ranking(heat, size, ties)
        values = found.values[name]
        _curves(score_of, images, order, gone, how, values, found.curves[name])
        noise = _generator(how.seed, samples[0])  # the same for every map
        fill = road(score_of, images, order, generator=noise, shares=how.shares)
        _add(values, "road", fill.combined()[:, 0])
        _add(values, "road_accuracy", fill.combined()[:, 2])
        for key, curve in (("road_morf", fill.morf), ("road_lerf", fill.lerf)):
            _add_curve(found.curves[name], key, curve[..., 0])
        before, after = score_of(images)[:, 0], score_of(shown_only(images, heat))[:, 0]
        _add(values, "increase", increase(before, after))
        _add(values, "drop", drop(before, after))
    _steadiness(subject, images, samples, maps, found)
    found.samples += samples


def _curves(
    score_of: ScoreOf,
    images: Tensor,
    order: Tensor,
    gone: Tensor,
    how: Settings,
    values: dict[str, list[float]],
    curves: dict[str, Any],
) -> None:
    """Deletion and insertion."""
    for name, change in (("deletion", deletion), ("insertion", insertion)):
        curve = change(score_of, images, order, gone, how.steps)
        area = curve_area(curve)
        _add(values, name, area[:, 0])
        _add(values, f"{name}_logit", area[:, 1])
        _add_curve(curves, name, curve[..., 0])


def _steadiness(
    subject: Subject,
    images: Tensor,
    samples: list[Sample],
    maps: Mapping[str, Tensor],
    found: _Collected,
) -> None:
    """Rank correlation under harmless changes, and with the maps of networks drawn anew."""
    variants: dict[str, list[Tensor]] = defaultdict(list)
    for mirrored in (False, True):
        for gain in GAINS:
            changed = (gain * images).clamp(max=1)
            drawn = subject.maps(changed.flip(3) if mirrored else changed, samples)
            for name, heat in drawn.items():
                variants[name].append(heat.flip(3) if mirrored else heat)
    for name, heats in variants.items():
        _add(found.values[name], "stability", stability(torch.stack(heats)))
    for part, maker in subject.redrawn.items():
        for name, heat in maker(images, samples).items():
            _add(found.redrawn[name], part, spearman(heat, maps[name]))


def _add(values: dict[str, list[float]], measure: str, numbers: Tensor) -> None:
    values[measure] += numbers.double().cpu().tolist()


def _add_curve(curves: dict[str, Any], name: str, curve: Tensor) -> None:
    curves[name] = curves.get(name, 0) + curve.double().sum(dim=0).cpu().numpy()


def _generator(seed: int, sample: Sample) -> torch.Generator:
    name = "/".join(sample.path.parts[-3:])
    return torch.Generator().manual_seed(derived_seed(seed, "faithfulness", name))


# --- results -------------------------------------------------------------------------------------


def _rows(found: _Collected, how: Settings) -> list[Row]:
    groups, rows = group_names(found.samples), []
    for measure, higher in MEASURES.items():
        figures = {
            method: mean_figure(values[measure], groups, seed=how.seed, resamples=how.resamples)
            for method, values in found.values.items()
            if measure in values
        }
        rows += [
            Row(
                method=method,
                measure=measure,
                figure=figure,
                verdict=verdict(method, figures, higher_is_better=higher),
            )
            for method, figure in figures.items()
        ]
    return rows


def _write(
    out: Path, rows: Sequence[Row], found: _Collected, how: Settings, subject: Subject
) -> None:
    write_csv(out / TABLE, [_csv_row(row) for row in rows])
    write_csv(out / IMAGES, _image_rows(found))
    num, groups = len(found.samples), group_names(found.samples)
    curves = {
        method: {name: (total / num).tolist() for name, total in own.items()}
        for method, own in found.curves.items()
    }
    redrawn = {
        method: {
            part: mean_figure(numbers, groups, seed=how.seed, resamples=how.resamples)
            for part, numbers in parts.items()
        }
        for method, parts in found.redrawn.items()
    }
    facts = {
        "images": num,
        "groups": len(set(groups)),
        "removed": subject.removes,
        "reference": how.reference,
        "steps": how.steps,
        "shares": list(how.shares),
        "seed": how.seed,
        "img_size": subject.img_size,
    }
    randomization = {
        method: {part: _plain(figure) for part, figure in parts.items()}
        for method, parts in redrawn.items()
    }
    write_json(out / FACTS, {**facts, "randomization": randomization, "curves": curves})
    means = {m: {p: figure.mean for p, figure in parts.items()} for m, parts in redrawn.items()}
    save_curves(Curves(curves, means, how.shares, num, subject.removes), out / PICTURE)


def _csv_row(row: Row) -> dict[str, Any]:
    kind = {"method": row.method, "baseline": int(is_baseline(row.method)), "measure": row.measure}
    better = {"better": "higher" if MEASURES[row.measure] else "lower"}
    return kind | better | _plain(row.figure) | {"verdict": row.verdict}


def _image_rows(found: _Collected) -> list[dict[str, Any]]:
    rows = []
    for method, values in found.values.items():
        for k, sample in enumerate(found.samples):
            row = {"path": sample.path.as_posix(), "kind": sample.kind, "method": method}
            rows.append(row | {measure: numbers[k] for measure, numbers in values.items()})
    return rows


def _plain(figure: Figure) -> dict[str, Any]:
    """As CSV and JSON hold it: nothing where a figure is undefined."""
    numbers = {"mean": figure.mean, "low": figure.interval.low, "high": figure.interval.high}
    known = {name: None if math.isnan(value) else value for name, value in numbers.items()}
    return known | {"images": figure.images}


def _cell(row: Row | None) -> str:
    if row is None or math.isnan(row.figure.mean):
        return "-"
    star = "*" if row.verdict and row.verdict != NOT_INFORMATIVE else " "
    return f"{row.figure.mean:.3f}{star}"
