from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from leanet.ops.kid import coverage_density, kid, kid_with_sd, mean_distance


def rows(count: int, shift: float = 0.0, seed: int = 0, width: int = 6) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed)) + shift


def kid_by_loops(a: list[list[float]], b: list[list[float]]) -> float:
    def k(x: list[float], y: list[float]) -> float:
        return (sum(p * q for p, q in zip(x, y, strict=True)) / len(x) + 1) ** 3

    n, m = len(a), len(b)
    within_a = sum(k(a[i], a[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    within_b = sum(k(b[i], b[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return within_a + within_b - 2 * sum(k(x, y) for x in a for y in b) / (n * m)


def test_kid_agrees_with_a_double_loop() -> None:
    a, b = rows(7), rows(5, 0.3, seed=1)
    assert kid(a, b) == pytest.approx(kid_by_loops(a.tolist(), b.tolist()), rel=1e-5)


def test_two_halves_of_one_set_are_near_zero_and_a_shift_grows() -> None:
    a, b = rows(400), rows(400, seed=1)
    assert abs(kid(a, b)) < 0.02
    distances = [kid(a, b + shift) for shift in (0.2, 0.5, 1.0)]
    assert 0.02 < distances[0] < distances[1] < distances[2]


def test_kid_is_unbiased_where_both_sets_come_from_one_distribution() -> None:
    values = torch.tensor([kid(rows(8, seed=2 * k), rows(8, seed=2 * k + 1)) for k in range(300)])
    assert values.min() < 0
    assert abs(float(values.mean())) < 3 * float(values.std()) / math.sqrt(300)


def test_the_sd_is_that_of_subsets_and_shrinks_with_the_sets() -> None:
    small = kid_with_sd(rows(20), rows(20, seed=1), torch.Generator().manual_seed(0))
    large = kid_with_sd(rows(200), rows(200, seed=1), torch.Generator().manual_seed(0))
    assert small.value == kid(rows(20), rows(20, seed=1))
    assert small.sd > 3 * large.sd > 0


def test_too_few_rows_and_two_spaces_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 rows"):
        kid(rows(1), rows(5))
    with pytest.raises(ValueError, match=r"\[5, 6\] and \[5, 7\]"):
        kid(rows(5), rows(5, width=7))
    with pytest.raises(ValueError, match="at least 2 real images and 1 generated"):
        coverage_density(rows(1), rows(4))


def test_coverage_and_density_by_hand() -> None:
    real = torch.tensor([[0.0], [1.0], [3.0]])  # radii with k = 1: 1, 1, 2
    generated = torch.tensor([[0.5], [0.6], [10.0]])
    found = coverage_density(real, generated, k=1)
    assert found.coverage == pytest.approx(2 / 3)
    assert found.density == pytest.approx(4 / 3)  # 4 times inside a ball, 3 images


def test_a_set_covers_itself_and_one_far_away_covers_nothing() -> None:
    real = rows(40)
    assert coverage_density(real, real).coverage == 1.0
    assert coverage_density(real, real + 100) == (0.0, 0.0)
    alike = coverage_density(rows(200), rows(200, seed=1))
    assert 0.9 < alike.coverage <= 1
    assert 0.8 < alike.density < 1.2


def test_mean_distance_is_over_pairs() -> None:
    assert mean_distance(torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]])) == pytest.approx(
        10 / 3
    )
    assert math.isnan(mean_distance(torch.zeros(1, 2)))
