from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from leanet.data.weak import WeakSplit, draw_weak, move_weak
from leanet.records import ANOMALOUS, NORMAL, Sample

# Anomalous test images of MVTec AD, of every type of defect.
MVTEC = {
    "carpet": (19, 17, 17, 19, 17),
    "grid": (12, 12, 11, 11, 11),
    "leather": (19, 19, 17, 18, 19),
    "tile": (17, 18, 16, 18, 15),
    "wood": (8, 11, 10, 21, 10),
    "bottle": (20, 22, 21),
    "cable": (12, 13, 14, 12, 10, 11, 10, 10),
    "capsule": (23, 22, 21, 23, 20),
    "hazelnut": (18, 17, 18, 17),
    "metal_nut": (25, 22, 23, 23),
    "pill": (25, 21, 26, 24, 19, 17, 9),
    "screw": (24, 24, 25, 23, 23),
    "toothbrush": (30,),
    "transistor": (10, 10, 10, 10),
    "zipper": (19, 18, 16, 17, 16, 16, 17),
}
WEAK = {"toothbrush": 1, "transistor": 1, "capsule": 3, "pill": 3, "screw": 3, "zipper": 3}


def one(name: str, kind: str = "good", split: str | None = "test", group: str = "") -> Sample:
    label = NORMAL if kind == "good" else ANOMALOUS
    return Sample(path=Path(kind, name), label=label, kind=kind, split=split, group=group or None)


def category(counts: tuple[int, ...]) -> list[Sample]:
    train = [one(f"t{i}", split="train") for i in range(30)] + [one(f"g{i}") for i in range(10)]
    return train + [one(f"{i}", f"kind{k}") for k, n in enumerate(counts) for i in range(n)]


@pytest.mark.parametrize("name", MVTEC)
def test_as_many_are_drawn_from_mvtec_as_the_rule_says(name: str) -> None:
    samples = category(MVTEC[name])
    drawn = draw_weak(samples, range(len(samples)), 0.02, seed=0)
    assert len(drawn) == WEAK.get(name, 2)
    assert len({samples[i].kind for i in drawn}) == min(len(drawn), len(MVTEC[name]))


def test_that_makes_32_of_1258_in_all() -> None:
    assert sum(map(sum, MVTEC.values())) == 1258
    assert sum(WEAK.get(name, 2) for name in MVTEC) == 32


def test_every_kind_comes_once_before_any_comes_twice() -> None:
    samples = category((30, 2, 5, 1))
    for seed in range(5):
        drawn = draw_weak(samples, range(len(samples)), 6 / 38, seed)
        counts = Counter(samples[i].kind for i in drawn)
        assert sorted(counts.values()) == [1, 1, 2, 2]
        assert counts["kind3"] == 1


def test_a_kind_that_is_used_up_leaves_its_turns_to_the_others() -> None:
    samples = category((6, 1, 1))
    drawn = draw_weak(samples, range(len(samples)), 0.75, seed=0)
    assert Counter(samples[i].kind for i in drawn) == {"kind0": 4, "kind1": 1, "kind2": 1}


def test_the_seed_draws_which_kind_comes_first_and_which_image() -> None:
    samples = category((9, 9, 9))
    drawn = [draw_weak(samples, range(len(samples)), 0.02, seed)[0] for seed in range(30)]
    assert len({samples[i].kind for i in drawn}) == 3
    assert len(set(drawn)) > 9
    assert draw_weak(samples, range(len(samples)), 0.02, 3) == (drawn[3],)


def test_the_draw_does_not_depend_on_the_order_or_on_normal_images() -> None:
    samples = category((9, 4, 7))
    other = [one("new"), *reversed(samples)]
    paths, others = (
        {one_set[i].path for i in draw_weak(one_set, range(len(one_set)), 0.2, seed=5)}
        for one_set in (samples, other)
    )
    assert paths == others
    assert len(paths) == 4


def test_the_share_is_that_of_all_anomalous_images_but_candidates_only_are_drawn() -> None:
    samples = category((20, 20))
    candidates = [*range(20), 45, 50, 75]
    assert draw_weak(samples, candidates, 0.5, seed=0) == (45, 50, 75)
    assert len(draw_weak(samples, candidates, 0.05, seed=0)) == 2


def test_rounding_up_is_exact() -> None:
    samples = category((100,))
    assert 0.07 * 100 > 7  # in floating point
    assert len(draw_weak(samples, range(len(samples)), 0.07, seed=0)) == 7
    assert len(draw_weak(samples, range(len(samples)), 1.0, seed=0)) == 100


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.1, float("nan")])
def test_an_impossible_share_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="more than 0 and at most 1"):
        draw_weak(category((3,)), range(43), fraction, seed=0)


def test_normal_images_cannot_be_weak_labels() -> None:
    with pytest.raises(ValueError, match="none of these 40 is one"):
        draw_weak(category((3,)), range(40), 0.1, seed=0)


def test_drawn_images_train_and_do_not_test() -> None:
    samples = category((10, 10))
    moved, left = move_weak(samples, WeakSplit(0.1, learn=True), seed=0)
    trained = [sample for sample in moved if sample.split == "train"]
    tested = [sample for sample in moved if sample.split == "test"]
    assert list(moved) == trained + tested
    assert {sample.path for sample in moved} == {sample.path for sample in samples}
    weak = {sample.path for sample in trained if sample.label == ANOMALOUS}
    assert (len(weak), left) == (2, 2)
    assert not weak & {sample.path for sample in tested}
    numbers = [i for i, sample in enumerate(moved) if sample.split == "train"]
    again = draw_weak(moved, numbers, 0.1, seed=0)
    assert {moved[i].path for i in again} == weak, "a recipe draws the moved ones"


def test_without_learning_the_same_images_are_left_out() -> None:
    samples = category((10, 10))
    learned, _ = move_weak(samples, WeakSplit(0.1, learn=True), seed=3)
    compared, left = move_weak(samples, WeakSplit(0.1, learn=False), seed=3)
    tests = [[s for s in some if s.split == "test"] for some in (learned, compared)]
    assert tests[0] == tests[1]
    assert left == 2
    assert all(sample.label == NORMAL for sample in compared if sample.split == "train")


def test_the_rest_of_a_group_leaves_the_test_part_too() -> None:
    part = [one("a", "bent", group="part 1"), one("b", group="part 1")]
    samples = [one("t", split="train"), *part, one("c", "bent", group="part 2")]
    for seed in range(4):
        moved, left = move_weak(samples, WeakSplit(0.5, learn=True), seed)
        groups = [{s.group for s in moved if s.split == split} for split in ("train", "test")]
        assert groups[0] & groups[1] == set()
        assert left == (2 if "part 1" in groups[0] else 1)


def test_a_draw_that_leaves_nothing_anomalous_to_test_is_refused() -> None:
    with pytest.raises(ValueError, match="no anomalous one would be left to test on"):
        move_weak(category((1,)), WeakSplit(0.02, learn=True), seed=0)
