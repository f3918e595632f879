from __future__ import annotations

import math

import numpy as np
import pytest

from leanet.inference.detection_curve import ALL, detection_curves, severity_at
from leanet.ops.stats import clopper_pearson

LEVELS = [1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0]


def simulated(half: float, each: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores = severity / half + noise: where nuisances are noise alone, with the threshold near
    2.3 SD, half are found at about 2.3 `half`."""
    rng = np.random.default_rng(seed)
    levels = np.repeat(LEVELS, each)
    return levels / half + rng.normal(size=levels.size), levels


def test_the_threshold_passes_ninety_nine_percent_of_the_nuisances() -> None:
    nuisance = np.arange(1000.0)
    threshold, _ = detection_curves(nuisance, [5.0], [2.0], ["hue"])
    assert np.mean(nuisance >= threshold) <= 0.01
    assert np.mean(nuisance >= threshold) > 0.005


def test_recall_is_counted_with_exact_intervals_per_direction() -> None:
    scores, levels, names = [0.5, 2, 2, 2, 0, 2], [1, 1, 3, 3, 3, 3], ["hue"] * 4 + ["chroma"] * 2
    _, curves = detection_curves(np.linspace(0, 1, 300), scores, levels, names)
    assert [curve.direction for curve in curves] == [ALL, "chroma", "hue"]
    everything, chroma, hue = curves
    assert [(p.severity, p.recall, p.num) for p in everything.points] == [(1, 0.5, 2), (3, 0.75, 4)]
    assert [(p.severity, p.recall) for p in chroma.points] == [(3, 0.5)]
    assert [(p.severity, p.recall) for p in hue.points] == [(1, 0.5), (3, 1.0)]
    assert everything.points[1].interval == clopper_pearson(3, 4)


def test_the_severity_of_half_recall_is_found_with_an_interval_around_it() -> None:
    nuisance = np.random.default_rng(1).normal(size=2000)
    scores, levels = simulated(2.0)
    threshold, (curve, *_) = detection_curves(nuisance, scores, levels, ["hue"] * len(levels))
    half, most = curve.reached
    assert (half.recall, most.recall) == (0.5, 0.9)
    assert half.severity == pytest.approx(2.0 * threshold, rel=0.15)
    assert half.interval.low < 2.0 * threshold < half.interval.high
    assert half.interval.low < half.severity < half.interval.high
    assert most.severity > half.severity
    assert half.interval.high < 2 * half.interval.low


def test_the_interval_also_moves_with_the_threshold() -> None:
    scores, levels = simulated(2.0)
    widths = []
    for count in (100, 5000):
        nuisance = np.random.default_rng(1).normal(size=count)
        _, (curve, *_) = detection_curves(nuisance, scores, levels, ["hue"] * len(levels))
        widths.append(curve.reached[0].interval.high - curve.reached[0].interval.low)
    assert widths[0] > widths[1]


def test_what_is_never_found_is_infinite_and_what_is_always_found_the_least() -> None:
    nuisance = np.linspace(0, 1, 200)
    _, (never, *_) = detection_curves(nuisance, [0.0] * 4, [2, 2, 5, 5], ["hue"] * 4)
    assert [one.severity for one in never.reached] == [math.inf, math.inf]
    assert never.reached[0].interval == (math.inf, math.inf)
    _, (always, *_) = detection_curves(nuisance, [9.0] * 4, [2, 2, 5, 5], ["hue"] * 4)
    assert [one.severity for one in always.reached] == [2.0, 2.0]


def test_a_curve_that_dips_is_made_to_rise() -> None:
    points = [(1.0, 0.2, 10), (2.0, 0.6, 10), (3.0, 0.4, 10), (5.0, 1.0, 10)]
    assert severity_at(points, 0.5) == 2.0  # 0.6 and 0.4 are pooled to 0.5
    assert severity_at(points, 0.75) == 4.0


def test_the_same_seed_gives_the_same_interval() -> None:
    scores, levels = simulated(2.0, each=10)
    args = (np.linspace(-2, 2, 50), scores, levels, ["hue"] * len(levels))
    assert detection_curves(*args, seed=3) == detection_curves(*args, seed=3)


def test_lists_that_do_not_fit_are_refused() -> None:
    for args in (([], [1], [1], ["a"]), ([1], [], [], []), ([1], [1, 2], [1], ["a"])):
        with pytest.raises(ValueError, match="at least one nuisance and lists of one length"):
            detection_curves(*args)  # type: ignore[arg-type]
