from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leanet.ops.reliability import (
    bin_of,
    brier_score,
    cross_fitted,
    expected_calibration_error,
    parts_of,
    reliability,
)


def honest(num: int, seed: int = 0) -> tuple[list[int], list[float]]:
    """Labels drawn with the probabilities themselves."""
    rng = np.random.default_rng(seed)
    p = rng.random(num)
    return (rng.random(num) < p).astype(int).tolist(), p.tolist()


@settings(max_examples=40)
@given(st.lists(st.integers(0, 4).map(lambda k: k / 4), min_size=1, max_size=150))
def test_bins_ascend_keep_ties_together_and_hold_at_least_ten(p: list[float]) -> None:
    place = bin_of(p)
    order = np.argsort(p, kind="stable")
    assert np.all(np.diff(place[order]) >= 0)
    for value in set(p):
        assert len({place[k] for k, own in enumerate(p) if own == value}) == 1


def test_bins_are_equally_full() -> None:
    counts = np.bincount(bin_of(np.random.default_rng(0).random(203)))
    assert len(counts) == 10
    assert set(counts.tolist()) == {20, 21}
    assert np.bincount(bin_of(np.arange(59) / 59)).tolist() == [11, 12, 12, 12, 12]


def test_the_error_is_that_of_a_loop_over_bins() -> None:
    label, p = honest(117)
    place, expected = bin_of(p), 0.0
    for k in set(place.tolist()):
        own = [i for i in range(117) if place[i] == k]
        share = sum(label[i] for i in own) / len(own)
        expected += len(own) / 117 * abs(share - sum(p[i] for i in own) / len(own))
    assert expected_calibration_error(label, p) == pytest.approx(expected)


def test_perfect_probabilities_err_as_much_as_chance_and_wrong_ones_more() -> None:
    label, p = honest(400)
    good = reliability(label, p, np.random.default_rng(1))
    assert good.ece.low <= good.ece.value <= good.ece.high
    assert good.ece.value < 2 * good.by_chance
    bad = reliability(label, [value**4 for value in p], np.random.default_rng(1))
    assert bad.ece.value > 3 * bad.by_chance
    assert bad.brier.value > good.brier.value == pytest.approx(brier_score(label, p))
    assert sum(one.images for one in good.bins) == 400
    for one in good.bins:
        assert one.low <= one.share <= one.high


def test_images_have_no_part_in_their_own_probability() -> None:
    rng = np.random.default_rng(0)
    label = np.repeat([0, 1], 30)
    score, part = rng.normal(size=60) + label, parts_of(label, 5, rng)
    for kind in ("platt", "isotonic"):
        before = cross_fitted(kind, label, score, part)  # type: ignore[arg-type]
        turned = np.where(part == 2, 1 - label, label)
        after = cross_fitted(kind, turned, score, part)  # type: ignore[arg-type]
        assert before is not None
        assert after is not None
        assert before[part == 2].tolist() == after[part == 2].tolist()
        assert before[part != 2].tolist() != after[part != 2].tolist()


def test_nothing_is_judged_where_one_part_holds_all_of_a_class() -> None:
    assert cross_fitted("platt", [0, 0, 1, 0], [1, 2, 3, 4], [0, 0, 1, 2]) is None


def test_parts_have_their_share_of_both_classes() -> None:
    label = np.repeat([0, 1], [23, 11])
    part = parts_of(label, 5, np.random.default_rng(0))
    for value, most in ((0, 5), (1, 3)):
        counts = np.bincount(part[label == value], minlength=5)
        assert counts.max() == most
        assert counts.max() - counts.min() <= 1


def test_no_images_are_refused() -> None:
    with pytest.raises(ValueError, match="N > 0"):
        reliability([], [], np.random.default_rng(0))
