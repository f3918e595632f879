"""Harmless changes of a normal image, as strong as the anomalies: what a color detector must pass.

A detector that learns "another color than usual" learns the lamp as well, unless it sees normal
images under changed light, and as strongly changed: if the negatives differed less, a global
statistic would give the class away. So every change has one strength from 0 to 1 that leads to the
end of its physical range, and a search finds the strength at which the *whole-image* median
CIEDE2000, after rounding to 8 bits, is the wanted one. Where one change is too weak (JPEG ends near
2, defocus too), two or three are put one after the other. Pixels that are nearly black are left out
of the median: no lamp changes them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from leanet.ops import light
from leanet.ops.color import delta_e_2000, fancy_pca, rgb_principal_components, rgb_to_lab
from leanet.ops.maps import blur
from leanet.ops.perlin import perlin_noise
from leanet.ops.synthetic import (
    Synthetic,
    check_images,
    median,
    nearest_strength,
    to_8_bit,
)

WARMEST, COLDEST = 3000.0, 15000.0  # kelvin
DARKEST, BRIGHTEST = 0.7, 1.4  # exposure
LOWEST_GAMMA, HIGHEST_GAMMA = 0.8, 1.25
GRADIENT, SHADOW = 0.3, 0.5  # shares of the light
BEST_JPEG, WORST_JPEG = 95, 75
NOISE = 0.06  # see light.sensor_noise
DEFOCUS = 1 / 128  # SD of the blur as a share of the side
PCA = 1.0  # SDs of the largest shift, of the square-root form
BLACK = 0.06  # pixels whose brightest channel is below it say nothing about the light ...
FEWEST_LIT = 0.05  # ... unless all but this share of the image are
ATTEMPTS = 15
STEPS = 16  # of the search for a strength
CLOSE, NEAR = 0.02, 0.05  # dE00 and share of the target that count as met
GRID = 96  # pixels per side on which strengths are searched

Change = Callable[[Tensor, float], Tensor]  # (image [1, 3, H, W], strength in [0, 1]) -> image
Axes = tuple[Tensor, Tensor]  # as ops.color.rgb_principal_components gives them


class Draw(NamedTuple):
    """What a change is drawn for; all those of a chain make the image brighter, or darker, so that
    they do not cancel."""

    image: Tensor
    axes: Axes
    generator: torch.Generator
    brighter: bool


def nuisance(
    image: Tensor,
    generator: torch.Generator,
    *,
    severities: Sequence[float],
    axes: Axes | None = None,
) -> Synthetic:
    """Each image [B, 3, H, W] in [0, 1] under harmless changes of the wanted whole-image median
    CIEDE2000, `severities` [B]; the mask is empty.

    `axes` are the principal components of the training pixels for fancy PCA (default: of these
    images). `told` holds per image [B]: target; limited, 1 where it was missed by more than a tenth
    and more than 0.3, as on an image without light.

    Raises ValueError for other images and another number of severities.
    """
    check_images(image)
    if len(severities) != len(image):
        raise ValueError(f"{len(image)} images need as many severities, not {len(severities)}")
    axes = axes or rgb_principal_components([image])
    made = [
        _changed(one.unsqueeze(0), float(wanted), axes, generator)
        for one, wanted in zip(image.cpu(), severities, strict=True)
    ]
    target, severity = torch.tensor(list(severities)), torch.tensor([one[1] for one in made])
    miss = (severity - target).abs()
    told = {"target": target, "limited": (miss > (0.1 * target).clamp_min(0.3)).long()}
    images = torch.cat([one[0] for one in made]).to(image)
    return Synthetic(images, torch.zeros_like(image[:, :1]), severity, "nuisance", told)


def whole_image_difference(before: Tensor, after: Tensor) -> float:
    """Median CIEDE2000 between images [1, 3, H, W] in [0, 1], without nearly black pixels."""
    return _Reference(before).difference(after)


class _Reference:
    """What changed versions of an image [1, 3, H, W] are compared with."""

    def __init__(self, image: Tensor) -> None:
        lit = image[0].amax(0) > BLACK
        self.lit = lit if float(lit.float().mean()) >= FEWEST_LIT else torch.ones_like(lit)
        self.lab = rgb_to_lab(image[0][:, self.lit].unsqueeze(1))

    def difference(self, changed: Tensor) -> float:
        other = rgb_to_lab(changed[0][:, self.lit].unsqueeze(1))
        return median(delta_e_2000(self.lab, other))


def _changed(
    image: Tensor, wanted: float, axes: Axes, generator: torch.Generator
) -> tuple[Tensor, float]:
    """The image [1, 3, H, W] changed, and how much; the first attempt that is near, else the
    nearest."""
    best: tuple[Tensor, float] | None = None
    for attempt in range(ATTEMPTS):
        strong = attempt > 2 or wanted > WEAK
        change = _chain(1 + attempt // 3, strong, image, axes, generator)
        result = to_8_bit(change(image, _strength(change, image, wanted)))
        reached = whole_image_difference(image, result)
        if best is None or abs(reached - wanted) < abs(best[1] - wanted):
            best = (result, reached)
        if abs(reached - wanted) <= NEAR * wanted:
            break
    assert best is not None
    return best


def _strength(change: Change, image: Tensor, wanted: float) -> float:
    """The strength in [0, 1] whose difference is nearest to the wanted one."""
    step = max(1, min(image.shape[-2:]) // GRID)
    reference = _Reference(image[..., ::step, ::step])

    def reached(strength: float) -> float:
        return reference.difference(to_8_bit(change(image, strength)[..., ::step, ::step]))

    return nearest_strength(reached, wanted, close=max(CLOSE, NEAR * wanted / 4), steps=STEPS)[0]


def _chain(
    number: int, strong: bool, image: Tensor, axes: Axes, generator: torch.Generator
) -> Change:
    """So many changes one after the other, at one strength; strong ones only, if asked for."""
    names = list(STRONG if strong else CHANGES)
    order = torch.randperm(len(names), generator=generator).tolist()
    draw = Draw(image, axes, generator, brighter=_coin(generator))
    chosen = [CHANGES[names[k]](draw) for k in order[:number]]

    def change(one: Tensor, strength: float) -> Tensor:
        for step in chosen:
            one = step(one, strength)
        return one

    return change


def _white_balance(draw: Draw) -> Change:
    end = 1e6 / (WARMEST if _coin(draw.generator) else COLDEST)  # mired: even steps look even
    start = 1e6 / light.DAYLIGHT
    return lambda one, s: light.white_balance(one, 1e6 / (start + s * (end - start)))


def _exposure(draw: Draw) -> Change:
    end = BRIGHTEST if draw.brighter else DARKEST
    return lambda one, s: light.exposure(one, end**s)


def _gamma(draw: Draw) -> Change:
    end = LOWEST_GAMMA if draw.brighter else HIGHEST_GAMMA
    return lambda one, s: light.gamma(one, end**s)


def _gradient(draw: Draw) -> Change:
    turn = 2 * math.pi * float(torch.rand((), generator=draw.generator))
    return lambda one, s: light.gradient(one, GRADIENT * s, turn)


def _shadow(draw: Draw) -> Change:
    size = (draw.image.shape[-2], draw.image.shape[-1])
    noise = perlin_noise(size, (1, 1), draw.generator)
    field = (0.5 + noise).clamp(0, 1)
    return lambda one, s: light.shadow(one, SHADOW * s, field)


def _jpeg(draw: Draw) -> Change:
    return lambda one, s: light.jpeg(one, round(BEST_JPEG + s * (WORST_JPEG - BEST_JPEG)))


def _noise(draw: Draw) -> Change:
    normal = torch.randn(draw.image.shape, generator=draw.generator)
    return lambda one, s: light.sensor_noise(one, NOISE * s, normal)


def _defocus(draw: Draw) -> Change:
    sigma = max(DEFOCUS * min(draw.image.shape[-2:]), 0.5)
    return lambda one, s: blur(one, sigma * s).clamp(0, 1)


def _fancy_pca(draw: Draw) -> Change:
    alpha = torch.randn(1, 3, generator=draw.generator)
    alpha[0, 0] = alpha[0, 0].abs() * (1 if draw.brighter else -1)
    alpha = PCA * alpha / alpha.norm()
    return lambda one, s: fancy_pca(one, *draw.axes, alpha=s * alpha, form="std")


def _coin(generator: torch.Generator) -> bool:
    return float(torch.rand((), generator=generator)) < 0.5


CHANGES: dict[str, Callable[[Draw], Change]] = {
    "white_balance": _white_balance,
    "exposure": _exposure,
    "gamma": _gamma,
    "gradient": _gradient,
    "shadow": _shadow,
    "jpeg": _jpeg,
    "noise": _noise,
    "defocus": _defocus,
    "fancy_pca": _fancy_pca,
}
WEAK = 3.0  # dE00; what the others can do
STRONG = ("white_balance", "exposure", "gamma", "shadow", "fancy_pca")
