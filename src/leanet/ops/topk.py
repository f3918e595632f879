"""Soft and hard top-k distances to a memory bank, without the matrix of all distances.

Soft: r = sum_j A_j s_j with the memberships A of `leanet.ops.gate` for the scores
s_j = w ||phi - C_j||^2 of a descriptor phi (ADFA, arXiv:2308.15280); with q_j = dr / ds_j its
gradient is 2 w (k phi - sum_j q_j C_j). That is a matter of one row alone, so it is worked out
together with r while the scores are at hand, and only multiplied in the backward pass. Every score
is computed twice, first for Cmax; none outlives its block of rows. Gradients reach phi; w, Cmax,
tau and the bank are constants.

Distances are taken between descriptors minus the mean of the bank, which changes no distance and
saves digits, in float32 at least, also inside autocast.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from leanet.ops.gate import (
    FLOAT64_BELOW,
    MAX_STEPS,
    TINY,
    CmaxOver,
    Solved,
    check_eps,
    check_k,
    cost_scale,
    kept,
    precise,
    solve,
)

Scale = Literal["cmax", "row"]
TRACED = 1024  # places of an image that an exported graph works on at a time


def soft_topk_distance(  # noqa: PLR0913 - the options of the distance, by name
    phi: Tensor,
    bank: Tensor,
    weight: Tensor | None,
    k: int,
    eps: float,
    *,
    cmax: CmaxOver = "image",
    scale: Scale = "cmax",
    block: int = 128,
) -> Tensor:
    """r [B, T] of descriptors phi [B, T, D] and a bank [N, D], float32 (float64 for float64).

    `weight` [B] >= 0 multiplies all squared distances of an image. `cmax`: the set that Cmax is
    taken over; "batch" makes an image depend on its batch. `scale` "row" (experimental) takes
    tau = eps times the mean of the row's three smallest scores instead. `block` rows are worked on
    at a time; it changes time and memory only. The gradient reaches phi alone.

    While torch.export traces, plain operations with a fixed number of steps take the place of the
    blocks. Raises ValueError unless 1 <= k < N, eps > 0 and block >= 1.
    """
    how = _How(k, eps, cmax, scale, block)
    how.check(bank)
    with torch.autocast(phi.device.type, enabled=False):
        given = _given(phi, bank, weight, eps)
        if torch.compiler.is_exporting():
            r = _traceable_distance(given[0].detach(), *given[1:], how)
        else:
            r = _SoftDistance.apply(*given, how)
        return r.to(kept(phi))


@torch.no_grad()
def topk_figures(  # noqa: PLR0913 - those of `soft_topk_distance`
    phi: Tensor,
    bank: Tensor,
    weight: Tensor | None,
    k: int,
    eps: float,
    *,
    cmax: CmaxOver = "image",
    scale: Scale = "cmax",
    block: int = 128,
) -> dict[str, float]:
    """How soft the top-k of `soft_topk_distance` is, for the same arguments.

    max_score: the largest score S. cmax: mean over images. effective: entries that a row's mean is
    in effect taken over, (sum A)^2 / sum A^2, mean over rows. negative_share: share of entries that
    the gradient pushes away (q < 0).
    """
    how = _How(k, eps, cmax, scale, block)
    how.check(bank)
    with torch.autocast(phi.device.type, enabled=False):
        pairs = _of_images(*_given(phi, bank, weight, eps))
        low, high = _limits(pairs, len(phi), block)
        cost = cost_scale(low, high, cmax)
        effective = negative = 0.0
        for _, _, soft in _blocks(pairs, _per_row(cost, phi), how):
            member = soft.member
            effective += float((member.sum(dim=1).square() / member.square().sum(dim=1)).sum())
            negative += float((soft.pull() < 0).sum())
    rows = len(pairs.rows)
    return {
        "max_score": float(high.amax()),
        "cmax": float(cost.mean()),
        "effective": effective / rows,
        "negative_share": negative / (rows * len(bank)),
    }


def nearest_distances(phi: Tensor, bank: Tensor, count: int, block: int = 128) -> Tensor:
    """The `count` smallest squared distances [B, T, count] of descriptors phi [B, T, D] to a bank
    [N, D], ascending, float32 (float64 for float64), differentiable with respect to phi alone.

    Raises ValueError unless 1 <= count <= N and block >= 1.
    """
    if not 1 <= count <= bank.shape[0]:
        raise ValueError(
            f"a bank of {bank.shape[0]} entries: count must be 1 to {bank.shape[0]}, got {count}"
        )
    _check_block(block)
    with torch.autocast(phi.device.type, enabled=False):
        wide, fixed = phi.to(kept(phi)), bank.detach().to(kept(phi))
        rows = wide.flatten(0, 1)
        if torch.compiler.is_exporting():
            pairs = _pairs(rows.detach(), fixed, torch.ones_like(rows[:, 0]))
            scores = pairs.scores(pairs.left(slice(None)))
            found = scores.topk(count, dim=1, largest=False).values
        else:
            found = _Nearest.apply(rows, fixed, count, block)
        return found.view(*phi.shape[:2], count)


def _given(
    phi: Tensor, bank: Tensor, weight: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """phi, bank and weights [B], precise enough; the last two are constants."""
    wide = precise(phi, eps)
    w = wide.new_ones(phi.shape[0]) if weight is None else weight.detach().to(wide)
    return wide, bank.detach().to(wide), w


class _How(NamedTuple):
    """Arguments of `soft_topk_distance`."""

    k: int
    eps: float
    over: CmaxOver
    scale: Scale
    block: int

    def check(self, bank: Tensor) -> None:
        """Raises ValueError for numbers outside their ranges."""
        check_k(self.k, bank.shape[0])
        check_eps(self.eps)
        _check_block(self.block)

    def tau(self, scores: Tensor, cost: Tensor) -> Tensor:
        """tau [r] for scores [r, N] of rows whose Cmax is `cost` [r]."""
        if self.scale == "cmax":
            return cost * (self.eps / 2)
        nearest = scores.topk(min(3, scores.shape[1]), largest=False).values.mean(dim=1)
        digits = torch.finfo(scores.dtype).eps
        return (nearest * self.eps).maximum(scores.amax(dim=1) * digits).clamp(min=TINY)

    def steps(self) -> int:
        """So many steps suffice for any row: bisections of a bracket of 2 / eps, then Newton."""
        known = self.scale == "cmax" and self.eps >= FLOAT64_BELOW
        return 6 + math.ceil(math.log2(2 / self.eps + 2)) if known else MAX_STEPS


class _Pairs(NamedTuple):
    """R rows and N entries of a bank, whose scores are one matrix product of rows and columns
    (-2 w x, w |x|^2, w) . (c, 1, |c|^2) with x and c the descriptor and the entry minus the mean of
    the bank, and w the weight of the row."""

    rows: Tensor  # [R, D], as given
    weight: Tensor  # [R]
    center: Tensor  # [D]
    bank: Tensor  # [N, D + 2]

    def left(self, part: slice) -> Tensor:
        """The factors [r, D + 2] of some rows."""
        x = self.rows[part] - self.center
        norms = x.square().sum(dim=1, keepdim=True)
        return torch.cat([-2 * x, norms, torch.ones_like(norms)], dim=1) * self.weight[part, None]

    def scores(self, left: Tensor, out: Tensor | None = None) -> Tensor:
        """s [r, N] of factors [r, D + 2]; what rounding brings below 0 is cut off."""
        return torch.mm(left, self.bank.T, out=out).clamp_(min=0)

    def gradient(self, left: Tensor, pull: Tensor, part: slice, k: int) -> Tensor:
        """2 w (k x - sum_j q_j c_j) [r, D] of q [r, N] that sum to k."""
        pulled = (pull @ self.bank[:, :-2]).mul_(self.weight[part, None])
        return pulled.mul_(-2).sub_(left[:, :-2], alpha=k)


def _pairs(rows: Tensor, bank: Tensor, weight: Tensor) -> _Pairs:
    center = bank.mean(dim=0)
    bank = bank - center
    norms = bank.square().sum(dim=1, keepdim=True)
    return _Pairs(rows, weight, center, torch.cat([bank, torch.ones_like(norms), norms], dim=1))


def _of_images(phi: Tensor, bank: Tensor, weight: Tensor) -> _Pairs:
    """Pairs of phi [B, T, D], of weight [B]."""
    return _pairs(phi.flatten(0, 1), bank, _per_row(weight, phi))


def _per_row(value: Tensor, phi: Tensor) -> Tensor:
    """One value per image [B] -> one per row [B T]."""
    return value[:, None].expand(phi.shape[:2]).flatten()


class _SoftDistance(torch.autograd.Function):
    """phi [B, T, D] -> r [B, T], block by block."""

    @staticmethod
    def forward(ctx: Any, phi: Tensor, bank: Tensor, weight: Tensor, how: _How) -> Tensor:
        pairs = _of_images(phi, bank, weight)
        cost = weight  # not looked at by a scale of rows
        if how.scale == "cmax":
            cost = cost_scale(*_limits(pairs, len(phi), how.block), how.over)
        distance, gradient = torch.empty_like(pairs.weight), None
        if ctx.needs_input_grad[0]:
            gradient = phi.new_empty(pairs.rows.shape)
        for part, left, soft in _blocks(pairs, _per_row(cost, phi), how):
            distance[part] = soft.distance
            if gradient is not None:
                gradient[part] = pairs.gradient(left, soft.pull(), part, how.k)
        ctx.save_for_backward(gradient)
        return distance.view(phi.shape[:2])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        shape = (*upstream.shape, gradient.shape[1])
        return gradient.view(shape) * upstream[..., None], None, None, None


def _limits(pairs: _Pairs, images: int, block: int) -> tuple[Tensor, Tensor]:
    """The smallest and the largest score of each image, [B] and [B]."""
    low, high = torch.empty_like(pairs.weight), torch.empty_like(pairs.weight)
    for part, work in _parts(pairs, block, 1):
        scores = pairs.scores(pairs.left(part), work[0])
        low[part], high[part] = scores.amin(dim=1), scores.amax(dim=1)
    return low.view(images, -1).amin(dim=1), high.view(images, -1).amax(dim=1)


def _blocks(pairs: _Pairs, cost: Tensor, how: _How) -> Iterator[tuple[slice, Tensor, Solved]]:
    """Blocks of rows, their factors and their soft top-k, for Cmax `cost` [R]. The next block takes
    the memory of the last."""
    for part, work in _parts(pairs, how.block, 4):
        left = pairs.left(part)
        scores = pairs.scores(left, work[0])
        yield part, left, solve(scores, how.k, how.tau(scores, cost[part]), work=work[1:])


def _parts(pairs: _Pairs, block: int, count: int) -> Iterator[tuple[slice, Tensor]]:
    """Blocks of rows, and memory [count, r, N] that all of them use in turn."""
    total = len(pairs.rows)
    work = pairs.rows.new_empty(count, min(block, total), len(pairs.bank))
    for at in range(0, total, block):
        stop = min(at + block, total)
        yield slice(at, stop), work[:, : stop - at]


def _traceable_distance(phi: Tensor, bank: Tensor, weight: Tensor, how: _How) -> Tensor:
    """r [B, T]; of all images `TRACED` places at a time, as often as these fit into T, which is
    known when a graph is made, whereas B is not."""
    parts = torch.split(phi, TRACED, dim=1)
    images = [_all_scores(part, bank, weight).view(phi.shape[0], -1) for part in parts]
    low = torch.stack([one.amin(dim=1) for one in images]).amin(dim=0)
    high = torch.stack([one.amax(dim=1) for one in images]).amax(dim=0)
    cost = cost_scale(low, high, how.over)
    found = []
    for part in parts:
        scores = _all_scores(part, bank, weight)
        tau = how.tau(scores, _per_row(cost, part))
        found.append(solve(scores, how.k, tau, how.steps()).distance.view(part.shape[:2]))
    return torch.cat(found, dim=1)


def _all_scores(phi: Tensor, bank: Tensor, weight: Tensor) -> Tensor:
    """s [B T, N] of all rows at once."""
    pairs = _pairs(phi.flatten(0, 1), bank, _per_row(weight, phi))
    return pairs.scores(pairs.left(slice(None)))


class _Nearest(torch.autograd.Function):
    """Rows [R, D] -> the smallest squared distances [R, count], block by block."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, bank: Tensor, count: int, block: int) -> Tensor:
        pairs = _pairs(rows, bank, torch.ones_like(rows[:, 0]))
        values = rows.new_empty(len(rows), count)
        indices = torch.empty_like(values, dtype=torch.long)
        for part, work in _parts(pairs, block, 1):
            scores = pairs.scores(pairs.left(part), work[0])
            values[part], indices[part] = scores.topk(count, dim=1, largest=False)
        ctx.save_for_backward(rows, bank, indices)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        rows, bank, indices = ctx.saved_tensors
        pulled = F.embedding_bag(
            indices, bank, mode="sum", per_sample_weights=upstream.contiguous()
        )
        return 2 * (upstream.sum(dim=1, keepdim=True) * rows - pulled), None, None, None


def _check_block(block: int) -> None:
    if block < 1:
        raise ValueError(f"block must be 1 row or more, got {block}")
