"""Color anomalies graded in CIEDE2000: a discoloration of a wanted size with its exact mask.

    Lab' = Lab + t m direction,    0 < t <= 1

with a soft mask m and a direction of change: of hue (turned about the lightness axis, so that
lightness and chroma stay), of chroma (up or down), of lightness (up or down), or a random way in
the (a, b) plane at constant lightness. Adding to a color keeps texture, shading and noise: the
region differs in color alone. A bracketed search finds the t at which the *median* difference over
the core (m > 0.5) is the wanted severity, measured on what a file would hold: after conversion to
sRGB, clipping, and rounding to 8 bits. About 1 is just visible side by side; below 2 rounding moves
the result by up to 0.3. Where a direction leaves the gamut before the severity is met (yellow,
often at 15) another one is drawn; if none meets it, the nearest is kept and is `gamut_limited`.

`leanet.data.defects` draws the marks of generated test pictures in the same spirit; here are the
anomalies that a detector is trained or examined with. The difference: CIE 142:2001; Sharma, Wu and
Dalal (2005), doi:10.1002/col.20070.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from leanet.ops.color import delta_e_2000, lab_to_rgb, rgb_to_lab
from leanet.ops.perlin import drawn_region, soft_region
from leanet.ops.synthetic import (
    Synthetic,
    check_images,
    median,
    nearest_strength,
    to_8_bit,
)

DirectionName = Literal["hue", "chroma", "lightness", "random"]
DIRECTIONS: tuple[DirectionName, ...] = ("hue", "chroma", "lightness", "random")
SEVERITIES = (1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0)  # dE00
TOLERANCE = 0.2  # dE00; a severity met so closely counts as met ...
ROUNDING = 0.3  # ... and where it is below 2, so closely
CLOSE = 0.05  # dE00; the search ends here
ATTEMPTS = 24  # places and ways tried; after half of them in other directions too
FARTHEST = {"hue": math.pi, "chroma": 3.0, "lightness": 60.0, "random": 80.0}  # at t m = 1


class Direction(NamedTuple):
    """A way to change colors: its name, up or down (1 or -1), and for "random" the angle of the way
    in the (a, b) plane in radians."""

    name: DirectionName
    sign: float
    angle: float


class _Found(NamedTuple):
    """A shifted image [3, H, W], the core's differences [K], and what was asked of it."""

    image: Tensor
    region: Tensor
    severity: Tensor
    direction: Direction

    def median(self) -> float:
        return median(self.severity)


def shift_lab(lab: Tensor, amount: Tensor, direction: Direction) -> Tensor:
    """Lab [3, ...] moved in a direction by `amount` [...] in [0, 1] of the farthest.

    >>> green = torch.tensor([50.0, -30.0, 0.0])
    >>> shift_lab(green, torch.tensor(0.5), Direction("hue", 1, 0)).round().tolist()
    [50.0, 0.0, -30.0]
    """
    lightness, a, b = lab.unbind(0)
    far = direction.sign * FARTHEST[direction.name] * amount
    if direction.name == "hue":
        cos, sin = far.cos(), far.sin()
        a, b = cos * a - sin * b, sin * a + cos * b
    elif direction.name == "chroma":
        factor = 1 + (far if direction.sign > 0 else -amount)
        a, b = factor * a, factor * b
    elif direction.name == "lightness":
        lightness = (lightness + far).clamp(0, 100)
    else:
        far = far.abs()
        a, b = a + far * math.cos(direction.angle), b + far * math.sin(direction.angle)
    return torch.stack((lightness.expand_as(a), a, b))


