from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leanet.report.few_criterion import Claim, claims, sentences
from leanet.report.few_results import FewDefects, read_few

WriteBenchmark = Callable[..., Path]
SPREAD = (0.0, 0.001, -0.001, 0.002)


def read(folder: Path) -> FewDefects:
    found = read_few(folder)
    assert found is not None
    return found


def levels(**by_name: float) -> Callable[..., float | None]:
    """figure= of a benchmark: a row or output lies about its level, everywhere."""

    def figure(data: str, k: int, row: str, output: str, trial: Any, column: str) -> float | None:
        name = output if row == "LEA-Net" else row
        if column == "auroc" and name in by_name:
            return by_name[name] + SPREAD[(trial[2] + len(name) + len(data)) % 4]
        return {"f1": by_name.get("f1"), "oracle_f1": by_name.get("oracle")}.get(column)

    return figure


def judged(folder: Path) -> list[bool | None]:
    return [claim.holds for claim in claims(read(folder))]


def test_a_clearly_better_default_fulfils_every_claim(write_few: WriteBenchmark) -> None:
    figure = levels(score=0.95, Plain=0.8, map=0.9, f1=0.85, oracle=0.9)
    found = claims(read(write_few("b", figure=figure)))
    assert [claim.word for claim in found] == ["yes", "yes", "yes", "yes"]
    assert found[0].found == "Not worse in 6 of 6."
    assert "over 2 of 2 data sets; over draws from these data sets" in found[1].found
    assert found[2].found == "Not worse in 3 of 3."
    assert found[3].found == "On Leaf, Tile."


def test_a_clearly_worse_default_fails_and_is_named(write_few: WriteBenchmark) -> None:
    figure = levels(score=0.85, Plain=0.8, map=0.9, f1=0.7, oracle=0.9)
    found = claims(read(write_few("b", figure=figure)))
    assert [claim.word for claim in found] == ["no"] * 4
    assert found[0].found.startswith("Not worse in 0 of 6; worse: Leaf k = 1 than Map only (-0.05")
    assert found[3].found.startswith("Missed on Leaf (k = 3: 0.778, k = 10: 0.778), Tile (")


def test_one_worse_cell_is_enough(write_few: WriteBenchmark) -> None:
    usual = levels(score=0.95, Plain=0.8, map=0.9, f1=0.85, oracle=0.9)

    def figure(*at: Any) -> float | None:
        if at[:3] == ("Tile", 10, "Plain") and at[-1] == "auroc":
            return 0.99 + SPREAD[at[4][2]]
        return usual(*at)

    first, second, *_ = claims(read(write_few("b", figure=figure)))
    assert first.holds is False
    assert "Not worse in 5 of 6; worse: Tile k = 10 than Plain" in first.found
    assert second.holds is True


def test_no_difference_is_not_worse_but_not_better(write_few: WriteBenchmark) -> None:
    figure = levels(score=0.9, Plain=0.8, map=0.9, f1=0.85, oracle=0.9)
    assert judged(write_few("b", figure=figure)) == [True, False, True, True]


def test_nothing_holds_before_all_is_finished(write_few: WriteBenchmark) -> None:
    figure = levels(score=0.95, Plain=0.8, map=0.9, f1=0.85, oracle=0.9)

    def missing(data: str, k: int, row: str, trial: Any) -> bool:
        return row == "LEA-Net" and (k, trial[2]) == (3, 3)

    found = claims(read(write_few("b", figure=figure, missing=missing)))
    assert [claim.holds for claim in found] == [None] * 4
    assert found[0].found == "Not worse in 6 of 6; 4 trials of these arms are missing."
    assert found[3].found == "Unfinished on Leaf, Tile."


def test_worse_is_worse_before_all_is_finished(write_few: WriteBenchmark) -> None:
    figure = levels(score=0.85, Plain=0.8, map=0.9, f1=0.85, oracle=0.9)
    folder = write_few("b", figure=figure, missing=lambda data, k, r, t: (r, k) == ("Plain", 3))
    assert judged(folder)[0] is False


def test_one_trial_or_none_judges_nothing(write_few: WriteBenchmark) -> None:
    figure = levels(score=0.95, Plain=0.8, map=0.9, f1=0.85, oracle=0.9)
    one = claims(read(write_few("a", figure=figure, missing=lambda *at: at[3][2] > 0)))
    assert [claim.holds for claim in one] == [None] * 4
    assert "6 without an interval" in one[0].found
    none = claims(read(write_few("b", missing=lambda *_: True)))
    assert [claim.word for claim in none] == ["cannot say"] * 4
    assert none[1].found == "Nothing to compare."


def test_a_k_out_of_reach_is_not_waited_for(write_few: WriteBenchmark) -> None:
    figure = levels(score=0.95, Plain=0.8, map=0.9, f1=0.85, oracle=0.9)
    folder = write_few("b", figure=figure, missing=lambda d, k, *_: (d, k) == ("Leaf", 10))
    assert judged(folder) == [True] * 4
    assert claims(read(folder))[0].found == "Not worse in 5 of 5."


@pytest.mark.parametrize(
    ("few", "data", "expected"),
    [
        ({"labelled": [1, 3]}, {"Leaf": {}}, []),
        ({"labelled": [1], "default": "Plain", "rivals": ["Shuffled"]}, {"Leaf": {}}, [0, 1]),
        ({"labelled": [3], "default": "Plain"}, {"Leaf": {}}, [3]),
        ({"labelled": [1], "arms": {"A": ["Plain", "score"], "M": ["LEA-Net", "map"]},
          "default": "A", "rivals": ["M"]}, {"L": {"unseen": True}}, [2]),
    ],
)  # fmt: skip
def test_only_what_the_suite_can_show_is_claimed(
    few: Any, data: Any, expected: list[int], write_few: WriteBenchmark
) -> None:
    starts = ("nowhere worse than the best", "better than the best", "nowhere worse than M", "F1")
    found = claims(read(write_few("b", few=few, data=data)))
    assert len(found) == len(expected)
    assert all(starts[n] in claim.text for n, claim in zip(expected, found, strict=True))


def test_a_terminal_gets_a_line_for_each_claim(write_few: WriteBenchmark) -> None:
    few = read(write_few("b"))
    assert len(sentences(few)) == 4
    assert sentences(few)[0].startswith("Default is nowhere worse than the best rival")
    assert ": yes. Not worse in 6 of 6." in sentences(few)[0]


def test_a_claim_has_a_word() -> None:
    assert [Claim("", holds, "").word for holds in (True, False, None)] == [
        "yes", "no", "cannot say"]  # fmt: skip
