"""Does a generator draw new images, or its training images again?

The distance of every generated image to its nearest training image says nothing by itself; the same
distance of *unseen real* images does. A generator that memorizes comes closer to the training
images than unseen ones do. P(d_g < d_v), the Mann-Whitney probability that a generated image lies
closer than an unseen one, is 0.5 for a perfect generator and 1 for one that replays.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from leanet.ops.stats import bootstrap_interval

GRID = 16
COPY_QUANTILE = 0.01
MOST_CLOSER, MOST_COPIES = 0.7, 0.05


class Nearest(NamedTuple):
    """Distance [N] to the nearest row of a bank, and which row that is [N]."""

    distance: Tensor
    row: Tensor


class Memorization(NamedTuple):
    """What distances to the training images say.

    ratio: median(d_g) / median(d_v). closer: P(d_g < d_v), ties half, with its 95 % bootstrap
    interval. limit: the 1st percentile of the distances of unseen and of training images, below
    which a generated one counts as a copy; copies: their share.
    """

    ratio: float
    closer: float
    low: float
    high: float
    limit: float
    copies: float

    @property
    def suspicious(self) -> bool:
        """Whether reports should warn."""
        return self.closer > MOST_CLOSER or self.copies > MOST_COPIES


def pixel_features(image: Tensor) -> Tensor:
    """Means of a 16x16 grid of blocks: images [B, 3, H, W] in [0, 1] -> [B, 768]."""
    return F.adaptive_avg_pool2d(image, GRID).flatten(1)


def mirrored(image: Tensor, flip: str) -> list[Tensor]:
    """Images [B, C, H, W] and their mirror images, for flip none, horizontal, or both.

    >>> [len(mirrored(torch.zeros(1, 1, 2, 2), flip)) for flip in ("none", "horizontal", "both")]
    [1, 2, 4]
    """
    copies = [image]
    for axis in {"none": (), "horizontal": (3,), "both": (3, 2)}[flip]:
        copies += [one.flip(axis) for one in copies]
    return copies


def nearest(variants: list[Tensor], bank: Tensor, *, itself: bool = False) -> Nearest:
    """The nearest rows of a bank [M, D] to images of which each list entry [N, D] is one variant
    (mirrored copies); with `itself`, row i of the bank is image i and does not count."""
    among = torch.stack([torch.cdist(one.double(), bank.double()) for one in variants])
    closest = among.min(dim=0).values  # [N, M]
    if itself:
        closest.fill_diagonal_(torch.inf)
    distance, index = closest.min(dim=1)
    return Nearest(distance, index)


def memorization(
    generated: Tensor, unseen: Tensor, training: Tensor, rng: np.random.Generator
) -> Memorization:
    """From the distances to the nearest training image of generated images [N], unseen real ones
    [V] and the training images themselves (to another one) [M]."""
    g, v, t = (one.cpu().numpy() for one in (generated, unseen, training))
    limit = float(np.quantile(np.concatenate([v, t]), COPY_QUANTILE))  # both: one may be few
    both = np.concatenate([g, v])
    side = np.concatenate([np.zeros(len(g)), np.ones(len(v))])
    interval = bootstrap_interval(
        lambda distance, of: closer(distance[of == 0], distance[of == 1]),
        both,
        side,
        rng=rng,
        label=side,
    )
    return Memorization(
        ratio=float(np.median(g) / max(np.median(v), 1e-12)),
        closer=closer(g, v),
        low=interval.low,
        high=interval.high,
        limit=limit,
        copies=float((g < limit).mean()),
    )


def closer(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """P(a < b) + P(a = b) / 2 of draws a from one set [N] and b from another [M].

    >>> closer(np.array([1.0, 2.0]), np.array([2.0, 3.0]))
    0.875
    """
    ordered = np.sort(second)
    below = np.searchsorted(ordered, first, side="left")
    up_to = np.searchsorted(ordered, first, side="right")
    larger = len(second) - (below + up_to) / 2
    return float(larger.mean() / len(second))
