from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors
from sklearn.random_projection import johnson_lindenstrauss_min_dim
from torch import Tensor, nn

from leanet.ops.coreset import (
    Nearest,
    coreset_bytes,
    greedy_coreset,
    nearest_row,
    projected_dims,
    reweighted,
    sparse_projection,
)

Points = NDArray[np.float32]


def cloud(num: int, dims: int = 5, seed: int = 0) -> Points:
    """Clumps of very different width, far from 0."""
    rng = np.random.default_rng(seed)
    center = rng.normal(10, 4, (7, dims))
    width = rng.uniform(0.1, 3, 7)
    of = rng.integers(7, size=num)
    noise = rng.normal(size=(num, dims))
    return (center[of] + width[of, None] * noise).astype(np.float32)


def naive(points: Points, first: int, count: int) -> list[int]:
    """Every choice looks at all rows, in float64."""
    chosen = [first]
    nearest = cdist(points.astype(np.float64), points[[first]].astype(np.float64))[:, 0]
    while len(chosen) < count:
        chosen.append(int(nearest.argmax()))
        new = cdist(points.astype(np.float64), points[[chosen[-1]]].astype(np.float64))[:, 0]
        nearest = np.minimum(nearest, new)
    return chosen


def draw(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Counted:
    """Rows that count how many of them have been looked at."""

    def __init__(self, points: Points) -> None:
        self.points, self.shape, self.looked = points, points.shape, 0

    def __getitem__(self, index: Any) -> Points:
        rows: Points = self.points[index]
        self.looked += len(rows)
        return rows


@pytest.mark.parametrize(("num", "dims", "count"), [(700, 5, 150), (300, 40, 299), (60, 2, 60)])
def test_the_choices_are_those_of_the_plain_way(num: int, dims: int, count: int) -> None:
    points = cloud(num, dims)
    chosen = greedy_coreset(points, count, draw(), active=50).tolist()
    assert chosen == naive(points, chosen[0], count)


@pytest.mark.parametrize("active", [1, 17, 256, 5000])
def test_how_many_rows_are_brought_up_to_date_together_does_not_matter(active: int) -> None:
    points = cloud(400)
    expected = greedy_coreset(points, 90, draw(), active=64)
    assert torch.equal(greedy_coreset(points, 90, draw(), active=active), expected)


def test_rows_in_a_file_give_the_same_as_rows_in_memory(tmp_path: Path) -> None:
    points = cloud(500)
    points.tofile(tmp_path / "rows")
    mapped = np.memmap(tmp_path / "rows", np.float32, "r", shape=points.shape)
    assert torch.equal(greedy_coreset(mapped, 80, draw()), greedy_coreset(points, 80, draw()))


def test_one_seed_gives_one_coreset_and_another_another_start() -> None:
    points = cloud(300)
    first = greedy_coreset(points, 30, draw())
    assert torch.equal(first, greedy_coreset(points, 30, draw()))
    assert first[0] != greedy_coreset(points, 30, draw(4))[0]


def test_equal_rows_are_taken_once_each_when_nothing_else_is_left() -> None:
    points = np.repeat(cloud(10), 4, axis=0)
    chosen = greedy_coreset(points, 40, draw(), active=8).tolist()
    assert sorted(chosen) == list(range(40))
    assert sorted(k // 4 for k in chosen[:10]) == list(range(10))


def test_few_rows_are_looked_at_again() -> None:
    points = Counted(cloud(5000))
    greedy_coreset(points, 200, draw(), active=100)
    assert points.looked < 0.1 * 200 * 5000  # the plain way looks at all of them 200 times


def test_the_progress_adds_up_to_the_choices_after_the_first() -> None:
    told: list[int] = []
    greedy_coreset(cloud(100), 20, draw(), active=10, advance=told.append)
    assert sum(told) == 19


@pytest.mark.parametrize("count", [0, 101])
def test_a_coreset_larger_than_the_set_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} rows from 100: take 1 to 100"):
        greedy_coreset(cloud(100), count, draw())


def test_the_memory_grows_by_a_few_numbers_per_row_whatever_their_length() -> None:
    short, long = (coreset_bytes(2_000_000, d, 1000) for d in (10, 1000))
    assert long - short == 4 * 990 * (1000 + 2 * 8192)  # the taken rows and a block
    assert coreset_bytes(3_000_000, 10, 1000) - short == 20 * 1_000_000


@pytest.mark.parametrize("block", [1, 13, 1000])
def test_the_nearest_rows_are_those_of_scikit_learn(block: int) -> None:
    bank, places = cloud(200), cloud(90, seed=1)
    found = nearest_row(torch.from_numpy(places), torch.from_numpy(bank), block)
    distance, row = NearestNeighbors(n_neighbors=1).fit(bank).kneighbors(places)
    np.testing.assert_allclose(found.distance, distance[:, 0], rtol=1e-5)
    np.testing.assert_array_equal(found.row, row[:, 0])


def test_a_place_that_is_in_the_bank_is_at_distance_0_exactly() -> None:
    bank = torch.from_numpy(cloud(200)) + 1000
    assert nearest_row(bank, bank).distance.abs().max() == 0


def test_the_weighed_score_is_equation_7_of_the_paper() -> None:
    bank, places = cloud(60).astype(np.float64), cloud(4, seed=1).astype(np.float64)
    to_bank, inside = cdist(places, bank), cdist(bank, bank)
    expected = []
    for distances in to_bank:
        star = distances.argmin()
        around = inside[star].argsort()[:5]  # the nearest row itself among them
        weight = 1 - np.exp(distances[star]) / np.exp(distances[around]).sum()
        expected.append(weight * distances[star])
    near, rows = torch.from_numpy(places).float(), torch.from_numpy(bank).float()
    np.testing.assert_allclose(reweighted(near, nearest_row(near, rows), rows, 5), expected, 1e-4)


@pytest.mark.parametrize(("rows", "neighbors"), [(20, 1), (1, 9)])
def test_without_neighbors_the_distance_is_the_score(rows: int, neighbors: int) -> None:
    bank, places = torch.from_numpy(cloud(rows)), torch.from_numpy(cloud(3, seed=1))
    found = nearest_row(places, bank)
    assert torch.equal(reweighted(places, found, bank, neighbors), found.distance)


def test_rows_that_are_equal_to_the_nearest_do_not_take_its_place() -> None:
    bank = torch.tensor([[0.0], [0.0], [1.0]])
    place, nearest = torch.tensor([[3.0]]), Nearest(torch.tensor([2.0]), torch.tensor([2]))
    expected = 2 * (1 - np.exp(2) / (np.exp(2) + np.exp(3)))
    assert reweighted(place, nearest, bank, 2).item() == pytest.approx(expected)


@pytest.mark.parametrize(("num", "eps"), [(10, 0.9), (200_000, 0.9), (5000, 0.3)])
def test_the_projected_dimensions_are_those_of_scikit_learn(num: int, eps: float) -> None:
    assert projected_dims(num, eps) == johnson_lindenstrauss_min_dim(num, eps=eps)


@pytest.mark.parametrize("eps", [0.0, 1.0])
def test_an_impossible_error_is_refused(eps: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        projected_dims(10, eps)


def test_a_projection_is_sparse_and_keeps_distances() -> None:
    matrix = sparse_projection(400, 300, draw())
    assert sorted(matrix.unique().tolist()) == pytest.approx([-((20 / 300) ** 0.5), 0, 0.258199])
    assert (matrix != 0).float().mean().item() == pytest.approx(1 / 20, abs=0.003)
    points = torch.from_numpy(cloud(80, 400))
    ratio = torch.pdist(points @ matrix) / torch.pdist(points)
    assert ratio.mean().item() == pytest.approx(1, abs=0.02)
    assert 0.6 < ratio.min() < ratio.max() < 1.4


class ToBank(nn.Module):
    def __init__(self, bank: Tensor) -> None:
        super().__init__()
        self.bank = nn.Buffer(bank)

    def forward(self, places: Tensor) -> Nearest:
        return nearest_row(places, self.bank, block=40)


@pytest.mark.parametrize("rows", [1, 31, 32, 40, 73, 130])
def test_an_exported_graph_finds_the_same_rows(rows: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    bank = torch.randn(rows, 5, generator=generator)
    places = torch.randn(9, 5, generator=generator)
    shapes = ({0: torch.export.Dim("places", min=1, max=4096)},)
    program = torch.export.export(ToBank(bank), (places[:2],), dynamic_shapes=shapes).module()
    got, want = program(places), nearest_row(places, bank)
    assert torch.equal(got.row, want.row)
    assert torch.equal(got.distance, want.distance)
