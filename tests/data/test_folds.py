from __future__ import annotations

from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from leanet.data.folds import (
    hold_out,
    make_folds,
    read_folds_csv,
    single_fold,
    split_parts,
    write_folds_csv,
)
from leanet.records import ANOMALOUS, NORMAL, Fold, Sample

ROOT = Path("data")
quick = settings(max_examples=40, deadline=None)


def samples_of(labels: str, groups: str = "", split: str = "") -> list[Sample]:
    """One sample a letter: n, N normal (two kinds), a, A anomalous; groups and splits alike."""
    return [
        Sample(
            path=ROOT / f"{i}.png",
            label=NORMAL if letter in "nN" else ANOMALOUS,
            kind=letter,
            group=groups[i] if groups and groups[i] != "." else None,
            split={"r": "train", "e": "test"}.get(split[i]) if split else None,
        )
        for i, letter in enumerate(labels)
    ]


@st.composite
def data_sets(draw: st.DrawFn, grouped: bool) -> list[Sample]:
    """At least six normal and six anomalous groups, each of one label."""
    samples: list[Sample] = []
    for label in (NORMAL, ANOMALOUS):
        for group in range(draw(st.integers(6, 14))):
            for _ in range(draw(st.integers(1, 5)) if grouped else 1):
                samples.append(
                    Sample(
                        path=ROOT / f"{len(samples)}.png",
                        label=label,
                        kind=draw(st.sampled_from(["", "rust", "hole"])),
                        group=f"{label}-{group}" if grouped else None,
                    )
                )
    return draw(st.permutations(samples))


any_set = st.booleans().flatmap(data_sets)
seeds = st.integers(0, 2**32 - 1)


def groups_of(indices: tuple[int, ...], samples: list[Sample]) -> set[str]:
    return {group for i in indices if (group := samples[i].group)}


def labels_of(indices: tuple[int, ...], samples: list[Sample]) -> Counter[int]:
    return Counter(samples[i].label for i in indices)


@quick
@given(any_set, st.integers(2, 6), seeds)
def test_every_sample_tests_exactly_once(samples: list[Sample], num: int, seed: int) -> None:
    folds = make_folds(samples, num, seed=seed)
    assert sorted(i for fold in folds for i in fold.test) == list(range(len(samples)))
    for fold in folds:
        assert sorted(fold.train + fold.test) == list(range(len(samples)))


@quick
@given(any_set, st.integers(2, 6), seeds)
def test_no_group_is_on_both_sides(samples: list[Sample], num: int, seed: int) -> None:
    for fold in make_folds(samples, num, seed=seed):
        assert not groups_of(fold.train, samples) & groups_of(fold.test, samples)
        for one, other in combinations(fold.parts, 2):
            assert not groups_of(one, samples) & groups_of(other, samples)


@quick
@given(any_set, st.integers(3, 6), st.integers(2, 5), seeds)
def test_parts_divide_the_training_samples(
    samples: list[Sample], num: int, inner: int, seed: int
) -> None:
    for fold in make_folds(samples, num, seed=seed, inner_splits=inner):
        assert sorted(i for part in fold.parts for i in part) == list(fold.train)
        assert all(fold.parts)
        assert len(fold.parts) == (num - 1 if 3 <= num <= 2 * inner else inner)


@quick
@given(any_set, st.integers(2, 6), seeds)
def test_every_fold_tests_both_labels(samples: list[Sample], num: int, seed: int) -> None:
    for fold in make_folds(samples, num, seed=seed):
        assert set(labels_of(fold.test, samples)) == {NORMAL, ANOMALOUS}


@quick
@given(data_sets(grouped=False), st.integers(2, 6), seeds)
def test_without_groups_labels_and_kinds_are_even_to_one(
    samples: list[Sample], num: int, seed: int
) -> None:
    tests = [fold.test for fold in make_folds(samples, num, seed=seed)]
    for cls in {(s.label, s.kind) for s in samples} | {(s.label, None) for s in samples}:
        counts = [
            sum(samples[i].label == cls[0] and cls[1] in (None, samples[i].kind) for i in test)
            for test in tests
        ]
        assert max(counts) - min(counts) <= 1


