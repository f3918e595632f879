from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize

from leanet.ops.calibration import Calibration, probability_of
from leanet.ops.calibration_fit import (
    at_prevalence,
    choose_kind,
    fit_calibration,
    fit_isotonic,
    fit_platt,
)

Floats = NDArray[np.float64]


def overlapping(num: int = 40, seed: int = 0) -> tuple[NDArray[np.int64], Floats]:
    rng = np.random.default_rng(seed)
    label = np.repeat([0, 1], [num, num // 2])
    return label, rng.normal(size=label.size) + 1.5 * label


def probabilities(calibration: Calibration, score: Floats) -> Floats:
    return probability_of(calibration, torch.from_numpy(score)).numpy()


def pooled(label: list[int], score: list[float]) -> dict[float, float]:
    """Isotonic regression by its formula: max over starts of the min over ends of the mean."""
    levels = sorted(set(score))
    sums = [sum(y for y, s in zip(label, score, strict=True) if s == level) for level in levels]
    counts = [score.count(level) for level in levels]
    return {
        level: max(
            min(sum(sums[i : j + 1]) / sum(counts[i : j + 1]) for j in range(k, len(levels)))
            for i in range(k + 1)
        )
        for k, level in enumerate(levels)
    }


# Platt


def test_platts_curve_is_the_optimum_of_his_smoothed_cross_entropy() -> None:
    label, score = overlapping()
    target = np.where(label == 1, 21 / 22, 1 / 42)

    def loss(point: Floats) -> float:
        z = point[0] * score + point[1]
        return float(np.sum(np.logaddexp(0, z) - target * z))

    expected = minimize(loss, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-9}).x
    found = fit_platt(label, score)
    assert (found.slope, found.intercept) == pytest.approx(tuple(expected), rel=1e-4)


def test_unit_and_origin_of_the_scores_do_not_matter() -> None:
    label, score = overlapping()
    far = 1e-4 * score + 1e3
    near = probabilities(fit_platt(label, score), score)
    assert probabilities(fit_platt(label, far), far) == pytest.approx(near, abs=1e-6)


def test_separable_classes_and_equal_scores_have_finite_curves() -> None:
    parted = fit_platt([0, 0, 1, 1], [1.0, 1.0, 40.0, 40.0])
    given_back = probabilities(parted, np.array([1.0, 40.0]))
    assert given_back[0] == pytest.approx(1 / 4, abs=1e-6)  # the targets of two images each
    assert given_back[1] == pytest.approx(3 / 4, abs=1e-6)
    flat = fit_platt([0, 0, 1], [5.0, 5.0, 5.0])
    assert flat.slope == 0
    assert 0.25 < probabilities(flat, np.array([5.0]))[0] < 0.5


def test_the_curve_never_falls() -> None:
    label, score = overlapping()
    curve = fit_platt(label, -score)
    assert curve.slope == 0
    assert 0.3 < probabilities(curve, np.array([0.0]))[0] < 0.4  # a third is anomalous


# Isotonic


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 6)), max_size=20))
def test_isotonic_values_are_those_of_the_min_max_formula(pairs: list[tuple[int, int]]) -> None:
    pairs = [(0, 3), (1, 2), *pairs]
    label, score = [y for y, _ in pairs], [float(s) for _, s in pairs]
    low, high = 1 / (label.count(0) + 2), (label.count(1) + 1) / (label.count(1) + 2)
    expected = pooled(label, score)
    levels = np.array(sorted(expected))
    found = probabilities(fit_isotonic(label, score), levels)
    clipped = [min(max(expected[level], low), high) for level in levels]
    assert found == pytest.approx(clipped, abs=1e-9)


def test_knots_ascend_in_float32_too() -> None:
    score = [1.0, 1.0 + 1e-12, 1.0 + 2e-12, 2.0, 2.0 + 1e-12]
    found = fit_isotonic([0, 1, 0, 1, 1], score)
    assert np.all(np.diff(np.array(found.knots, dtype=np.float32)) > 0)
    single = probability_of(found, torch.tensor(score, dtype=torch.float32))
    assert torch.isfinite(single).all()


@pytest.mark.parametrize("kind", ["platt", "isotonic"])
def test_no_curve_says_never_or_always(kind: str) -> None:
    label = [0] * 30 + [1] * 30
    score = np.arange(60.0)
    found = probabilities(fit_calibration(kind, label, score), np.array([-1e6, 1e6]))  # type: ignore[arg-type]
    assert found[0] >= 0
    if kind == "isotonic":
        assert found.tolist() == pytest.approx([1 / 32, 31 / 32])


@pytest.mark.parametrize("kind", ["platt", "isotonic"])
def test_one_class_alone_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="0 normal and 3 anomalous"):
        fit_calibration(kind, [1, 1, 1], [1.0, 2.0, 3.0])  # type: ignore[arg-type]


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="allowed: platt, isotonic"):
        fit_calibration("beta", [0, 1], [1.0, 2.0])  # type: ignore[arg-type]


def test_auto_follows_the_rarer_class() -> None:
    assert choose_kind([0] * 10_000 + [1] * 100) == "platt"
    assert choose_kind([1] * 10_000 + [0] * 100) == "platt"
    assert choose_kind([1] * 600 + [0] * 600) == "isotonic"


# Prevalence


@pytest.mark.parametrize("kind", ["platt", "isotonic"])
def test_the_shift_is_bayes_rule(kind: str) -> None:
    label, score = overlapping()
    curve = fit_calibration(kind, label, score)  # type: ignore[arg-type]
    at = np.array(curve.knots) if kind == "isotonic" else score
    p = probabilities(curve, at)
    expected = (p * 0.01 / 0.3) / (p * 0.01 / 0.3 + (1 - p) * 0.99 / 0.7)
    assert probabilities(at_prevalence(curve, 0.3, 0.01), at) == pytest.approx(expected)
    there_and_back = at_prevalence(at_prevalence(curve, 0.3, 0.01), 0.01, 0.3)
    assert probabilities(there_and_back, at) == pytest.approx(p)


def test_an_impossible_prevalence_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        at_prevalence(Calibration(kind="platt"), 0.5, 1.0)
