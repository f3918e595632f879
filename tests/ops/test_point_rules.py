from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from leanet.ops.metrics import confusion_at, escapes, overkill
from leanet.ops.point_rules import (
    Costs,
    alarm_threshold,
    allowed,
    cost_threshold,
    escapes_and_overkill,
    expected_cost,
    miss_threshold,
    needed,
    review_zone,
    zone_figures,
)

Images = tuple[list[int], list[float]]


@st.composite
def images(draw: st.DrawFn) -> Images:
    """Labels of both classes, and scores with many ties."""
    label = draw(st.lists(st.integers(0, 1), min_size=1, max_size=12).map(lambda own: [0, 1, *own]))
    score = draw(st.lists(st.integers(-4, 4), min_size=len(label), max_size=len(label)))
    return label, [0.5 * value for value in score]


def candidates(score: list[float]) -> Iterator[float]:
    """A threshold for every way to part the scores."""
    level = sorted(set(score))
    yield level[0]
    yield from (a + (b - a) / 2 for a, b in itertools.pairwise(level))
    yield math.nextafter(level[-1], math.inf)


def wrong(found: Images, threshold: float) -> tuple[int, int]:
    """Misses and false alarms."""
    pairs = list(zip(*found, strict=True))
    return (
        sum(label == 1 and score < threshold for label, score in pairs),
        sum(label == 0 and score >= threshold for label, score in pairs),
    )


# Limits


@settings(max_examples=40)
@given(images(), st.integers(0, 5))
def test_of_all_thresholds_that_keep_the_misses_it_has_the_fewest_alarms(
    found: Images, misses: int
) -> None:
    misses = min(misses, sum(found[0]) - 1)
    missed, alarms = wrong(found, miss_threshold(*found, misses))
    kept = [wrong(found, at) for at in candidates(found[1])]
    assert missed <= misses
    assert alarms == min(a for m, a in kept if m <= misses)


@settings(max_examples=40)
@given(images(), st.integers(0, 5))
def test_of_all_thresholds_that_keep_the_alarms_it_has_the_fewest_misses(
    found: Images, alarms: int
) -> None:
    alarms = min(alarms, found[0].count(0) - 1)
    missed, rejected = wrong(found, alarm_threshold(*found, alarms))
    kept = [wrong(found, at) for at in candidates(found[1])]
    assert rejected <= alarms
    assert missed == min(m for m, a in kept if a <= alarms)


def test_a_threshold_lies_in_the_middle_of_its_gap() -> None:
    label, score = [0, 0, 1, 1], [1.0, 2.0, 4.0, 8.0]
    assert miss_threshold(label, score, 0) == alarm_threshold(label, score, 0) == 3.0
    assert miss_threshold(label, score, 1) == 6.0
    assert alarm_threshold(label, score, 1) == 1.5
    one, next_one = 1.0, math.nextafter(1.0, 2.0)
    assert miss_threshold([0, 1], [one, next_one], 0) == next_one  # no number lies between


@pytest.mark.parametrize("limit", [0.0, 0.01, 0.1, 0.3, 0.9])
@pytest.mark.parametrize("num", [1, 7, 40, 100])
def test_as_many_may_be_wrong_as_keep_the_limit(limit: float, num: int) -> None:
    assert allowed(limit, num) == max(k for k in range(num + 1) if k / num <= limit + 1e-12)
    sure = [k for k in range(num) if stats.beta.ppf(0.975, k + 1, num - k) <= limit]
    assert allowed(limit, num, confident=True) == (max(sure) if sure else None)


@pytest.mark.parametrize("limit", [0.005, 0.01, 0.02, 0.1, 0.5])
def test_the_number_needed_is_the_first_that_suffices(limit: float) -> None:
    num = int(needed(limit))
    assert allowed(limit, num, confident=True) == 0
    assert allowed(limit, num - 1, confident=True) is None


@pytest.mark.parametrize("limit", [-0.1, 1.0, math.nan])
def test_a_limit_is_a_share(limit: float) -> None:
    with pytest.raises(ValueError, match="a share in"):
        allowed(limit, 10)


def test_a_confident_limit_is_kept_although_the_threshold_comes_from_the_same_images() -> None:
    """Scores uniform in [0, 1]: the threshold is the share of all defects below it."""
    rng, limit, num = np.random.default_rng(0), 0.1, 60
    few = allowed(limit, num, confident=True)
    assert few == 1
    label = [1] * num
    true = [miss_threshold(label, rng.random(num), few) for _ in range(2000)]
    assert np.mean(np.array(true) <= limit) >= 0.975 - 3 * math.sqrt(0.975 * 0.025 / 2000)
    loose = [miss_threshold(label, rng.random(num), 6) for _ in range(500)]  # the share itself
    assert np.mean(np.array(loose) <= limit) < 0.7


