"""Is a map faithful to the network? Take away what it calls important, and see what the score does.

A map ranks the pixels of its image. Removing pixels from the top of that ranking should ruin the
score, removing them from the bottom should not, and inserting the top into an image without
content should bring the score back. Nothing here knows a network: the score is a function
`score_of(images [B, 3, H, W]) -> [B, ...]`, called with variants of all B images in their order
(so that it can hold one class for each), and it may give several numbers per image.

    deletion, insertion     RISE, Petsiuk et al. 2018, arXiv:1806.07421; pixels change to and from
                            a blurred image, in equal steps; figure: mean height of the curve
    ROAD                    Rong et al. 2022, arXiv:2202.00449; removed pixels are filled in
                            (`ops.road`) most relevant first (MoRF) and least relevant first (LeRF);
                            figure: (LeRF - MoRF) / 2
    increase, drop          Grad-CAM++, arXiv:1710.11063; image times positive map against image
    spearman                do two maps rank the pixels alike? For stability under harmless
                            changes, and for the fall that re-drawn weights must bring about
                            (Adebayo et al. 2018, arXiv:1810.03292)

Maps are coarse, so a ranking first makes them as large as the image, and breaks ties in a random
order, which one image should keep for all the maps of a comparison (`tie_order`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal, NamedTuple, get_args

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from leanet.ops.maps import blur, resize
from leanet.ops.road import impute

ScoreOf = Callable[[Tensor], Tensor]
Reference = Literal["blur", "mean", "normal"]

STEPS: Final = 50
BLUR_SHARE: Final = 0.05  # SD of the blur, as a share of the longer side
ROAD_SHARES: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9)
ROAD_TOLERANCE: Final = 1e-4  # leaves errors (RMS) of less than a tenth of the noise


class Road(NamedTuple):
    """Scores [B, S, ...] after S shares of the pixels were removed: most and least relevant
    first."""

    morf: Tensor
    lerf: Tensor

    def combined(self) -> Tensor:
        """(LeRF - MoRF) / 2, averaged over the shares, [B, ...]; 0 for a map that knows nothing."""
        return (self.lerf - self.morf).mean(dim=1) / 2


def tie_order(num_images: int, num_pixels: int, generator: torch.Generator) -> Tensor:
    """A random order of the pixels for each image, [B, N] on the CPU."""
    return torch.stack([torch.randperm(num_pixels, generator=generator) for _ in range(num_images)])


def ranking(maps: Tensor, size: tuple[int, int], ties: Tensor) -> Tensor:
    """Maps [B, 1, h, w] -> pixel numbers [B, H * W], the most relevant first.

    `ties` from `tie_order` says in which order equal values come. Raises ValueError for other
    shapes or values that are not finite.
    """
    num_pixels = size[0] * size[1]
    if maps.ndim != 4 or maps.shape[1] != 1 or tuple(ties.shape) != (len(maps), num_pixels):
        raise ValueError(
            f"a ranking takes maps [B, 1, h, w] and ties [B, {num_pixels}], not "
            f"{list(maps.shape)} and {list(ties.shape)}"
        )
    if not maps.isfinite().all():
        raise ValueError("a map with values that are not finite cannot be ranked")
    values, ties = resize(maps.float(), size).flatten(1), ties.to(maps.device)
    shuffled = values.gather(1, ties).argsort(dim=1, descending=True, stable=True)
    return ties.gather(1, shuffled)


def first_pixels(order: Tensor, num: int, size: tuple[int, int]) -> Tensor:
    """Bool [B, 1, H, W], true at the first `num` pixels of the order [B, H * W]."""
    chosen = torch.zeros(order.shape, dtype=torch.bool, device=order.device)
    return chosen.scatter_(1, order[:, :num], True).view(len(order), 1, *size)


def reference_images(images: Tensor, kind: Reference, normal: Tensor | None = None) -> Tensor:
    """What removed pixels become [B, 3, H, W]: the blurred image, its mean color, or `normal`
    [3, H, W], the mean of normal images.

    Raises ValueError for another kind, or "normal" without that image.
    """
    if kind == "blur":
        return blur(images, BLUR_SHARE * max(images.shape[-2:]))
    if kind == "mean":
        return images.mean(dim=(2, 3), keepdim=True).expand_as(images)
    if kind == "normal" and normal is not None:
        return normal.to(images).expand_as(images)
    raise ValueError(
        f"reference {kind!r} is not possible: allowed are {get_args(Reference)}, and 'normal' "
        "needs the mean image of normal ones"
    )


def deletion(
    score_of: ScoreOf, images: Tensor, order: Tensor, reference: Tensor, steps: int = STEPS
) -> Tensor:
    """Scores [B, steps + 1, ...] while pixels of `images` become those of `reference`, the most
    relevant first; the first entry is the unchanged image."""
    return _curve(score_of, images, reference, order, steps)


def insertion(
    score_of: ScoreOf, images: Tensor, order: Tensor, reference: Tensor, steps: int = STEPS
) -> Tensor:
    """Scores [B, steps + 1, ...] while pixels of `reference` become those of `images`, the most
    relevant first; the last entry is the unchanged image."""
    return _curve(score_of, reference, images, order, steps)


def curve_area(curve: Tensor) -> Tensor:
    """Area under curves [B, steps + 1, ...] over the share in [0, 1], [B, ...].

    >>> curve_area(torch.tensor([[1.0, 0.0, 0.0]]))
    tensor([0.2500])
    """
    return torch.trapezoid(curve, dim=1, dx=1 / (curve.shape[1] - 1))


def road(
    score_of: ScoreOf,
    images: Tensor,
    order: Tensor,
    *,
    generator: torch.Generator,
    shares: Sequence[float] = ROAD_SHARES,
) -> Road:
    """Scores after removing and filling in the `shares` of the pixels, from either end."""
    size = (images.shape[-2], images.shape[-1])
    curves = []
    for direction in (order, order.flip(1)):
        scores = []
        for share in shares:
            gone = first_pixels(direction, round(share * order.shape[1]), size)
            filled = impute(images, gone, generator=generator, tolerance=ROAD_TOLERANCE)
            scores.append(score_of(filled))
        curves.append(torch.stack(scores, dim=1))
    return Road(*curves)


def shown_only(images: Tensor, maps: Tensor) -> Tensor:
    """Images [B, 3, H, W] times their positive maps [B, 1, h, w], each divided by its maximum;
    black where a map has no positive value."""
    heat = resize(maps.float(), (images.shape[-2], images.shape[-1])).clamp_min(0)
    top = heat.amax(dim=(1, 2, 3), keepdim=True)
    return images * torch.where(top > 0, heat / top.clamp_min(1e-30), 0)


def drop(before: Tensor, after: Tensor) -> Tensor:
    """Share of a probability that is lost, in [0, 1], elementwise.

    >>> drop(torch.tensor([0.5, 0.5]), torch.tensor([0.25, 0.75]))
    tensor([0.5000, 0.0000])
    """
    return (before - after).clamp_min(0) / before.clamp_min(1e-12)


def increase(before: Tensor, after: Tensor) -> Tensor:
    """1 where a probability rose, else 0, elementwise."""
    return (after > before).to(before.dtype)


def spearman(a: Tensor, b: Tensor) -> Tensor:
    """Rank correlation [B] of maps [B, ...] with equally many values; ties share their mean rank,
    and a constant map gives nan. Float64, on the CPU.

    >>> spearman(torch.tensor([[1.0, 2.0, 9.0]]), torch.tensor([[0.0, 5.0, 6.0]])).item()
    1.0
    """
    if len(a) != len(b) or a[0].numel() != b[0].numel():
        raise ValueError(
            f"maps to correlate must have one size, not {list(a.shape)} and {list(b.shape)}"
        )
    x, y = (
        torch.from_numpy(stats.rankdata(t.detach().flatten(1).double().cpu().numpy(), axis=1))
        for t in (a, b)
    )
    x, y = (t - t.mean(dim=1, keepdim=True) for t in (x, y))
    spread = (x.square().sum(dim=1) * y.square().sum(dim=1)).sqrt()
    return torch.where(spread > 0, (x * y).sum(dim=1) / spread, np.nan)


def stability(maps: Tensor) -> Tensor:
    """Mean rank correlation [B] over all pairs of V variants of the maps, [V, B, 1, h, w].

    Raises ValueError for fewer than two variants.
    """
    if len(maps) < 2:
        raise ValueError(f"stability needs at least two variants of every map, got {len(maps)}")
    pairs = [spearman(maps[i], maps[k]) for i in range(len(maps)) for k in range(i)]
    return torch.stack(pairs).mean(dim=0)


def _curve(score_of: ScoreOf, old: Tensor, new: Tensor, order: Tensor, steps: int) -> Tensor:
    size = (old.shape[-2], old.shape[-1])
    num_pixels = size[0] * size[1]
    if steps < 1 or old.shape != new.shape or tuple(order.shape) != (len(old), num_pixels):
        raise ValueError(
            f"a curve takes images and references of one shape [B, 3, H, W], an order [B, H * W] "
            f"and at least 1 step, not {list(old.shape)}, {list(new.shape)}, {list(order.shape)} "
            f"and {steps}"
        )
    scores = []
    for step in range(steps + 1):
        changed = first_pixels(order, round(step * num_pixels / steps), size)
        scores.append(score_of(torch.where(changed, new, old)))
    return torch.stack(scores, dim=1)
