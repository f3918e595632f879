from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from sklearn import metrics as sk

from leanet.ops.classes import (
    accuracy,
    balanced_accuracy,
    class_metrics,
    confusion_matrix,
    ece,
    macro_f1,
    majority,
    nll,
    per_class,
)
from leanet.ops.stats import wilson

RNG = np.random.default_rng(0)
TRUE = RNG.integers(0, 4, 200)
PROBS = RNG.dirichlet(np.ones(4), 200) * 0.6 + 0.4 * np.eye(4)[TRUE]
PREDICTED = PROBS.argmax(axis=1)


def test_the_counts_agree_with_scikit_learn() -> None:
    counts = confusion_matrix(TRUE, PREDICTED, 4)
    assert counts.tolist() == sk.confusion_matrix(TRUE, PREDICTED).tolist()
    assert counts.sum() == 200


def test_rows_are_true_and_columns_predicted() -> None:
    assert confusion_matrix([2, 2, 2], [0, 0, 1], 3)[2].tolist() == [2, 1, 0]


def test_the_figures_agree_with_scikit_learn() -> None:
    found = class_metrics(TRUE, PROBS)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(TRUE, PREDICTED))
    assert found["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(TRUE, PREDICTED))
    assert found["macro_f1"] == pytest.approx(sk.f1_score(TRUE, PREDICTED, average="macro"))
    assert found["nll"] == pytest.approx(sk.log_loss(TRUE, PROBS, labels=range(4)))
    assert found["majority"] == pytest.approx(np.bincount(TRUE).max() / 200)
    assert list(found) == ["accuracy", "balanced_accuracy", "macro_f1", "nll", "ece", "majority"]


def test_the_figures_of_each_class_agree_with_scikit_learn() -> None:
    precision, recall, f1, support = sk.precision_recall_fscore_support(TRUE, PREDICTED)
    rows = per_class(confusion_matrix(TRUE, PREDICTED, 4))
    assert [row.support for row in rows] == support.tolist()
    assert [row.precision for row in rows] == pytest.approx(precision)
    assert [row.recall for row in rows] == pytest.approx(recall)
    assert [row.f1 for row in rows] == pytest.approx(f1)
    assert rows[1].interval == wilson(round(recall[1] * support[1]), int(support[1]))


def test_a_small_matrix_by_hand() -> None:
    counts = [[8, 2, 0], [1, 3, 0], [0, 0, 6]]
    assert accuracy(counts) == pytest.approx(17 / 20)
    assert balanced_accuracy(counts) == pytest.approx((0.8 + 0.75 + 1) / 3)
    assert macro_f1(counts) == pytest.approx((16 / 19 + 6 / 9 + 1) / 3)
    assert majority(counts) == 0.5


def test_a_class_without_images_has_no_recall_and_leaves_the_means_of_the_others() -> None:
    first, second, absent = per_class([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    assert absent.support == 0
    assert all(math.isnan(v) for v in (absent.precision, absent.recall, absent.f1))
    assert math.isnan(absent.interval.low)
    assert balanced_accuracy([[3, 1, 0], [0, 4, 0], [0, 0, 0]]) == pytest.approx(0.875)
    assert macro_f1([[3, 1, 0], [0, 4, 0], [0, 0, 0]]) == pytest.approx((first.f1 + second.f1) / 2)


def test_a_class_that_is_only_predicted_counts_in_macro_f1_as_in_scikit_learn() -> None:
    true, predicted = [0, 0, 1, 1], [0, 2, 1, 1]
    counts = confusion_matrix(true, predicted, 3)
    assert macro_f1(counts) == pytest.approx(sk.f1_score(true, predicted, average="macro"))
    assert balanced_accuracy(counts) == pytest.approx(0.75)


def test_a_class_that_is_never_predicted_has_no_precision() -> None:
    missed = per_class([[0, 5], [0, 5]])[0]
    assert math.isnan(missed.precision)
    assert (missed.recall, missed.f1) == (0.0, 0.0)


def test_nothing_tested_says_nothing() -> None:
    assert all(math.isnan(v) for v in class_metrics([], np.empty((0, 3))).values())


def test_the_calibration_error_is_the_one_computed_bin_by_bin() -> None:
    confidence, right = PROBS.max(axis=1), PREDICTED == TRUE
    edges, expected = np.linspace(0, 1, 16), 0.0
    for low, high in pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            expected += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    assert ece(TRUE, PROBS) == pytest.approx(expected)


def test_an_honest_classifier_is_calibrated_and_a_boastful_one_is_not() -> None:
    rng = np.random.default_rng(1)
    probs = rng.dirichlet(np.ones(3), 20_000)
    true = (rng.random((20_000, 1)) > probs.cumsum(axis=1)).sum(axis=1).clip(0, 2)
    assert ece(true, probs) < 0.02
    assert ece(true, np.eye(3)[probs.argmax(axis=1)]) > 0.2


def test_a_certain_mistake_costs_much_but_not_infinitely_much() -> None:
    assert 30 < nll([1], [[1.0, 0.0]]) < 40
    assert nll([0], [[1.0, 0.0]]) == 0.0


@pytest.mark.parametrize(
    ("true", "probs", "message"),
    [
        ([0], [[2.0, -1.0]], "logits need a softmax"),
        ([0], [[math.nan, 1.0]], "no probabilities"),
        ([2], [[0.5, 0.5]], "indices"),
        ([0.5], [[0.5, 0.5]], "indices"),
        ([0, 1], [[0.5, 0.5]], "2 true classes and 1 rows"),
        ([0], [[1.0]], "K >= 2"),
    ],
)
def test_what_is_no_class_or_no_probability_is_refused(
    true: list[float], probs: list[list[float]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        class_metrics(true, probs)


def test_a_matrix_that_is_not_square_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[K, K\]"):
        per_class([[1, 2, 3], [4, 5, 6]])
    with pytest.raises(ValueError, match="one shape"):
        confusion_matrix([0, 1], [0], 2)