@pytest.mark.parametrize(("rule", "absent"), [(miss_threshold, 0), (alarm_threshold, 1)])
def test_a_rule_without_its_images_says_so(rule: object, absent: int) -> None:
    with pytest.raises(ValueError, match="there are none"):
        rule([absent] * 3, [1.0, 2.0, 3.0], 0)  # type: ignore[operator]


# Costs


@settings(max_examples=40)
@given(images(), st.floats(0.1, 50), st.floats(0.1, 50), st.floats(0.01, 0.99))
def test_no_threshold_is_cheaper(
    found: Images, miss: float, alarm: float, prevalence: float
) -> None:
    costs = Costs(miss, alarm, prevalence)

    def cost(threshold: float) -> float:
        counts = confusion_at(*found, threshold)
        return expected_cost(costs, escapes(counts), overkill(counts))

    chosen = cost(cost_threshold(*found, costs))
    assert chosen == pytest.approx(min(map(cost, candidates(found[1]))), rel=1e-6)


def test_dear_misses_lower_the_threshold_and_rare_defects_raise_it() -> None:
    label, score = [0, 0, 0, 1, 1], [1.0, 3.0, 5.0, 2.0, 6.0]
    assert cost_threshold(label, score, Costs(1.0, 1.0, 0.5)) == 5.5
    assert cost_threshold(label, score, Costs(50.0, 1.0, 0.5)) == 1.5
    assert cost_threshold(label, score, Costs(50.0, 1.0, 0.001)) == 5.5


@pytest.mark.parametrize("costs", [Costs(0.0, 1.0, 0.5), Costs(1.0, math.inf, 0.5), Costs(1, 1, 1)])
def test_impossible_costs_are_refused(costs: Costs) -> None:
    with pytest.raises(ValueError, match="finite and above 0"):
        cost_threshold([0, 1], [0.0, 1.0], costs)


# Figures and the review zone


def test_figures_are_counts_with_the_exact_interval() -> None:
    missed, rejected = escapes_and_overkill([1] * 4 + [0] * 5, [1, 2, 3, 4, 0, 0, 0, 0, 9], 2.0)
    assert (missed.count, missed.total, missed.value) == (1, 4, 0.25)
    assert (rejected.count, rejected.total, rejected.value) == (1, 5, 0.2)
    exact = stats.binomtest(1, 4).proportion_ci(0.95, method="exact")
    assert (missed.low, missed.high) == pytest.approx((exact.low, exact.high))
    nothing = escapes_and_overkill([0], [1.0], 0.0)[0]
    assert math.isnan(nothing.value)
    assert (nothing.total, nothing.low, nothing.high) == (0, 0.0, 1.0)


@settings(max_examples=40)
@given(images(), st.integers(-9, 9), st.integers(0, 3), st.integers(0, 3))
def test_the_zone_is_the_smallest_that_keeps_both_limits(
    found: Images, at: int, misses: int, alarms: int
) -> None:
    threshold = 0.25 * at
    misses, alarms = min(misses, sum(found[0]) - 1), min(alarms, found[0].count(0) - 1)
    low, high = review_zone(*found, threshold, misses=misses, alarms=alarms)
    assert low <= threshold <= high
    assert wrong(found, low)[0] <= misses
    assert wrong(found, high)[1] <= alarms
    inside = [s for s in found[1] if low <= s < threshold]
    if inside:  # without the lowest of them too many defects would pass
        assert wrong(found, math.nextafter(max(inside), math.inf))[0] > misses
    inside = [s for s in found[1] if threshold <= s < high]
    if inside:
        assert wrong(found, min(inside))[1] > alarms


def test_a_zone_of_one_limit_ends_at_the_threshold() -> None:
    label, score = [0, 1, 0, 1], [1.0, 2.0, 3.0, 4.0]
    assert review_zone(label, score, 3.5, misses=0, alarms=None) == (1.5, 3.5)
    assert review_zone(label, score, 1.5, misses=None, alarms=0) == (1.5, 3.5)
    assert review_zone(label, score, 1.5, misses=0, alarms=None) == (1.5, 1.5)


def test_the_figures_of_a_zone_count_who_is_seen_and_who_slips_past() -> None:
    figures = zone_figures([0, 0, 0, 0, 1, 1, 1], [0, 1, 2, 3, 0, 2, 9], 1.0, 3.0)
    assert [share.count for share in figures] == [2, 1, 1, 1]
    assert [share.total for share in figures] == [4, 3, 3, 4]
