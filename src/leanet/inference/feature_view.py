"""The feature view: what attention does to the features of a classifier, in one picture.

Laid out like Fig. 5 of Katafuchi & Tokunaga (arXiv 2109.05493): beside the image and its anomaly
map one column for each attention point, with the channel mean of the features f before, the
attention map M, and the channel mean of the features (1 + w M) f after.

The scales are what makes it honest. Both feature pictures of a column share *one* scale, so that an
attention without contrast shows as what it is: the same picture, only brighter. M is drawn on 0..1,
and a frame in its color bar marks the part of it that occurs. Guided attention has no w: there the
features after are M f, and M, whose mean is 1, is drawn from 0 to its highest value, 1 marked. The
colors (cividis, viridis, inferno) are perceptually uniform; what has a sign is blue below 0 and red
above. One array element is one square; only color pictures are smoothed.

Only matplotlib's object interface is used, and every place is given in pixels of a picture 1280
wide, from its upper left corner.
"""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from leanet.files import replacing
from leanet.ops.colormap import color_table
from leanet.ops.maps import resize

Plane = NDArray[np.float32]

MAP_COLORS, ATTENTION_COLORS, FEATURE_COLORS = "inferno", "viridis", "cividis"
SIGNED_COLORS: Final = "signed"  # of leanet.ops.colormap
NOTHING: Final = "#808080"  # where a map says nothing
SHARPNESS: Final = 2  # pixels of the file per pixel of the layout
INK, MUTED, LINE, HOT, GOOD = "#1b2733", "#5a6a7f", "#c9d1db", "#bd4b0a", "#2c7a4b"

WIDTH, MARGIN, GAP, LABELS = 1280, 22, 16, 26  # LABELS: of the rows, left of the first point
SMALLEST, LARGEST = 170, 240  # side of a picture
BAR = 8
SLOTS = (22, 56, 60)  # below the three rows: captions, color bars, figures in words
HEAD, GROUP, COLUMN, NOTE = 56, 22, 38, 17  # heights: title, names of runs, of points, a note


class Scale(NamedTuple):
    """Values at the ends of a color bar."""

    low: float
    high: float
    colors: str
    unit: str = ""
    mark: float | None = None  # a value to mark, and its name
    mark_name: str = ""


class Photo(NamedTuple):
    """A picture beside the points: uint8 [H, W, 3], or values [H, W] with their scale; masked ones
    say nothing and are grey."""

    name: str
    array: NDArray[Any]
    scale: Scale | None = None


@dataclass(frozen=True, kw_only=True)
class Point:
    """An attention point: channel means before and after [h, w], M [h', w'] >= 0, and w, None
    where there is none."""

    run: str
    name: str
    before: Plane
    attention: Plane
    after: Plane
    strength: float | None = None


@dataclass(frozen=True, kw_only=True)
class View:
    """All that one picture shows."""

    title: str
    run: str = ""
    verdict: str = ""
    alarm: bool = False
    photos: Sequence[Photo]
    points: Sequence[Point] = ()
    notes: Sequence[str] = ()


def shared_scale(before: Plane, after: Plane) -> tuple[float, float]:
    """The ends of the one scale on which both feature pictures of a point are drawn.

    >>> shared_scale(np.float32([1, 2]), np.float32([1.5, 4]))
    (1.0, 4.0)
    """
    return (
        float(min(before.min(), after.min())),
        float(max(before.max(), after.max())),
    )


def gain(point: Point) -> tuple[float, float] | None:
    """Least and greatest 1 + w M, or M where there is no w, by which the features are multiplied.

    None if the features after are something else (another fusion).
    """
    attention = torch.from_numpy(np.ascontiguousarray(point.attention))[None, None]
    height, width = point.before.shape
    factor = resize(attention, (height, width))[0, 0].numpy()
    if point.strength is not None:
        factor = 1 + point.strength * factor
    tolerance = 1e-3 * float(np.abs(point.after).max()) + 1e-6
    if np.abs(point.before * factor - point.after).max() > tolerance:
        return None
    return float(factor.min()), float(factor.max())


def is_weighed(point: Point) -> bool:
    """Whether the features after are M f, as guided attention has them."""
    return point.strength is None and gain(point) is not None


def attention_scale(point: Point) -> Scale:
    """0 to 1, or to the highest M where that is more; then 1, which changes nothing, is marked."""
    high = float(point.attention.max())
    if high <= 1:
        return Scale(0, 1, ATTENTION_COLORS)
    return Scale(0, high, ATTENTION_COLORS, mark=1, mark_name="unchanged")


def signed_scale(plane: Plane, unit: str) -> Scale:
    """Both signs equally far, 0 in the middle."""
    top = float(np.abs(plane).max())
    return Scale(-top, top, SIGNED_COLORS, unit)


