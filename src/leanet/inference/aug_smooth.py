"""Maps that do not hang on a pixel: the mean over slightly changed images.

The changes are made to the *pixels* in [0, 1], before any normalization: flips, turns and shifts
move all spatial inputs alike (image, stored anomaly map), a gain makes the image alone darker or
brighter. Every raw map is moved back, and the mean is taken of raw maps, so that it keeps sign and
unit; the SD over the changes says where the map is stable. The class is that of the unchanged
image.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from leanet.inference.cam import CAM
from leanet.inference.cam_targets import Asked, as_target, fix, repeated
from leanet.inference.perturbation import Prepare
from leanet.ops.light import from_linear, to_linear

MapsOf = Callable[[tuple[Tensor, ...], Asked], Mapping[str, CAM]]
"""(inputs of the network, what to explain) -> one or more maps by name."""


class Variant(NamedTuple):
    """One change: mirrored left-right, upside down, quarter turns, pixels (down, right), gain."""

    flip: bool = False
    vertical: bool = False
    turns: int = 0
    shift: tuple[int, int] = (0, 0)
    gain: float = 1.0

    def __str__(self) -> str:
        """As in a file: what is changed and how much."""
        words = ["flip"] * self.flip + ["vertical"] * self.vertical
        words += [f"turn {90 * self.turns}"] * bool(self.turns)
        words += [f"shift {self.shift[0]} {self.shift[1]}"] * any(self.shift)
        words += [f"gain {self.gain:g}"] * (self.gain != 1)
        return ", ".join(words) or "unchanged"


@dataclass(frozen=True, kw_only=True)
class Changes:
    """Which changes are combined with each other; the default makes six variants.

    `shift` > 0 adds shifts by so many pixels up, down, left and right, around the border; it must
    be a multiple of the strides of the explained layers. `turns` need square inputs. A gain of 1
    is always among the `gains`. With `linear_light` they multiply light, not sRGB values.
    """

    flip: bool = True
    vertical: bool = False
    turns: bool = False
    shift: int = 0
    gains: tuple[float, ...] = (0.9, 1.0, 1.1)
    linear_light: bool = False

    def variants(self) -> list[Variant]:
        """All combinations, each once, the unchanged image first."""
        turns = range(4) if self.turns else (0,)
        # upside down is a mirrored half turn: with turns it would be there twice
        upside = (False, True) if self.vertical and not (self.turns and self.flip) else (False,)
        s = self.shift
        shifts = ((0, 0), (s, 0), (-s, 0), (0, s), (0, -s)) if s else ((0, 0),)
        sides = (False, True) if self.flip else (False,)
        gains = dict.fromkeys((1.0, *self.gains))  # 1 first, and always: it gives the class
        return [Variant(*one) for one in itertools.product(sides, upside, turns, shifts, gains)]


class Smoothed(NamedTuple):
    """`cam`: mean of the raw maps over the variants, with the score of the unchanged image. sd
    [B, 1, h, w] over the variants; scores [V, B] and names of the variants; clipped [V]: share of
    the image's values that a gain has pushed over 1."""

    cam: CAM
    sd: Tensor
    scores: Tensor
    variants: tuple[str, ...]
    clipped: Tensor