@quick
@given(any_set, seeds)
def test_the_seed_alone_decides(samples: list[Sample], seed: int) -> None:
    assert make_folds(samples, 4, seed=seed) == make_folds(samples, 4, seed=seed)
    everything = range(len(samples))
    assert hold_out(everything, samples, 0.3, seed=seed) == hold_out(
        everything, samples, 0.3, seed=seed
    )


def test_another_seed_gives_other_folds() -> None:
    samples = samples_of("n" * 30 + "a" * 20)
    folds = {make_folds(samples, 5, seed=seed)[0].test for seed in range(10)}
    assert len(folds) == 10


def test_shuffling_is_fair() -> None:
    samples = samples_of("n" * 8 + "a" * 8)
    together = Counter(
        pair
        for seed in range(300)
        for fold in make_folds(samples, 4, seed=seed, inner_splits=0)
        for pair in combinations(fold.test, 2)
    )
    same_label = [together[i, j] for i, j in combinations(range(8), 2)]
    assert min(same_label) > 20  # 300 x 1/7 = 43 expected, SD 6
    assert max(same_label) < 70


def imbalance(tests: list[list[int]], labels: np.ndarray) -> float:
    """Sum over folds and labels of the squared distance from an even share."""
    shares = [
        np.sum(labels[test] == label) / np.sum(labels == label)
        for test in tests
        for label in (0, 1)
    ]
    return float(np.sum((np.array(shares) - 1 / len(tests)) ** 2))


def test_grouped_folds_are_as_even_as_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = 0.0, 0.0
    for trial in range(20):
        group = rng.integers(0, 40, 200)
        label = (group % 3 == 0).astype(int)
        samples = [
            Sample(path=Path(f"{i}"), label=int(label[i]), group=str(group[i])) for i in range(200)
        ]
        folds = make_folds(samples, 5, seed=trial)
        ours += imbalance([list(fold.test) for fold in folds], label)
        splitter = StratifiedGroupKFold(5, shuffle=True, random_state=trial)
        theirs += imbalance([t for _, t in splitter.split(label, label, group)], label)
    assert ours <= 1.05 * theirs


def test_parts_are_the_other_outer_folds_so_that_map_models_serve_twice() -> None:
    samples = samples_of("n" * 20 + "a" * 20)
    folds = make_folds(samples, 5, seed=0)
    for k, fold in enumerate(folds):
        assert fold.name == f"fold-{k}"
        assert fold.parts == tuple(other.test for other in folds if other is not fold)
    models = {frozenset(fold.test + part) for fold in folds for part in fold.parts}
    assert len(models) == 5 * 4 / 2


@pytest.mark.parametrize(("num", "inner", "parts"), [(2, 5, 5), (11, 5, 5), (10, 5, 9), (5, 0, 0)])
def test_other_numbers_of_folds_get_parts_of_their_own(num: int, inner: int, parts: int) -> None:
    samples = samples_of("n" * 22 + "a" * 22)
    for fold in make_folds(samples, num, seed=0, inner_splits=inner):
        assert len(fold.parts) == parts


def test_fewer_samples_than_folds_is_an_error_with_counts() -> None:
    with pytest.raises(ValueError, match="9 normal and 3 anomalous") as caught:
        make_folds(samples_of("n" * 9 + "a" * 3), 5, seed=0)
    assert "Use fewer folds" in str(caught.value)


def test_groups_count_once_against_the_number_of_folds() -> None:
    samples = samples_of("nnnnnnaaaaaa", "......xxxyyy")
    with pytest.raises(ValueError, match="6 normal and 2 anomalous"):
        make_folds(samples, 3, seed=0)
    assert len(make_folds(samples, 2, seed=0, inner_splits=2)) == 2


