"""Which samples train and which test: stratified, grouped, seeded, and kept in `folds.csv`.

Samples are dealt out like cards. The unit is a group (same leaf, patient, part; a sample without
one is its own group), which never straddles two sides. Units are shuffled, those with both labels
come first, then the large ones, and each goes to a part that lacks its label or, if none does, in
which what it holds is rarest so far. With n_pc the number of samples of class c in part p, n_c that
of all samples with the label of c, and w_p the wanted share of part p, this is greedy descent on

    sum over p and c of (n_pc / n_c)^2 / w_p,

which is smallest where every part has its share of every class. Classes are the labels, and the
kinds within a label. Without groups equal parts have the same number of each label and of each
kind, give or take one; with groups as nearly so as their sizes allow. The idea is that of
scikit-learn's StratifiedGroupKFold, extended to unequal shares, to two levels of classes, and to
classes with fewer members than parts. A label with as many groups as parts is in every part.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from leanet.data.scan import relative_name
from leanet.files import read_csv, write_csv
from leanet.records import ANOMALOUS, NORMAL, Fold, Sample

Indices: TypeAlias = tuple[int, ...]


def make_folds(
    samples: Sequence[Sample],
    num_folds: int,
    *,
    seed: int,
    inner_splits: int = 5,
    by_kind: bool = False,
) -> tuple[Fold, ...]:
    """Cross-validation: every sample tests in exactly one of `fold-0`, `fold-1`, ...

    `Fold.parts` serves out-of-fold maps. For 3 <= num_folds <= 2 inner_splits the parts of a fold
    are the test samples of the other outer folds, in order: the map model that leaves out the folds
    j and k serves part j of fold k and part k of fold j, so that K(K-1)/2 models are enough instead
    of K inner_splits. Otherwise the training samples are split anew into `inner_splits` parts
    (fewer where there are too few samples); 0 leaves `parts` empty.

    Raises `ValueError` if a label (with `by_kind`: a kind) has fewer groups than there are folds.
    """
    if num_folds < 2:
        raise ValueError(f"cross-validation needs at least 2 folds, not {num_folds}")
    everything = range(len(samples))
    _require_enough(samples, num_folds, by_kind=by_kind)
    tests = _deal(everything, samples, [1] * num_folds, seed)
    reuse = 3 <= num_folds <= 2 * inner_splits
    folds = []
    for k, test in enumerate(tests):
        others = tests[:k] + tests[k + 1 :]
        train = tuple(sorted(index for other in others for index in other))
        parts = others if reuse else _inner_parts(train, samples, inner_splits, seed)
        folds.append(Fold(name=f"fold-{k}", train=train, test=test, parts=tuple(parts)))
    return tuple(folds)


def single_fold(
    samples: Sequence[Sample], *, seed: int, inner_splits: int, name: str = "final"
) -> Fold:
    """One fold as the data set splits it: `split` says what tests, everything else trains.

    Without any `split`, everything trains and nothing tests. `inner_splits` is an upper limit;
    0 leaves `parts` empty. Raises `ValueError` if a group stands in train and test.
    """
    test = tuple(i for i, sample in enumerate(samples) if sample.split == "test")
    train = tuple(i for i, sample in enumerate(samples) if sample.split != "test")
    trained, tested = ({samples[i].group or "" for i in side} for side in (train, test))
    if straddling := sorted((trained & tested) - {""}):
        raise ValueError(
            f"{len(straddling)} groups are in train and in test, e.g. {straddling[0]}: the test "
            "figures would be flattered.\nMove each group to one side, or cross-validate."
        )
    parts = _inner_parts(train, samples, inner_splits, seed)
    return Fold(name=name, train=train, test=test, parts=parts)


def split_parts(
    indices: Sequence[int], samples: Sequence[Sample], num: int, seed: int
) -> tuple[Indices, ...]:
    """`indices` in `num` stratified, grouped parts, none of them empty, each in ascending order.

    A label with fewer groups than `num` is absent from some parts. Raises `ValueError` if there are
    fewer groups than parts, or if a single group holds all the normal samples, so that a part's
    complement had none to learn from.
    """
    groups = len(_units(indices, samples))
    counts = count_groups(indices, samples)
    if not 2 <= num <= groups or counts[NORMAL] == 1:
        raise ValueError(
            f"cannot split {len(indices)} samples into {num} inner parts: {_listed(counts)} "
            f"(groups count once).\nAllowed are 2 to {groups} parts, with normal samples in at "
            "least 2 groups; 0 inner splits do without parts."
        )
    return _deal(indices, samples, [1] * num, seed)


def hold_out(
    indices: Sequence[int], samples: Sequence[Sample], fraction: float, *, seed: int
) -> tuple[Indices, Indices]:
    """`indices` as (rest, held), each ascending, with about `fraction` of each label in `held`.

    Stratified and grouped. A label with two groups or more is on both sides, a label with one group
    is on the larger side. Raises `ValueError` if `fraction` is not between 0 and 1.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"the fraction to hold out must be between 0 and 1, not {fraction}")
    rest, held = _deal(indices, samples, (1 - fraction, fraction), seed)
    return rest, held


def count_groups(indices: Sequence[int], samples: Sequence[Sample]) -> dict[int, int]:
    """How many groups hold samples of each label."""
    units = _units(indices, samples)
    return {
        label: sum(any(samples[i].label == label for i in unit) for unit in units)
        for label in (NORMAL, ANOMALOUS)
    }


