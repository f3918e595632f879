from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import mannwhitneyu
from sklearn import metrics as sk

from leanet.ops.metrics import (
    Confusion,
    accuracy,
    all_positive_f1,
    auroc,
    average_precision,
    balanced_accuracy,
    choose_threshold,
    confusion_at,
    escapes,
    escapes_at,
    f1,
    f1_threshold,
    image_metrics,
    mcc,
    oracle_f1,
    overkill,
    precision,
    quantile_threshold,
    recall,
    specificity,
)

# P and N of methods/leanet.md section 4.2 and the reference F1 printed there.
ALL_POSITIVE_REFERENCE = [(50, 152, 0.397), (50, 150, 0.400)]


def random_scores(seed: int, num: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, num)
    label[:2] = 0, 1
    return label, np.round(rng.normal(3.0 * label, 3.0), 1) * 10  # unbounded, with ties


@pytest.mark.parametrize("seed", range(5))
def test_auroc_is_the_share_of_correctly_ordered_pairs(seed: int) -> None:
    label, score = random_scores(seed)
    u = mannwhitneyu(score[label == 1], score[label == 0]).statistic
    assert auroc(label, score) == pytest.approx(u / np.sum(label == 0) / np.sum(label == 1))


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_sums_precision_over_steps_of_recall(seed: int) -> None:
    label, score = random_scores(seed)
    expected, found_before = 0.0, 0
    for level in sorted(set(score), reverse=True):
        found = int(np.sum(label[score >= level]))
        expected += (found - found_before) / label.sum() * found / int(np.sum(score >= level))
        found_before = found
    assert average_precision(label, score) == pytest.approx(expected)


@pytest.mark.parametrize("figure", [auroc, average_precision])
@pytest.mark.parametrize("label", [[0, 0, 0], [1, 1, 1], []])
def test_ranking_figures_of_one_class_are_nan(
    figure: Callable[..., float], label: list[int]
) -> None:
    assert math.isnan(figure(label, [0.5] * len(label)))


def test_scores_outside_zero_to_one_are_ranked_as_they_are() -> None:
    score = np.array([800.0, 900.0, 1000.0])  # a sigmoid would make them all 1
    assert auroc([0, 1, 1], score) == 1.0
    assert average_precision([0, 1, 1], -score) == pytest.approx(0.5 * (1 / 2 + 2 / 3))


@pytest.mark.parametrize("seed", range(5))
def test_every_count_formula_agrees_with_scikit_learn(seed: int) -> None:
    label, score = random_scores(seed)
    verdict = (score >= 10.0).astype(int)
    counts = confusion_at(label, score, 10.0)
    assert list(counts) == sk.confusion_matrix(label, verdict).ravel().tolist()
    assert f1(counts) == pytest.approx(sk.f1_score(label, verdict))
    assert recall(counts) == pytest.approx(sk.recall_score(label, verdict))
    assert precision(counts) == pytest.approx(sk.precision_score(label, verdict))
    assert specificity(counts) == pytest.approx(sk.recall_score(label, verdict, pos_label=0))
    assert balanced_accuracy(counts) == pytest.approx(sk.balanced_accuracy_score(label, verdict))
    assert mcc(counts) == pytest.approx(sk.matthews_corrcoef(label, verdict))
    assert accuracy(counts) == pytest.approx(sk.accuracy_score(label, verdict))
    assert escapes(counts) == pytest.approx(np.mean(verdict[label == 1] == 0))
    assert overkill(counts) == pytest.approx(np.mean(verdict[label == 0] == 1))


def test_formulas_without_a_denominator_are_nan() -> None:
    only_normal = Confusion(tn=5, fp=0, fn=0, tp=0)
    for formula in (f1, recall, precision, balanced_accuracy, mcc, escapes):
        assert math.isnan(formula(only_normal)), formula.__name__
    only_anomalous = Confusion(tn=0, fp=0, fn=1, tp=2)
    for formula in (specificity, overkill, balanced_accuracy, mcc):
        assert math.isnan(formula(only_anomalous)), formula.__name__
    assert math.isnan(accuracy(Confusion(0, 0, 0, 0)))
    assert math.isnan(all_positive_f1(0, 0))


