from __future__ import annotations

from collections import Counter

import pytest

from leanet.ops.half_and_half import NUMBER, half_and_half

KINDS = ["good"] * 30 + ["crack"] * 20 + ["scratch"] * 3 + ["hole"] * 1
LABELS = [0] * 30 + [1] * 24


def test_half_are_normal_and_the_kinds_of_defects_take_turns() -> None:
    found = Counter(KINDS[k] for k in half_and_half(LABELS, KINDS))
    assert (found["good"], found["hole"]) == (6, 1)
    assert sorted((found["crack"], found["scratch"])) == [2, 3]


def test_the_lots_are_always_the_same_and_another_seed_draws_others() -> None:
    first = half_and_half(LABELS, KINDS)
    assert first == half_and_half(list(LABELS), list(KINDS))
    assert first != half_and_half(LABELS, KINDS, seed=1)
    assert first != sorted(first)  # the order is drawn too
    assert len(set(first)) == NUMBER


@pytest.mark.parametrize(("normal", "anomalous", "expected"), [
    (2, 30, (2, 10)), (30, 2, (10, 2)), (0, 5, (0, 5)), (40, 0, (12, 0)), (3, 3, (3, 3)),
    (0, 0, (0, 0))])  # fmt: skip
def test_where_one_half_has_too_few_the_other_gives_more(
    normal: int, anomalous: int, expected: tuple[int, int]
) -> None:
    labels = [0] * normal + [1] * anomalous
    chosen = [labels[k] for k in half_and_half(labels, [""] * len(labels))]
    assert (chosen.count(0), chosen.count(1)) == expected


def test_the_lots_do_not_depend_on_the_order_of_the_kinds_names() -> None:
    renamed = [kind.replace("crack", "zz") for kind in KINDS]
    found = Counter(renamed[k] for k in half_and_half(LABELS, renamed))
    assert found["hole"] == 1
    assert found["good"] == 6
