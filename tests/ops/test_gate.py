"""Soft top-k against Sinkhorn sweeps, worked examples and its own derivatives."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from leanet.ops.gate import cost_scale, soft_topk, solve, solve_gate

GOLDEN = [0.1, 0.2, 0.4, 0.8, 1.6]
FLOATS = [torch.float32, torch.float64]


def sinkhorn(scores: Tensor, k: int, eps: float, cmax: float, sweeps: int = 200) -> Tensor:
    """A [R, n] of scores [R, n] the long way: sweeps over the plan, with logarithms."""
    n = scores.shape[1]
    anchors = scores.new_tensor([0.0, 1.0])
    kernel = -((scores[..., None] - anchors) ** 2) / cmax / eps  # [R, n, 2]
    rows = scores.new_full((len(scores), n), -math.log(n))
    columns = scores.new_tensor([k / n, (n - k) / n]).log().expand(len(scores), 2)
    g = torch.zeros_like(columns)
    for _ in range(sweeps):
        f = rows - (kernel + g[:, None]).logsumexp(dim=2)
        g = columns - (kernel + f[..., None]).logsumexp(dim=1)
    return n * (kernel + f[..., None] + g[:, None])[..., 0].exp()


def chi_square(rows: int, n: int, top: float) -> Tensor:
    """Scores like squared distances, float64, with the maximum `top`."""
    normal = torch.randn(rows, n, 8, generator=torch.Generator().manual_seed(0))
    scores = normal.double().square().sum(dim=2)
    return scores * (top / scores.amax())


def solved(scores: Tensor, k: int, eps: float, cmax: float) -> Any:
    return solve(scores.clone(), k, scores.new_full((len(scores),), cmax * eps / 2))


@pytest.mark.parametrize(
    ("eps", "member", "distance", "pull"),
    [
        (
            0.1,
            [0.86128633, 0.73976839, 0.37338204, 0.02551271, 0.00005054],
            0.4039261521,
            [1.03610416, 0.87106121, 0.16737360, -0.07407123, -0.00046773],
        ),
        (
            0.5,
            [0.57576400, 0.53722051, 0.45925504, 0.31252478, 0.11523566],
            0.7831194054,
            [0.72102635, 0.64622664, 0.49053449, 0.20530327, -0.06309076],
        ),
    ],
)
def test_the_worked_example(
    eps: float, member: list[float], distance: float, pull: list[float]
) -> None:
    scores = torch.tensor([GOLDEN], dtype=torch.float64, requires_grad=True)
    found = soft_topk(scores, 2, eps)
    r = (found * scores).sum()
    (gradient,) = torch.autograd.grad(r, scores)
    assert found[0].tolist() == pytest.approx(member, abs=1e-7)
    assert float(r.detach()) == pytest.approx(distance, abs=1e-7)
    assert gradient[0].tolist() == pytest.approx(pull, abs=1e-7)
    fused = solved(scores.detach(), 2, eps, 2.56)
    assert float(fused.distance) == pytest.approx(distance, abs=1e-7)
    torch.testing.assert_close(fused.pull(), gradient, atol=1e-12, rtol=1e-10)
    assert float(gradient.sum()) == pytest.approx(2, abs=1e-9)


@pytest.mark.parametrize("top", [0.1, 0.3, 1.0, 10.0, 1000.0])
@pytest.mark.parametrize("eps", [0.01, 0.1, 0.2])
def test_it_equals_200_sinkhorn_sweeps(top: float, eps: float) -> None:
    scores = chi_square(4, 400, top)
    cmax = float(cost_scale(scores.amin(), scores.amax()))
    expected = sinkhorn(scores, 3, eps, cmax)
    for dtype, atol in ((torch.float64, 1e-6), (torch.float32, 2e-5)):
        found = soft_topk(scores.to(dtype), 3, eps).double()
        torch.testing.assert_close(found, expected, atol=atol, rtol=0)
        fused = solved(scores.to(dtype), 3, eps, cmax).distance.double()
        torch.testing.assert_close(fused, (expected * scores).sum(dim=1), atol=0, rtol=1e-6)


def test_the_gradient_equals_that_of_the_sweeps() -> None:
    scores = chi_square(3, 60, 1.0).requires_grad_()
    upstream = torch.randn(3, 60, generator=torch.Generator().manual_seed(1)).double()
    cmax = float(cost_scale(scores.amin(), scores.amax()).detach())
    (expected,) = torch.autograd.grad((sinkhorn(scores, 3, 0.1, cmax) * upstream).sum(), scores)
    (found,) = torch.autograd.grad((soft_topk(scores, 3, 0.1) * upstream).sum(), scores)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def test_gradcheck_with_cmax_as_a_constant() -> None:
    scores = chi_square(3, 12, 0.8).requires_grad_()
    cmax = torch.tensor([0.9, 1.0, 2.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: soft_topk(s, 3, 0.1, cmax), (scores,))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("top", [0.1, 1.0, 1000.0])
def test_rows_sum_to_k_and_so_do_the_gradients(dtype: torch.dtype, top: float) -> None:
    scores = chi_square(8, 500, top).to(dtype)
    for k in (1, 3, 499):
        for eps in (0.01, 0.1, 0.5):
            cmax = float(cost_scale(scores.amin(), scores.amax()))
            soft = solved(scores, k, eps, cmax)
            total = torch.full((8,), float(k), dtype=dtype)
            torch.testing.assert_close(soft.member.sum(dim=1), total, rtol=1e-5, atol=0)
            torch.testing.assert_close(soft.pull().sum(dim=1), total, rtol=1e-4, atol=0)


def test_a_shift_of_the_scores_adds_k_times_it_and_their_order_does_not_matter() -> None:
    scores = chi_square(4, 100, 1.0)
    soft = solved(scores, 3, 0.1, 1.0)
    moved = solved(scores + 0.7, 3, 0.1, 1.0)
    torch.testing.assert_close(moved.distance, soft.distance + 3 * 0.7)
    torch.testing.assert_close(moved.member, soft.member)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(2))
    shuffled = solved(scores[:, order], 3, 0.1, 1.0)
    torch.testing.assert_close(shuffled.distance, soft.distance)
    torch.testing.assert_close(shuffled.member, soft.member[:, order])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("eps", [1e-4, 1e-6])
def test_a_tiny_eps_is_the_hard_top_k_without_nan(dtype: torch.dtype, eps: float) -> None:
    scores = torch.tensor([GOLDEN, GOLDEN[::-1]], dtype=dtype, requires_grad=True)
    member = soft_topk(scores, 2, eps)
    hard = torch.tensor([[1, 1, 0, 0, 0], [0, 0, 0, 1, 1]], dtype=dtype)
    torch.testing.assert_close(member, hard, atol=1e-6, rtol=0)
    (gradient,) = torch.autograd.grad((member * scores).sum(), scores)
    torch.testing.assert_close(gradient, hard, atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", FLOATS)
def test_ties_share(dtype: torch.dtype) -> None:
    tied = torch.tensor([[0.2, 0.2, 0.2, 0.9, 0.9]], dtype=dtype)
    shares = soft_topk(tied, 2, 1e-3)
    torch.testing.assert_close(shares[:, :3], torch.full((1, 3), 2 / 3, dtype=dtype))
    equal = torch.full((2, 7), 0.4, dtype=dtype)
    torch.testing.assert_close(soft_topk(equal, 3, 0.1), torch.full((2, 7), 3 / 7, dtype=dtype))


def test_large_scores_are_averaged() -> None:
    scores = chi_square(4, 300, 1e4)
    cmax = float(cost_scale(scores.amin(), scores.amax()))
    torch.testing.assert_close(
        solved(scores, 3, 0.1, cmax).distance, 3 * scores.mean(dim=1), rtol=2e-3, atol=0
    )


def test_how_soft_it_is_follows_the_largest_score() -> None:
    """The table of the method's page, in small: sharpest for a largest score of 1."""
    effective = []
    for top in (0.1, 1.0, 10.0):
        member = soft_topk(chi_square(4, 500, top), 3, 0.1)
        effective.append(float((member.sum(dim=1).square() / member.square().sum(dim=1)).mean()))
    assert effective[1] < 0.5 * min(effective[0], effective[2])