def aug_smooth(
    maps_of: MapsOf,
    image: Tensor,
    prepare: Prepare,
    *,
    target: Asked = "logit",
    planes: tuple[Tensor, ...] = (),
    changes: Changes | None = None,
    batch_size: int = 16,
) -> dict[str, Smoothed]:
    """The smoothed maps of images [B, 3, H, W] in [0, 1], for every name that `maps_of` gives.

    `planes` [B, ...] are stored spatial inputs and move with the image; without them `prepare`
    makes them from every changed image. The variants run together, `batch_size` images at a time.

    Raises:
        ValueError: turns of oblong images, a shift that is no multiple of a stride, a gain or
            batch size that is not positive.
    """
    how = changes or Changes()
    _check(how, image, batch_size)
    variants = how.variants()
    plain = maps_of(prepare(image, *planes), as_target(target))
    fixed = fix(target, next(iter(plain.values())).classes)
    maps = {name: [found.map] for name, found in plain.items()}
    scores = [next(iter(plain.values())).score]
    together = max(1, batch_size // len(image))
    for start in range(1, len(variants), together):
        chosen = variants[start : start + together]
        given = [_changed(image, planes, one, how) for one in chosen]
        inputs = prepare(*(torch.cat(parts) for parts in zip(*given, strict=True)))
        found = maps_of(inputs, repeated(fixed, len(chosen)))
        scores += torch.split(next(iter(found.values())).score, len(image))
        for name, cam in found.items():
            moved = zip(chosen, torch.split(cam.map, len(image)), strict=True)
            maps[name] += [move_back(part, one, cam.stride) for one, part in moved]
    clipped = torch.tensor([_clipped_share(image, one, how) for one in variants])
    return {
        name: Smoothed(
            cam._replace(map=torch.stack(maps[name]).mean(dim=0)),
            torch.stack(maps[name]).std(dim=0, correction=0),
            torch.stack(scores),
            tuple(str(one) for one in variants),
            clipped,
        )
        for name, cam in plain.items()
    }


def move(plane: Tensor, variant: Variant) -> Tensor:
    """Planes [.., H, W] turned, mirrored and shifted; the gain does not concern them."""
    plane = torch.rot90(plane, variant.turns, (-2, -1))
    sides = [-1] * variant.flip + [-2] * variant.vertical
    plane = plane.flip(sides) if sides else plane
    return plane.roll(variant.shift, (-2, -1)) if any(variant.shift) else plane


def move_back(plane: Tensor, variant: Variant, stride: tuple[float, float]) -> Tensor:
    """The map [.., h, w] of a moved image, as that of the image itself; `stride` in its pixels.

    Raises:
        ValueError: a shift that is no whole number of cells.
    """
    cells = [pixels / size for pixels, size in zip(variant.shift, stride, strict=True)]
    if any(not count.is_integer() for count in cells):
        raise ValueError(
            f"a shift by {max(map(abs, variant.shift))} px is no whole number of cells of "
            f"{stride[0]:g} x {stride[1]:g} px; take a multiple"
        )
    if any(cells):
        plane = plane.roll([-int(count) for count in cells], (-2, -1))
    sides = [-1] * variant.flip + [-2] * variant.vertical
    plane = plane.flip(sides) if sides else plane
    return torch.rot90(plane, -variant.turns, (-2, -1))


def _changed(
    image: Tensor, planes: tuple[Tensor, ...], variant: Variant, how: Changes
) -> tuple[Tensor, ...]:
    brighter = _gained(image, variant, how).clamp(max=1)
    if how.linear_light and variant.gain != 1:
        brighter = from_linear(brighter)
    return tuple(move(one, variant) for one in (brighter, *planes))


def _gained(image: Tensor, variant: Variant, how: Changes) -> Tensor:
    """With `linear_light` in linear light, unless the gain is 1."""
    if variant.gain == 1:
        return image
    return variant.gain * (to_linear(image) if how.linear_light else image)


def _clipped_share(image: Tensor, variant: Variant, how: Changes) -> float:
    return float((_gained(image, variant, how) > 1).float().mean())


def _check(how: Changes, image: Tensor, batch_size: int) -> None:
    if batch_size < 1 or not how.gains or min(how.gains) <= 0:
        raise ValueError(
            f"batch_size {batch_size} and gains {how.gains}: all must be positive, and one gain "
            "at least"
        )
    if how.turns and image.shape[-1] != image.shape[-2]:
        height, width = image.shape[-2:]
        raise ValueError(f"quarter turns need square images, not {width} x {height} px")
