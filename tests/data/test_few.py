from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leanet.data.few import TooFewDefectsError, few_defects, in_turns, kind_to_leave_out
from leanet.data.folds import make_folds
from leanet.records import ANOMALOUS, NORMAL, Fold, Sample

KINDS = ("bent", "cut", "dent", "hole", "rust")
quick = settings(max_examples=15, deadline=None)


def samples_of(num_normal: int, kinds: str, groups: dict[int, str] | None = None) -> list[Sample]:
    """So many normal samples, then a defect for each letter, the first of its kind's name."""
    names = [""] * num_normal + [next(k for k in KINDS if k[0] == letter) for letter in kinds]
    return [
        Sample(
            path=Path(f"pictures/{i:03d}.png"),
            label=ANOMALOUS if name else NORMAL,
            kind=name,
            group=(groups or {}).get(i),
        )
        for i, name in enumerate(names)
    ]


def drawn(fold: Fold, samples: list[Sample]) -> set[int]:
    return {i for i in fold.train if samples[i].label == ANOMALOUS}


def normals(indices: tuple[int, ...], samples: list[Sample]) -> list[int]:
    return [i for i in indices if samples[i].label == NORMAL]


@quick
@given(st.integers(1, 20), st.integers(0, 4), st.integers(0, 9))
def test_all_normals_and_k_defects_train_and_every_other_defect_is_tested(
    labelled: int, number: int, seed: int
) -> None:
    samples = samples_of(20, "bcdhr" * 5)
    fold = make_folds(samples, 5, seed=0)[number]
    few = few_defects(samples, fold, labelled, seeds=(seed, number, 0))
    assert few.name == fold.name
    assert normals(few.train, samples) == normals(fold.train, samples)
    assert normals(few.test, samples) == normals(fold.test, samples)
    assert len(drawn(few, samples)) == labelled
    tested = {i for i in few.test if samples[i].label == ANOMALOUS}
    assert tested == set(range(20, 45)) - drawn(few, samples)
    assert few.train == tuple(sorted(few.train))
    assert few.test == tuple(sorted(few.test))


def test_defects_of_the_folds_own_test_part_are_drawn_too() -> None:
    samples = samples_of(20, "b" * 25)
    fold = make_folds(samples, 5, seed=0)[0]
    few = [few_defects(samples, fold, 3, seeds=(seed,)) for seed in range(40)]
    counts = Counter(i for one in few for i in drawn(one, samples))
    assert set(counts) == set(range(20, 45))  # 4.8 times each on average


@quick
@given(st.integers(0, 9), st.integers(0, 9))
def test_smaller_draws_are_nested_and_kinds_take_turns(seed: int, draw: int) -> None:
    samples = samples_of(20, "bbbbbbbbbbccccdddhhr" + "b" * 10)
    fold = make_folds(samples, 5, seed=0)[1]
    by_k = [
        drawn(few_defects(samples, fold, k, seeds=(seed, 1, draw)), samples) for k in range(1, 16)
    ]
    assert all(one < other for one, other in pairwise(by_k))
    kinds = [Counter(samples[i].kind for i in chosen) for chosen in by_k]
    assert kinds[4] == dict.fromkeys(KINDS, 1)
    assert kinds[8] == {"bent": 2, "cut": 2, "dent": 2, "hole": 2, "rust": 1}
    assert kinds[14] == {"bent": 5, "cut": 4, "dent": 3, "hole": 2, "rust": 1}


def test_the_first_defect_is_of_any_kind_alike() -> None:
    samples = samples_of(0, "b" * 30 + "c" * 3)
    first = Counter(
        samples[in_turns(range(33), samples, np.random.default_rng(seed))[0]].kind
        for seed in range(200)
    )
    assert 60 < first["cut"] < 140  # 100 expected, SD 7


def test_the_seeds_alone_decide_and_each_of_them_does() -> None:
    samples = samples_of(20, "bcdhr" * 6)
    fold = make_folds(samples, 5, seed=0)[0]
    seeds = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))
    chosen = {frozenset(drawn(few_defects(samples, fold, 10, seeds=one), samples)) for one in seeds}
    assert len(chosen) == 4
    again = few_defects(samples, fold, 10, seeds=(0, 0, 0))
    assert again == few_defects(samples, fold, 10, seeds=(0, 0, 0))
    shuffled = np.random.default_rng(3).permutation(np.arange(30)).tolist()
    rng = (np.random.default_rng(7) for _ in range(2))
    assert in_turns(shuffled, samples, next(rng)) == in_turns(range(30), samples, next(rng))


def test_parts_keep_their_normals_and_share_the_defects_evenly() -> None:
    samples = samples_of(20, "bcdhr" * 5)
    for number, fold in enumerate(make_folds(samples, 5, seed=0)):
        for k in (1, 4, 10):
            few = few_defects(samples, fold, k, seeds=(0, number, 0))
            assert sorted(i for part in few.parts for i in part) == list(few.train)
            assert [normals(part, samples) for part in few.parts] == [
                normals(part, samples) for part in fold.parts]  # fmt: skip
            counts = [len(set(part) & drawn(few, samples)) for part in few.parts]
            assert max(counts) - min(counts) <= 1


