"""Anomaly maps on their way to a network and to a score: blur, resize, scale, reduce.

A raw map d >= 0 has the unit of its source (dE00, feature distance, ...). A network wants numbers
in [0, 1], and always the same number for the same error. So one divisor s is taken once, the 0.999
quantile of all pixels of the training-normal maps, and the network sees clip(d / (h s), 0, 1) with
headroom h = 4: normal pixels stay below 1/4 and strong anomalies have room. Scaling by the maximum
of the single image would stretch the noise of a normal image to the full range instead.

Everything here but `fit_scale` is made of plain tensor operations that trace and export.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

MapReduction = Literal["mean", "max", "p95", "p99", "top1"]
Border = Literal["mirror", "reflect"]

# float32 numbers >= 0 sort like their bit patterns. Dropping the 11 lowest bits leaves 2^20 bins,
# each 2^-12 of its value wide: a histogram over the whole range of float32 in 8 MiB.
_DROPPED_BITS = 11
_NUM_BINS = 1 << (31 - _DROPPED_BITS)


class MapScale(NamedTuple):
    """How a raw map becomes a network map: d / (headroom * divisor), clipped to [0, 1]."""

    divisor: float  # s, in the unit of the map
    headroom: float  # h, the multiple of s that saturates


def blur(
    anomaly_map: Tensor, sigma: float, *, truncate: float = 4.0, border: Border = "mirror"
) -> Tensor:
    """Gaussian blur of maps [B, C, H, W] with SD `sigma` in pixels, kernel cut at `truncate` SDs.

    At the border the map is mirrored, without repeating the border pixel ("mirror") or with it
    ("reflect"); both words are SciPy's.

    Sigma 0 gives the map back. It is a matrix product, so inside autocast it has the precision of
    autocast. Raises ValueError for a negative sigma.
    """
    if sigma < 0:
        raise ValueError(f"sigma must be >= 0 pixels, got {sigma}")
    radius = int(truncate * sigma + 0.5)
    if radius == 0:
        return anomaly_map
    rows, columns = (
        _blur_matrix(n, sigma, radius, border).to(anomaly_map) for n in anomaly_map.shape[-2:]
    )
    return rows @ anomaly_map @ columns.T


def resize(anomaly_map: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps [B, C, H, W] at another size (H', W'), bilinear, pixel centers aligned as in images."""
    if tuple(anomaly_map.shape[-2:]) == tuple(size):
        return anomaly_map
    return F.interpolate(anomaly_map, size=tuple(size), mode="bilinear", align_corners=False)


def best_grid_map(mask: Tensor, grid: int) -> Tensor:
    """The map that a detector with `grid` x `grid` places would draw if it knew the ground truth.

    Masks [B, 1, H, W] of 0 and 1 -> [B, 1, H, W] in [0, 1]: averaged over the area of each place
    (where `grid` does not divide a side, places overlap by a pixel) and back, bilinear. Raises
    ValueError for a grid below 1.
    """
    if grid < 1:
        raise ValueError(f"a grid has 1 place or more along a side, got {grid}")
    return resize(F.adaptive_avg_pool2d(mask, grid), (mask.shape[-2], mask.shape[-1]))


def fit_scale(maps: Iterable[Tensor], quantile: float = 0.999, headroom: float = 4.0) -> MapScale:
    """The scale for a set of raw maps >= 0, any shapes: divisor = `quantile` of all their pixels.

    One pass in constant memory; the divisor is within 1/4000 of the exact quantile (of the lower of
    the two neighboring pixels where it falls between them). When the quantile is 0 (sparse maps)
    the largest pixel serves instead, and 1 when all pixels are 0, so that a perfect reconstruction
    is no error. Raises ValueError for no pixels, negative or non-finite pixels, a quantile outside
    (0, 1], or headroom <= 0.

    >>> fit_scale([torch.zeros(1, 1, 8, 8)])
    MapScale(divisor=1.0, headroom=4.0)
    """
    pixels = PixelHistogram()
    for anomaly_map in maps:
        pixels.add(anomaly_map)
    return scale_from(pixels, quantile, headroom)


class PixelHistogram:
    """All pixels of the raw maps added so far, in constant memory.

    >>> pixels = PixelHistogram()
    >>> pixels.add(torch.tensor([1.0, 2.0, 4.0]))
    >>> round(pixels.quantile(0.5), 2)
    2.0
    """

    def __init__(self) -> None:
        self.counts = torch.zeros(_NUM_BINS, dtype=torch.int64)

    def add(self, anomaly_map: Tensor) -> None:
        """Count the pixels of raw maps >= 0, any shape. Raises ValueError for others."""
        self.counts += _bit_histogram(anomaly_map)

    def quantile(self, q: float) -> float:
        """Their q-quantile, within 1/4000 of it; nan without pixels."""
        total = int(self.counts.sum())
        return _bit_quantile(self.counts, q * (total - 1)) if total else math.nan


