from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from leanet.ops.stratified import stratified_mean


def test_two_groups_are_the_test_of_welch() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.3, 1.0, 6), rng.normal(0.1, 0.2, 9)
    welch: Any = stats.ttest_ind(a, -b, equal_var=False)
    expected = welch.confidence_interval(0.95)
    found = stratified_mean([a, b])
    assert found.mean == pytest.approx((a.mean() + b.mean()) / 2)
    assert found.low == pytest.approx(expected.low / 2)
    assert found.high == pytest.approx(expected.high / 2)
    assert found.p == pytest.approx(welch.pvalue)
    assert found.n == 15


def test_one_group_is_the_plain_t_test() -> None:
    values = np.array([0.1, 0.3, -0.2, 0.4, 0.2])
    plain: Any = stats.ttest_1samp(values, 0)
    found = stratified_mean([values], level=0.9)
    expected = plain.confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.p == pytest.approx(plain.pvalue)
    assert math.isnan(found.sd)


def test_how_far_groups_lie_apart_does_not_widen_it() -> None:
    rng = np.random.default_rng(1)
    groups = rng.normal(size=(4, 5))
    moved = groups + np.array([[-3.0], [-1.0], [1.0], [3.0]])
    near, far = stratified_mean(list(groups)), stratified_mean(list(moved))
    assert far.high - far.low == pytest.approx(near.high - near.low)
    assert far.sd > near.sd


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    scale = np.array([0.5, 1.0, 2.0])[:, None]
    hits = 0
    for _ in range(600):
        found = stratified_mean(list(rng.normal(0.2, scale, (3, 5))))
        hits += found.low <= 0.2 <= found.high
    assert 0.92 <= hits / 600 <= 0.985


def test_a_group_of_one_leaves_the_mean_alone() -> None:
    found = stratified_mean([[0.5], [0.1, 0.3]])
    assert found.mean == pytest.approx(0.35)
    assert math.isnan(found.low)
    assert math.isnan(found.p)


@pytest.mark.parametrize(("value", "p"), [(0.0, 1.0), (0.25, 0.0)])
def test_without_spread_the_interval_has_no_width(value: float, p: float) -> None:
    found = stratified_mean([[value] * 3, [value] * 2])
    assert found[:1] + found[2:] == (value, value, value, p, 5)


@pytest.mark.parametrize("groups", [[], [[]], [[0.1, math.nan]]])
def test_nothing_and_nan_are_refused(groups: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="needs groups of one value or more without nan"):
        stratified_mean(groups)


def test_a_level_outside_is_refused() -> None:
    with pytest.raises(ValueError, match="level must lie in"):
        stratified_mean([[0.1, 0.2]], level=1.0)
