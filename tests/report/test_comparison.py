from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from leanet.report.comparison import (
    Series,
    anomalous_share,
    average,
    best_on_test,
    choose,
    difference,
)

NAN = math.nan


def series(f1: list[float], held_out: list[float] | None = None, **more: float) -> Series:
    """A trial for every value of F1: folds of seed 0."""
    held = held_out or [0.5] * len(f1)
    return {
        (0, fold): {"f1_at_half": value, "f1": value, "held_out_ap": ap, **more}
        for fold, (value, ap) in enumerate(zip(f1, held, strict=True))
    }


def test_the_mean_over_rows_is_taken_trial_by_trial() -> None:
    mean = average([series([0.1, 0.5]), series([0.3, 0.7])])
    assert [figures["f1"] for figures in mean.values()] == [0.2, 0.6]


def test_the_mean_of_equal_figures_is_that_figure() -> None:
    values = np.random.default_rng(0).random(200).round(6).tolist()
    assert average([series(values)] * 7) == series(values)


def test_a_trial_that_one_row_lacks_has_no_mean_and_no_choice() -> None:
    short = {trial: f for trial, f in series([0.3, 0.7, 0.2]).items() if trial != (0, 1)}
    rows = [series([0.1, 0.5, 0.9]), short]
    assert list(average(rows)) == [(0, 0), (0, 2)]
    assert list(choose(rows).series) == [(0, 0), (0, 2)]
    assert list(choose(rows[::-1]).series) == [(0, 0), (0, 2)]


def test_the_choice_follows_the_held_out_images_and_not_the_test() -> None:
    best_on_the_test = series([0.9, 0.9], held_out=[0.1, 0.2])
    best_held_out = series([0.2, 0.3], held_out=[0.6, 0.1])
    choice = choose([best_on_the_test, best_held_out])
    assert choice.picks == (1, 0)
    assert [figures["f1"] for figures in choice.series.values()] == [0.2, 0.9]
    assert choice.num_ties == 0


def test_of_equals_the_first_is_chosen_and_the_tie_is_counted() -> None:
    choice = choose([series([0.1, 0.1], [0.5, 1.0]), series([0.2, 0.2], [0.7, 1.0])])
    assert (choice.picks, choice.num_ties) == ((1, 0), 1)


def test_without_held_out_images_nothing_is_chosen() -> None:
    assert choose([series([0.1, 0.2], [NAN, 0.5]), series([0.3, 0.4])]).picks == (0,)
    assert choose([series([0.1], [NAN]), series([0.3], [NAN])]).series == {}


def test_the_oracle_is_the_row_with_the_best_mean_on_the_test() -> None:
    assert best_on_test([series([0.9, 0.1]), series([0.6, 0.6]), series([0.7, 0.5])], 2) == 1
    assert best_on_test([series([0.9]), series([0.6, 0.6])], 2) is None


def test_the_oracle_falls_back_on_f1_at_the_threshold() -> None:
    rows = [series([0.1, 0.2]), series([0.3, 0.4])]
    no_probability = [{t: {**f, "f1_at_half": NAN} for t, f in row.items()} for row in rows]
    assert best_on_test(no_probability, 2) == 1
    nothing = [{t: {**f, "f1": NAN} for t, f in row.items()} for row in no_probability]
    assert best_on_test(nothing, 2) is None


def test_a_difference_is_the_corrected_resampled_t_test() -> None:
    ours, theirs = [0.9, 0.8, 0.85, 0.95, 0.7], [0.8, 0.82, 0.8, 0.9, 0.6]
    counts = {"num_normal": 30, "num_anomalous": 10, "num_train_normal": 96,
              "num_train_anomalous": 32}  # fmt: skip
    found = difference(series(ours, **counts), series(theirs, **counts), "f1", num_folds=5)
    d = np.subtract(ours, theirs)
    error = d.std(ddof=1) * math.sqrt(1 / 5 + 40 / 128)
    assert found.mean == pytest.approx(d.mean())
    assert found.p == pytest.approx(2 * stats.t.sf(abs(d.mean()) / error, 4))
    assert found.high - found.mean == pytest.approx(stats.t.ppf(0.975, 4) * error)


def test_without_counts_the_folds_give_the_share_of_test_images() -> None:
    ours, theirs = [0.9, 0.8, 0.85], [0.8, 0.82, 0.8]
    counted = {"num_normal": 3, "num_anomalous": 1, "num_train_normal": 6, "num_train_anomalous": 2}
    without = difference(series(ours), series(theirs), "f1", num_folds=3)
    assert without == difference(series(ours, **counted), series(theirs), "f1", num_folds=7)


def test_pairs_are_matched_by_trial_and_the_rest_is_left_out() -> None:
    ours = series([0.5, 0.6, 0.7])
    theirs = {trial: f for trial, f in reversed(series([0.4, 0.1, 0.2]).items()) if trial[1]}
    found = difference(ours, theirs, "f1", num_folds=3)
    assert (found.n, found.mean) == (2, pytest.approx(0.5))
    assert difference(ours, {}, "f1", num_folds=3).n == 0


def test_equal_differences_are_no_proof() -> None:
    found = difference(series([0.5, 0.6, 0.7]), series([0.4, 0.5, 0.6]), "f1", num_folds=3)
    assert found.mean == pytest.approx(0.1)
    assert math.isnan(found.p)
    assert math.isnan(found.low)
    none = difference(series([0.5, 0.6]), series([0.5, 0.6]), "f1", num_folds=2)
    assert (none.mean, none.p) == (0.0, 1.0)


def test_the_share_of_anomalous_images_is_that_of_the_training_images() -> None:
    assert anomalous_share({"num_train_normal": 152, "num_train_anomalous": 25}) == pytest.approx(
        0.141, abs=5e-4
    )
    assert math.isnan(anomalous_share({}))
