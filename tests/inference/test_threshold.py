from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leanet.files import write_csv, write_json
from leanet.inference.threshold import HISTORY, PointOptions, first_point, settle
from leanet.inference.threshold_text import to_text
from leanet.ops.metrics import f1_threshold
from leanet.ops.working_point import decide, point_of

Card = dict[str, Any]
WHEN = "2026-01-02T03:04:05+00:00"
LABEL = [0] * 30 + [1] * 12
SCORE = [*np.linspace(-3.0, 1.0, 30), *np.linspace(-0.5, 4.0, 12)]  # overlap between -0.5 and 1


def write_scores(
    run: Path, label: list[int] = LABEL, score: list[float] = SCORE, **remarks: Any
) -> Card:
    """A run without folds, and its card."""
    rows = [
        {"path": str(k), "role": "held_out", "label": y, "score": s}
        for k, (y, s) in enumerate(zip(label, score, strict=True))
    ]
    write_csv(run / "final" / "predictions.csv", rows)
    write_json(run / "final" / "metrics.json", {"remarks": remarks})
    counts = {"num_normal": label.count(0), "num_anomalous": label.count(1)}
    return {"folds": 0, "threshold": {"value": 0.25, "rule": "f1", **counts}}


def setting(run: Path, card: Card, **asked: Any) -> Card:
    return card | settle(run, card, PointOptions(**asked), WHEN)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs") / "one"


@pytest.fixture(scope="module")
def card(run: Path) -> Card:
    card = write_scores(run)
    return card | first_point(run, card)


# What fit writes


def test_fit_says_where_its_threshold_comes_from_and_calibrates(card: Card) -> None:
    threshold = card["threshold"]
    assert (threshold["source"], threshold["asked"], threshold["set_at"]) == ("held-out", {}, None)
    assert threshold["escapes"]["count"] == sum(s < 0.25 for s in SCORE[30:])
    assert threshold["overkill"]["count"] == sum(s >= 0.25 for s in SCORE[:30])
    assert card["calibration"]["kind"] == "platt"
    assert card["calibration"]["prevalence"] == card["calibration"]["fitted_at"] == 12 / 42
    assert card["calibration"]["reliability"]["bins"]
    assert (card["review"], card["history"]) == (None, [])


def test_too_few_scores_and_those_of_training_are_not_calibrated(tmp_path: Path) -> None:
    few = write_scores(tmp_path, LABEL[:39], SCORE[:39])  # 9 anomalous
    assert first_point(tmp_path, few)["calibration"] is None
    seen = write_scores(tmp_path, threshold_in_sample=True)
    point = first_point(tmp_path, seen)
    assert point["calibration"] is None
    assert (point["threshold"]["source"], point["threshold"]["escapes"]) == ("training", None)


def test_without_a_normal_class_there_is_nothing_to_set(tmp_path: Path) -> None:
    card = {"folds": 0, "threshold": None}
    assert first_point(tmp_path, card)["calibration"] is None
    with pytest.raises(ValueError, match="--normal NAME"):
        setting(tmp_path, card, f1=True)


# Rules


def test_a_limit_on_misses_is_kept_and_written_down(run: Path, card: Card) -> None:
    point = setting(run, card, max_miss=0.1)["threshold"]
    assert (point["rule"], point["asked"], point["set_at"]) == ("max_miss", {"max_miss": 0.1}, WHEN)
    assert (point["escapes"]["count"], point["escapes"]["total"]) == (1, 12)
    assert (point["num_normal"], point["num_anomalous"]) == (30, 12)


def test_a_limit_on_false_alarms_needs_no_defects(tmp_path: Path) -> None:
    card = write_scores(tmp_path, LABEL[:30], SCORE[:30])
    point = setting(tmp_path, card, max_false_alarm=0.1)["threshold"]
    assert point["overkill"]["count"] == 3
    assert point["escapes"] is None
    with pytest.raises(ValueError, match="scores of defects, and this run has 30 of good images"):
        setting(tmp_path, card, max_miss=0.1)


def test_a_confident_limit_is_kept_by_the_end_of_the_interval_or_refused(
    run: Path, card: Card
) -> None:
    point = setting(run, card, max_miss=0.3, confident=True)["threshold"]
    assert point["escapes"]["high"] <= 0.3
    assert point["asked"] == {"max_miss": 0.3, "confident": True}
    told = r"12 defects, .* at best 26 % .*; 368 are needed; ask for max_miss 0\.27,"
    with pytest.raises(ValueError, match=told):
        setting(run, card, max_miss=0.01, confident=True)


