from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats

from leanet.ops.familiar import (
    LEAST_U,
    LIMIT_RATE,
    chance_distance,
    distance,
    excess,
    limit_of,
    share_from,
    shares_of,
    spread_of,
    summary,
)

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shift", [0.0, 0.5, 3.0, 20.0])
@pytest.mark.parametrize("num", [(150, 200), (1000, 25), (60, 60)])
def test_the_distance_is_that_of_two_samples(shift: float, num: tuple[int, int]) -> None:
    known, new = RNG.normal(size=num[0]), RNG.normal(size=num[1]) + shift
    expected = stats.ks_2samp(new, known).statistic
    assert distance(new, shares_of(summary(known))) == pytest.approx(
        expected, abs=1.5 / min(num[0], 200)
    )


@pytest.mark.parametrize(
    ("known", "new"),
    [
        ([0.0] * 80 + [1.0] * 20, [0.0] * 40 + [1.0] * 10),
        ([0.0] * 50 + [1.0] * 50, [0.5] * 10),
        ([0.0] * 100, [0.0] * 9 + [3.0]),
        ([2.0] * 30, [1.0] * 7),
    ],
)
def test_equal_values_count_as_steps(known: list[float], new: list[float]) -> None:
    expected = stats.ks_2samp(new, known).statistic
    assert distance(new, shares_of(summary(known))) == pytest.approx(expected, abs=0.011)


def test_two_samples_of_one_distribution_rarely_pass_what_chance_makes() -> None:
    limit = chance_distance(100, 100, 0.05)
    above = [
        stats.ks_2samp(RNG.normal(size=100), RNG.normal(size=100)).statistic > limit
        for _ in range(300)
    ]
    assert 0.01 < np.mean(above) <= 0.06
    assert chance_distance(100, 300, 0.05) == pytest.approx(1.3581 * math.sqrt(1 / 75), rel=1e-4)


def test_the_spread_of_normal_values_is_their_sd_on_either_side() -> None:
    found = spread_of(3 + 2 * RNG.normal(size=100_000))
    assert found == pytest.approx((3, 2, 2), rel=0.05)
    skewed = spread_of(RNG.exponential(size=100_000))
    assert skewed.high > 2 * skewed.low


def test_heavy_tails_widen_the_spread_of_their_side() -> None:
    light, heavy = np.linspace(-1, 1, 200), np.linspace(-1, 1, 200)
    heavy[-5:] = 30
    assert spread_of(heavy).high > 5 * spread_of(light).high
    assert spread_of(heavy).low == pytest.approx(spread_of(light).low, rel=0.05)


def test_excess_is_counted_in_spreads_of_its_side() -> None:
    spread = spread_of(RNG.normal(size=1000))._replace(median=1.0, low=2.0, high=4.0)
    assert excess([-3.0, 1.0, 9.0], spread).tolist() == [2.0, 0.0, 2.0]


@pytest.mark.parametrize(("num", "tail"), [(220, "normal"), (220, "heavy"), (20, "heavy")])
def test_new_pictures_pass_the_limit_no_more_often_than_promised(num: int, tail: str) -> None:
    """Over nine statistics together, whatever their distribution."""
    passed, promised = [], []
    least = {f"s{k}": 0.0 for k in range(9)}
    for _ in range(20):
        draw = RNG.normal if tail == "normal" else lambda size: RNG.standard_t(3, size)
        values = {name: draw(size=num + 500) for name in least}
        known = {name: one[:num] for name, one in values.items()}
        u, rate = limit_of(known, least)
        spreads = {name: spread_of(one) for name, one in known.items()}
        new = np.max([excess(values[n][num:], spreads[n]) for n in values], axis=0)
        passed.append((new > u).mean())
        promised.append(rate)
    assert np.mean(passed) <= np.mean(promised)
    assert np.mean(passed) > 0.05 * np.mean(promised)  # and not for being blind


def test_few_pictures_promise_less() -> None:
    assert limit_of({"s": [1.0, 1.0, 1.0]}, {"s": 0.1}) == (LEAST_U, 0.25)
    assert limit_of({"s": RNG.normal(size=1000)}, {"s": 0.0})[1] == LIMIT_RATE


def test_a_summary_is_json_with_quantiles() -> None:
    values = RNG.normal(size=500)
    found = json.loads(json.dumps(summary(values)))
    assert found["num"] == 500
    assert found["quantiles"]["0.05"] == pytest.approx(np.quantile(values, 0.05), rel=1e-4)
    assert len(found["grid"]) == 201
    assert summary([1.0])["grid"] == [1.0, 1.0]


def test_the_share_from_a_limit_on() -> None:
    known = shares_of(summary(np.arange(1000.0)))
    assert share_from(750.0, known) == pytest.approx(0.25, abs=0.005)
    assert (share_from(-1.0, known), share_from(2000.0, known)) == (1.0, 0.0)
    assert share_from(1.0, shares_of(summary([0.0] * 70 + [1.0] * 30))) == pytest.approx(
        0.3, abs=0.01
    )
