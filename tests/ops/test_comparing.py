from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from leanet.ops.comparing import (
    BETTER,
    OPEN,
    UNTESTED,
    WORSE,
    contrasts,
    could_have_seen,
    detectable_difference,
    holm,
    images_needed,
    over_draws,
    two_level_interval,
    verdict,
)
from leanet.ops.stats import Interval, mcnemar

NAN = math.nan
Table = NDArray[np.float64]


def right(rng: np.random.Generator, draws: int, images: int, gain: float, spread: float) -> Table:
    """Right verdicts [draws, images] of runs of one method: some images are harder than others,
    a draw is better or worse as a whole, and the rest is chance."""
    hardness = np.random.default_rng(images).normal(1.0, 1.5, images)
    logit = hardness + gain + rng.normal(0, spread, (draws, 1))
    return (rng.random((draws, images)) < 1 / (1 + np.exp(-logit))).astype(np.float64)


def share_of(word: str, repeats: int, *, draws: int, gain: float, num: int = 400) -> float:
    rng, count = np.random.default_rng(0), 0
    for _ in range(repeats):
        one, other = (right(rng, draws, 114, g, 0.2) for g in (gain, 0.0))
        count += contrasts([one - other], rng=rng, num=num)[0].verdict == word
    return count / repeats


def test_equal_methods_are_called_not_distinguishable_in_93_of_100_comparisons() -> None:
    assert share_of(OPEN, 300, draws=3, gain=0.0) >= 0.93
    assert share_of(OPEN, 300, draws=5, gain=0.0) >= 0.93


@pytest.mark.slow
@pytest.mark.parametrize("draws", [2, 3, 5, 10])
def test_equal_methods_are_called_not_distinguishable_in_many_more_comparisons(draws: int) -> None:
    assert share_of(OPEN, 4000, draws=draws, gain=0.0, num=2000) >= 0.93


def test_a_method_that_is_much_better_is_called_so() -> None:
    assert share_of(BETTER, 60, draws=5, gain=1.5) >= 0.95
    assert share_of(WORSE, 60, draws=5, gain=-1.5) >= 0.95


def test_a_difference_needs_both_the_interval_and_the_corrected_p() -> None:
    above, across, below = Interval(0.01, 0.1), Interval(-0.01, 0.1), Interval(-0.1, -0.01)
    assert [verdict(i, 0.049) for i in (above, across, below)] == [BETTER, OPEN, WORSE]
    assert [verdict(i, 0.05) for i in (above, across, below)] == [OPEN] * 3
    assert verdict(above, NAN) == UNTESTED


def test_holm_pays_for_the_number_of_methods() -> None:
    rng = np.random.default_rng(2)
    steady = np.array([[0.05], [0.07], [0.06], [0.05], [0.03]]) + np.zeros((5, 50))
    noise = [rng.normal(0, 0.02, (5, 1)) + np.zeros((5, 50)) for _ in range(9)]
    alone = contrasts([steady], rng=rng, num=100)[0]
    among = contrasts([steady, *noise], rng=rng, num=100)[0]
    assert among.p_holm == pytest.approx(10 * alone.p_holm)
    assert among.over_draws == alone.over_draws


def test_one_draw_each_is_no_test_of_the_method() -> None:
    found = contrasts([np.ones((1, 30))], rng=np.random.default_rng(0), num=50)[0]
    assert found.verdict == UNTESTED
    assert math.isnan(found.p_holm)
    assert found.interval == (1.0, 1.0)


def test_the_test_over_draws_is_the_paired_t_test_of_the_means() -> None:
    rng = np.random.default_rng(4)
    one, other = right(rng, 6, 80, 0.4, 0.5), right(rng, 6, 80, 0.0, 0.5)
    expected = stats.ttest_rel(one.mean(axis=1), other.mean(axis=1))
    found = over_draws(one - other)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.mean == pytest.approx((one - other).mean())


def test_equal_differences_of_all_draws_are_no_certainty() -> None:
    same = np.zeros((3, 100))
    same[:, 0] = 1
    found = over_draws(same)
    assert 0 < found.p < 0.1
    assert found.mean == pytest.approx(0.01)
    assert found.low < 0.01 < found.high
    assert over_draws(np.zeros((3, 100))).p == 1.0


def test_the_two_level_interval_is_wider_than_that_over_images_alone() -> None:
    rng = np.random.default_rng(5)
    table = rng.normal(0, 0.3, (5, 1)) + rng.normal(0, 1, (5, 200))
    low, high = two_level_interval(table, rng=rng, num=4000)
    pooled = two_level_interval(table.reshape(1, -1), rng=rng, num=4000)
    assert high - low > 1.5 * (pooled.high - pooled.low)
    assert low < table.mean() < high