def test_one_verdict_for_everything_has_zero_correlation() -> None:
    assert mcc(Confusion(tn=0, fp=7, fn=0, tp=3)) == 0.0
    assert mcc(Confusion(tn=7, fp=0, fn=3, tp=0)) == 0.0


@pytest.mark.parametrize(("num_positive", "num_negative", "printed"), ALL_POSITIVE_REFERENCE)
def test_all_positive_f1_is_the_f1_of_calling_everything_anomalous(
    num_positive: int, num_negative: int, printed: float
) -> None:
    value = all_positive_f1(num_positive, num_negative)
    label = np.repeat([1, 0], [num_positive, num_negative])
    assert value == pytest.approx(sk.f1_score(label, np.ones_like(label)))
    assert round(value, 3) == printed
    with pytest.raises(ValueError, match="counts"):
        all_positive_f1(-1, num_negative)


def test_image_metrics_bundles_the_single_figures() -> None:
    label, score = random_scores(1)
    bundle, counts = image_metrics(label, score, 10.0), confusion_at(label, score, 10.0)
    assert bundle["auroc"] == auroc(label, score)
    assert bundle["mcc"] == mcc(counts)
    assert bundle["oracle_f1"] == oracle_f1(label, score) >= bundle["f1"]
    assert bundle["escapes_at_1"] == escapes_at(label, score, 0.01)
    assert bundle["escapes"] + bundle["recall"] == pytest.approx(1.0)
    assert (bundle["tn"], bundle["fp"], bundle["fn"], bundle["tp"]) == counts
    assert bundle["num_normal"] == np.sum(label == 0)
    assert bundle["num_anomalous"] == np.sum(label == 1)
    assert all(type(value) is float for value in bundle.values())


@pytest.mark.parametrize("seed", range(10))
def test_no_threshold_beats_the_f1_threshold(seed: int) -> None:
    label, score = random_scores(seed)
    level = np.unique(score)
    everywhere = np.concatenate([level, (level[1:] + level[:-1]) / 2])
    best = max(f1(confusion_at(label, score, t)) for t in everywhere)
    assert f1(confusion_at(label, score, f1_threshold(label, score))) == pytest.approx(best)


@pytest.mark.parametrize("seed", range(5))
def test_the_oracle_f1_is_the_best_of_the_precision_recall_curve(seed: int) -> None:
    label, score = random_scores(seed)
    p, r, _ = sk.precision_recall_curve(label, score)
    assert oracle_f1(label, score) == pytest.approx(np.nanmax(2 * p * r / np.maximum(p + r, 1e-9)))


@pytest.mark.parametrize("allowed", [0.0, 0.01, 0.1, 0.25, 0.9])
@pytest.mark.parametrize("seed", range(5))
def test_escapes_at_an_overkill_are_the_fewest_of_the_roc_curve(seed: int, allowed: float) -> None:
    label, score = random_scores(seed, num=230)
    false_alarms, found, _ = sk.roc_curve(label, score, drop_intermediate=False)
    expected = 1 - found[false_alarms <= allowed].max()
    assert escapes_at(label, score, allowed) == pytest.approx(expected)


def test_one_percent_of_a_hundred_normal_images_is_one_and_of_99_none() -> None:
    for num, escaping in ((100, 0.0), (99, 0.5)):
        normal = np.arange(num)  # the highest is num - 1
        score = [*normal, num - 1.5, num]
        assert escapes_at([0] * num + [1, 1], score, 0.01) == escaping


@pytest.mark.parametrize("label", [[0, 0], [1, 1], []])
def test_the_best_working_points_of_one_class_are_nan(label: list[int]) -> None:
    assert math.isnan(oracle_f1(label, [1.0] * len(label)))
    assert math.isnan(escapes_at(label, [1.0] * len(label), 0.01))


@pytest.mark.parametrize("allowed", [-0.1, 1.0])
def test_an_overkill_that_is_no_share_is_refused(allowed: float) -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        escapes_at([0, 1], [1.0, 2.0], allowed)