def test_the_best_f1_is_that_of_the_scores(run: Path, card: Card) -> None:
    point = setting(run, card, f1=True)["threshold"]
    assert point["value"] == f1_threshold(LABEL, SCORE)


@pytest.mark.parametrize("value", [0.0, -2.5])
def test_a_threshold_by_hand_is_the_users_with_the_figures_of_the_scores(
    run: Path, card: Card, value: float
) -> None:
    point = setting(run, card, value=value)["threshold"]
    assert (point["value"], point["source"]) == (value, "user")
    assert point["overkill"]["count"] == sum(s >= value for s in SCORE[:30])


def test_costs_take_the_prevalence_that_is_kept(run: Path, card: Card) -> None:
    costs = {"miss": 5.0, "false_alarm": 1.0}
    own = setting(run, card, cost=costs)
    assert own["threshold"]["asked"] == {"cost": costs, "prevalence": 12 / 42}
    rare = setting(run, own, prevalence=0.01)  # the rule in force follows
    assert rare["threshold"]["asked"]["prevalence"] == 0.01
    assert rare["threshold"]["value"] > own["threshold"]["value"]
    assert setting(run, rare, cost="miss=5,false_alarm=1")["threshold"] == rare["threshold"]


def test_training_scores_choose_nothing_but_a_value_can_be_set(tmp_path: Path) -> None:
    card = write_scores(tmp_path, threshold_in_sample=True)
    for asked in ({"max_false_alarm": 0.1}, {"f1": True}, {"review": {"max_miss": 0.1}}):
        with pytest.raises(ValueError, match="not seen, and this run could hold out none"):
            setting(tmp_path, card, **asked)
    with pytest.raises(ValueError, match="there are training scores of 30 normal"):
        setting(tmp_path, card, calibration="auto")
    assert setting(tmp_path, card, value=1.0)["threshold"]["overkill"] is None


