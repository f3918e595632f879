"""What explanations of one image look like side by side: a row per map, drawn once and for all.

    untouched image | raw map with its color bar and unit | overlay | outline of the mask, if any

The image is always there as it was photographed, because an overlay changes the very colors that a
color anomaly consists of. One square of the raw map is one cell of the layer: nothing is smoothed
there. The words below each bar say what the scale is: maps that are scaled to themselves cannot be
compared, and the picture says so.
"""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from leanet.files import replacing
from leanet.inference.overlay import (
    ALPHA,
    Blend,
    PictureScale,
    default_table,
    outlined,
    overlay,
)
from leanet.ops.colormap import color_table, colored

SIDE: Final = 230  # of a picture, in pixels of the layout; the file has SHARPNESS times as many
GAP, MARGIN, LABELS, BAR = 14, 18, 150, 9
HEAD, BELOW, NOTE = 58, 64, 17  # heights: title, room for a color bar and its words, a note
SHARPNESS: Final = 2
BETWEEN, LETTER = 90, 4.8  # beside a unit, for the numbers; of its letters
INK, MUTED, LINE, HOT, GOOD = "#1b2733", "#5a6a7f", "#c9d1db", "#bd4b0a", "#2c7a4b"
FACT: Final = (
    "A map shows what the score reacts to, not where the defect is. Red in a signed map speaks for "
    "the score, blue against it."
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One map [h, w] and how to draw it; `details` are lines under its name (layer, cell size)."""

    name: str
    heat: NDArray[np.floating[Any]]
    scale: PictureScale
    unit: str = ""
    signed: bool = False
    details: Sequence[str] = ()
    cmap: str | None = None


@dataclass(frozen=True, kw_only=True)
class Panel:
    """All that one picture shows: an image uint8 [H, W, 3], its maps, its mask [H, W] if any."""

    title: str
    image: NDArray[np.uint8]
    rows: Sequence[Row]
    mask: NDArray[np.bool_] | None = None
    verdict: str = ""
    alarm: bool = False
    notes: Sequence[str] = (FACT,)
    alpha: float = ALPHA
    blend: Blend = "value"


def save(panel: Panel, path: Path) -> None:
    """Write the picture; the ending says as what: png, svg or pdf. Raises ValueError for others."""
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("png", "svg", "pdf"):
        raise ValueError(f"{path.name} has no ending that says what to write: png, svg or pdf")
    figure = draw(panel)
    with replacing(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a file name in a script the font lacks
        figure.savefig(temporary, format=kind, dpi=72 * SHARPNESS)


def draw(panel: Panel) -> Figure:
    """The picture as a matplotlib figure. Raises ValueError without a row, or for a mask of another
    size than the image."""
    if not panel.rows:
        raise ValueError("a panel needs at least one map")
    height, width = panel.image.shape[:2]
    tall = round(SIDE * min(1.0, height / width))
    wide = round(SIDE * min(1.0, width / height))
    columns = 3 if panel.mask is None else 4
    full = 2 * MARGIN + LABELS + columns * (wide + GAP) - GAP
    notes = [line for note in panel.notes for line in textwrap.wrap(note, int(full / 5.6))]
    total = MARGIN + HEAD + len(panel.rows) * (tall + BELOW) + NOTE * len(notes) + MARGIN
    canvas = _Canvas(full, total)
    look: dict[str, Any] = {"color": INK, "fontweight": "bold"}
    canvas.text(MARGIN, MARGIN - 4, _short(panel.title, int(full / 9)), 14, **look)
    canvas.text(MARGIN, MARGIN + 16, panel.verdict, 12, color=HOT if panel.alarm else GOOD)
    for name, x in zip(_columns(panel), _places(wide, columns), strict=True):
        canvas.text(x + wide / 2, MARGIN + HEAD - 16, name, 10, ha="center")
    for k, row in enumerate(panel.rows):
        _row(canvas, panel, row, MARGIN + HEAD + k * (tall + BELOW), (wide, tall))
    for k, line in enumerate(notes):
        canvas.text(MARGIN, total - MARGIN - NOTE * (len(notes) - k) + 4, line)
    return canvas.figure


def _columns(panel: Panel) -> list[str]:
    names = ["image, untouched", "raw map", f"overlay, alpha {panel.alpha:g}"]
    return names if panel.mask is None else [*names, "mask, outlined"]


def _places(wide: int, columns: int) -> list[float]:
    return [MARGIN + LABELS + k * (wide + GAP) for k in range(columns)]


def _row(canvas: _Canvas, panel: Panel, row: Row, y: float, size: tuple[int, int]) -> None:
    columns = _places(size[0], 3 if panel.mask is None else 4)
    table, top = row.cmap or default_table(row.signed), row.scale.top
    share = row.heat / top
    drawn = overlay(
        panel.image,
        row.heat,
        scale=top,
        signed=row.signed,
        cmap=row.cmap,
        alpha=panel.alpha,
        blend=panel.blend,
    )
    canvas.picture(columns[0], y, size, panel.image)
    canvas.picture(columns[1], y, size, colored(0.5 + share / 2 if row.signed else share, table))
    canvas.picture(columns[2], y, size, drawn)
    if panel.mask is not None:
        canvas.picture(columns[3], y, size, outlined(panel.image, panel.mask))
    canvas.text(MARGIN, y, "\n".join(textwrap.wrap(row.name, 22)), 11, color=INK, fontweight="bold")
    below = y + 16 * len(textwrap.wrap(row.name, 22))
    for k, line in enumerate(part for text in row.details for part in textwrap.wrap(text, 26)):
        canvas.text(MARGIN, below + 2 + 14 * k, line, 9.5)
    canvas.bar(columns[1], y + size[1] + 5, size[0], row, table)


class _Canvas:
    """A white figure on which places are pixels from the upper left corner."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width / 72, height / 72), dpi=72, facecolor="white")

    def text(self, x: float, y: float, text: str, size: float = 10, **look: Any) -> None:
        """`y` is the upper edge."""
        look = {"color": MUTED, "va": "top", "parse_math": False, **look}
        self.figure.text(x / self.width, 1 - y / self.height, text, fontsize=size, **look)

    def picture(
        self, x: float, y: float, size: tuple[float, float], rgb: NDArray[np.uint8]
    ) -> None:
        """Colors [h, w, 3], one square each."""
        wide, tall = size
        left, bottom = x / self.width, 1 - (y + tall) / self.height
        axes = self.figure.add_axes((left, bottom, wide / self.width, tall / self.height))
        axes.imshow(rgb, aspect="auto", interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(color=LINE, linewidth=0.6)

    def bar(self, x: float, y: float, width: float, row: Row, table: str) -> None:
        """The color bar, its ends in numbers, the unit, and where the scale comes from."""
        self.picture(x, y, (width, BAR), color_table(table)[None])
        top, below = row.scale.top, y + BAR + 4
        self.text(x, below, _number(-top if row.signed else 0.0), 9.5)
        self.text(x + width, below, _number(top), 9.5, ha="right")
        lines = [row.unit, row.scale.words]
        if BETWEEN + LETTER * len(row.unit) > width:  # the numbers need a line of their own
            lines = ["", *lines]
        for k, line in enumerate(lines):
            look: dict[str, Any] = {"color": INK} if line == row.unit else {}
            self.text(x + width / 2, below + 13 * k, line, 9 if look else 8.5, ha="center", **look)


def _number(value: float) -> str:
    return f"{value:.3g}"


def _short(text: str, room: int) -> str:
    """The text, its middle cut out where it is longer than `room` letters.

    >>> _short("a long file name.png", 11)
    'a lon…e.png'
    """
    if len(text) <= room:
        return text
    kept = max(room - 1, 2)
    return f"{text[: kept // 2]}…{text[kept // 2 - kept :]}"
