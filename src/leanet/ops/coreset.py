"""A few rows of many that leave none far from the nearest: a coreset, and distances to it.

Greedy k-center: start anywhere, then take, again and again, the row that is farthest from all rows
taken so far (Gonzalez 1985; PatchCore, Roth et al. 2022, arXiv:2106.08265). Written plainly, every
choice looks at all N rows. But a distance to the nearest taken row can only fall, so an old one is
an upper bound: rows whose bound is below the farthest known distance need no look. So the rows with
the highest bounds are brought up to date together, in one matrix product, and choices are made
among them for as long as the best of them beats the bounds of all others. The choices are those of
the plain way; the rows may lie in a file, and few of them are in memory at a time.

Distances are Euclidean, in float32. With a sparse random projection (Achlioptas 2003; density
1 / sqrt(D), Li et al. 2006) they are looked at in fewer dimensions; how many the lemma of Johnson
and Lindenstrauss says.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

TAKEN = -1.0  # stands for the distance of a row that has been taken
ACTIVE = 1024  # rows brought up to date together
ALIKE = 64  # of them, those in one matrix product, whose bounds are about as old
BLOCK = 8192  # rows of the first pass, or taken rows, in one matrix product
BANK_BLOCK = 1024  # rows of a bank that distances are taken to at a time
GROUP = 32  # of them, those among which an exported graph looks for the nearest
FAR = 1e30  # a square that no row has; finite, as programs may multiply it by 0


class Rows(Protocol):
    """float32 [N, D], in memory or in a file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, D)."""
        ...

    def __getitem__(self, index: Any) -> NDArray[np.float32]:
        """Some rows, by a slice or an array of numbers."""
        ...


class Nearest(NamedTuple):
    """Distance [T] to the nearest row of a bank, and which row that is [T]."""

    distance: Tensor
    row: Tensor


def greedy_coreset(
    points: Rows,
    count: int,
    generator: torch.Generator,
    *,
    active: int = ACTIVE,
    device: torch.device | str = "cpu",
    advance: Callable[[int], object] = lambda steps: None,
) -> Tensor:
    """Numbers [count] of the rows of `points` [N, D] that are taken, in the order of the choices.

    The first is drawn. `advance` hears how many choices have been made since it heard last. Memory:
    `coreset_bytes`. Raises ValueError for a count outside 1 to N.
    """
    num = points.shape[0]
    if not 1 <= count <= num:
        raise ValueError(f"a coreset of {count} rows from {num}: take 1 to {num}")
    start = int(torch.randint(num, (1,), generator=generator))
    search = _Search(points, count, start, device)
    while search.found < count:
        before = search.found
        search.choose(min(active, num))
        advance(search.found - before)
    return search.rows


def coreset_bytes(num: int, dims: int, count: int, active: int = ACTIVE) -> int:
    """About how much memory `greedy_coreset` needs at most, whatever the rows take where they are:
    a bound, its age and the work of sorting for each of `num` rows, the taken rows, one block."""
    rows = count + max(min(active, num), min(BLOCK, num)) * 2
    return 4 * (num * 5 + rows * dims + ALIKE * min(count, BLOCK))


class _Search:
    """Choices so far, and for every row the distance to the nearest of its first `age` choices.

    Rows are moved by the first choice: the squares of a matrix product then lose fewer digits.
    """

    def __init__(self, points: Rows, count: int, start: int, device: torch.device | str) -> None:
        num, dims = points.shape
        self.points, self.device, self.count, self.found = points, device, count, 1
        self.rows = torch.full((count,), start)
        self.origin = torch.from_numpy(np.array(points[start : start + 1])).to(device)
        self.centers = torch.zeros(count, dims, device=device)
        self.age = torch.ones(num, dtype=torch.int32, device=device)
        blocks = (slice(first, first + BLOCK) for first in range(0, num, BLOCK))
        self.bound = torch.cat([self._moved(block).square().sum(dim=1) for block in blocks])
        self.bound[start] = TAKEN

    def choose(self, active: int) -> None:
        """Bring the rows with the highest bounds up to date; take from them while that is safe."""
        top = self.bound.topk(min(active + 1, len(self.bound)))
        others = top.values[active] if len(top.values) > active else torch.tensor(TAKEN)
        index = top.indices[:active]
        index = index[self.age[index].argsort(stable=True)]
        near = self._moved(index.cpu().numpy())
        distance = self._refreshed(near, index)
        while self.found < self.count:
            best = int(distance.argmax())
            if distance[best] < others:
                break
            self.rows[self.found] = index[best]
            self.centers[self.found] = near[best]
            self.found += 1
            distance = torch.minimum(distance, squared_distances(near, near[best, None])[:, 0])
            distance[best] = TAKEN
        self.bound[index] = distance
        self.age[index] = self.found

    def _refreshed(self, near: Tensor, index: Tensor) -> Tensor:
        """Squared distances [A] of rows to all choices, from their bounds."""
        distance = self.bound[index]
        for first in range(0, len(index), ALIKE):
            part = slice(first, first + ALIKE)
            for later in range(int(self.age[index[first]]), self.found, BLOCK):
                some = self.centers[later : min(later + BLOCK, self.found)]
                closest = squared_distances(near[part], some).amin(dim=1)
                distance[part] = torch.minimum(distance[part], closest)
        return distance

    def _moved(self, index: slice | NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(np.array(self.points[index])).to(self.device) - self.origin


def squared_distances(first: Tensor, second: Tensor) -> Tensor:
    """Squared Euclidean distances [A, B] of rows [A, D] to rows [B, D], by a matrix product: of
    rows that are close together and far from 0 the last digits are lost."""
    apart = torch.addmm(second.square().sum(dim=1), first, second.T, alpha=-2.0)
    return apart.add_(first.square().sum(dim=1)[:, None]).clamp_(min=0)


def nearest_row(places: Tensor, bank: Tensor, block: int = BANK_BLOCK) -> Nearest:
    """The nearest row of a bank [N, D] to each place [T, D]; never more than [T, block] distances
    at a time. The nearest is found by a matrix product, its distance then taken exactly."""
    origin = bank.mean(dim=0)  # squares of numbers near 0 keep more digits
    moved, best = places - origin, torch.full_like(places[:, 0], torch.inf)
    row = torch.zeros_like(best, dtype=torch.int64)
    for first in range(0, len(bank), block):
        some = bank[first : first + block] - origin
        squares = some.square().sum(dim=1)  # those of a place are the same for all rows
        if torch.compiler.is_exporting():
            value, index = _lowest_in_groups(squares, moved, some)
        else:
            value, index = torch.addmm(squares, moved, some.T, alpha=-2.0).min(dim=1)
        closer = value < best
        best, row = torch.where(closer, value, best), torch.where(closer, index + first, row)
    return Nearest((places - bank[row]).square().sum(dim=1).sqrt(), row)


def _lowest_in_groups(squares: Tensor, moved: Tensor, some: Tensor) -> tuple[Tensor, Tensor]:
    """Lowest value [T] of squares - 2 moved @ some.T and its column, for programs that find the
    lowest value of a row much faster than its place, which is looked for in one group only, and
    that add a row to a matrix product in a pass of its own: here it is a column of the factors."""
    missing = -len(some) % GROUP
    squares = F.pad(squares, (0, missing), value=FAR)
    table = torch.cat((F.pad(some, (0, 0, 0, missing)) * -2, squares[:, None]), dim=1)
    value = F.pad(moved, (0, 1), value=1.0) @ table.T
    groups = value.view(-1, len(table) // GROUP, GROUP)
    lowest, group = groups.amin(dim=2).min(dim=1)
    inside = groups.gather(1, group[:, None, None].expand(-1, 1, GROUP))[:, 0].argmin(dim=1)
    return lowest, group * GROUP + inside


def reweighted(places: Tensor, nearest: Nearest, bank: Tensor, neighbors: int) -> Tensor:
    """PatchCore's image score [B] (its equation 7) from the farthest place [B, D] of each image.

    The distance counts less if the nearest row lies in a lonely part of the bank: it is multiplied
    by 1 - exp(d_0) / (exp(d_0) + ... + exp(d_k-1)), with the distances d of the place to the
    nearest row (d_0) and that row's nearest `neighbors` - 1 others. One neighbor: as it is.
    """
    count = min(neighbors, len(bank))
    if count == 1:
        return nearest.distance
    apart = squared_distances(bank[nearest.row], bank)
    apart = apart.scatter(1, nearest.row[:, None], TAKEN)  # first, whatever rounding says
    around = apart.topk(count, dim=1, largest=False).indices
    distances = (places[:, None] - bank[around]).square().sum(dim=2).sqrt()
    return nearest.distance * (1 - distances.softmax(dim=1)[:, 0])


def projected_dims(num: int, eps: float) -> int:
    """Dimensions in which a random projection keeps the squared distances of `num` rows within a
    factor 1 +- eps, with good odds (Johnson and Lindenstrauss, as scikit-learn computes it).

    Raises ValueError for an eps outside (0, 1).

    >>> projected_dims(1_000_000, 0.5)
    663
    """
    if not 0 < eps < 1:
        raise ValueError(f"eps must lie between 0 and 1, got {eps}")
    return int(4 * math.log(num) / (eps**2 / 2 - eps**3 / 3))


def sparse_projection(dims: int, out: int, generator: torch.Generator) -> Tensor:
    """A matrix [dims, out] that keeps squared distances on average: one entry of sqrt(dims) is
    + or - sqrt(sqrt(dims) / out), the others are 0."""
    density = 1 / math.sqrt(dims)
    drawn = torch.rand(dims, out, generator=generator)
    sign = (drawn < density / 2).float() - (drawn >= 1 - density / 2).float()
    return sign * math.sqrt(1 / (density * out))
