"""Which images stand for a data set: half normal, half spread over the kinds of defects."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, zip_longest
from typing import Final

import numpy as np

from leanet.records import ANOMALOUS, NORMAL

NUMBER: Final = 12


def half_and_half(
    labels: Sequence[int], kinds: Sequence[str], number: int = NUMBER, *, seed: int = 0
) -> list[int]:
    """Up to `number` places, drawn by lot and in an order by lot, both the same for equal input.

    Half of them are normal. The kinds of the anomalous ones take turns, and so do those of the
    normal ones; where one half has too few, the other gives more.
    """
    rng = np.random.default_rng(seed)
    lots = [int(place) for place in rng.permutation(len(labels))]
    normal, anomalous = (
        _by_turns([place for place in lots if labels[place] == label], kinds)
        for label in (NORMAL, ANOMALOUS)
    )
    defects = min(len(anomalous), max(number // 2, number - len(normal)))
    chosen = set(anomalous[:defects] + normal[: number - defects])
    return [place for place in lots if place in chosen]


def _by_turns(places: Sequence[int], kinds: Sequence[str]) -> list[int]:
    """The first of each kind, then the second of each, and so on."""
    of_kind: dict[str, list[int]] = {kind: [] for kind in sorted({kinds[p] for p in places})}
    for place in places:
        of_kind[kinds[place]].append(place)
    turns = chain.from_iterable(zip_longest(*of_kind.values()))
    return [place for place in turns if place is not None]
