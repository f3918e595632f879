"""Perlin noise, and the random regions that synthetic anomalies are drawn with.

Every knot of a grid gets a random unit vector. A point inside a cell takes the scalar products of
the vectors of its four knots with the ways from those knots to the point, mixed by the smooth step
6 t^5 - 15 t^4 + 10 t^3: a field without steps that is 0 at every knot and has no detail smaller
than a cell. Cut at a height, it leaves a few blobs with irregular outlines; with cells of unequal
sides, turned, they become streaks. That is how DRAEM (Zavrtanik, Kristan and Skočaj 2021,
arXiv 2108.07610) draws the outlines of its anomalies.

Reference: Perlin (2002), Improving noise, doi:10.1145/566654.566636.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

AREA = (0.002, 0.30)  # least and largest share of an image that a region may cover
ATTEMPTS = 100  # regions drawn before giving up
HEIGHT = 0.5  # where the noise is cut
FINEST = 5  # at most 2^5 cells along an axis ...
SMALLEST_CELL = 4  # ... and no cell smaller than so many pixels
EDGE = 0.2  # a soft region ends here: it has no invisible rim


def perlin_noise(
    size: tuple[int, int],
    cells: tuple[int, int],
    generator: torch.Generator,
    *,
    turn: float = 0.0,
) -> Tensor:
    """A field [H, W] in [-1, 1] for `size` (H, W), with `cells` along the rows' and the columns'
    axis, turned by `turn` radians about the middle; where the grid lies is drawn too.

    Raises ValueError for sizes or cells below 1.
    """
    if min(*size, *cells) < 1:
        raise ValueError(f"size {size} and cells {cells} must be at least 1 in both directions")
    y, x = _turned(size, turn)
    phase = torch.rand(2, generator=generator)
    rows, columns = (y * cells[0] + phase[0]), (x * cells[1] + phase[1])
    top, left = int(rows.min().floor()), int(columns.min().floor())
    rows, columns = rows - top, columns - left
    knots = (int(rows.max()) + 2, int(columns.max()) + 2)
    angle = torch.rand(knots, generator=generator) * (2 * math.pi)
    i, j = rows.long(), columns.long()
    u, v = rows - i, columns - j
    corners = [
        angle[i + di, j + dj].cos() * (u - di) + angle[i + di, j + dj].sin() * (v - dj)
        for di in (0, 1)
        for dj in (0, 1)
    ]
    upper = torch.lerp(corners[0], corners[1], _smooth(v))
    lower = torch.lerp(corners[2], corners[3], _smooth(v))
    return (math.sqrt(2) * torch.lerp(upper, lower, _smooth(u))).clamp(-1, 1)


def random_noise(size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Perlin noise [H, W] in [-1, 1] of a random number of cells per axis, 2^0 to 2^5 as far as
    the pixels allow, turned at random."""
    cells = [2 ** _below(1 + _finest(side), generator) for side in size]
    turn = float(torch.rand((), generator=generator)) * math.pi
    return perlin_noise(size, (cells[0], cells[1]), generator, turn=turn)


def perlin_region(size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Random noise cut at 0.5: [H, W] of 0 and 1; it may be empty."""
    return (random_noise(size, generator) > HEIGHT).float()


def soft_region(size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """A region [H, W] that rises softly from 0 to 1, by turns Perlin noise and a dented ellipse;
    it may be empty. Nothing lies between 0 and 0.2."""
    if float(torch.rand((), generator=generator)) < 0.5:
        height = (random_noise(size, generator) - HEIGHT) / 0.2 + 0.5
    else:
        height = _ellipse(size, generator)
    region = height.clamp(0, 1)
    soft: Tensor = region.masked_fill(region < EDGE, 0.0)
    return soft


def drawn_region(draw: Callable[[], Tensor], inside: Tensor | None = None) -> Tensor:
    """The first region [H, W] from `draw` that, cut down to `inside` [H, W] (nonzero = allowed),
    covers between 0.2 % and 30 % of the image with values above 0.5.

    Raises ValueError when a hundred draws give none, as where the foreground is too small.
    """
    for _ in range(ATTEMPTS):
        region = draw() if inside is None else draw() * (inside != 0)
        if AREA[0] <= float((region > 0.5).float().mean()) <= AREA[1]:
            return region
    allowed = 1.0 if inside is None else float((inside != 0).float().mean())
    raise ValueError(
        f"{ATTEMPTS} random regions covered less than {AREA[0]:.1%} or more than {AREA[1]:.0%} of "
        f"the image, of which {allowed:.1%} are foreground; give larger images or foregrounds"
    )


def _ellipse(size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Height of a dented ellipse [H, W], above 0 inside and near its rim."""
    draw = torch.rand(5, generator=generator).tolist()
    y, x = _turned(size, draw[0] * math.pi)
    shift = _turn(draw[1] - 0.5, draw[2] - 0.5, draw[0] * math.pi)
    radius, stretch = 0.05 + 0.2 * draw[3], 2.0 ** (draw[4] - 0.5)
    distance = torch.hypot((y - shift[0]) / stretch, (x - shift[1]) * stretch) / radius
    dents = perlin_noise(size, (4, 4), generator)
    height: Tensor = (1.25 - distance + 0.5 * dents) / 0.5
    return height


def _turned(size: tuple[int, int], turn: float) -> tuple[Tensor, Tensor]:
    """Coordinates (down, right) [H, W] of the pixel centers, -0.5 to 0.5, turned."""
    height, width = size
    y = (torch.arange(height) + 0.5) / height - 0.5
    x = (torch.arange(width) + 0.5) / width - 0.5
    down, right = torch.meshgrid(y, x, indexing="ij")
    cos, sin = math.cos(turn), math.sin(turn)
    return cos * down - sin * right, sin * down + cos * right


def _turn(down: float, right: float, turn: float) -> tuple[float, float]:
    cos, sin = math.cos(turn), math.sin(turn)
    return cos * down - sin * right, sin * down + cos * right


def _finest(side: int) -> int:
    """The largest power of two of cells along a side of so many pixels."""
    return max(0, min(FINEST, int(math.log2(max(side / SMALLEST_CELL, 1)))))


def _below(limit: int, generator: torch.Generator) -> int:
    return int(torch.randint(limit, (), generator=generator))


def _smooth(t: Tensor) -> Tensor:
    return t * t * t * (t * (6 * t - 15) + 10)
