"""Color defects of a wanted size, measured in CIEDE2000, with the exact mask.

A defect is a soft region `alpha` [H, W] and a change of color `delta` [H, W, 3] in CIE L*a*b*:

    Lab' = Lab + t * alpha * delta,    0 < t <= 1

Adding to a color instead of painting over it keeps texture, shading and camera noise, so that a
defect differs from its surroundings in color alone. The strength t is found by bisection such that
the mean color difference over the mask (CIE 142:2001; Sharma, Wu and Dalal 2005,
doi:10.1002/col.20070), taken after conversion to sRGB and clipping, is the wanted severity. About
1 is just visible side by side, 5 is easily overlooked on a textured surface, 20 is obvious.
Outside the mask the picture stays as it is to the bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.random import Generator
from scipy import ndimage

from leanet.data.surfaces import Array, Mask, fractal_noise
from leanet.ops.color import delta_e_2000, lab_to_rgb, rgb_to_lab

ATTEMPTS: Final = 40  # other places and colors tried before a severity is called out of reach
BISECTIONS: Final = 14
EDGE: Final = 0.2  # alpha below it is cut off: the mask has no invisible rim
MIN_PIXELS: Final = 4


class Defect(NamedTuple):
    """Picture [H, W, 3] in [0, 1], mask [H, W], mean CIEDE2000 over the mask."""

    rgb: Array
    mask: Mask
    severity: float


class Change(NamedTuple):
    """Soft region [H, W] in [0, 1] and change of L*a*b* at full strength [H, W, 3]."""

    alpha: Array
    delta: Array


def add_defect(rgb: Array, inside: Mask, kind: str, severity: float, rng: Generator) -> Defect:
    """Put one defect on the object.

    Args:
        rgb: sRGB [H, W, 3] in [0, 1].
        inside: the object [H, W]; the defect stays a pixel away from its outline.
        kind: "spot" (a few small brown or yellow dots), "stain" (one large shift of color),
            "scratch" (a thin light or dark line) or "fade" (a region bleached towards gray).
        severity: wanted mean CIEDE2000 between `rgb` and the result over the mask.
        rng: place, shape and color come from it.

    Raises:
        ValueError: for an unknown kind, a severity that is not positive, or one that no place and
            color tried on this picture reaches.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind of defect {kind!r}; allowed are {', '.join(KINDS)}")
    if severity <= 0:
        raise ValueError(f"severity is {severity}; give a mean CIEDE2000 above 0, for example 10")
    surface = ndimage.binary_erosion(inside, border_value=1)
    if surface.sum() < MIN_PIXELS:
        raise ValueError(
            f"the object has {surface.sum()} inner pixels, at least {MIN_PIXELS} needed"
        )
    lab = _convert(rgb_to_lab, rgb)
    most = 0.0
    for _ in range(ATTEMPTS):
        alpha, delta = KINDS[kind](lab, surface, rng)
        mask = surface & (alpha > EDGE)
        if mask.sum() < MIN_PIXELS:
            continue
        pixels, reached = _at_severity(rgb[mask], alpha[mask, None] * delta[mask], severity)
        if pixels is not None:
            result = rgb.copy()
            result[mask] = pixels
            return Defect(result, mask, reached)
        most = max(most, reached)
    raise ValueError(
        f"no {kind} of severity {severity:g} fits on this picture, the largest found is "
        f"{most:.1f}; ask for less"
    )


def mean_delta_e(before: Array, after: Array, mask: Mask) -> float:
    """Mean CIEDE2000 between two sRGB pictures [H, W, 3] in [0, 1] over the mask [H, W]."""
    return _difference(_convert(rgb_to_lab, before[mask]), after[mask])


def _at_severity(rgb: Array, change: Array, severity: float) -> tuple[Array | None, float]:
    """Pixels [K, 3] moved along `change` to the severity; None and what t = 1 gives if too far."""
    lab = _convert(rgb_to_lab, rgb)

    def moved(strength: float) -> Array:
        return _convert(lab_to_rgb, lab + strength * change)  # clipped to [0, 1]

    full = _difference(lab, moved(1.0))
    if full < severity:
        return None, full
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if _difference(lab, moved(middle)) > severity else (middle, high)
    pixels = moved(high)
    return pixels, _difference(lab, pixels)


def _difference(lab: Array, rgb: Array) -> float:
    other = _convert(rgb_to_lab, rgb)
    return float(delta_e_2000(_to_tensor(lab), _to_tensor(other)).mean())


def _convert(conversion: Callable[[torch.Tensor], torch.Tensor], colors: Array) -> Array:
    """Apply a tensor conversion [1, 3, 1, K] to an array of colors [..., 3]."""
    converted = conversion(_to_tensor(colors))[0, :, 0].T.numpy()
    return np.asarray(converted, dtype=np.float64).reshape(colors.shape)


def _to_tensor(colors: Array) -> torch.Tensor:
    return torch.from_numpy(colors.reshape(-1, 3).T.copy())[None, :, None]


# ------------------------------------------------------------------------------------------- kinds