def write_folds_csv(
    path: Path, root: Path, samples: Sequence[Sample], folds: Sequence[Fold]
) -> None:
    """Writes path, fold, role (train or test) and part (a number, or nothing), atomically."""
    rows = []
    for fold in folds:
        part_of = {index: str(k) for k, part in enumerate(fold.parts) for index in part}
        for role, indices in (("train", fold.train), ("test", fold.test)):
            for index in indices:
                name = relative_name(samples[index].path, root)
                part = part_of.get(index, "")
                rows.append({"path": name, "fold": fold.name, "role": role, "part": part})
    write_csv(path, rows)


def read_folds_csv(path: Path, root: Path, samples: Sequence[Sample]) -> tuple[Fold, ...]:
    """The folds that `write_folds_csv` wrote, for the same samples in any order.

    Raises `ValueError` if the file names an image that is not among the samples.
    """
    index_of = {relative_name(sample.path, root): i for i, sample in enumerate(samples)}
    roles: dict[str, dict[str, list[int]]] = {}
    parts: dict[str, dict[int, list[int]]] = {}
    for row in read_csv(path):
        if row["path"] not in index_of:
            raise ValueError(
                f"{path} names {row['path']}, which is not among the {len(samples)} samples; "
                "the folds belong to another state of the data"
            )
        index = index_of[row["path"]]
        sides = roles.setdefault(row["fold"], {"train": [], "test": []})
        sides[row["role"]].append(index)
        if row["part"]:
            parts.setdefault(row["fold"], defaultdict(list))[int(row["part"])].append(index)
    return tuple(
        Fold(
            name=name,
            train=tuple(sorted(sides["train"])),
            test=tuple(sorted(sides["test"])),
            parts=tuple(tuple(sorted(part)) for _, part in sorted(parts.get(name, {}).items())),
        )
        for name, sides in roles.items()
    )


def _inner_parts(
    train: Sequence[int], samples: Sequence[Sample], inner_splits: int, seed: int
) -> tuple[Indices, ...]:
    """As many parts as asked for and possible; () where normal samples cannot be divided."""
    groups, counts = len(_units(train, samples)), count_groups(train, samples)
    num = min(inner_splits, groups)
    if num < 2 or counts[NORMAL] < 2:
        return ()
    return split_parts(train, samples, num, seed)


def _deal(
    indices: Sequence[int], samples: Sequence[Sample], shares: Sequence[float], seed: int
) -> tuple[Indices, ...]:
    """`indices` dealt into as many parts as there are `shares` (see the module docstring)."""
    units = _units(indices, samples)
    labels, kinds = _profiles(units, samples)
    first = [samples[unit[0]] for unit in units]
    order = sorted(
        np.random.default_rng(seed).permutation(len(units)).tolist(),
        key=lambda u: (-(labels[u] > 0).sum(), -len(units[u]), first[u].label, first[u].kind),
    )
    profiles = np.hstack([labels, kinds])
    wanted = np.asarray(shares, dtype=np.float64)
    loads = np.zeros((len(wanted), profiles.shape[1]))
    parts: list[list[int]] = [[] for _ in wanted]
    for u in order:
        known = ((loads[:, :2] > 0) & (labels[u] > 0)).sum(axis=1)
        rise = (2 * loads @ profiles[u] + profiles[u] @ profiles[u]) / wanted
        sizes = np.array([len(part) for part in parts]) / wanted
        # The last key counts first. Rounded, because equal sums must tie on every machine.
        chosen = np.lexsort((sizes, rise.round(6), known))[0]
        loads[chosen] += profiles[u]
        parts[chosen] += units[u]
    return tuple(tuple(sorted(part)) for part in parts)


def _units(indices: Sequence[int], samples: Sequence[Sample]) -> list[list[int]]:
    """The indices by group; a sample without a group is a unit of its own."""
    units: dict[str | int, list[int]] = defaultdict(list)
    for index in indices:
        units[samples[index].group or index].append(index)
    return list(units.values())


def _profiles(
    units: Sequence[Sequence[int]], samples: Sequence[Sample]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How many samples of each label [U, 2] and of each kind of a label [U, K] a unit holds.

    In multiples of the label's share, so that the few anomalous samples weigh as much as the many
    normal ones.
    """
    present = [samples[i] for unit in units for i in unit]
    totals = Counter(sample.label for sample in present)
    names = sorted({(sample.label, sample.kind) for sample in present})
    column = {name: k for k, name in enumerate(names)}
    labels, kinds = np.zeros((len(units), 2)), np.zeros((len(units), len(names)))
    for u, unit in enumerate(units):
        for sample in (samples[i] for i in unit):
            weight = len(present) / totals[sample.label]
            labels[u, sample.label] += weight
            kinds[u, column[sample.label, sample.kind]] += weight
    return labels, kinds


def _require_enough(samples: Sequence[Sample], num_folds: int, *, by_kind: bool) -> None:
    everything = range(len(samples))
    if by_kind:
        units = _units(everything, samples)
        kinds = Counter(kind for unit in units for kind in {samples[i].kind for i in unit})
        least, needed = min(kinds.values()), "images of each class"
        listed = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    else:
        counts = count_groups(everything, samples)
        least, needed, listed = min(counts.values()), "normal and anomalous images", _listed(counts)
    if least < num_folds:
        raise ValueError(
            f"{num_folds} folds need that many {needed} (groups count once), "
            f"but there are {listed}.\n"
            "Use fewer folds, or give more images of the rarer kind."
        )


def _listed(counts: dict[int, int]) -> str:
    return f"{counts[NORMAL]} normal and {counts[ANOMALOUS]} anomalous"
