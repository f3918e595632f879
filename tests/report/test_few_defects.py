from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from leanet.ops.comparing import BETTER, OPEN, UNTESTED, WORSE
from leanet.ops.stats import PairedDifference
from leanet.report.few_defects import (
    BEST,
    against,
    averages,
    best_rival,
    cells_judged,
    honest,
    series,
    standings,
    unseen_judged,
    verdict,
)
from leanet.report.few_results import FewDefects, read_few

WriteBenchmark = Callable[..., Path]


def read(folder: Path) -> FewDefects:
    found = read_few(folder)
    assert found is not None
    return found


def aurocs(few: FewDefects, data: str, k: int, arm: str) -> Any:
    return np.array([series(few, data, k, arm, "auroc")[trial] for trial in few.trials])


def auroc_of(values: dict[tuple[int, str], list[float]]) -> Callable[..., float | None]:
    """figure= of a benchmark: the AUROC by k and (row or output), fold by fold."""

    def figure(data: str, k: int, row: str, output: str, trial: Any, column: str) -> float | None:
        name = output if row == "LEA-Net" else row
        found = values.get((k, name)) if column == "auroc" else None
        return None if found is None else found[trial[2]]

    return figure


def test_differences_are_the_paired_t_test(write_few: WriteBenchmark) -> None:
    few = read(write_few("b"))
    ours, theirs = aurocs(few, "Leaf", 3, "Default"), aurocs(few, "Leaf", 3, "Map only")
    test: Any = stats.ttest_rel(ours, theirs)
    expected = test.confidence_interval(0.95)
    found = against(few, "Leaf", 3, "Map only").difference
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.p == pytest.approx(test.pvalue)
    assert found.n == 4


def test_pairs_are_trials_that_both_have(write_few: WriteBenchmark) -> None:
    def missing(data: str, k: int, row: str, trial: Any) -> bool:
        return row == "Plain" and trial[2] == 1

    few = read(write_few("b", missing=missing))
    kept = [trial for trial in few.trials if trial.fold != 1]
    ours, theirs = (series(few, "Leaf", 1, arm, "auroc") for arm in ("Default", "Plain"))
    found = against(few, "Leaf", 1, "Plain").difference
    assert found.mean == pytest.approx(np.mean([ours[t] - theirs[t] for t in kept]))
    assert found.n == 3


def test_the_best_of_a_column_is_marked_in_its_direction(write_few: WriteBenchmark) -> None:
    few = read(write_few("b"))
    best = {metric: {arm for (arm, k), one in standings(few, "Leaf", metric).items() if one.best}
            for metric in ("auroc", "escapes_at_1", "overkill")}  # fmt: skip
    assert best == {"auroc": {"Default"}, "escapes_at_1": {"Default"}, "overkill": set()}
    values = aurocs(few, "Leaf", 10, "Plain")
    one = standings(few, "Leaf", "auroc")["Plain", 10]
    assert (one.figure.mean, one.figure.sd) == pytest.approx((values.mean(), values.std(ddof=1)))


def test_an_unfinished_arm_is_not_the_best(write_few: WriteBenchmark) -> None:
    def missing(data: str, k: int, row: str, trial: Any) -> bool:
        return row == "LEA-Net" and trial[2] == 3

    found = standings(read(write_few("b", missing=missing)), "Leaf", "auroc")
    assert (found["Default", 1].n, found["Default", 1].best) == (3, False)
    assert found["Plain", 1].best or found["Shuffled", 1].best


def test_figures_that_round_to_the_same_are_equally_good(write_few: WriteBenchmark) -> None:
    same = {(1, "score"): [0.9] * 4, (1, "map"): [0.90004] * 4, (1, "Plain"): [0.89] * 4}
    found = standings(read(write_few("b", figure=auroc_of(same))), "Leaf", "auroc")
    assert [found[arm, 1].best for arm in ("Default", "Map only", "Plain")] == [True, True, False]


def test_the_best_rival_is_found_for_each_k(write_few: WriteBenchmark) -> None:
    values = {(1, "Plain"): [0.6] * 4, (1, "map"): [0.7] * 4, (10, "Plain"): [0.95] * 4,
              (10, "map"): [0.7] * 4}  # fmt: skip
    few = read(write_few("b", figure=auroc_of(values)))
    found = [best_rival(few, "Leaf", k) for k in (1, 10)]
    assert [one.rival if one else None for one in found] == ["Map only", "Plain"]
    escapes = best_rival(few, "Leaf", 1, "escapes_at_1")
    assert escapes is not None
    assert escapes.rival == "Map only"


def test_no_rival_is_the_best_of_nothing(write_few: WriteBenchmark) -> None:
    few = read(write_few("b", missing=lambda data, k, row, trial: row == "LEA-Net"))
    assert best_rival(few, "Leaf", 1) is None
    assert cells_judged(few) == []