def color_shift(
    image: Tensor,
    generator: torch.Generator,
    *,
    severities: Sequence[float] = SEVERITIES,
    directions: Sequence[DirectionName] = DIRECTIONS,
    inside: Tensor | None = None,
) -> Synthetic:
    """A discolored region in each image [B, 3, H, W] in [0, 1], of a severity and a direction drawn
    from those given; `inside` [B, 1, H, W] (nonzero) limits where it may be.

    `told` holds, per image [B]: target; low and high, the 5th and 95th percentile of the difference
    over the core; direction, its number in `DIRECTIONS`; sign; gamut_limited, 1 where the target
    was missed by more than 0.2 (0.3 below 2).

    Raises ValueError for other images, unknown directions, severities that are not positive, and
    where the foreground has no room.
    """
    check_images(image)
    _check(severities, directions)
    found, targets = [], []
    for k, one in enumerate(image.cpu()):
        targets.append(float(severities[_below(len(severities), generator)]))
        name = directions[_below(len(directions), generator)]
        allowed = None if inside is None else inside[k, 0].cpu()
        found.append(_shifted(one, targets[-1], (name, directions), allowed, generator))
    severity = torch.tensor([one.median() for one in found])
    target = torch.tensor(targets)
    spread = [torch.quantile(one.severity, torch.tensor([0.05, 0.95])) for one in found]
    told = {
        "target": target,
        "low": torch.stack(spread)[:, 0],
        "high": torch.stack(spread)[:, 1],
        "direction": torch.tensor([DIRECTIONS.index(one.direction.name) for one in found]),
        "sign": torch.tensor([one.direction.sign for one in found]),
        "gamut_limited": ((severity - target).abs() > _tolerance(target)).long(),
    }
    images = torch.stack([one.image for one in found]).to(image)
    masks = torch.stack([one.region for one in found]).unsqueeze(1).to(image)
    return Synthetic(images, masks, severity, "color", told)


def _shifted(
    image: Tensor,
    target: float,
    names: tuple[DirectionName, Sequence[DirectionName]],
    allowed: Tensor | None,
    generator: torch.Generator,
) -> _Found:
    """The first attempt that meets the target, else the nearest: with the first of `names`, later
    with any of the others."""
    size = (image.shape[-2], image.shape[-1])
    best: _Found | None = None
    for attempt in range(ATTEMPTS):
        region = drawn_region(lambda: soft_region(size, generator), allowed)
        name, others = names
        if attempt >= ATTEMPTS // 2:
            name = others[_below(len(others), generator)]
        found = _at_severity(image, region, target, _draw_direction(name, generator))
        if best is None or abs(found.median() - target) < abs(best.median() - target):
            best = found
        if abs(found.median() - target) <= float(_tolerance(torch.tensor(target))):
            break
    assert best is not None
    return best


def _at_severity(image: Tensor, region: Tensor, target: float, direction: Direction) -> _Found:
    """The image moved so far that the median difference over the core is nearest to the target."""
    core = region > 0.5
    pixels, alpha = image[:, core], region[core]
    before = rgb_to_lab(pixels.unsqueeze(1))

    def difference(t: float) -> Tensor:
        return delta_e_2000(before, rgb_to_lab(_moved(before, t * alpha, direction)))[0, 0]

    t, _ = nearest_strength(lambda t: median(difference(t)), target, close=CLOSE)
    changed = region > 0
    result = image.clone()
    lab = rgb_to_lab(image[:, changed].unsqueeze(1))
    result[:, changed] = _moved(lab, t * region[changed], direction)[:, 0]
    return _Found(result, region, difference(t), direction)


def _moved(lab: Tensor, amount: Tensor, direction: Direction) -> Tensor:
    """Lab [3, 1, K] moved by amounts [K], as RGB [3, 1, K] of 8-bit steps."""
    return to_8_bit(lab_to_rgb(shift_lab(lab, amount, direction)))


def _draw_direction(name: DirectionName, generator: torch.Generator) -> Direction:
    sign = 1.0 if float(torch.rand((), generator=generator)) < 0.5 else -1.0
    return Direction(name, sign, 2 * math.pi * float(torch.rand((), generator=generator)))


def _tolerance(target: Tensor) -> Tensor:
    return torch.where(target < 2, ROUNDING, TOLERANCE)


def _below(limit: int, generator: torch.Generator) -> int:
    return int(torch.randint(limit, (), generator=generator))


def _check(severities: Sequence[float], directions: Sequence[str]) -> None:
    unknown = [name for name in directions if name not in DIRECTIONS]
    if unknown or not directions:
        raise ValueError(f"directions are {list(directions)}; allowed are {', '.join(DIRECTIONS)}")
    if not severities or min(severities) <= 0:
        raise ValueError(f"severities are {list(severities)}; give values above 0, for example 5")
