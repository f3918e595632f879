from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leanet.report.few_results import Arm, FewDefects, FewTrial, few_plan, read_few

WriteBenchmark = Callable[..., Path]
ROWS = ("Plain", "LEA-Net")


def read(folder: Path) -> FewDefects:
    found = read_few(folder)
    assert found is not None
    return found


def test_an_arm_is_one_output_of_one_row(write_few: WriteBenchmark) -> None:
    def marked(data: str, k: int, row: str, output: str, trial: Any, column: str) -> float | None:
        at = (data, k, row, output, trial, column)
        return 0.125 if at == ("Tile", 3, "LEA-Net", "map", (0, 0, 2), "auroc") else None

    few = read(write_few("b", figure=marked))
    assert few.trials_of("Tile", 3, "Map only")[FewTrial(0, 0, 2)]["auroc"] == 0.125
    assert few.trials_of("Tile", 3, "Default")[FewTrial(0, 0, 2)]["auroc"] > 0.5
    assert few.trials_of("Tile", 3, "nobody") == {}
    assert len(few.trials_of("Leaf", 10, "Plain")) == len(few.trials) == 4
    assert few.seen == ("Leaf", "Tile")
    assert set(few.unseen) == {"Tile, unseen"}
    assert (few.plan.map_only, few.plan.others) == ("Map only", ("Shuffled",))


def test_draws_and_seeds_make_trials(write_few: WriteBenchmark) -> None:
    few = {"labelled": [1], "draws": 2}
    found = read(write_few("b", few=few, seeds=[3, 5], options={"folds": 2}))
    assert len(found.trials) == 8
    assert set(found.trials_of("Leaf", 1, "Plain")) == set(found.trials)
    assert found.trials[0] == FewTrial(seed=3, draw=0, fold=0)


def test_without_arms_every_row_is_one_with_its_score(write_few: WriteBenchmark) -> None:
    found = read(write_few("b", few={"labelled": [3, 1, 3]}))
    assert found.plan.arms[1] == Arm("LEA-Net", "LEA-Net", "score")
    assert found.plan.labelled == (1, 3)
    assert (found.plan.default, found.plan.rivals, found.plan.map_only) == (None, (), None)


def test_words_and_gaps_in_the_file_are_no_figures(write_few: WriteBenchmark) -> None:
    folder = write_few("b", figure=lambda *at: math.nan if at[-1] == "f1" else None)
    one = read(folder).trials_of("Leaf", 1, "Plain")[FewTrial(0, 0, 0)]
    assert math.isnan(one["f1"])
    assert math.isnan(one["method"])


def test_another_suite_has_no_few(write_benchmark: WriteBenchmark) -> None:
    assert read_few(write_benchmark("b")) is None


def test_a_k_that_no_trial_has_is_out_of_reach(write_few: WriteBenchmark) -> None:
    few = read(write_few("b", missing=lambda data, k, *_: data == "Leaf" and k == 10))
    assert few.labelled_of("Leaf") == (1, 3)
    assert few.labelled_of("Tile") == (1, 3, 10)
    assert few.num_missing("Leaf", ["Plain", "Default"]) == 0


def test_a_k_is_in_reach_while_it_may_still_come(write_few: WriteBenchmark) -> None:
    def missing(data: str, k: int, row: str, trial: Any) -> bool:
        return data == "Leaf" and (trial[2] > 0 or k == 10)

    few = read(write_few("b", missing=missing))
    assert few.labelled_of("Leaf") == (1, 3, 10)
    assert few.num_missing("Leaf", ["Plain"]) == 3 * 3


def test_a_fold_that_was_passed_over_is_not_waited_for(write_few: WriteBenchmark) -> None:
    def missing(data: str, k: int, row: str, trial: Any) -> bool:
        return trial[2] == 1 or (trial[2] == 2 and k == 10)

    few = read(write_few("b", missing=missing))
    assert few.num_missing("Tile, unseen", ["Plain", "Default"]) == 0


def test_an_arm_lacks_what_others_have(write_few: WriteBenchmark) -> None:
    def missing(data: str, k: int, row: str, trial: Any) -> bool:
        return row == "Plain" and k == 3 and trial[2] == 1

    few = read(write_few("b", missing=missing))
    assert few.num_missing("Tile", ["Plain", "Default"]) == 1
    assert few.num_missing("Tile", ["Default"]) == 0


@pytest.mark.parametrize(
    ("few", "message"),
    [
        ([1, 3], "takes the keys labelled, draws, arms, default, rivals"),
        ({"labeled": [1]}, r"unknown key 'labeled' \(did you mean labelled\?\)"),
        ({}, "labelled takes a list of numbers of defects from 1 on"),
        ({"labelled": [0, 1]}, "labelled takes a list"),
        ({"labelled": [True]}, "labelled takes a list"),
        ({"labelled": [1], "draws": 0}, "draws takes a whole number from 1 on, got 0"),
        ({"labelled": [1], "arms": {"A": "Plain"}}, r"arm 'A' takes \[ROW, OUTPUT\]"),
        ({"labelled": [1], "arms": ["Plain"]}, "arms takes NAME"),
        ({"labelled": [1], "arms": {"A": ["Plan", "score"]}}, "did you mean Plain"),
        ({"labelled": [1], "default": "LEA-Ned"}, "'LEA-Ned' is no arm .did you mean LEA-Net"),
        ({"labelled": [1], "default": "Plain", "rivals": ["Plain"]}, "cannot be its own rival"),
        ({"labelled": [1], "default": "Plain", "rivals": "LEA-Net"}, "takes a list of arms"),
        ({"labelled": [1], "rivals": ["Plain"]}, "rivals of what"),
    ],
)
def test_what_makes_no_plan_is_refused(few: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        few_plan(few, ROWS)
