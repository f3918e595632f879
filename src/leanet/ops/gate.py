"""Soft top-k of rows of scores in closed form: which entries are the k smallest, and how surely.

Soft top-k (Xie et al. 2020, arXiv:2002.06504) is entropic optimal transport of n scores, each of
mass 1/n, to the anchors 0 and 1, at cost (s - anchor)^2 / Cmax and regularization eps. With two
anchors the plan is a logistic curve in s, so one number per row replaces all Sinkhorn sweeps:

    A_j = sigmoid(g - s_j / tau),    tau = Cmax eps / 2,    g from sum_j A_j = k
    Cmax = max(s_max^2, (s_min - 1)^2) over a set of scores

A_j is near 1 for small scores. With p = A (1 - A), m = sum p s / sum p and tau constant,

    dL / ds_j = -p_j (v_j - sum p v / sum p) / tau    for upstream gradients v of A
    r = sum_j A_j s_j = k m + sum_j A_j (s_j - m)
    q_j = dr / ds_j = A_j - p_j (s_j - m) / tau,    sum_j q_j = k

The second form of r changes with the square of an error of g only.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CmaxOver = Literal["image", "batch"]
MAX_STEPS = 40  # of the solver; distances take 2 to 5
FLOAT64_BELOW = 1e-3  # eps; s / tau reaches 2 / eps, too much for the digits of float32
TINY = 1e-30  # a sum of p below it: every A is 0 or 1


def solve_gate(scores: Tensor, k: int, tau: Tensor, steps: int | None = None) -> Tensor:
    """g [R] with sum_j sigmoid(g - s_j / tau) = k in each row of scores [R, n], for tau [R] > 0.

    Newton's method on log(sum A) - log k, and bisection where it leaves the bracket. A row stops
    one step after its sum is within 1e-5 of k (float64: 1e-12; both relative, or as near as the
    digits of g allow), whatever the rows around it do. `steps`: exactly so many steps, without a
    decision that depends on the data. No gradient goes through it. Raises ValueError unless
    1 <= k < n.
    """
    check_k(k, scores.shape[1])
    scores, tau = scores.detach(), tau.detach()
    low = scores.amin(dim=1)
    return _gate((scores - low[:, None]) / tau[:, None], k, steps) + low / tau


def soft_topk(scores: Tensor, k: int, eps: float, cmax: Tensor | None = None) -> Tensor:
    """Memberships A [R, n] in [0, 1] of scores [R, n]: near 1 for the k smallest, rows sum to k.

    `cmax` [R] is the Cmax of each row; None takes that of all scores. It is a constant of the
    gradient. Raises ValueError unless 1 <= k < n and eps > 0.

    >>> soft_topk(torch.tensor([[0.1, 0.2, 0.4, 0.8, 1.6]]), k=2, eps=0.1)
    tensor([[8.6129e-01, 7.3977e-01, 3.7338e-01, 2.5513e-02, 5.0538e-05]])
    """
    check_k(k, scores.shape[1])
    check_eps(eps)
    with torch.autocast(scores.device.type, enabled=False):
        wide = precise(scores, eps)
        if cmax is None:
            cmax = cost_scale(wide.detach().amin(), wide.detach().amax()).expand(len(wide))
        tau = cmax.detach().to(wide) * (eps / 2)
        member: Tensor = _SoftTopK.apply(wide, k, tau)
        return member.to(scores.dtype)


class Solved(NamedTuple):
    """The soft top-k of some rows of scores, solved."""

    member: Tensor  # A [r, n]
    slope: Tensor  # p [r, n]
    offset: Tensor  # (s - m) / tau [r, n]
    distance: Tensor  # r [r]

    def pull(self) -> Tensor:
        """q [r, n]; it takes the place of A and p."""
        return self.member.sub_(self.slope.mul_(self.offset))


def solve(
    scores: Tensor, k: int, tau: Tensor, steps: int | None = None, work: Tensor | None = None
) -> Solved:
    """Soft top-k of scores [r, n], which are overwritten; memory `work` [3, r, n] is used if
    given."""
    low = scores.amin(dim=1)
    u = scores.sub_(low[:, None]).div_(tau[:, None])
    gate = _gate(u, k, steps, work)
    member, slope = _plan(u, gate, work)
    product = torch.mul(slope, u, out=None if work is None else work[2])
    middle = product.sum(dim=1) / slope.sum(dim=1).clamp(min=TINY)
    offset = u.sub_(middle[:, None])
    product = torch.mul(member, offset, out=None if work is None else work[2])
    return Solved(member, slope, offset, k * (low + tau * middle) + tau * product.sum(dim=1))


def _plan(u: Tensor, gate: Tensor, work: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """A and p [R, n] of u = s / tau [R, n] and g [R]. 1 - A is sigmoid(-x), which does not vanish
    where A rounds to 1."""
    x = torch.sub(gate[:, None], u, out=None if work is None else work[0])
    member = torch.sigmoid(x, out=None if work is None else work[1])
    return member, x.neg_().sigmoid_().mul_(member)


def _gate(u: Tensor, k: int, steps: int | None, work: Tensor | None = None) -> Tensor:
    """g [R] of u = s / tau [R, n] whose row minimum is 0: see `solve_gate`."""
    edge = math.log(k / (u.shape[1] - k))
    # sigmoid(x) < exp(x), so this start lies below g; it spares the first Newton step
    below = torch.neg(u, out=None if work is None else work[0]).exp_().sum(dim=1)
    gate = (math.log(k) - below.log()).clamp(min=edge)
    low, high = torch.full_like(gate, edge), u.amax(dim=1) + edge
    active = torch.ones_like(gate, dtype=torch.bool)
    digits = 2 * torch.finfo(u.dtype).eps
    enough = 1e-12 if u.dtype == torch.float64 else 1e-5
    for _ in range(MAX_STEPS if steps is None else steps):
        member, slope = _plan(u, gate, work)
        ratio = member.sum(dim=1) / k
        low, high = torch.where(ratio <= 1, gate, low), torch.where(ratio >= 1, gate, high)
        new = gate - ratio.log() * ratio * k / slope.sum(dim=1)
        # closed, so that a step onto the end of the bracket is kept; nan is never inside
        inside = (new >= low) & (new <= high)
        gate = torch.where(active, torch.where(inside, new, (low + high) / 2), gate)
        active = active & ((ratio - 1).abs() > (gate.abs() * digits).clamp(min=enough))
        if steps is None and not active.any():
            break
    return gate


class _SoftTopK(torch.autograd.Function):
    """Scores [R, n] -> A [R, n] at constant tau [R]."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, k: int, tau: Tensor) -> Tensor:
        soft = solve(scores.clone(), k, tau)
        ctx.save_for_backward(soft.slope, tau)
        return soft.member

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        slope, tau = ctx.saved_tensors
        total = slope.sum(dim=1, keepdim=True).clamp(min=TINY)
        middle = (slope * upstream).sum(dim=1, keepdim=True) / total
        return slope * (middle - upstream) / tau[:, None], None, None


def cost_scale(low: Tensor, high: Tensor, over: CmaxOver = "image") -> Tensor:
    """Largest transport cost of scores from `low` to `high` [B], of each image or all [B]."""
    cost = torch.maximum(high.square(), (low - 1).square())
    return cost if over == "image" else cost.amax().expand_as(cost)


def kept(x: Tensor) -> torch.dtype:
    """float64 for float64, float32 for all others."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def precise(x: Tensor, eps: float) -> Tensor:
    """x in the precision that `eps` needs."""
    return x.to(torch.float64 if eps < FLOAT64_BELOW else kept(x))


def check_k(k: int, count: int) -> None:
    """Raises ValueError unless k of `count` entries can be chosen softly."""
    if not 1 <= k < count:
        raise ValueError(f"the top k of {count} entries: k must be 1 to {count - 1}, got {k}")


def check_eps(eps: float) -> None:
    """Raises ValueError for a regularization that is not positive."""
    if not eps > 0:
        raise ValueError(
            f"eps must be > 0, got {eps}; for the hard top-k take nearest_distances (--topk hard)"
        )
