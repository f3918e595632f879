from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from leanet.inference.intervals import intervals, rank_auroc


def toy(num: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels and rounded scores: many ties."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, num)
    return label, np.round(label + rng.normal(size=num), 1)


@pytest.mark.parametrize("seed", range(5))
def test_auroc_from_ranks_is_that_of_scikit_learn(seed: int) -> None:
    label, score = toy(seed=seed)
    _, rank = np.unique(score, return_inverse=True)
    assert rank_auroc(label, rank) == pytest.approx(roc_auc_score(label, score), abs=1e-12)


@pytest.mark.parametrize("label", [0, 1])
def test_auroc_of_one_class_is_nan(label: int) -> None:
    assert math.isnan(rank_auroc(np.full(4, label), np.arange(4)))


def test_the_auroc_interval_agrees_with_the_formula_for_large_samples() -> None:
    label, score = toy(2000)
    low, high = intervals(label.tolist(), score.tolist(), 0.5, 0)["auroc"]
    positive, negative = score[label == 1], score[label == 0]
    won = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    variance = won.mean(axis=1).var() / positive.size + won.mean(axis=0).var() / negative.size
    half = stats.norm.ppf(0.975) * math.sqrt(variance)  # DeLong, DeLong & Clarke-Pearson 1988
    assert (low, high) == pytest.approx((won.mean() - half, won.mean() + half), abs=0.1 * half)


def test_shares_have_the_exact_binomial_interval() -> None:
    found = intervals([1] * 50 + [0] * 20, [0.0] * 3 + [1.0] * 47 + [0.0] * 20, 0.5, 0)
    exact = stats.binomtest(3, 50).proportion_ci(0.95, "exact")
    assert found["escapes"] == pytest.approx((exact.low, exact.high))
    assert [round(100 * end) for end in found["escapes"]] == [1, 17]
    exact = stats.binomtest(0, 20).proportion_ci(0.95, "exact")
    assert found["overkill"] == pytest.approx((exact.low, exact.high))


def test_what_is_undefined_is_nan() -> None:
    found = intervals([0, 0], [0.1, 0.9], 0.5, 0)
    assert all(math.isnan(end) for end in (*found["auroc"], *found["escapes"]))
    assert not math.isnan(found["overkill"].low)