def test_without_parts_there_are_none() -> None:
    samples = samples_of(6, "b" * 8)
    fold = Fold(name="fold-0", train=(0, 1, 2, 3, 6, 7), test=(4, 5, *range(8, 14)))
    assert few_defects(samples, fold, 1, seeds=(0,)).parts == ()


def test_a_part_without_normal_images_goes() -> None:
    samples = samples_of(6, "b" * 8)
    parts = ((0, 1), (6, 7), (2, 3))
    fold = Fold(name="f", train=(0, 1, 2, 3, 6, 7), test=(4, 5, *range(8, 14)), parts=parts)
    few = few_defects(samples, fold, 2, seeds=(0,))
    assert [normals(part, samples) for part in few.parts] == [[0, 1], [2, 3]]


@quick
@given(st.integers(1, 5), st.integers(0, 20))
def test_no_group_is_on_both_sides_or_in_two_parts(labelled: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = {i: f"tile {rng.integers(25)}" for i in range(80) if i % 8}
    samples = samples_of(40, "bcdhr" * 8, groups)
    fold = make_folds(samples, 4, seed=seed)[seed % 4]
    few = few_defects(samples, fold, labelled, seeds=(seed,))

    def named(indices: tuple[int, ...]) -> set[str | None]:
        return {samples[i].group for i in indices} - {None}

    assert not named(few.train) & named(few.test)
    for one, other in combinations(few.parts, 2):
        assert not named(one) & named(other)
    assert sorted(i for part in few.parts for i in part) == list(few.train)


def test_images_of_a_labelled_group_leave_the_test() -> None:
    samples = samples_of(6, "b" * 9, {4: "x", **dict.fromkeys(range(6, 15), "x")})
    samples = [replace(s, group=None) if i > 8 else s for i, s in enumerate(samples)]
    fold = Fold(name="f", train=(0, 1, 2, 3, 6), test=(4, 5, *range(7, 15)))
    seen = set()
    for seed in range(20):
        few = few_defects(samples, fold, 1, seeds=(seed,))
        (one,) = drawn(few, samples)
        grouped = one <= 8
        seen.add(grouped)
        others = {4, 5, *range(6, 15)} - {one}
        assert set(few.test) == (others - {4, 6, 7, 8} if grouped else others)
    assert seen == {True, False}


def test_an_unseen_kind_is_tested_alone_and_never_trained_on() -> None:
    samples = samples_of(20, "bcdhr" * 8)
    for number, fold in enumerate(make_folds(samples, 5, seed=0)):
        unseen = kind_to_leave_out(samples, number)
        few = few_defects(samples, fold, 12, seeds=(0, number, 0), unseen=unseen)
        assert Counter(samples[i].kind for i in drawn(few, samples)) == dict.fromkeys(
            set(KINDS) - {unseen}, 3)  # fmt: skip
        assert [i for i in few.test if samples[i].label == ANOMALOUS] == [
            i for i in range(60) if samples[i].kind == unseen]  # fmt: skip
        assert normals(few.test, samples) == normals(fold.test, samples)


def test_every_kind_is_left_out_in_its_turn() -> None:
    samples = samples_of(2, "rbcb")
    assert [kind_to_leave_out(samples, k) for k in range(4)] == ["bent", "cut", "rust", "bent"]
    with pytest.raises(ValueError, match="takes two kinds or more, and there is only"):
        kind_to_leave_out(samples_of(2, "bb"), 0)


@pytest.mark.parametrize(
    ("labelled", "unseen", "message"),
    [
        (8, None, "8 labelled defects leave 4 defects and 2 normal images to test; needed are 5"),
        (13, None, "13 labelled defects are more than the 12 that can be drawn"),
        (3, "bent", "3 labelled defects are more than the 2 that can be drawn"),
        (1, "cut", "1 labelled defects leave 2 defects"),
    ],
)
def test_too_few_defects_are_told(labelled: int, unseen: str | None, message: str) -> None:
    samples = samples_of(8, "b" * 10 + "cc")
    fold = make_folds(samples, 4, seed=0, inner_splits=0)[0]
    with pytest.raises(TooFewDefectsError, match=message):
        few_defects(samples, fold, labelled, seeds=(0,), unseen=unseen)
    assert few_defects(samples, fold, 7, seeds=(0,))


def test_a_test_without_normal_images_is_none() -> None:
    samples = samples_of(3, "b" * 12, dict.fromkeys((2, *range(3, 15)), "x"))
    samples = [replace(s, group=None) if i > 8 else s for i, s in enumerate(samples)]
    fold = Fold(name="f", train=(0, 1), test=(2, *range(3, 15)))
    with pytest.raises(TooFewDefectsError, match="and 0 normal images to test"):
        few_defects(samples, fold, 7, seeds=(0,))


@pytest.mark.parametrize(
    ("labelled", "unseen", "message"),
    [(0, None, "give 1 or more"), (1, "scratch", "'scratch'; allowed: bent, cut")],
)
def test_a_mistake_is_named(labelled: int, unseen: str | None, message: str) -> None:
    samples = samples_of(8, "bbbbbcccccc")
    fold = make_folds(samples, 4, seed=0)[0]
    with pytest.raises(ValueError, match=message):
        few_defects(samples, fold, labelled, seeds=(0,), unseen=unseen)
