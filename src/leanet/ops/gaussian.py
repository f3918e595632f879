"""A normal distribution at every place of an image, and how unusual a place is under it.

At each of P places the descriptions [d] of normal images have a mean and a covariance
S = 1 / (N - 1) sum (x - mean) (x - mean)^T + ridge I (PaDiM, Defard et al. 2021, arXiv:2011.08785).
The Mahalanobis distance of a new description is sqrt((x - mean)^T S^-1 (x - mean)). With the
Cholesky factor L of S, S = L L^T, it is the length of W (x - mean) with W = L^-1, "whitening":
a matrix product, which is fast and exports everywhere.

Sums are kept, so images can be added batch by batch. They are taken of differences from the first
batch's mean: sums of numbers far from 0 would lose the digits that a covariance is made of.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

MOST_BYTES = 1 << 30  # of sums in float64; beyond that they are float32
BLOCK_BYTES = 1 << 26  # of the covariances that are factored together


class Gaussians(NamedTuple):
    """Of P places: mean [P, d], and whitening W [P, d, d], lower triangular; both float32."""

    mean: Tensor
    whitening: Tensor


class PlaceMoments:
    """Sums over images for the mean and covariance of each of `places` places in `dims` channels.

    They are float64 while those of the covariances take no more than `most_bytes`, else float32;
    `dtype` says which.
    """

    def __init__(
        self,
        places: int,
        dims: int,
        *,
        device: torch.device | str = "cpu",
        most_bytes: int = MOST_BYTES,
    ) -> None:
        fits = 8 * places * dims**2 <= most_bytes
        self.dtype = torch.float64 if fits else torch.float32
        self.num = 0
        self.shift = torch.zeros(places, dims, dtype=self.dtype, device=device)
        self.total = torch.zeros_like(self.shift)  # of x - shift
        self.products = torch.zeros(places, dims, dims, dtype=self.dtype, device=device)

    def add(self, description: Tensor) -> None:
        """Add a batch [B, d, P]."""
        at_place = description.to(self.dtype).permute(2, 0, 1)  # [P, B, d]
        if not self.num:
            self.shift = at_place.mean(dim=1)
        moved = at_place - self.shift[:, None]
        self.num += len(description)
        self.total += moved.sum(dim=1)
        self.products.baddbmm_(moved.mT, moved)

    def gaussians(self, ridge: float) -> Gaussians:
        """What has been added as distributions; float32 sums are used up by this, to save memory.

        Raises ValueError for fewer than two images, or a ridge that is not positive.
        """
        if self.num < 2 or ridge <= 0:
            raise ValueError(
                f"{self.num} images and ridge {ridge}: a covariance takes 2 images or more, and a "
                "ridge above 0 to be inverted"
            )
        places, dims, _ = self.products.shape
        mean, reuse = self.total / self.num, self.dtype == torch.float32
        out = self.products if reuse else torch.empty_like(self.products, dtype=torch.float32)
        block = max(1, BLOCK_BYTES // (8 * dims**2))
        for first in range(0, places, block):
            part = slice(first, first + block)
            off = mean[part].double()
            sums = self.products[part].double() - self.num * off[:, :, None] * off[:, None]
            out[part] = whitening(sums / (self.num - 1), ridge).float()
        return Gaussians((self.shift + mean).float(), out)


def whitening(covariance: Tensor, ridge: float) -> Tensor:
    """W = L^-1 [..., d, d] of S + ridge I = L L^T, with S [..., d, d] symmetric, eigenvalues >= 0.

    >>> whitening(torch.tensor([[3.0]]), 1.0)
    tensor([[0.5000]])
    """
    identity = torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
    factor = torch.linalg.cholesky(covariance + ridge * identity)
    inverse: Tensor = torch.linalg.solve_triangular(factor, identity, upper=False)
    return inverse


def mahalanobis(description: Tensor, mean: Tensor, whitening: Tensor) -> Tensor:
    """Distances [B, P] of descriptions [B, d, P] under the distributions of `Gaussians`, in SDs."""
    off = description.permute(2, 1, 0) - mean[:, :, None]  # [P, d, B]
    return (whitening @ off).square().sum(dim=1).sqrt().T
