"""Do the maps of a network point at the marked defects? Against masks, beside four baselines.

Only images with a mask count. Maps are compared at the mask's own resolution. Every figure stands
beside the share of the area that the masks cover, which is what a map without knowledge reaches,
and has a bootstrap interval over images (over groups, where samples have them: pictures of one part
are no independent witnesses). Pixel AUROC, average precision and AUPRO pool raw maps over images,
which makes sense only for methods whose values mean the same in every image; their memory grows
with the images by a few kilobytes each.

`out` gets `localization.csv` (a row per method, subset and measure), `localization_images.csv` (a
row per image and method) and `localization.json`. A right answer with less energy in the mask than
its area is marked there: it is right for another reason.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from leanet.data.cache import UnreadableImagesError
from leanet.data.images import UnreadableImageError, read_mask
from leanet.data.loader import stream
from leanet.files import write_csv, write_json
from leanet.inference.ground_truth import spread
from leanet.inference.localization_figures import (
    ALL,
    Collected,
    Row,
    Seen,
    csv_row,
    facts,
    figure_rows,
    image_rows,
)
from leanet.inference.overlay import upsampled
from leanet.inference.predict import Tell, refuse_earlier, tell_left_out
from leanet.inference.subject import (
    INFORMATIVE,
    RESAMPLES,
    SHARED_BASELINES,
    Subject,
    all_maps,
    random_weights,
)
from leanet.ops.localize import area_share, energy_in_mask, pointing
from leanet.ops.pixels import PixelCounts, edges_from
from leanet.progress import Progress
from leanet.records import Sample

TABLE, IMAGES, FACTS = "localization.csv", "localization_images.csv", "localization.json"
BINS: Final = 400  # edges of the pixel histograms
EDGE_PIXELS: Final = 4096  # per map, to place the edges


def localization(  # noqa: PLR0913 - the options of a verb, by name
    subject: Subject,
    samples: Sequence[Sample],
    *,
    out: Path,
    device: torch.device,
    tolerance: int = 0,
    batch_size: int = 16,
    seed: int = 0,
    resamples: int = RESAMPLES,
    skip_bad: bool = False,
    overwrite: bool = False,
    tell: Tell = print,
) -> list[Row]:
    """Judge the maps of all samples that have a mask; `tolerance` grows the masks by so many pixels
    for energy and pointing.

    Raises:
        UnreadableImagesError: images or masks, without `skip_bad`, after all others.
        ValueError: no masks, a mask of another size than its image, or earlier results in `out`.
    """
    refuse_earlier(out, (TABLE, FACTS), overwrite=overwrite)
    masked = [one for one in samples if one.mask is not None]
    if not masked:
        raise ValueError(
            "none of these images has a mask, so maps cannot be compared with the truth; give "
            "masks (ground_truth/ in a tree as of MVTec AD, or the column mask of a CSV file)"
        )
    found, bad = Collected(), list[UnreadableImageError]()
    drawing = partial(_drawn, subject, device=device, batch_size=batch_size, seed=seed)
    found.edges = _edges(subject, drawing(spread(masked), bad=list[UnreadableImageError]()), seed)
    with Progress("comparing maps with masks", total=len(masked)) as bar:
        for one in drawing(masked, bad=bad):
            _compare(one, tolerance, found)
            bar.advance(steps=len(found.samples) + len(bad) - bar.done)
    if bad and not skip_bad:
        raise UnreadableImagesError(bad)
    tell_left_out(bad, tell)
    if not found.samples:
        raise ValueError("no image with a mask could be read")
    rows = figure_rows(found, seed, resamples)
    write_csv(out / TABLE, [csv_row(row) for row in rows])
    write_csv(out / IMAGES, image_rows(found))
    write_json(out / FACTS, facts(found, rows, tolerance, seed))
    return rows


def to_text(rows: Sequence[Row]) -> str:
    """A table for all images: methods and baselines down, measures with their intervals across."""
    shown = [row for row in rows if row.subset == ALL]
    measures = list(dict.fromkeys(row.measure for row in shown))
    cells = [["", *measures]]
    for method in dict.fromkeys(row.method for row in shown):
        own = {row.measure: row for row in shown if row.method == method}
        cells.append([method, *(_cell(own.get(measure)) for measure in measures)])
    widths = [max(len(line[k]) for line in cells) for k in range(len(cells[0]))]
    lines = [
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()
        for line in cells
    ]
    images = max(row.figure.images for row in shown)
    return "\n".join(
        [
            *lines,
            f"{images} images; the masks cover {100 * shown[0].chance:.2g} % of them "
            "on average, which a map without knowledge reaches in energy and pointing",
            "* informative: beyond the 95 % intervals of all four baselines",
            "A map shows what the score reacts to, not where the defect is.",
        ]
    )


# --- drawing and comparing -----------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Drawn:
    """One image: its mask [H, W], and its maps [H, W] at the mask's size."""

    sample: Sample
    mask: NDArray[np.bool_]
    right: bool | None
    maps: dict[str, NDArray[np.float32]]