@pytest.mark.parametrize(
    ("low", "high", "metric", "word"),
    [
        (0.01, 0.03, "auroc", BETTER),
        (-0.03, -0.01, "auroc", WORSE),
        (-0.01, 0.03, "auroc", OPEN),
        (0.0, 0.0, "auroc", OPEN),
        (0.01, 0.03, "escapes_at_1", WORSE),
        (-0.03, -0.01, "escapes_at_1", BETTER),
        (math.nan, math.nan, "auroc", UNTESTED),
    ],
)
def test_a_verdict_goes_by_the_interval(low: float, high: float, metric: str, word: str) -> None:
    found = PairedDifference((low + high) / 2, 0.01, low, high, 0.5, 5)
    assert verdict(found, metric) == word


@pytest.mark.parametrize("folds", [1, 4])
def test_without_a_spread_there_is_no_interval(folds: int, write_few: WriteBenchmark) -> None:
    values = {(1, "score"): [0.8] * folds, (1, "Plain"): [0.7] * folds}
    few = read(write_few("b", figure=auroc_of(values), options={"folds": folds}))
    found = against(few, "Leaf", 1, "Plain")
    assert found.difference.mean == pytest.approx(0.1)
    assert math.isnan(found.difference.low)
    assert found.verdict == UNTESTED


def test_equal_figures_are_a_draw(write_few: WriteBenchmark) -> None:
    values = {(1, "score"): [1.0] * 4, (1, "Plain"): [1.0] * 4}
    found = against(read(write_few("b", figure=auroc_of(values))), "Leaf", 1, "Plain")
    assert (found.difference.low, found.difference.high, found.verdict) == (0.0, 0.0, OPEN)


def test_averages_weigh_each_data_set_the_same(write_few: WriteBenchmark) -> None:
    few = read(write_few("b"))
    (found,) = averages(few, few.seen, ["Plain"])
    by_data = [
        np.mean([aurocs(few, d, k, "Default") - aurocs(few, d, k, "Plain") for k in (1, 3)], axis=0)
        for d in few.seen
    ]
    means = [one.mean() for one in by_data]
    test: Any = stats.ttest_1samp(means, 0)
    expected = test.confidence_interval(0.95)
    assert found.over_data.mean == pytest.approx(np.mean(means))
    assert (found.over_data.low, found.over_data.high) == pytest.approx(tuple(expected))
    welch: Any = stats.ttest_ind(by_data[0], -by_data[1], equal_var=False)
    ends = [end / 2 for end in welch.confidence_interval(0.95)]
    assert [found.over_draws.low, found.over_draws.high] == pytest.approx(ends)
    leaf: Any = stats.ttest_1samp(by_data[0], 0)
    assert found.by_data["Leaf"].p == pytest.approx(leaf.pvalue)


def test_the_best_rival_of_an_average_may_change_with_k(write_few: WriteBenchmark) -> None:
    values = {(1, "score"): [0.9] * 4, (3, "score"): [0.9] * 4,
              (1, "Plain"): [0.6] * 4, (1, "map"): [0.7] * 4,
              (3, "Plain"): [0.8] * 4, (3, "map"): [0.7] * 4}  # fmt: skip
    few = read(write_few("b", figure=auroc_of(values)))
    best, plain, only = averages(few, few.seen, [BEST, "Plain", "Map only"])
    assert best.over_data.mean == pytest.approx((0.2 + 0.1) / 2)
    assert plain.over_data.mean == pytest.approx((0.3 + 0.1) / 2)
    assert only.over_data.mean == pytest.approx(0.2)


def test_a_trial_without_all_small_k_is_left_out_of_the_average(write_few: WriteBenchmark) -> None:
    def missing(data: str, k: int, row: str, trial: Any) -> bool:
        return data == "Leaf" and (trial[2], k) == (2, 3)

    few = read(write_few("b", missing=missing))
    (found,) = averages(few, few.seen, ["Plain"])
    assert (found.by_data["Leaf"].n, found.by_data["Tile"].n) == (3, 4)


def test_a_data_set_without_trials_is_no_zero(write_few: WriteBenchmark) -> None:
    few = read(write_few("b", missing=lambda data, *_: data == "Leaf"))
    (found,) = averages(few, few.seen, ["Plain"])
    assert list(found.by_data) == ["Tile"]
    assert found.over_data.n == 1
    assert math.isnan(found.over_data.low)
    assert averages(few, ["Leaf"], ["Plain"]) == []


def test_unseen_kinds_are_compared_with_the_map_alone(write_few: WriteBenchmark) -> None:
    few = read(write_few("b"))
    assert {(one.data, one.rival) for one in unseen_judged(few)} == {("Tile, unseen", "Map only")}
    assert {one.data for one in cells_judged(few)} == {"Leaf", "Tile"}
    assert [one.k for one in unseen_judged(few)] == [1, 3, 10]


def test_an_honest_threshold_is_measured_by_the_oracle(write_few: WriteBenchmark) -> None:
    own = [0.9, 0.6, 0.8, 0.0]

    def figure(data: str, k: int, row: str, output: str, trial: Any, column: str) -> float | None:
        return {"f1": own[trial[2]], "oracle_f1": 0.8}.get(column)

    few = read(write_few("b", figure=figure))
    found = honest(few, "Leaf", 1)
    assert found is not None
    assert (found.f1, found.oracle) == pytest.approx((0.575, 0.8))
    assert found.share == pytest.approx(0.575 / 0.8)
    assert (found.reached, found.n) == (2, 4)
    assert honest(few, "Leaf", 7) is None
