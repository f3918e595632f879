from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from leanet.ops.metrics import auroc
from leanet.ops.stats import (
    bootstrap_interval,
    clopper_pearson,
    mcnemar,
    mean_sd,
    paired_difference,
    wilson,
)


def test_the_sd_is_that_of_a_sample() -> None:
    values = [0.91, 0.87, 0.95, 0.9]
    mean = sum(values) / 4
    assert mean_sd(values).mean == pytest.approx(mean)
    assert mean_sd(values).sd == pytest.approx(math.sqrt(sum((v - mean) ** 2 for v in values) / 3))


def test_the_sd_of_too_few_values_is_nan() -> None:
    assert mean_sd([3.0]).mean == 3.0
    assert math.isnan(mean_sd([3.0]).sd)
    assert math.isnan(mean_sd([]).mean)
    assert math.isnan(mean_sd([1.0, math.nan]).mean)


def test_the_bootstrap_interval_of_a_mean_agrees_with_theory() -> None:
    values = np.random.default_rng(0).normal(size=400)
    low, high = bootstrap_interval(np.mean, values, rng=np.random.default_rng(1), num=4000)
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.008)
    assert high == pytest.approx(values.mean() + half, abs=0.008)


def test_the_bootstrap_covers_the_truth_about_as_often_as_it_says() -> None:
    rng, hits = np.random.default_rng(3), 0
    for _ in range(200):
        low, high = bootstrap_interval(np.mean, rng.normal(size=60), rng=rng, num=200, level=0.8)
        hits += low <= 0.0 <= high
    assert 0.7 <= hits / 200 <= 0.88


def test_a_stratified_bootstrap_keeps_the_class_counts() -> None:
    label = np.repeat([0, 1], [30, 2])
    seen = []
    bootstrap_interval(
        lambda y: seen.append(int(y.sum())) or 0.0,
        label,
        rng=np.random.default_rng(0),
        num=50,
        label=label,
    )
    assert set(seen) == {2}


def test_rows_stay_together_and_undefined_resamples_are_left_out() -> None:
    label, score = np.array([0, 0, 0, 1]), np.array([1.0, 2.0, 3.0, 4.0])
    rng = np.random.default_rng(0)
    assert bootstrap_interval(auroc, label, score, rng=rng, num=100) == (1.0, 1.0)
    nothing = bootstrap_interval(auroc, [0, 0], [1.0, 2.0], rng=rng, num=5)
    assert math.isnan(nothing.low)
    assert math.isnan(nothing.high)


def test_the_same_generator_gives_the_same_interval() -> None:
    values = np.arange(20.0) ** 2
    first, again = (
        bootstrap_interval(np.median, values, rng=np.random.default_rng(7), num=100)
        for _ in range(2)
    )
    assert first == again


