"""How well the maps of a run find the marked pixels: small tables, and lines for a terminal.

IoU stands beside its two ceilings, without which it says little: the best threshold for these very
images, and the coarseness of the grid that the map was drawn on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from leanet.ops.stats import MeanSD, mean_sd
from leanet.report.run import Part, Run
from leanet.report.tables import quantity, spread

Figures = Mapping[str, float]

NAMED = "iou_"  # before the name of a working point of the map
_NONE = MeanSD(math.nan, math.nan)
_MARGIN = 10  # of a terminal, in characters


class PixelRow(NamedTuple):
    """A figure over some parts of a run, the mean of the images' own ones (nan where these are not
    defined), and what it means."""

    title: str
    figure: MeanSD
    per_image: MeanSD
    note: str


class PixelTable(NamedTuple):
    """The figures of some parts, and how many images, and anomalous ones, they come from."""

    title: str
    rows: tuple[PixelRow, ...]
    num_images: int
    num_anomalous: int
    outside: str = ""  # what lies where the map does not cover the images

    @property
    def has_means(self) -> bool:
        """Whether some figure is also a mean over images."""
        return any(not math.isnan(row.per_image.mean) for row in self.rows)


def pixel_tables(run: Run) -> tuple[PixelTable, ...]:
    """Of the folds, or else of the final detector, and of the final one's own test beside the
    folds; () where no map met a mask."""
    tested = [("Pixels", run.tested_parts)]
    if run.folds:
        tested.append(("Pixels, the final detector on the data set's own test part", (run.final,)))
    return tuple(_table(title, parts) for title, parts in tested if any(p.pixels for p in parts))


def pixel_text(run: Run, width: int = 100) -> str:
    """The figures of the folds for a terminal, in lines of at most `width` characters; "" without
    any."""
    lines: list[str] = []
    for table in pixel_tables(run)[:1]:
        for row in table.rows:
            cell = f"{row.title} {spread(row.figure, missing='-')}"
            if lines and len(lines[-1]) + len(cell) + 2 <= width:
                lines[-1] += f", {cell}"
            else:
                lines.append(f"{'' if lines else 'pixels':<{_MARGIN}}{cell}")
    return "\n".join(lines)


def names_of(figures: Sequence[Figures]) -> tuple[str, ...]:
    """The named working points of some figures, in their order.

    >>> names_of([{"iou_paper": 0.1, "image_iou_paper": 0.1, "auroc": 0.9}, {"iou_honest": 0.2}])
    ('paper', 'honest')
    """
    keys = dict.fromkeys(key for one in figures for key in one)
    return tuple(key.removeprefix(NAMED) for key in keys if key.startswith(NAMED))


def _table(title: str, parts: Sequence[Part]) -> PixelTable:
    found = [part.pixels for part in parts if part.pixels]
    images, anomalous = (
        int(sum(figures[name] for figures in found)) for name in ("num_images", "num_anomalous")
    )
    return PixelTable(title, tuple(_rows(found)), images, anomalous, _outside(found))


def _outside(found: Sequence[Figures]) -> str:
    """A sentence; "" where maps cover whole images."""
    if not any("num_outside" in figures for figures in found):
        return ""
    regions, images = (
        int(sum(figures.get(name, 0) for figures in found))
        for name in ("num_regions_outside", "num_outside")
    )
    return (
        "The border that the map does not cover is left out: "
        f"{regions} marked {'region lies' if regions == 1 else 'regions lie'} there, and "
        f"{images} anomalous {'image has' if images == 1 else 'images have'} no other."
    )


def _rows(found: Sequence[Figures]) -> Iterator[PixelRow]:
    def over_parts(name: str) -> MeanSD:
        return mean_sd([figures.get(name, math.nan) for figures in found])

    yield PixelRow("AUROC", over_parts("auroc"), _NONE, "chance 0.500")
    overlap = "mean overlap with a region, up to 30 % false positives"
    yield PixelRow("AUPRO 0.3", over_parts("aupro"), _NONE, overlap)
    for name in names_of(found):
        note = f"map ≥ {quantity(over_parts(f'threshold_{name}').mean)}"
        per_image = over_parts(f"image_{NAMED}{name}")
        yield PixelRow(f"IoU {name}", over_parts(f"{NAMED}{name}"), per_image, note)
    oracle = "at the threshold that suits these very images best"
    yield PixelRow("Best IoU (oracle)", over_parts("oracle_iou"), _NONE, oracle)
    grid = over_parts("map_grid").mean
    if not math.isnan(grid):
        title = f"IoU ceiling {grid:.0f} × {grid:.0f}"
        note = "what a map of so few places reaches that knows the masks"
        yield PixelRow(title, over_parts("oracle_iou_grid"), _NONE, note)