@quick
@given(st.lists(st.sampled_from("na"), min_size=8, max_size=40), st.data(), seeds)
def test_enough_groups_of_a_label_reach_every_fold_even_if_groups_mix_labels(
    labels: list[str], data: st.DataObject, seed: int
) -> None:
    groups = data.draw(st.lists(st.sampled_from("pqrstuvw"), min_size=40, max_size=40))
    samples = samples_of("".join(labels), "".join(groups))
    holders = [{s.group for s in samples if s.label == label} for label in (NORMAL, ANOMALOUS)]
    num = min(map(len, holders))
    assume(num >= 2)
    for fold in make_folds(samples, num, seed=seed, inner_splits=0):
        assert set(labels_of(fold.test, samples)) == {NORMAL, ANOMALOUS}
    for side in hold_out(range(len(samples)), samples, 0.1, seed=seed):
        assert set(labels_of(side, samples)) == {NORMAL, ANOMALOUS}


@pytest.mark.parametrize("num", [-1, 0, 1])
def test_cross_validation_needs_two_folds(num: int) -> None:
    with pytest.raises(ValueError, match="at least 2 folds"):
        make_folds(samples_of("nnaa"), num, seed=0)


def test_one_class_only_cannot_be_cross_validated() -> None:
    with pytest.raises(ValueError, match="9 normal and 0 anomalous"):
        make_folds(samples_of("n" * 9), 3, seed=0)


def test_a_single_fold_follows_the_split_of_the_data_set() -> None:
    samples = samples_of("nnnnna", split="rrr.ee")
    fold = single_fold(samples, seed=0, inner_splits=2)
    assert (fold.name, fold.train, fold.test) == ("final", (0, 1, 2, 3), (4, 5))
    assert sorted(i for part in fold.parts for i in part) == [0, 1, 2, 3]


def test_without_a_split_everything_trains() -> None:
    fold = single_fold(samples_of("nnnaa"), seed=0, inner_splits=0, name="all")
    assert fold == Fold(name="all", train=(0, 1, 2, 3, 4), test=())


def test_a_group_in_train_and_test_is_an_error() -> None:
    samples = samples_of("nnna", groups=".x.x", split="rrre")
    with pytest.raises(ValueError, match=r"1 groups are in train and in test, e\.g\. x"):
        single_fold(samples, seed=0, inner_splits=0)


@pytest.mark.parametrize(("labels", "num"), [("nnn", 4), ("nnnn", 1), ("naaa", 2), ("", 2)])
def test_parts_that_cannot_be_made_are_an_error(labels: str, num: int) -> None:
    with pytest.raises(ValueError, match="Allowed are 2 to"):
        split_parts(range(len(labels)), samples_of(labels), num, 0)


def test_rare_labels_are_spread_over_different_parts() -> None:
    samples = samples_of("n" * 30 + "aaa")
    for seed in range(10):
        parts = split_parts(range(33), samples, 5, seed)
        assert sorted(labels_of(part, samples)[ANOMALOUS] for part in parts) == [0, 0, 1, 1, 1]
        assert sorted(map(len, parts)) == [6, 6, 7, 7, 7]


@quick
@given(any_set, st.floats(0.05, 0.95), seeds)
def test_held_out_samples_are_a_part_with_every_label(
    samples: list[Sample], fraction: float, seed: int
) -> None:
    indices = range(len(samples))
    rest, held = hold_out(indices, samples, fraction, seed=seed)
    assert sorted(rest + held) == list(indices)
    assert not groups_of(rest, samples) & groups_of(held, samples)
    for side in (rest, held):
        assert set(labels_of(side, samples)) == {NORMAL, ANOMALOUS}


