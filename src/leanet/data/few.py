"""Few defects: a fold that learns from all its normal images and from k labelled defects, and is
tested on all other defects.

A fold of cross-validation tests one defect in K and learns from the others. Where the question is
what five labelled defects are worth, that wastes nearly all of them: here the k defects are drawn
from those of the whole fold, its test part included, and every other one is tested. The test's
normal images are those of the fold.

The k defects are the first k of one order, so that the smaller draws are nested in the larger
ones. In this order the kinds take turns, one defect of each in every round.

To test on a kind of defect that nobody has labelled, it is left out: no labelled defect is of this
kind, and all tested ones are.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain, zip_longest

import numpy as np
from numpy.random import Generator

from leanet.records import ANOMALOUS, NORMAL, Fold, Sample

FEWEST_TESTED = 5  # defects; a share of fewer says nothing


class TooFewDefectsError(ValueError):
    """The images do not suffice for so many labelled defects and a test."""


def few_defects(
    samples: Sequence[Sample],
    fold: Fold,
    labelled: int,
    *,
    seeds: Sequence[int],
    unseen: str | None = None,
) -> Fold:
    """A fold with the same normal images, and `labelled` of its defects to train on.

    Images of a group that is trained on are neither trained on nor tested. `parts` keep their
    normal images; a labelled defect goes to the part that holds its group, else to one with the
    fewest defects, so that map models, which learn from the normal images of the parts, are the
    same for every draw.

    Args:
        samples: all of the data set.
        fold: the indices to draw from.
        labelled: number of defects to train on, 1 or more.
        seeds: not negative, all that the draw depends on besides samples, fold and kind; for
            example seed, number of the fold, number of the draw.
        unseen: the kind of defect to leave out in training, and to test alone.

    Raises:
        TooFewDefectsError: there are fewer defects, or fewer than 5 of them, or no normal image,
            would be left to test.
        ValueError: `labelled` is below 1, or no defect is of the kind `unseen`.
    """
    if labelled < 1:
        raise ValueError(f"{labelled} labelled defects: give 1 or more")
    defects = [i for i in (*fold.train, *fold.test) if samples[i].label == ANOMALOUS]
    tested = [i for i in defects if unseen is None or samples[i].kind == unseen]
    if unseen is not None and not tested:
        kinds = ", ".join(sorted({samples[i].kind for i in defects}))
        raise ValueError(f"no defect is of the kind {unseen!r}; allowed: {kinds}")
    pool = [i for i in defects if unseen is None or samples[i].kind != unseen]
    drawn = in_turns(pool, samples, np.random.default_rng(list(seeds)))[:labelled]
    train = (*(i for i in fold.train if samples[i].label == NORMAL), *drawn)
    known = {samples[i].group for i in train} - {None, ""}
    candidates = (*(i for i in fold.test if samples[i].label == NORMAL), *tested)
    test = [i for i in candidates if i not in drawn and samples[i].group not in known]
    _require_enough(samples, labelled, len(pool), test)
    return dataclasses.replace(
        fold,
        train=tuple(sorted(train)),
        test=tuple(sorted(test)),
        parts=_with_defects(fold.parts, drawn, samples),
    )


def kind_to_leave_out(samples: Sequence[Sample], number: int) -> str:
    """The kind of defect for fold `number`: each in turn, by name.

    Raises:
        ValueError: there are fewer than two kinds.
    """
    kinds = sorted({sample.kind for sample in samples if sample.label == ANOMALOUS})
    if len(kinds) < 2:
        raise ValueError(
            f"to leave out a kind of defect takes two kinds or more, and there is only {kinds}; "
            "sort the defects into a folder for each kind, or leave none out"
        )
    return kinds[number % len(kinds)]


def in_turns(indices: Sequence[int], samples: Sequence[Sample], rng: Generator) -> tuple[int, ...]:
    """The indices in random order, one of each kind before a second one of any.

    Depends on the paths of the samples, not on the order of the indices.
    """
    by_kind: dict[str, list[int]] = defaultdict(list)
    for index in sorted(indices, key=lambda index: samples[index].path):
        by_kind[samples[index].kind].append(index)
    kinds = [by_kind[kind] for kind in rng.permutation(sorted(by_kind)).tolist()]
    shuffled = [rng.permutation(kind).tolist() for kind in kinds]
    rounds = chain.from_iterable(zip_longest(*shuffled))
    return tuple(index for index in rounds if index is not None)


def _require_enough(
    samples: Sequence[Sample], labelled: int, available: int, test: Sequence[int]
) -> None:
    num_defects = sum(samples[i].label == ANOMALOUS for i in test)
    if labelled > available:
        raise TooFewDefectsError(
            f"{labelled} labelled defects are more than the {available} that can be drawn"
        )
    if num_defects < FEWEST_TESTED or num_defects == len(test):
        raise TooFewDefectsError(
            f"{labelled} labelled defects leave {num_defects} defects and "
            f"{len(test) - num_defects} normal images to test; needed are {FEWEST_TESTED} and 1"
        )


def _with_defects(
    parts: Sequence[Sequence[int]], drawn: Sequence[int], samples: Sequence[Sample]
) -> tuple[tuple[int, ...], ...]:
    """The parts with their normal images and the drawn defects; no group in two, none empty."""
    dealt = [[i for i in part if samples[i].label == NORMAL] for part in parts]
    dealt = [part for part in dealt if part]
    holder = {samples[i].group: k for k, part in enumerate(dealt) for i in part}
    load = [0] * len(dealt)
    for index in drawn if dealt else ():
        group = samples[index].group
        fewest = load.index(min(load))
        chosen = holder.setdefault(group, fewest) if group else fewest
        dealt[chosen].append(index)
        load[chosen] += 1
    return tuple(tuple(sorted(part)) for part in dealt)