def test_a_run_of_the_original_programs_is_read_and_takes_a_value(tmp_path: Path) -> None:
    counts = {"num_normal": 5, "num_anomalous": 5}
    card = {"folds": 0, "threshold": {"value": 0.0, "rule": "p = 0.5", **counts}}
    assert "probability 0.5" in to_text(card)
    with pytest.raises(ValueError, match="has kept none"):
        setting(tmp_path, card, f1=True)
    point = setting(tmp_path, card, value=1.0, review="low=0,high=2")
    assert (point["threshold"]["escapes"], point["review"]["normal"]) == (None, None)
    assert "review zone 0 to 2: set by hand" in to_text(point)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"f1": True, "value": 1.0}, "each choose the threshold"),
        ({"reset": True, "f1": True}, "go alone"),
        ({"confident": True, "f1": True}, "how a limit is kept"),
        ({"confident": True, "review": "low=0,high=1"}, "how a limit is kept"),
        ({"prevalence": 1.5}, "between 0 and 1"),
        ({"value": math.inf}, "finite score"),
        ({"calibration": "beta"}, "allowed: auto, platt, isotonic, none"),
        ({"max_miss": 5.0}, "a share in"),
        ({"cost": "miss=5"}, "--cost miss=5 lacks false_alarm; give what a miss and a false alarm"),
        (
            {"cost": {"fn": 5.0}},
            "--cost fn=5 lacks miss and false_alarm and has fn, which",
        ),
        ({"cost": "cheap"}, "name=number"),
        ({"review": "none of it"}, "name=number"),
        ({"review": {"max_mis": 0.1}}, "max_miss=0.01,max_false_alarm=0.02"),
        ({"review": "low=1,high=2"}, "does not hold the threshold 0.25"),
        ({"review": "low=0,high=inf"}, "finite ends"),
        ({"back": True}, "nothing to go back to"),
    ],
)
def test_mistakes_are_told(run: Path, card: Card, asked: Card, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        setting(run, card, **asked)


# What stays


def test_a_zone_of_limits_follows_the_threshold_and_one_of_ends_must_hold_it(
    run: Path, card: Card
) -> None:
    zoned = setting(run, card, review="max_miss=0,max_false_alarm=0")
    low, high = zoned["review"]["low"], zoned["review"]["high"]
    assert (zoned["review"]["escapes"]["count"], zoned["review"]["overkill"]["count"]) == (0, 0)
    assert low < 0.25 < high
    moved = setting(run, zoned, value=-2.0)
    assert (moved["review"]["low"], moved["review"]["high"]) == (-2.0, high)
    assert moved["review"]["asked"] == zoned["review"]["asked"]
    fixed = setting(run, card, review={"low": 0.0, "high": 1.0})
    with pytest.raises(ValueError, match="0 to 1 does not hold the threshold 3"):
        setting(run, fixed, value=3.0)
    assert setting(run, fixed, value=3.0, review="none")["review"] is None


def test_probabilities_follow_the_prevalence_and_stay_otherwise(run: Path, card: Card) -> None:
    rare = setting(run, card, prevalence=0.01)
    assert rare["calibration"]["prevalence"] == rare["prevalence"] == 0.01
    assert rare["calibration"]["intercept"] < card["calibration"]["intercept"]
    assert rare["calibration"]["slope"] == card["calibration"]["slope"]
    assert setting(run, rare, value=1.0)["calibration"] == rare["calibration"]
    other = setting(run, rare, calibration="isotonic")["calibration"]
    assert (other["kind"], other["prevalence"]) == ("isotonic", 0.01)
    assert setting(run, rare, calibration="none")["calibration"] is None


def test_one_can_go_back_a_step_and_to_what_fit_chose(run: Path, card: Card) -> None:
    first = {name: card.get(name) for name in ("threshold", "review", "calibration", "prevalence")}
    changed = setting(run, card, value=1.0)
    again = setting(run, changed, value=2.0, review="low=1,high=3", prevalence=0.1)
    back = setting(run, again, back=True)
    assert back == changed
    reset = setting(run, again, reset=True)
    assert {name: reset[name] for name in first} == first
    assert setting(run, reset, back=True)["threshold"] == again["threshold"]


def test_the_history_is_short_and_begins_with_fit(run: Path, card: Card) -> None:
    now = card
    for k in range(HISTORY + 5):
        now = setting(run, now, value=float(k), calibration="none")
    values = [one["threshold"]["value"] for one in now["history"]]
    assert len(values) == HISTORY
    assert values[0] == 0.25
    assert values[1:] == [float(k) for k in range(5, HISTORY + 4)]


def test_the_card_decides_as_was_asked(run: Path, card: Card) -> None:
    import torch

    now = setting(run, card, max_miss=0.1, review="max_miss=0,max_false_alarm=0.05")
    decided = decide(point_of(now), torch.tensor(SCORE, dtype=torch.float64))
    missed = ~decided.anomalous[30:]
    assert int(missed.sum()) == now["threshold"]["escapes"]["count"] == 1
    assert int((missed & ~decided.review[30:]).sum()) == 0  # who slips past is looked at
    assert int(decided.review[:30].sum()) == now["review"]["normal"]["count"]
    assert decided.probability is not None
    assert decided.probability.diff()[:29].min() >= 0  # as the scores of the good images do


# In words


def test_the_text_says_rule_source_figures_and_doubts(run: Path, card: Card) -> None:
    now = setting(run, card, max_miss=0.01, review="max_false_alarm=0")
    text = to_text(now)
    for told in (
        "at most 1 % of the defects missed; 30 normal and 12 anomalous images held out",
        "misses 0 of 12 defects (0 %, 95 % interval 0 to 26 %)",
        "caution: the interval ends above the 1 % asked for; to promise it takes 368 defects",
        "a person looks at",
        "probabilities by Platt's curve, where 29 % are defects (the held-out images)",
        "ECE 0.",
    ):
        assert told in text, told
    assert all(len(line) < 160 for line in text.splitlines())


def test_the_text_of_costs_says_when_all_is_rejected(run: Path, tmp_path: Path, card: Card) -> None:
    dear = setting(run, card, cost="miss=1000000,false_alarm=1", calibration="none")
    assert "expected cost of an image" in to_text(dear)
    label, score = [0, 1, 0, 1], [1.0, 0.0, 2.0, 3.0]
    odd = setting(tmp_path, write_scores(tmp_path, label, score), cost="miss=100,false_alarm=1")
    assert "cheapest to reject everything" in to_text(odd)
    assert "no calibration" in to_text(odd)
