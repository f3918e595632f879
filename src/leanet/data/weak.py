"""Weak labels: a few anomalous images, known by their label alone, that a method learns from beside
the normal ones.

Of n anomalous images ceil(fraction n) are drawn, stratified over their kinds as far as it goes:
every kind once before any kind twice. Data sets such as MVTec AD have normal images only to learn
from, so there the drawn ones leave the test part; what a network has learned from must not test it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from leanet.data.few import in_turns
from leanet.records import ANOMALOUS, Sample


class WeakSplit(NamedTuple):
    """Which share of the anomalous images leaves the test part, and whether it is learned from
    (False: it is only left out, so that another method tests on the same images)."""

    fraction: float
    learn: bool


def draw_weak(
    samples: Sequence[Sample], candidates: Sequence[int], fraction: float, seed: int
) -> tuple[int, ...]:
    """ceil(fraction * number of all anomalous samples) of the anomalous candidates, or all of them
    where there are fewer; ascending.

    Depends on the seed and the paths of the anomalous candidates, not on the order of the samples
    nor on the normal ones.

    Raises:
        ValueError: a fraction outside (0, 1], or no anomalous candidate.
    """
    if not 0 < fraction <= 1:
        raise ValueError(
            f"a share of {fraction} of the anomalous images as weak labels is not possible; give "
            "more than 0 and at most 1, e.g. 0.02"
        )
    defects = [index for index in candidates if samples[index].label == ANOMALOUS]
    if not defects:
        raise ValueError(
            f"weak labels need anomalous images, and none of these {len(candidates)} is one; "
            "give some, or choose a method that learns from normal images alone"
        )
    anomalous = sum(sample.label == ANOMALOUS for sample in samples)
    count = math.ceil(round(fraction * anomalous, 9))  # 0.07 * 100 is a little more than 7
    return tuple(sorted(in_turns(defects, samples, np.random.default_rng(seed))[:count]))


def move_weak(
    samples: Sequence[Sample], weak: WeakSplit, seed: int
) -> tuple[tuple[Sample, ...], int]:
    """The samples, those to train on first, after a draw from the anomalous test images, and how
    many images left the test part.

    The drawn ones are to train on (`split` "train"), or, unless `weak.learn`, gone. Other images of
    their groups are gone too, since groups never straddle train and test.

    Raises:
        ValueError: as `draw_weak`, or no anomalous image is left to test on.
    """
    tested = [i for i, sample in enumerate(samples) if sample.split == "test"]
    drawn = draw_weak(samples, tested, weak.fraction, seed)
    groups = {samples[i].group for i in drawn} - {None}
    kept = [i for i in tested if i not in drawn and samples[i].group not in groups]
    if not any(samples[i].label == ANOMALOUS for i in kept):
        raise ValueError(
            f"{len(drawn)} of the anomalous test images would leave the test part as weak labels, "
            "and no anomalous one would be left to test on.\n"
            "Use a smaller --weak_fraction, more anomalous test images, or --folds 2 or more, "
            "which leaves out nothing."
        )
    train = [sample for sample in samples if sample.split != "test"]
    moved = [dataclasses.replace(samples[i], split="train") for i in drawn] if weak.learn else []
    return (*train, *moved, *(samples[i] for i in kept)), len(tested) - len(kept)