@quick
@given(data_sets(grouped=False), st.floats(0.1, 0.9), seeds)
def test_the_held_out_fraction_of_each_label_is_right_to_one_sample(
    samples: list[Sample], fraction: float, seed: int
) -> None:
    _, held = hold_out(range(len(samples)), samples, fraction, seed=seed)
    for label in (NORMAL, ANOMALOUS):
        wanted = fraction * sum(sample.label == label for sample in samples)
        assert abs(labels_of(held, samples)[label] - wanted) <= 1.5


@pytest.mark.parametrize("fraction", [0.01, 0.99])
def test_two_of_a_label_go_to_different_sides(fraction: float) -> None:
    samples = samples_of("n" * 20 + "aa")
    rest, held = hold_out(range(22), samples, fraction, seed=0)
    assert labels_of(rest, samples)[ANOMALOUS] == labels_of(held, samples)[ANOMALOUS] == 1


@pytest.mark.parametrize(("fraction", "side"), [(0.2, 0), (0.4, 0), (0.6, 1), (0.9, 1)])
def test_the_only_group_of_a_label_is_on_the_larger_side(fraction: float, side: int) -> None:
    samples = samples_of("n" * 20 + "aa", "." * 20 + "xx")
    sides = hold_out(range(22), samples, fraction, seed=0)
    assert {20, 21} <= set(sides[side])
    assert all(sides)


def test_only_the_given_indices_are_dealt() -> None:
    samples = samples_of("n" * 10 + "a" * 10)
    rest, held = hold_out(range(0, 20, 2), samples, 0.4, seed=0)
    assert sorted(rest + held) == list(range(0, 20, 2))


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.2, float("nan")])
def test_a_fraction_outside_zero_to_one_is_an_error(fraction: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        hold_out(range(4), samples_of("nnaa"), fraction, seed=0)


@quick
@given(samples=any_set, num=st.integers(2, 6), seed=seeds)
def test_folds_survive_their_csv(
    tmp_path_factory: pytest.TempPathFactory, samples: list[Sample], num: int, seed: int
) -> None:
    path = tmp_path_factory.mktemp("run") / "folds.csv"
    folds = (*make_folds(samples, num, seed=seed), single_fold(samples, seed=seed, inner_splits=3))
    write_folds_csv(path, ROOT, samples, folds)
    assert read_folds_csv(path, ROOT, samples) == folds


def test_the_csv_says_who_does_what(tmp_path: Path) -> None:
    samples = samples_of("nna")
    fold = Fold(name="fold-0", train=(0, 2), test=(1,), parts=((2,), (0,)))
    write_folds_csv(tmp_path / "folds.csv", ROOT, samples, [fold])
    assert (tmp_path / "folds.csv").read_text().splitlines() == [
        "path,fold,role,part",
        "0.png,fold-0,train,1",
        "2.png,fold-0,train,0",
        "1.png,fold-0,test,",
    ]


def test_folds_of_other_data_are_an_error(tmp_path: Path) -> None:
    samples = samples_of("nnaa")
    folds = make_folds(samples, 2, seed=0, inner_splits=0)
    write_folds_csv(tmp_path / "folds.csv", ROOT, samples, folds)
    with pytest.raises(ValueError, match=r"names 3\.png, which is not among the 3 samples"):
        read_folds_csv(tmp_path / "folds.csv", ROOT, samples[:3])


def test_folds_by_kind_need_every_kind_and_no_anomalous_image() -> None:
    samples = samples_of("nnnNNN")  # all normal, two kinds: classes of which none is the normal one
    with pytest.raises(ValueError, match="3 folds need that many normal and anomalous images"):
        make_folds(samples, 3, seed=0)
    folds = make_folds(samples, 3, seed=0, by_kind=True)
    for fold in folds:
        assert sorted(samples[i].kind for i in fold.test) == ["N", "n"]
    with pytest.raises(ValueError, match=r"4 folds need that many images of each class.*3 N, 3 n"):
        make_folds(samples, 4, seed=0, by_kind=True)