def _spot(lab: Array, surface: Mask, rng: Generator) -> Change:
    size = max(surface.shape)
    heart = _point(surface, rng)
    near = np.exp(-0.5 * (_distance(surface.shape, heart) / rng.uniform(0.06, 0.16) / size) ** 2)
    alpha, core = np.zeros(surface.shape), np.zeros(surface.shape)
    for _ in range(rng.integers(3, 9)):
        radius = max(rng.uniform(0.016, 0.042) * size, 1.1)
        blob = _blob(surface.shape, _point(surface * near, rng), radius, rng)
        alpha = np.maximum(alpha, np.clip(2 * blob, 0.0, 1.0))
        core = np.maximum(core, np.clip(2 * blob - 1, 0.0, 1.0))
    typical = lab[surface].mean(axis=0)
    brown = np.array([36.0, 17.0, 27.0]) + rng.normal(0.0, 4.0, 3) - typical
    yellow = np.array([74.0, 4.0, 58.0]) + rng.normal(0.0, 4.0, 3) - typical
    rim = yellow if rng.uniform() < 0.5 else brown
    heart_color = yellow if rng.uniform() < 0.2 else brown
    return Change(alpha, rim + core[..., None] * (heart_color - rim))


def _stain(lab: Array, surface: Mask, rng: Generator) -> Change:
    radius = rng.uniform(0.09, 0.17) * max(surface.shape)
    alpha = _blob(surface.shape, _point(surface, rng, radius / 2), radius, rng)
    _, a, b = lab[surface].mean(axis=0)
    hue = np.arctan2(-b, -a) + rng.uniform(-1.6, 1.6)  # a stain mutes or turns the color below it
    direction = np.array([rng.uniform(-35.0, 5.0), 60 * np.cos(hue), 60 * np.sin(hue)])
    return Change(alpha, np.broadcast_to(direction, lab.shape))


def _scratch(lab: Array, surface: Mask, rng: Generator) -> Change:
    size = max(surface.shape)
    row, column = _point(surface, rng, 0.05 * size)
    length, bend = rng.uniform(0.25, 0.6) * size, rng.uniform(-0.8, 0.8)
    along = np.linspace(-0.5, 0.5, 64)
    turn = rng.uniform(0, 2 * np.pi) + bend * along
    rows = row + length * np.cumsum(np.sin(turn)) / 64 - length * np.sin(turn).sum() / 128
    columns = column + length * np.cumsum(np.cos(turn)) / 64 - length * np.cos(turn).sum() / 128
    at = np.indices(surface.shape)[..., None]
    distances = np.hypot(at[0] - rows, at[1] - columns)
    nearest = distances.argmin(axis=-1)
    half_width = max(rng.uniform(0.004, 0.009) * size, 0.4) * (1 - 1.6 * along[nearest] ** 2)
    alpha = np.clip(half_width + 0.6 - distances.min(axis=-1), 0.0, 1.0)
    lightness = rng.choice([-45.0, 45.0])
    grayer = -0.4 * lab[surface].mean(axis=0) * np.array([0.0, 1.0, 1.0])
    return Change(alpha, np.broadcast_to(grayer + np.array([lightness, 0.0, 0.0]), lab.shape))


def _fade(lab: Array, surface: Mask, rng: Generator) -> Change:
    radius = rng.uniform(0.12, 0.22) * max(surface.shape)
    alpha = _blob(surface.shape, _point(surface, rng, radius / 2), radius, rng)
    lighter = np.full(lab.shape[:2], 0.6 * (92.0 - lab[surface][:, 0].mean()))
    return Change(alpha, np.stack([lighter, -0.95 * lab[..., 1], -0.95 * lab[..., 2]], axis=-1))


def _blob(shape: tuple[int, ...], center: Array, radius: float, rng: Generator) -> Array:
    """Irregular ellipse [H, W]: 1 well inside, falling softly to 0."""
    turn, stretch = rng.uniform(0, np.pi), rng.uniform(0.75, 1.33)
    y, x = np.indices(shape) - center[:, None, None]
    long = (x * np.cos(turn) + y * np.sin(turn)) / stretch
    wide = (y * np.cos(turn) - x * np.sin(turn)) * stretch
    noise = fractal_noise(rng, max(shape), 1.5)[: shape[0], : shape[1]]
    height: Array = 1.25 - np.hypot(long, wide) / radius + 0.18 * noise
    return np.clip(height / 0.6, 0.0, 1.0)


def _point(weight: Array | Mask, rng: Generator, margin: float = 0.0) -> Array:
    """Row and column of a random pixel, by weight; `margin` pixels from the rim where it fits."""
    if margin:
        depth = ndimage.distance_transform_edt(np.pad(weight > 0, 1))[1:-1, 1:-1]
        weight = depth >= min(margin, depth.max())
    share = weight.astype(np.float64).ravel()
    pixel = rng.choice(share.size, p=share / share.sum())
    return np.array(np.unravel_index(pixel, weight.shape), dtype=np.float64)


def _distance(shape: tuple[int, ...], center: Array) -> Array:
    y, x = np.indices(shape)
    distance: Array = np.hypot(y - center[0], x - center[1])
    return distance


Make: TypeAlias = Callable[[Array, Mask, Generator], Change]

KINDS: Final[dict[str, Make]] = {
    "spot": _spot,
    "stain": _stain,
    "scratch": _scratch,
    "fade": _fade,
}