def test_rows_that_have_converged_stay_so() -> None:
    wide = torch.cat([torch.rand(3), 50 + torch.rand(97)])  # a gap right behind the third
    scores = torch.stack([wide, chi_square(1, 100, 20.0)[0].float()])
    for k in (3, 4):
        gates = [solve_gate(scores, k, torch.ones(2), steps=steps) for steps in (20, 30, 40)]
        distances = [((g[:, None] - scores).sigmoid() * scores).sum(dim=1) for g in gates]
        for distance in distances[1:]:
            torch.testing.assert_close(distance, distances[0], rtol=1e-5, atol=0)
    easy = [solve_gate(scores[1:], 3, torch.ones(1), steps=steps) for steps in (4, 8, 20)]
    for gate in easy[1:]:
        torch.testing.assert_close(gate, easy[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", FLOATS)
def test_it_equals_bisection(dtype: torch.dtype) -> None:
    scores = torch.cat([chi_square(4, 200, 20.0), chi_square(4, 200, 500.0)]).to(dtype)
    found = solve_gate(scores, 3, torch.ones(8, dtype=dtype))
    wide = scores.double()
    low, high = wide.amin(dim=1) - 10, wide.amax(dim=1) + 10
    for _ in range(80):
        middle = (low + high) / 2
        above = (middle[:, None] - wide).sigmoid().sum(dim=1) > 3
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-10
    torch.testing.assert_close(found.double(), low, rtol=tolerance, atol=tolerance)


def test_a_row_does_not_depend_on_the_rows_around_it() -> None:
    hard = torch.cat([torch.zeros(3), 50 + torch.rand(97)])
    easy = chi_square(1, 100, 5.0)[0].float()
    together = solve_gate(torch.stack([easy, hard]), 3, torch.ones(2))
    assert torch.equal(together[:1], solve_gate(easy[None], 3, torch.ones(1)))


def test_half_precision_is_worked_on_in_float32() -> None:
    scores = chi_square(2, 50, 1.0).to(torch.float16)
    with torch.autocast("cpu", dtype=torch.float16):
        found = soft_topk(scores, 3, 0.1)
    assert found.dtype == torch.float16
    torch.testing.assert_close(found, soft_topk(scores.float(), 3, 0.1).half())


def test_what_cannot_be_asked() -> None:
    scores = torch.rand(2, 5)
    for k in (0, 5):
        with pytest.raises(ValueError, match=f"k must be 1 to 4, got {k}"):
            soft_topk(scores, k, 0.1)
        with pytest.raises(ValueError, match="k must be 1 to 4"):
            solve_gate(scores, k, torch.ones(2))
    for eps in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="eps must be > 0"):
            soft_topk(scores, 2, eps)
