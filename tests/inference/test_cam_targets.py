from __future__ import annotations

import pytest
import torch
from torch import Tensor

from leanet.inference.cam_targets import Target, choose, class_index, fix, repeated, rows_of

LOGITS = torch.tensor([[2.0, 1.0, -1.0], [0.0, 3.0, 2.5]])
ONE = torch.tensor([[1.5], [-0.5]])


def score(logits: Tensor, **options: object) -> list[float]:
    target = Target(**options)  # type: ignore[arg-type]
    found: list[float] = target.score(logits, target.classes(logits)).tolist()
    return found


def test_the_logit_of_the_predicted_class_is_the_default() -> None:
    assert score(LOGITS) == [2.0, 3.0]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"which": 2}, [-1.0, 2.5]),
        ({"which": "scab", "names": ("good", "scab", "rust")}, [1.0, 3.0]),
        ({"which": torch.tensor([1, 0])}, [1.0, 0.0]),
        ({"which": "true", "true": torch.tensor([1, 2])}, [1.0, 2.5]),
        ({"kind": "margin"}, [1.0, 0.5]),
        ({"kind": "margin", "which": 2}, [-3.0, -0.5]),
    ],
)
def test_other_classes_and_margins(options: dict[str, object], expected: list[float]) -> None:
    assert score(LOGITS, **options) == pytest.approx(expected)


def test_log_prob_is_the_logarithm_of_the_softmax() -> None:
    expected = LOGITS.softmax(dim=1)[:, 1].log().tolist()
    assert score(LOGITS, kind="log_prob", which=1) == pytest.approx(expected)


def test_one_logit_stands_for_anomalous_and_its_negative_for_normal() -> None:
    assert score(ONE) == [1.5, 0.5]
    assert Target().classes(ONE).tolist() == [1, 0]
    assert score(ONE, which=1) == [1.5, -0.5]
    assert score(ONE, which=0) == [-1.5, 0.5]
    assert score(ONE, kind="margin", which=1) == [1.5, -0.5]
    expected = torch.sigmoid(ONE[:, 0]).log().tolist()
    assert score(ONE, kind="log_prob", which=1) == pytest.approx(expected)


def test_the_anomaly_score_is_one_minus_the_normal_class_or_the_logit() -> None:
    expected = (1 - LOGITS.softmax(dim=1)[:, 0]).tolist()
    assert score(LOGITS, kind="score", normal=0) == pytest.approx(expected)
    assert score(ONE, kind="score") == [1.5, -0.5]
    with pytest.raises(ValueError, match="which class is the normal one"):
        score(LOGITS, kind="score")


def test_half_precision_is_widened_and_double_is_kept() -> None:
    target = Target(which=1)
    assert target.score(LOGITS.half(), torch.tensor([1, 1])).dtype == torch.float32
    assert target.score(LOGITS.double(), torch.tensor([1, 1])).dtype == torch.float64


def test_the_first_of_several_outputs_are_the_logits_unless_said_otherwise() -> None:
    assert Target().classes((LOGITS, None)).tolist() == [0, 1]
    with pytest.raises(ValueError, match="logits_of="):
        Target().classes({"logits": LOGITS})
    named = Target(logits_of=lambda output: output["logits"])
    assert named.classes({"logits": LOGITS}).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("which", "told"),
    [
        (3, "0 to 2"),
        (-1, "0 to 2"),
        ("rusty", r"did you mean rust\?"),
        ("true", "not known; take predicted"),
        (torch.tensor([0, 1, 2]), "one for all or 2"),
    ],
)
def test_classes_that_do_not_exist_are_refused(which: object, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        choose(which, LOGITS, ("good", "scab", "rust"), None)  # type: ignore[arg-type]


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="'softmax' is not known; allowed: logit, margin"):
        Target(kind="softmax")  # type: ignore[arg-type]


def test_logits_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[B, K\], not \[2, 3, 1\]"):
        Target(which=0).score(LOGITS[..., None], torch.tensor([0, 0]))


def test_a_name_that_looks_like_a_number_is_a_name_first() -> None:
    assert class_index("1", ["3", "2", "1"]) == 2
    assert class_index("1", ["a", "b"]) == 1


def test_a_fixed_target_asks_about_the_same_classes_again() -> None:
    fixed = fix("logit", torch.tensor([1, 0]))
    assert isinstance(fixed, Target)
    assert fixed.classes(LOGITS).tolist() == [1, 0]
    twice, rows = repeated(fixed, 2), rows_of(fixed, torch.tensor([1, 1, 0]))
    assert isinstance(twice, Target)
    assert isinstance(rows, Target)
    assert twice.which.tolist() == [1, 0, 1, 0]  # type: ignore[union-attr]
    assert rows.which.tolist() == [0, 0, 1]  # type: ignore[union-attr]
    own = sum
    assert fix(own, None) is own