def test_the_f1_threshold_lies_in_the_middle_of_the_widest_of_equally_good_gaps() -> None:
    # cuts at 2.5 (tp 2, fp 1, fn 0) and at 7 (tp 1, fp 0, fn 1): 0.8 against 2/3
    assert f1_threshold([0, 1, 0, 1], [1.0, 4.0, 5.0, 9.0]) == 2.5
    # cutting below 5 (tp 2, fp 2, fn 0) or below 9 (tp 1, fp 0, fn 1) gives 2/3 both times
    assert f1_threshold([0, 1, 0, 0, 1], [1.0, 5.0, 6.0, 6.5, 9.0]) == 3.0
    assert f1_threshold([0, 1, 0, 0, 1], [4.0, 5.0, 6.0, 6.5, 9.0]) == 7.75


def test_the_f1_threshold_survives_degenerate_scores() -> None:
    assert f1_threshold([0, 1, 1], [2.0, 2.0, 2.0]) == 2.0
    low = 1.0
    high = np.nextafter(low, 2.0)
    assert confusion_at([0, 1], [low, high], f1_threshold([0, 1], [low, high])).fp == 0
    for label in ([0, 0], [1, 1], []):
        with pytest.raises(ValueError, match="both classes"):
            f1_threshold(label, [1.0] * len(label))


@pytest.mark.parametrize(("num", "allowed"), [(19, 0.05), (50, 0.1), (99, 0.01), (30, 0.25)])
def test_the_quantile_threshold_keeps_its_promise_on_new_normals(num: int, allowed: float) -> None:
    rng = np.random.default_rng(num)
    rates = []
    for _ in range(2000):
        threshold = quantile_threshold(rng.gumbel(size=num), allowed)
        rates.append(1 - math.exp(-math.exp(-threshold)))  # exact rate under the Gumbel law
    expected = 1 - math.ceil((num + 1) * (1 - allowed) - 1e-9) / (num + 1)
    assert expected <= allowed + 1e-12
    assert np.mean(rates) == pytest.approx(expected, abs=4 * np.std(rates) / math.sqrt(2000))


def test_an_unattainable_quantile_falls_back_to_just_above_the_maximum() -> None:
    scores = np.array([3.0, 1.0, 2.0])
    threshold = quantile_threshold(scores, 0.01)
    assert not np.any(scores >= threshold)
    assert threshold == pytest.approx(3.0)
    assert quantile_threshold(scores, 0.0) == threshold


def test_tied_normal_scores_do_not_become_alarms() -> None:
    assert overkill(confusion_at([0] * 40, [7.0] * 40, quantile_threshold([7.0] * 40, 0.1))) == 0


def test_bad_normal_scores_are_refused() -> None:
    for scores, allowed in (([], 0.1), ([1.0, math.nan], 0.1), ([1.0], 1.0), ([1.0], -0.1)):
        with pytest.raises(ValueError):
            quantile_threshold(scores, allowed)


def test_the_rule_follows_the_number_of_held_out_anomalies() -> None:
    rng = np.random.default_rng(0)
    normal, anomalous = rng.normal(size=40), rng.normal(size=5) + 8
    label = np.repeat([0, 1], [40, 5])
    many = choose_threshold(label, np.concatenate([normal, anomalous]))
    assert (many.rule, many.num_normal, many.num_anomalous) == ("f1", 40, 5)
    assert many.value == pytest.approx((normal.max() + anomalous.min()) / 2)
    few = choose_threshold(label[:-1], np.concatenate([normal, anomalous[:-1]]))
    assert (few.rule, few.num_anomalous) == ("quantile", 4)
    assert few.value == quantile_threshold(normal, 0.05)
    assert choose_threshold([0, 0], [1.0, 2.0], min_positives=0).rule == "quantile"
    with pytest.raises(ValueError, match="normal"):
        choose_threshold([1] * 9, np.arange(9.0))


@pytest.mark.parametrize(
    ("label", "score"),
    [
        ([0, 1], [1.0]),
        ([[0], [1]], [[1.0], [2.0]]),
        ([0, 2], [1.0, 2.0]),
        ([0, 1], [1.0, math.inf]),
    ],
)
def test_labels_and_scores_that_make_no_sense_are_refused(label: list, score: list) -> None:
    with pytest.raises(ValueError):
        auroc(label, score)
