"""Words of the command line become words of our networks, or are refused."""

from __future__ import annotations

import pytest

from leanet.config import UsageError
from leanet.programs.words import (
    attention_network,
    chosen_folds,
    classifier,
    gpu_index,
    parse_points,
    parse_strength,
)


@pytest.mark.parametrize(
    ("words", "points", "repeated"),
    [
        ([], (), False),
        (["None"], (), False),
        (["None", "None"], (), True),
        ([0], (0,), False),
        (["4", 0, "4"], (0, 4), True),
        (["auto"], "auto", False),
        ([0, 1, 2, 3, 4], (0, 1, 2, 3, 4), False),
    ],
)
def test_points_are_a_set_in_network_order(
    words: list[int | str], points: object, repeated: bool
) -> None:
    assert parse_points(words) == (points, repeated)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["None", 0], "None stands alone or not at all"),
        ([2, "auto"], "auto stands alone or not at all"),
        (["None", "auto"], "None stands alone"),
        ([5], "5 is no attention point; allowed are 0, 1, 2, 3, 4"),
        ([-1], "-1 is no attention point"),
        (["A1", 2], "A1 is no attention point"),
        (["none"], "none is no attention point"),
    ],
)
def test_other_points_are_refused(words: list[int | str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_points(words)


@pytest.mark.parametrize(
    ("text", "start", "learned"),
    [
        ("paper", 1.0, False),
        ("program", 0.0, True),
        ("learn:0.25", 0.25, True),
        ("fixed:2", 2.0, False),
    ],
)
def test_a_strength_has_a_start_and_is_learned_or_not(
    text: str, start: float, learned: bool
) -> None:
    assert parse_strength(text) == (start, learned)


@pytest.mark.parametrize("text", ["papers", "learn", "learn:", "fixed:x", "1.0", "paper:1", ""])
def test_another_strength_is_refused_with_those_that_are_allowed(text: str) -> None:
    with pytest.raises(UsageError, match=r"allowed are paper, program, learn:W and fixed:W"):
        parse_strength(text)


def test_every_classifier_has_the_step_size_of_the_paper() -> None:
    assert classifier("VGG16").lr == 1e-5
    assert {classifier(name).lr for name in ("ResNet18", "CNN", "timm:resnet26")} == {1e-4}


def test_an_unknown_network_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"--model_ADN Resnet18 \(did you mean ResNet18\?\)"):
        classifier("Resnet18")
    with pytest.raises(UsageError, match=r"--model_AAN MobilNet \(did you mean MobileNet\?\)"):
        attention_network("MobilNet")


@pytest.mark.parametrize(("asked", "there"), [(0, 0), (1, 1), (-2, 1)])
def test_a_gpu_that_is_not_there_is_an_error(asked: int, there: int) -> None:
    with pytest.raises(UsageError, match=f"--GPU {asked}: .* -1 is the CPU"):
        gpu_index(asked, there)


def test_folds_count_from_one() -> None:
    assert chosen_folds((), 3) == (1, 2, 3)
    assert chosen_folds((3, 1, 3), 3) == (1, 3)
    with pytest.raises(UsageError, match="--fold 0, 4: allowed are 1 to 3"):
        chosen_folds((0, 2, 4), 3)