def save(view: View, path: Path) -> None:
    """Write the picture as PNG."""
    figure = draw(view)
    with replacing(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a file name in a script the font lacks
        figure.savefig(temporary, format="png", dpi=72 * SHARPNESS)


def draw(view: View) -> Figure:
    """The picture as a matplotlib figure."""
    return (_Points(view) if view.points else _Photos(view)).draw()


class _Canvas:
    """A white figure on which places are pixels from the upper left corner; a point (the unit of
    font sizes) is a pixel too."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width / 72, height / 72), dpi=72, facecolor="white")

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        left, bottom = x / self.width, 1 - (y + height) / self.height
        axes = self.figure.add_axes((left, bottom, width / self.width, height / self.height))
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(color=LINE, linewidth=0.6)
        return axes

    def text(self, x: float, y: float, text: str, size: float = 11, **look: Any) -> None:
        """`y` is the upper edge, unless `va` says otherwise."""
        look = {"color": MUTED, "va": "top", "parse_math": False, **look}
        self.figure.text(x / self.width, 1 - y / self.height, text, fontsize=size, **look)

    def picture(self, x: float, y: float, side: float, photo: Photo) -> None:
        """A picture in a square; its own proportions are kept."""
        axes, scale = self.axes(x, y, side, side), photo.scale
        if scale is None:
            axes.imshow(photo.array, interpolation="bicubic")
            return
        high = scale.high if scale.high > scale.low else scale.low + 1
        colors = _colors(scale.colors).with_extremes(bad=NOTHING)
        axes.imshow(photo.array, cmap=colors, vmin=scale.low, vmax=high)

    def bar(self, x: float, y: float, width: float, scale: Scale, middle: str = "") -> Axes:
        """A color bar with its ends in numbers, the mark, and words between the ends."""
        axes = self.axes(x, y, width, BAR)
        axes.imshow(np.linspace(0, 1, 256)[None], aspect="auto", cmap=_colors(scale.colors))
        axes.set_axis_off()
        below = y + BAR + 6
        self.text(x, below, number(scale.low))
        self.text(x + width, below, number(scale.high), ha="right")
        self.text(x + width / 2, below, middle, ha="center", color=INK)
        if scale.mark is not None and scale.low <= scale.mark <= scale.high:
            place = 256 * (scale.mark - scale.low) / (scale.high - scale.low) - 0.5
            axes.plot([place, place], [-0.8, 0.8], color=INK, linewidth=1.5, clip_on=False)
        return axes

    def title(self, view: View) -> None:
        room = int((self.width - 2 * MARGIN) / 10.5)
        look = {"color": INK, "fontweight": "bold"}
        self.text(
            MARGIN,
            MARGIN - 4,
            shortened(view.title, room - min(len(view.run), room // 3)),
            15,
            **look,
        )
        self.text(MARGIN, MARGIN + 18, view.verdict, 13, color=HOT if view.alarm else GOOD)
        run = shortened(view.run, room // 3)
        self.text(self.width - MARGIN, MARGIN - 2, run, 12, ha="right")

    def notes(self, y: float, lines: Sequence[str]) -> None:
        for k, line in enumerate(lines):
            self.text(MARGIN, y + k * NOTE, line)


class _Photos:
    """The layout without attention points: the pictures side by side."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.side = min(320, _side(WIDTH, len(view.photos), 0))
        width = 2 * MARGIN + len(view.photos) * (self.side + GAP) - GAP
        self.width = max(width, 480)
        self.lines = _wrapped(view.notes, self.width)

    def draw(self) -> Figure:
        top = MARGIN + HEAD
        below = top + self.side + SLOTS[-1]
        canvas = _Canvas(self.width, below + NOTE * len(self.lines) + MARGIN)
        canvas.title(self.view)
        for k, photo in enumerate(self.view.photos):
            _photo(canvas, MARGIN + k * (self.side + GAP), top, self.side, photo)
        canvas.notes(below, self.lines)
        return canvas.figure


class _Points:
    """The layout with attention points: pictures in columns of three, then a column per point."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.photo_columns = -(-len(view.photos) // 3)
        columns = self.photo_columns + len(view.points)
        side = self.side = min(LARGEST, _side(WIDTH - LABELS, columns, SMALLEST))
        self.width = 2 * MARGIN + LABELS + columns * (side + GAP) - GAP
        self.lines = _wrapped(view.notes, self.width)
        self.groups = len({point.run for point in view.points}) > 1
        first = MARGIN + HEAD + GROUP * self.groups + COLUMN
        self.rows = (first, first + side + SLOTS[0], first + 2 * side + sum(SLOTS[:2]))
        self.below = first + 3 * side + sum(SLOTS)

    def draw(self) -> Figure:
        height = self.below + NOTE * len(self.lines) + MARGIN
        canvas = _Canvas(self.width, height)
        canvas.title(self.view)
        for k, photo in enumerate(self.view.photos):
            x = MARGIN + (k // 3) * (self.side + GAP)
            _photo(canvas, x, self.rows[k % 3], self.side, photo)
        for label, row in zip(("before", "attention M", "after"), self.rows, strict=True):
            look = {"ha": "right", "va": "center", "rotation": 90, "color": INK}
            canvas.text(self.x(0) - 8, row + self.side / 2, label, 12, **look)
        for k, point in enumerate(self.view.points):
            self._point(canvas, self.x(k), point)
        if self.groups:
            self._names_of_runs(canvas)
        canvas.notes(self.below, self.lines)
        return canvas.figure

    def x(self, k: int) -> float:
        """Left edge of the column of point k."""
        return MARGIN + LABELS + (self.photo_columns + k) * (self.side + GAP)

    def _point(self, canvas: _Canvas, x: float, point: Point) -> None:
        side, rows = self.side, self.rows
        features = Scale(*shared_scale(point.before, point.after), FEATURE_COLORS)
        attention = attention_scale(point)
        height, width = point.before.shape
        strength = "" if point.strength is None else f",  w = {number(point.strength)}"
        look = {"color": INK, "fontweight": "bold"}
        canvas.text(x, rows[0] - COLUMN + 3, point.name, 13, **look)
        canvas.text(x, rows[0] - COLUMN + 20, f"{width} × {height}{strength}", color=INK)
        canvas.picture(x, rows[0], side, Photo("before", point.before, features))
        canvas.picture(x, rows[1], side, Photo("M", point.attention, attention))
        canvas.picture(x, rows[2], side, Photo("after", point.after, features))
        below = rows[1] + side + 6
        low, high = float(point.attention.min()), float(point.attention.max())
        mean, sd = float(point.attention.mean()), float(point.attention.std())
        bar = canvas.bar(x, below, side, attention, f"mean {mean:.3f},  SD {sd:.3f}")
        share = 256 / attention.high
        frame = (max(share * (high - low), 3), 1.4)
        place = (share * (low + high) / 2 - 0.5 - frame[0] / 2, -0.7)
        bar.add_patch(Rectangle(place, *frame, fill=False, edgecolor=INK, lw=1.3, clip_on=False))
        below = rows[2] + side + 6
        canvas.bar(x, below, side, features, "before, after")
        factor = gain(point)
        if factor is not None:
            name = "M" if point.strength is None else "1 + w M"
            text = f"{name}:  {factor[0]:.3f} to {factor[1]:.3f}"
            canvas.text(x + side / 2, below + BAR + 22, text, ha="center", color=INK)

    def _names_of_runs(self, canvas: _Canvas) -> None:
        """A line over the columns of each run, with its name."""
        y, k = self.rows[0] - COLUMN - GROUP, 0
        for run, points in groupby(self.view.points, key=lambda point: point.run):
            number_of = len(list(points))
            width = number_of * (self.side + GAP) - GAP
            axes = canvas.axes(self.x(k), y + 18, width, 1)
            axes.set_facecolor(LINE)
            canvas.text(self.x(k), y + 1, shortened(run, int(width / 7)), 12, color=INK)
            k += number_of


def _colors(name: str) -> Colormap:
    if name == SIGNED_COLORS:
        return ListedColormap(color_table(name) / 255, name=name)
    return colormaps[name]


def _photo(canvas: _Canvas, x: float, y: float, side: float, photo: Photo) -> None:
    canvas.picture(x, y, side, photo)
    scale = photo.scale
    if scale is None:
        canvas.text(x, y + side + 4, photo.name, 12, color=INK)
        return
    below = y + side + 6
    mark = "" if scale.mark is None else f"{scale.mark_name} = {number(scale.mark)}"
    canvas.bar(x, below, side, scale, mark)
    name = f"{photo.name}, {scale.unit}" if scale.unit else photo.name
    canvas.text(x, below + BAR + 21, name, 12, color=INK)
    highest = f"max {number(float(photo.array.max()))}"
    canvas.text(x + side, below + BAR + 22, highest, ha="right", color=INK)


def number(value: float) -> str:
    """Three significant digits.

    >>> number(0.0), number(1.0), number(0.03449), number(40.29)
    ('0', '1', '0.0345', '40.3')
    """
    return f"{value:.3g}".replace("-", "−")


def shortened(text: str, room: int) -> str:
    """At most `room` letters on one line, the middle left out.

    >>> shortened("abcdefghij", 7)
    'abc…hij'
    """
    text = " ".join(text.split())
    if len(text) <= room:
        return text
    half = (room - 1) // 2
    return f"{text[:half]}…{text[len(text) - half :]}"


def _side(width: float, columns: int, least: int) -> int:
    """Side of the pictures for so many columns."""
    return max(least, int((width - 2 * MARGIN + GAP) / columns) - GAP)


def _wrapped(notes: Sequence[str], width: float) -> list[str]:
    room = int((width - 2 * MARGIN) / 5.9)  # letters of 11 px
    return [line for note in notes for line in textwrap.wrap(note, room)]
