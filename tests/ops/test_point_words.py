from __future__ import annotations

from dataclasses import asdict

import pytest

from leanet.ops.point_rules import share_of
from leanet.ops.point_words import (
    caution,
    limits_in_words,
    percent,
    rule_in_words,
    share_in_words,
    source_in_words,
)


@pytest.mark.parametrize("rule", ["f1", "quantile", "honest", "p = 0.5", "value", "of a later one"])
def test_every_rule_has_words_and_an_unknown_one_its_name(rule: str) -> None:
    told = rule_in_words({"rule": rule})
    assert told
    assert (told == rule) == (rule == "of a later one")


def test_costs_are_told_with_the_prevalence() -> None:
    asked = {"cost": {"miss": 50.0, "false_alarm": 1.0}, "prevalence": 0.02}
    told = rule_in_words({"rule": "cost", "asked": asked})
    assert told == "lowest cost (a miss 50, a false alarm 1, 2 % defects)"


def test_a_zone_by_its_ends_was_set_by_hand() -> None:
    assert limits_in_words({"low": 1.0, "high": 2.0}) == "set by hand"


def test_an_older_card_has_no_source() -> None:
    assert source_in_words({"value": 0.0, "rule": "p = 0.5"}) == ""


def test_a_promise_that_the_images_are_too_few_for_is_told() -> None:
    few, many = asdict(share_of(0, 16)), asdict(share_of(3, 500))
    (told,) = caution({"max_miss": 0.01}, few, None)
    assert told.endswith("to promise it takes 368 defects, none of them wrong")
    (told,) = caution({"max_false_alarm": 0.01}, None, many)
    assert told.endswith("--confident allows 0 of 500 good images")
    (told,) = caution({"max_miss": 0.0}, few, None)
    assert "no number of defects" in told
    assert caution({"max_miss": 0.02}, many, few) == []
    assert caution({}, few, few) == []


def test_shares_never_read_as_none_or_all_when_they_are_not() -> None:
    assert [percent(x) for x in (0.00012, 0.0099, 0.996, 0.9999)] == [
        "0.012 %",
        "0.99 %",
        "99.6 %",
        "99.9 %",
    ]
    assert share_in_words(asdict(share_of(3, 4))) == "3 of 4 (75 %, 95 % interval 19 to 99 %)"