@pytest.mark.parametrize(("k", "n"), [(0, 12), (3, 12), (12, 12), (1, 500)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_clopper_pearson_agrees_with_scipy(k: int, n: int, level: float) -> None:
    expected = scipy_stats.binomtest(k, n).proportion_ci(level, method="exact")
    interval = clopper_pearson(k, n, level)
    assert interval.low == pytest.approx(expected.low, abs=1e-9)
    assert interval.high == pytest.approx(expected.high, abs=1e-9)


@pytest.mark.parametrize(("k", "n"), [(0, 12), (3, 12), (12, 12), (1, 500)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_the_wilson_interval_agrees_with_scipy(k: int, n: int, level: float) -> None:
    expected = scipy_stats.binomtest(k, n).proportion_ci(level, method="wilson")
    interval = wilson(k, n, level)
    assert interval.low == pytest.approx(expected.low, abs=1e-12)
    assert interval.high == pytest.approx(expected.high, abs=1e-12)


def test_no_trials_say_nothing() -> None:
    assert clopper_pearson(0, 0) == (0.0, 1.0)
    assert wilson(0, 0) == (0.0, 1.0)


def test_the_uncorrected_difference_is_the_paired_t_test() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.normal(0.9, 0.03, 8), rng.normal(0.88, 0.03, 8)
    expected = scipy_stats.ttest_rel(a, b)
    result = paired_difference(a, b, level=0.9)
    interval = expected.confidence_interval(0.9)
    assert result.p == pytest.approx(expected.pvalue)
    assert (result.low, result.high) == pytest.approx((interval.low, interval.high))
    assert result.n == 8


def test_the_corrected_variance_is_the_one_of_nadeau_and_bengio() -> None:
    difference = np.array([0.03, 0.01, 0.04, -0.01, 0.02])
    result = paired_difference(difference, np.zeros(5), test_share=0.25)
    error = difference.std(ddof=1) * math.sqrt(1 / 5 + 1 / 4)
    assert result.mean == pytest.approx(0.018)
    assert result.high - result.mean == pytest.approx(2.7764451 * error, rel=1e-6)
    assert result.p == pytest.approx(2 * scipy_stats.t.sf(0.018 / error, 4))


def test_the_correction_stops_false_discoveries_between_folds_that_share_training_data() -> None:
    # Differences with correlation test / (train + test) = 1/5, as the derivation assumes.
    rng, hits = np.random.default_rng(0), [0, 0]
    for _ in range(2000):
        folds = math.sqrt(0.2) * rng.normal() + math.sqrt(0.8) * rng.normal(size=5)
        hits[0] += paired_difference(folds, np.zeros(5)).p < 0.05
        hits[1] += paired_difference(folds, np.zeros(5), test_share=0.25).p < 0.05
    assert hits[0] / 2000 > 0.1
    assert hits[1] / 2000 == pytest.approx(0.05, abs=0.015)


def test_constant_differences_have_a_certain_answer() -> None:
    same = paired_difference([0.5, 0.5, 0.7], [0.5, 0.5, 0.7], test_share=0.25)
    assert (same.mean, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)
    shifted = paired_difference([1.0, 2.0], [0.5, 1.5])
    assert (shifted.mean, shifted.low, shifted.high, shifted.p) == (0.5, 0.5, 0.5, 0.0)


def test_undefined_pairs_are_left_out_and_counted() -> None:
    full = paired_difference([0.9, math.nan, 0.8, 0.7], [0.8, 0.5, 0.8, math.nan])
    assert full == paired_difference([0.9, 0.8], [0.8, 0.8])
    assert full.n == 2
    single = paired_difference([0.9, math.nan], [0.8, 0.1])
    assert single.n == 1
    assert single.mean == pytest.approx(0.1)
    assert math.isnan(single.p)
    assert math.isnan(single.low)


def test_mcnemar_is_a_sign_test_on_the_discordant_images() -> None:
    a = np.array([1, 1, 1, 1, 1, 1, 1, 0, 0, 1])
    b = np.array([0, 0, 0, 0, 0, 0, 0, 1, 0, 1])
    result = mcnemar(a, b)
    assert (result.only_a, result.only_b) == (7, 1)
    assert result.p == pytest.approx(2 * (1 + 8) / 2**8)
    assert mcnemar(a, a).p == 1.0


def test_arguments_that_make_no_sense_are_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="level"):
        clopper_pearson(1, 2, level=95)
    with pytest.raises(ValueError, match="between 0 and n"):
        clopper_pearson(3, 2)
    with pytest.raises(ValueError, match="one length"):
        bootstrap_interval(np.mean, [1.0, 2.0], [1.0], rng=rng)
    with pytest.raises(ValueError, match="one length"):
        bootstrap_interval(np.mean, [], rng=rng)
    with pytest.raises(ValueError, match="shape"):
        paired_difference([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="test_share"):
        paired_difference([1.0, 2.0], [1.0, 2.0], test_share=0)
    with pytest.raises(ValueError, match="shape"):
        mcnemar([1], [1, 0])
