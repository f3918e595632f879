"""What was asked of a model is asked of the next."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from leanet.files import write_csv, write_json
from leanet.inference.threshold import PointOptions, settle
from leanet.serve.carried import carry_point
from leanet.trained import read_card, update_card


@pytest.fixture
def runs(fake_run: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Two runs with the same scores of 20 normal and 20 anomalous images, by two folds."""
    threshold = {"value": 0.0, "rule": "f1", "num_normal": 20, "num_anomalous": 20}
    names = [f"{k}.png" for k in range(40)]
    rows = [
        {"path": name, "role": "cross_validation", "label": k % 2, "score": k % 2 + 0.1 * (k - 20)}
        for k, name in enumerate(names)
    ]
    write_csv(fake_run / "final/predictions.csv", rows)
    parts = [{"path": name, "fold": f"fold-{k // 20}"} for k, name in enumerate(names)]
    write_csv(fake_run / "folds.csv", [part | {"role": "test"} for part in parts])
    write_json(fake_run / "card.json", {"threshold": threshold, "folds": 2})
    return fake_run, shutil.copytree(fake_run, tmp_path / "new")


def ask(run: Path, **options: Any) -> dict[str, Any]:
    return update_card(run, **settle(run, read_card(run), PointOptions(**options), "now"))


def test_a_limit_moves_to_the_scores_of_the_new_model(runs: tuple[Path, Path]) -> None:
    old, new = runs
    before = read_card(new)["threshold"]["value"]
    card = ask(old, max_false_alarm=0.3)
    card = ask(old, review={"max_miss": 0.4})
    assert carry_point(card, new) == []
    kept = read_card(new)
    assert kept["threshold"]["asked"] == {"max_false_alarm": 0.3}
    assert kept["threshold"]["value"] == card["threshold"]["value"]  # the scores are the same here
    assert kept["threshold"]["value"] != before
    assert kept["review"]["asked"] == {"max_miss": 0.4}
    assert (kept["review"]["low"], kept["review"]["high"]) == (
        card["review"]["low"],
        card["review"]["high"],
    )


def test_costs_keep_their_prevalence(runs: tuple[Path, Path]) -> None:
    old, new = runs
    card = ask(old, cost={"miss": 50.0, "false_alarm": 1.0}, prevalence=0.01)
    assert carry_point(card, new) == []
    assert read_card(new)["threshold"]["asked"] == card["threshold"]["asked"]
    assert read_card(new)["prevalence"] == 0.01


def test_what_fit_chose_is_left_to_fit(runs: tuple[Path, Path]) -> None:
    old, new = runs
    before = read_card(new)
    assert carry_point(read_card(old), new) == []
    assert read_card(new) == before


def test_numbers_are_not_carried_over(runs: tuple[Path, Path]) -> None:
    old, new = runs
    before = read_card(new)
    card = ask(old, value=0.0, review={"low": -1.0, "high": 1.0})
    told = carry_point(card, new)
    assert len(told) == 2
    assert all("given as a number" in one for one in told)
    assert read_card(new) == before


def test_a_promise_that_the_new_scores_do_not_allow_is_told(runs: tuple[Path, Path]) -> None:
    old, new = runs
    card = {"threshold": {"asked": {"max_miss": 0.001, "confident": True}}}
    (told,) = carry_point(card, new)
    assert told.startswith("the threshold is the one that training chose: ")
    assert old.exists()