def _drawn(
    subject: Subject,
    samples: Sequence[Sample],
    *,
    device: torch.device,
    batch_size: int,
    seed: int,
    bad: list[UnreadableImageError],
) -> Iterator[_Drawn]:
    by_path = {one.path: one for one in samples}
    paths = [one.path for one in samples]
    for loaded in stream(paths, subject.img_size, batch_size=batch_size, bad=bad):
        own = [by_path[path] for path in loaded.paths]
        images = loaded.image.to(device)
        with torch.no_grad():
            maps = all_maps(subject, images, own, seed=seed)
            right = None if subject.right is None else subject.right(images, own).tolist()
        planes = {name: heat[:, 0].float().cpu().numpy() for name, heat in maps.items()}
        for k, sample in enumerate(own):
            mask = _mask(sample, loaded.sizes[k], bad)
            if mask is not None:
                yield _Drawn(
                    sample=sample,
                    mask=mask,
                    right=None if right is None else bool(right[k]),
                    maps={name: upsampled(heat[k], mask.shape) for name, heat in planes.items()},
                )


def _mask(
    sample: Sample, size: tuple[int, int], bad: list[UnreadableImageError]
) -> NDArray[np.bool_] | None:
    """The mask; None if it is unreadable, or empty and so says nothing."""
    assert sample.mask is not None
    try:
        mask: NDArray[np.bool_] = read_mask(sample.mask)
    except UnreadableImageError as error:
        bad.append(error)
        return None
    if mask.shape != size:
        raise ValueError(
            f"the mask {sample.mask} is {mask.shape[1]}x{mask.shape[0]} pixels and its image "
            f"{size[1]}x{size[0]}; make them equal (`leanet scan` lists all such masks)"
        )
    return mask if mask.any() else None


def _edges(subject: Subject, few: Iterator[_Drawn], seed: int) -> dict[str, NDArray[np.float64]]:
    """Edges of the pixel histograms of all maps whose values can be pooled."""
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[NDArray[np.float32]]] = defaultdict(list)
    for one in few:
        for name, heat in one.maps.items():
            if _poolable(name, subject.comparable):
                drawn[name].append(rng.choice(heat.ravel(), min(EDGE_PIXELS, heat.size)))
    return {name: edges_from(np.concatenate(pixels), BINS) for name, pixels in drawn.items()}


def _poolable(name: str, comparable: frozenset[str]) -> bool:
    methods = {*comparable, *(random_weights(method) for method in comparable)}
    return name in SHARED_BASELINES or name in methods


def _compare(one: _Drawn, tolerance: int, found: Collected) -> None:
    for name, heat in one.maps.items():
        seen = Seen(
            energy=energy_in_mask(heat, one.mask, tolerance),
            pointing=pointing(heat, one.mask, tolerance),
        )
        found.seen[name].append(seen)
        if name in found.edges:
            counts = PixelCounts(found.edges[name])
            counts.add(heat, one.mask)
            found.counts[name].append(counts)
    found.samples.append(one.sample)
    found.areas.append(area_share(one.mask))
    found.right.append(one.right)


def _cell(row: Row | None) -> str:
    if row is None or math.isnan(row.figure.mean):
        return "-"
    low, high = row.figure.interval
    star = "*" if row.verdict == INFORMATIVE else " "
    known = "" if math.isnan(low) else f" ({low:.3f} to {high:.3f})"
    return f"{row.figure.mean:.3f}{known}{star}"
