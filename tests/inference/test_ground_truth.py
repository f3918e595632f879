from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from leanet.inference.ground_truth import EDGE_IMAGES, EDGE_PIXELS, empty_counts, spread
from leanet.inference.judge import Outputs
from leanet.records import ANOMALOUS, NORMAL, Sample


def samples(count: int, label: int = NORMAL, mask: Path | None = None) -> list[Sample]:
    return [Sample(path=Path(f"{label}-{k}.png"), label=label, mask=mask) for k in range(count)]


def batch(maps: np.ndarray | None) -> Outputs:
    return Outputs(paths=(Path("x"),), sizes=((8, 8),), scores={"score": [0.0]}, maps=maps)


def test_the_images_for_the_edges_are_spread_evenly_over_the_data() -> None:
    everything = samples(500) + samples(100, ANOMALOUS, Path("mask.png"))
    chosen = spread(everything)
    places = [everything.index(one) for one in chosen]
    assert len(chosen) == EDGE_IMAGES
    assert (places[0], places[-1]) == (0, 599)
    assert set(np.diff(places)) <= {19, 20}


def test_images_that_do_not_count_are_not_among_them() -> None:
    unmasked, normal = samples(9, ANOMALOUS), samples(3)
    assert spread(unmasked + normal) == normal
    assert spread(unmasked) == []


def test_a_few_random_pixels_of_each_map_make_the_edges() -> None:
    maps = np.zeros((2, 512, 512), dtype=np.float32)
    maps[1] = 5.0
    counts = empty_counts(iter([batch(maps)]), None, seed=0)
    assert counts is not None
    assert counts.edges[0] == 0.0
    assert 5.0 in counts.edges
    assert maps[0].size > EDGE_PIXELS


def test_the_threshold_of_the_map_is_an_edge() -> None:
    maps = np.random.default_rng(0).random((3, 8, 8)).astype(np.float32)
    counts = empty_counts(iter([batch(maps)]), 0.123456789, seed=0)
    assert counts is not None
    assert 0.123456789 in counts.edges


@pytest.mark.parametrize("batches", [[], [batch(None)]])
def test_without_maps_there_is_nothing_to_count(batches: list[Outputs]) -> None:
    assert empty_counts(iter(batches), 1.0, seed=0) is None