def test_the_two_level_interval_agrees_with_resampling_row_by_row() -> None:
    rng = np.random.default_rng(6)
    table = rng.normal(0.2, 1, (4, 60)) + rng.normal(0, 0.5, (4, 1))
    means = [
        table[np.ix_(rng.integers(4, size=4), rng.integers(60, size=60))].mean()
        for _ in range(6000)
    ]
    low, high = two_level_interval(table, rng=rng, num=6000)
    assert (low, high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.03)


def test_images_of_one_group_are_drawn_together() -> None:
    rng = np.random.default_rng(7)
    of_group = rng.normal(0, 1, 20)
    groups = np.repeat(np.arange(20), 10)
    alone = two_level_interval(of_group[groups][None], rng=rng, num=2000)
    together = two_level_interval(of_group[groups][None], rng=rng, num=2000, groups=groups)
    half = 1.96 * of_group.std() / math.sqrt(20)
    assert together.high - together.low == pytest.approx(2 * half, rel=0.15)
    assert together.high - together.low > 2.5 * (alone.high - alone.low)


def test_memory_stays_bounded_and_blocks_change_no_law(monkeypatch: pytest.MonkeyPatch) -> None:
    table = np.random.default_rng(8).normal(0, 1, (3, 50))
    whole = two_level_interval(table, rng=np.random.default_rng(0), num=3000)
    monkeypatch.setattr("leanet.ops.comparing.MOST_CELLS", 500)
    blocks = two_level_interval(table, rng=np.random.default_rng(0), num=3000)
    assert blocks == pytest.approx(tuple(whole), abs=0.06)


def test_the_same_seed_gives_the_same_interval() -> None:
    table = np.random.default_rng(8).normal(0, 1, (3, 50))
    first, again = (two_level_interval(table, rng=np.random.default_rng(3)) for _ in range(2))
    assert first == again


def test_the_planning_figures_of_114_images_and_of_a_small_difference() -> None:
    shares = (0.1, 0.2, 0.3)
    assert [round(100 * detectable_difference(114, share)) for share in shares] == [8, 12, 14]
    assert [round(images_needed(0.044, share)) for share in shares] == [403, 808, 1214]
    assert round(100 * could_have_seen(114)) == 12


def test_the_planned_number_of_images_gives_mcnemars_test_its_power() -> None:
    rng, difference, discordant = np.random.default_rng(9), 0.1, 0.2
    num = math.ceil(images_needed(difference, discordant))
    won = (discordant + difference) / 2
    hits = 0
    for _ in range(300):
        fate = rng.random(num)
        one, other = fate < 0.7 + won, (fate < 0.7) | (fate > 1 - (discordant - won))
        hits += mcnemar(one, other).p < 0.05
    assert 0.7 < hits / 300 < 0.87  # the exact test is a little weaker than the normal one


def test_what_can_be_detected_needs_as_many_images_as_there_are() -> None:
    for share in (0.1, 0.25, 0.6):
        assert images_needed(detectable_difference(400, share), share) == pytest.approx(400)


def test_a_handful_of_images_shows_nothing() -> None:
    assert math.isnan(detectable_difference(20, 0.1))
    assert could_have_seen(20) > 0.3
    assert math.isnan(could_have_seen(2))


@pytest.mark.parametrize(("difference", "discordant"), [(0.0, 0.1), (0.2, 0.1), (0.2, 1.1)])
def test_impossible_plans_are_refused(difference: float, discordant: float) -> None:
    with pytest.raises(ValueError, match="discordant share"):
        images_needed(difference, discordant)


@pytest.mark.parametrize("table", [np.zeros((0, 3)), np.zeros(3), np.full((2, 2), NAN)])
def test_what_is_no_table_of_draws_and_images_is_refused(table: Table) -> None:
    with pytest.raises(ValueError, match=r"\[draws, images\]"):
        two_level_interval(table, rng=np.random.default_rng(0))


def test_groups_and_levels_are_checked() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="groups of shape"):
        two_level_interval(np.zeros((2, 3)), rng=rng, groups=[0, 1])
    with pytest.raises(ValueError, match="level must"):
        two_level_interval(np.zeros((2, 3)), rng=rng, level=95)


def test_holms_correction_gives_the_textbook_values() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_holms_correction_is_never_milder_than_none_nor_harsher_than_bonferroni() -> None:
    p = np.random.default_rng(1).random(50) ** 3
    corrected = np.array(holm(p.tolist()))
    assert np.all(corrected >= p)
    assert np.all(corrected <= np.minimum(1, 50 * p) + 1e-15)
    assert np.array_equal(np.argsort(corrected[np.argsort(p)], kind="stable"), np.arange(50))


def test_a_comparison_that_could_not_be_made_does_not_count() -> None:
    corrected = holm([0.01, NAN, 0.04])
    assert corrected[0] == pytest.approx(0.02)
    assert math.isnan(corrected[1])