def scale_from(pixels: PixelHistogram, quantile: float = 0.999, headroom: float = 4.0) -> MapScale:
    """The scale of `fit_scale` for maps that have been counted already, with the same errors."""
    if not 0 < quantile <= 1 or headroom <= 0:
        raise ValueError(
            f"quantile must lie in (0, 1] and headroom be > 0, got {quantile} and {headroom}"
        )
    if not pixels.counts.any():
        raise ValueError("a map scale needs at least one map with at least one pixel, got none")
    return MapScale(pixels.quantile(quantile) or pixels.quantile(1.0) or 1.0, headroom)


def to_network(anomaly_map: Tensor, scale: MapScale) -> Tensor:
    """Raw maps -> network maps in [0, 1], same shape: clip(d / (h s), 0, 1).

    >>> to_network(torch.tensor([0.0, 2.0, 99.0]), MapScale(divisor=2.0, headroom=4.0))
    tensor([0.0000, 0.2500, 1.0000])
    """
    return (anomaly_map / (scale.headroom * scale.divisor)).clamp(0.0, 1.0)


def map_score(anomaly_map: Tensor, how: MapReduction = "mean") -> Tensor:
    """Image scores [B] from maps [B, 1, H, W]: mean, maximum, 95 % or 99 % quantile, or `top1`, the
    mean of the highest 1 % of the pixels (at least one).

    The mean is the default: an extreme pixel says little about the image when sharp edges are
    hard to predict. Raises ValueError for any other word.

    >>> map_score(torch.arange(4.0).view(1, 1, 2, 2), "max")
    tensor([3.])
    """
    pixels = anomaly_map.flatten(1)
    num = pixels.shape[1]
    if how == "mean":
        return pixels.mean(dim=1)
    if how == "max":
        return pixels.amax(dim=1)
    if how == "top1":
        return pixels.topk(math.ceil(num / 100), dim=1).values.mean(dim=1)
    if how in ("p95", "p99"):
        return _upper_quantile(pixels, 0.95 if how == "p95" else 0.99)
    raise ValueError(f"map score {how!r} is unknown; choose one of {get_args(MapReduction)}")


def _upper_quantile(pixels: Tensor, q: float) -> Tensor:
    """Quantile of rows [B, N] with linear interpolation; topk exports where `quantile` does not."""
    position = q * (pixels.shape[1] - 1)
    lower = int(position)
    top = pixels.topk(pixels.shape[1] - lower, dim=1).values  # descending, ends at rank `lower`
    below, above = top[:, -1], top[:, -min(2, top.shape[1])]
    return below + (position - lower) * (above - below)


def _blur_matrix(size: int, sigma: float, radius: int, border: Border) -> Tensor:
    """Weights [out, in] of a blur along an axis of `size` pixels: on a CPU two small matrix
    products are several times faster than convolving one channel."""
    offset = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (offset / sigma) ** 2)
    index = torch.arange(-radius, size + radius)
    if border == "mirror":  # 2 1 [0 1 2 3] 2 1, however wide
        period = max(2 * (size - 1), 1)
        mirrored = torch.minimum(index % period, -index % period)
    else:  # 1 0 [0 1 2 3] 3 2
        mirrored = torch.minimum(index % (2 * size), (-1 - index) % (2 * size))
    source = mirrored.unfold(0, kernel.numel(), 1)  # [out, tap] -> the pixel under that tap
    taps = (kernel / kernel.sum()).expand(size, -1)
    return torch.zeros(size, size, dtype=torch.float64).scatter_add(1, source, taps)


def _bit_histogram(anomaly_map: Tensor) -> Tensor:
    pixels = anomaly_map.detach().to("cpu", torch.float32).flatten()
    if not torch.isfinite(pixels).all() or (pixels < 0).any():
        raise ValueError("raw anomaly maps must be finite and >= 0; this one is not")
    bits = (pixels + 0.0).view(torch.int32)  # + 0 turns the bit pattern of -0 into that of 0
    return torch.bincount(bits >> _DROPPED_BITS, minlength=_NUM_BINS)


def _bit_quantile(histogram: Tensor, position: float) -> float:
    """Value at a (fractional) rank from 0, spread evenly inside its bin; bin 0 counts as zero."""
    cumulated = histogram.cumsum(0)
    found = int(torch.searchsorted(cumulated, math.floor(position), right=True))
    if found == 0:
        return 0.0
    count = int(histogram[found])
    share = (position - int(cumulated[found]) + count + 0.5) / count
    ends = torch.tensor([found, found + 1], dtype=torch.int32) << _DROPPED_BITS
    low, high = ends.view(torch.float32).tolist()
    return float(low + min(share, 1.0) * (high - low))
