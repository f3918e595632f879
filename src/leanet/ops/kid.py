"""How close a set of generated images comes to real ones, in a space of features [N, D].

The kernel inception distance (Binkowski et al. 2018, arXiv:1801.01401) is the squared maximum mean
discrepancy of two sets under k(x, y) = (x.y / D + 1)^3, without bias: 0 on average where both sets
come from one distribution, so that small samples give negative values as well. A single value means
nothing without its *null*, the same between two real sets. Unlike FID it needs no thousands of
images.

Coverage and density (Naeem et al. 2020, arXiv:2002.09797) ask about single images: around every
real one lies a ball that reaches to its k-th real neighbor. Coverage is the share of balls with a
generated image inside; density counts generated images per ball, 1 where they lie as the real ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

NUM_SUBSETS = 100


class Kid(NamedTuple):
    """The distance of two sets, and the SD over subsets of both."""

    value: float
    sd: float


def kid(a: Tensor, b: Tensor) -> float:
    """Unbiased squared MMD of features [N, D] and [M, D].

    Raises:
        ValueError: fewer than two rows, or different numbers of columns.
    """
    if min(len(a), len(b)) < 2 or a.shape[1] != b.shape[1]:
        raise ValueError(
            f"KID compares two sets of at least 2 rows with as many features each, "
            f"not {list(a.shape)} and {list(b.shape)}"
        )
    a, b = a.double(), b.double()
    return float(_mean_off_diagonal(kernel(a, a)) + _mean_off_diagonal(kernel(b, b))) - 2 * float(
        kernel(a, b).mean()
    )


def kid_with_sd(a: Tensor, b: Tensor, generator: torch.Generator, num: int = NUM_SUBSETS) -> Kid:
    """`kid` of all rows, and its SD over `num` pairs of subsets, each of half the smaller set (at
    least 2 rows), drawn without replacement."""
    size = max(2, min(len(a), len(b)) // 2)
    draws = []
    for _ in range(num):
        first = torch.randperm(len(a), generator=generator)[:size].to(a.device)
        second = torch.randperm(len(b), generator=generator)[:size].to(b.device)
        draws.append(kid(a[first], b[second]))
    return Kid(kid(a, b), float(torch.tensor(draws).std()))


def kernel(a: Tensor, b: Tensor) -> Tensor:
    """(x.y / D + 1)^3 of all pairs of [N, D] and [M, D] -> [N, M]."""
    return (a @ b.T / a.shape[1] + 1) ** 3


def in_proportion(sets: Sequence[Tensor], counts: Sequence[int]) -> Tensor:
    """The first rows of every set [N_k, D], as many as possible in proportion to the counts: a
    balanced set of images differs from an imbalanced one however good its images are.

    >>> in_proportion([torch.zeros(8, 1), torch.ones(8, 1)], [40, 20]).sum()
    tensor(4.)
    """
    share = min(len(one) / count for one, count in zip(sets, counts, strict=True))
    return torch.cat([one[: round(share * n)] for one, n in zip(sets, counts, strict=True)])


class Coverage(NamedTuple):
    """coverage in [0, 1]; density >= 0, about 1 where the sets lie alike."""

    coverage: float
    density: float


def coverage_density(real: Tensor, generated: Tensor, k: int = 5) -> Coverage:
    """Of features [N, D] and [M, D]; k is lowered to N - 1 where there are so few real images.

    Raises:
        ValueError: fewer than two real images or no generated one.
    """
    k = min(k, len(real) - 1)
    if k < 1 or len(generated) < 1:
        raise ValueError(
            f"coverage needs at least 2 real images and 1 generated one, "
            f"not {len(real)} and {len(generated)}"
        )
    real, generated = real.double(), generated.double()
    among = torch.cdist(real, real).fill_diagonal_(torch.inf)
    radius = among.kthvalue(k, dim=1).values  # [N]
    inside = torch.cdist(real, generated) < radius[:, None]  # [N, M]
    covered = inside.any(dim=1).double().mean()
    return Coverage(float(covered), float(inside.sum()) / (k * len(generated)))


def mean_distance(features: Tensor) -> float:
    """Mean Euclidean distance of all pairs of rows [N, D]; nan for fewer than two rows."""
    if len(features) < 2:
        return float("nan")
    return float(_mean_off_diagonal(torch.cdist(features.double(), features.double())))


def _mean_off_diagonal(square: Tensor) -> Tensor:
    n = len(square)
    return (square.sum() - square.diagonal().sum()) / (n * (n - 1))
