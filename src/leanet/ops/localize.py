"""Does a map point at the marked defect? One image at a time, and what chance would reach.

All figures compare a raw map with a mask of the same size. The share of the image that the mask
covers is their chance level: a map that knows nothing has that much of its energy inside, and its
maximum falls inside that often.

    energy_in_mask   positive map inside / positive map anywhere (Wang et al. 2020,
                     arXiv:1910.01279); a map without a positive value has no energy: nan, "no
                     evidence", which is not 0
    pointing         is the maximum inside? (Zhang et al. 2016, arXiv:1608.00507)

Three maps that need no network are the baselines every method has to beat: noise, a centered
Gaussian (photographers center their subject), and the strength of the image's own edges.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from leanet.ops.stats import Interval

Heat = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]

GAUSSIAN_SHARE: Final = 0.25  # SD of the centered Gaussian, as a share of each side
SIZE_BINS: Final = ((0.01, "below 1 %"), (0.05, "1 to 5 %"), (math.inf, "5 % and more"))


def energy_in_mask(heat: Heat, mask: Mask, tolerance: int = 0) -> float:
    """Share in [0, 1] of the positive values of a map [H, W] that lies in its mask [H, W], grown
    by `tolerance` pixels; nan if no value is positive.

    >>> energy_in_mask(np.array([[3.0, 1.0, -8.0]]), np.array([[True, False, False]]))
    0.75
    """
    inside, positive = _grown(heat, mask, tolerance), np.maximum(heat, 0).astype(np.float64)
    total = float(positive.sum())
    return float(positive[inside].sum()) / total if total > 0 else math.nan


def pointing(heat: Heat, mask: Mask, tolerance: int = 0) -> float:
    """1 if the maximum of a map [H, W] lies in its mask [H, W], grown by `tolerance` pixels, else
    0; where several pixels share the maximum, the share of them that does.

    >>> pointing(np.array([[3.0, 1.0, 3.0]]), np.array([[True, False, False]]))
    0.5
    """
    inside = _grown(heat, mask, tolerance)
    return float(np.mean(inside[heat == heat.max()]))


def area_share(mask: Mask) -> float:
    """Share of the image that the mask covers: the chance level of both figures."""
    return float(np.mean(mask))


def size_bin(share: float) -> str:
    """The name of the bin of `SIZE_BINS` for a mask that covers this share of its image.

    >>> size_bin(0.004), size_bin(0.01)
    ('below 1 %', '1 to 5 %')
    """
    return next(name for limit, name in SIZE_BINS if share < limit)


def random_map(like: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform noise of the shape of maps [B, 1, h, w]: it is as coarse as they are."""
    return torch.rand(like.shape, generator=generator).to(like.device)


def centered_gaussian(size: tuple[int, int]) -> Tensor:
    """[1, 1, H, W], highest in the middle of the image."""
    height, width = size
    rows, columns = (
        torch.exp(-0.5 * ((torch.arange(n) - (n - 1) / 2) / (GAUSSIAN_SHARE * n)).square())
        for n in (height, width)
    )
    return rows.outer(columns)[None, None]


def edge_strength(images: Tensor) -> Tensor:
    """Length of the gradient (Sobel) of the mean of the channels, [B, C, H, W] -> [B, 1, H, W]."""
    grey = F.pad(images.mean(dim=1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    across = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]).to(images)
    kernels = torch.stack((across, across.T))[:, None]
    return F.conv2d(grey, kernels).square().sum(dim=1, keepdim=True).sqrt()


def informative(
    interval: Interval, baselines: Iterable[Interval], *, higher_is_better: bool = True
) -> bool:
    """Whether an interval lies wholly on the better side of those of all baselines.

    >>> informative(Interval(0.4, 0.5), [Interval(0.1, 0.2), Interval(0.3, 0.41)])
    False
    """
    if higher_is_better:
        return all(interval.low > other.high for other in baselines)
    return all(interval.high < other.low for other in baselines)


def _grown(heat: Heat, mask: Mask, tolerance: int) -> Mask:
    """The mask, grown by a disk."""
    if heat.ndim != 2 or heat.shape != mask.shape or tolerance < 0:
        raise ValueError(
            f"map and mask must have one shape [H, W] and the tolerance be >= 0 pixels, not "
            f"{heat.shape}, {mask.shape} and {tolerance}"
        )
    if not np.isfinite(heat).all():
        raise ValueError(f"{np.sum(~np.isfinite(heat))} values of the map are not finite")
    if tolerance == 0:
        return mask
    far: NDArray[np.float64] = ndimage.distance_transform_edt(~mask)
    return np.asarray((far <= tolerance) & mask.any())
