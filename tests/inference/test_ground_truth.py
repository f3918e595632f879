from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from leanet.inference.ground_truth import (
    EDGE_IMAGES,
    EDGE_PIXELS,
    Judging,
    MapPoints,
    PixelTally,
    draw_edges,
    map_points,
    spread,
    start_tally,
)
from leanet.inference.judge import Outputs
from leanet.records import ANOMALOUS, NORMAL, Sample

Plane = NDArray[np.float32]


def samples(count: int, label: int = NORMAL, mask: Path | None = None) -> list[Sample]:
    return [Sample(path=Path(f"{label}-{k}.png"), label=label, mask=mask) for k in range(count)]


def batch(maps: np.ndarray | None) -> Outputs:
    return Outputs(paths=(Path("x"),), sizes=((8, 8),), scores={"score": [0.0]}, maps=maps)


def judging(maps: np.ndarray | None) -> Judging:
    return lambda few: iter([batch(maps)])


def masked(root: Path, name: str, mask: Sequence[Sequence[int]]) -> Sample:
    """An anomalous sample with this mask."""
    Image.fromarray(255 * np.array(mask, dtype=np.uint8)).save(root / f"{name}.png")
    return Sample(path=Path(f"{name}.jpg"), label=ANOMALOUS, mask=root / f"{name}.png")


def tallied(images: Sequence[tuple[Sample, Plane]], points: MapPoints) -> dict[str, float]:
    """The figures of these images, each with a map of its mask's size; thresholds of the maps are
    the edges, so that the curves are exact."""
    values = [value for _, plane in images for value in plane.ravel().tolist()]
    tally = PixelTally(np.unique([*values, *points.named.values()]), points)
    for sample, plane in images:
        tally.add(sample, (plane.shape[0], plane.shape[1]), plane)
    return tally.figures()


def plane(*rows: Sequence[float]) -> Plane:
    return np.array(rows, dtype=np.float32)


def noisy(root: Path, count: int, side: int = 12) -> list[tuple[Sample, Plane]]:
    """Anomalous images with a rectangle each, maps that know something of it, and normal ones."""
    rng, images = np.random.default_rng(5), []
    for k in range(count):
        mask = np.zeros((side, side), dtype=int)
        top, left = rng.integers(0, side - 4, 2)
        mask[top : top + 2 + k % 3, left : left + 4] = 1
        known = (rng.random((side, side)) * 0.7 + 0.3 * mask).astype(np.float32)
        images.append((masked(root, f"a{k}", mask.tolist()), known))
        images.append((samples(1)[0], rng.random((side, side), dtype=np.float32)))
    return images


def truth_of(sample: Sample, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    return np.zeros(shape, bool) if sample.mask is None else np.asarray(Image.open(sample.mask)) > 0


# Which images, which thresholds


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
    edges = draw_edges(iter([batch(maps)]), (), seed=0)
    assert edges is not None
    assert edges[0] == 0.0
    assert 5.0 in edges
    assert maps[0].size > EDGE_PIXELS


def test_all_thresholds_of_the_map_are_edges() -> None:
    maps = np.random.default_rng(0).random((3, 8, 8)).astype(np.float32)
    points = MapPoints(0.123456789, {"paper": 0.5, "honest": 0.987654321})
    tally = start_tally(samples(3, ANOMALOUS, Path("mask.png")), judging(maps), points, seed=0)
    assert tally is not None
    assert {0.123456789, 0.5, 0.987654321} <= set(tally.anomalous.edges)


@pytest.mark.parametrize("batches", [[], [batch(None)]])
def test_without_maps_there_is_nothing_to_count(batches: list[Outputs]) -> None:
    assert draw_edges(iter(batches), [1.0], seed=0) is None


def test_a_tally_needs_masks_and_maps() -> None:
    maps, points = np.zeros((1, 8, 8), dtype=np.float32), MapPoints()
    with_masks = samples(2, ANOMALOUS, Path("mask.png"))
    assert start_tally(with_masks, judging(maps), points, seed=0) is not None
    assert start_tally(with_masks, judging(None), points, seed=0) is None
    assert start_tally(samples(2, ANOMALOUS), judging(maps), points, seed=0) is None


def test_a_detector_may_say_nothing_of_its_map() -> None:
    class Telling:
        map_thresholds = {"paper": 0.5}  # noqa: RUF012
        map_grid = 8

    assert map_points(object()) == MapPoints(None, {}, None)
    assert map_points(Telling(), 0.7) == MapPoints(0.7, {"paper": 0.5}, 8)


# IoU over anomalous images


def test_iou_pools_the_anomalous_images_and_no_normal_one(tmp_path: Path) -> None:
    # (TP, FP, FN) = (1, 0, 1) and (0, 2, 0) give 1/4; the normal image is called anomalous all over
    first = masked(tmp_path, "a", [[1, 1]]), plane([1.0, 0.0])
    second = masked(tmp_path, "b", [[0, 0]]), plane([1.0, 1.0])
    normal = samples(1)[0], plane([1.0, 1.0])
    points = MapPoints(named={"paper": 0.5})
    assert tallied([first, second], points)["iou_paper"] == 0.25
    assert tallied([first, second, normal], points)["iou_paper"] == 0.25


def test_named_figures_are_those_of_all_pixels_counted_one_by_one(tmp_path: Path) -> None:
    images, named = noisy(tmp_path, 7), {"paper": 0.5, "honest": 0.81}
    figures = tallied(images, MapPoints(named=named))
    everywhere = [(truth_of(s, p.shape), p) for s, p in images]
    defective = [(t, p) for t, p in everywhere if t.any()]
    for name, at in named.items():
        ious = [(t & (p >= at)).sum() / (t | (p >= at)).sum() for t, p in defective]
        shared = sum((t & (p >= at)).sum() for t, p in defective)
        union = sum((t | (p >= at)).sum() for t, p in defective)
        marked = sum(t.sum() + (p >= at).sum() for t, p in everywhere)
        assert figures[f"image_iou_{name}"] == pytest.approx(np.mean(ious))
        assert figures[f"iou_{name}"] == pytest.approx(shared / union)
        assert figures[f"f1_{name}"] == pytest.approx(2 * shared / marked)  # of all images
        assert figures[f"threshold_{name}"] == at
    assert (figures["num_images"], figures["num_anomalous"]) == (14, 7)


def test_the_oracle_is_the_best_iou_of_all_thresholds_over_anomalous_images(tmp_path: Path) -> None:
    images = noisy(tmp_path, 5)
    defective = [(truth_of(s, p.shape), p) for s, p in images if s.mask is not None]
    truth = np.concatenate([t.ravel() for t, _ in defective])
    value = np.concatenate([p.ravel() for _, p in defective])
    best = max((truth & (value >= at)).sum() / (truth | (value >= at)).sum() for at in value)
    figures = tallied(images, MapPoints())
    assert figures["oracle_iou"] == pytest.approx(best)
    assert figures["best_iou"] < best  # with false alarms on normal images


def test_a_value_exactly_at_a_threshold_counts_and_float32_does_not_blur_it(tmp_path: Path) -> None:
    image = masked(tmp_path, "a", [[1, 1]]), plane([0.5, 0.6])
    beyond = float(np.nextafter(0.5, 1))  # how a detector asks for "more than 0.5"
    figures = tallied([image], MapPoints(named={"at": 0.5, "above": beyond}))
    assert (figures["iou_at"], figures["image_iou_at"]) == (1.0, 1.0)
    assert (figures["iou_above"], figures["image_iou_above"]) == (0.5, 0.5)


def test_an_empty_mask_with_nothing_found_has_no_iou_of_its_own(tmp_path: Path) -> None:
    found = masked(tmp_path, "a", [[1, 1]]), plane([1.0, 0.0])
    empty = masked(tmp_path, "b", [[0, 0]]), plane([0.0, 0.0])
    figures = tallied([found, empty], MapPoints(named={"paper": 0.5}))
    assert figures["image_iou_paper"] == 0.5
    assert tallied([empty], MapPoints(named={"p": 0.5}))["num_anomalous"] == 1
    assert np.isnan(tallied([empty], MapPoints(named={"p": 0.5}))["image_iou_p"])


def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    points = MapPoints(named={"paper": 0.5}, grid=4)
    tally = PixelTally(np.linspace(0, 1, 50), points)
    for sample, values in noisy(tmp_path, 20):
        tally.add(sample, (12, 12), values)
    assert tally.normal.normal.size == tally.anomalous.anomalous.size == 51
    assert tally.ceiling.normal.size == 1002
    assert tally.ious.keys() == {"paper"}


# The ceiling of the grid


def test_the_ceiling_is_one_where_the_grid_is_as_fine_as_the_masks(tmp_path: Path) -> None:
    figures = tallied(noisy(tmp_path, 3), MapPoints(grid=12))
    assert figures["oracle_iou_grid"] == 1.0
    assert figures["map_grid"] == 12


def test_without_a_grid_there_is_no_ceiling(tmp_path: Path) -> None:
    assert "oracle_iou_grid" not in tallied(noisy(tmp_path, 1), MapPoints())


@pytest.mark.parametrize(
    ("side", "start", "grid", "expected"),
    [(16, 96, 8, 0.23), (16, 96, 16, 0.81), (32, 112, 8, 1.0), (32, 96, 16, 0.92)],
)
def test_a_square_defect_in_256_px_has_its_known_ceiling(
    tmp_path: Path, side: int, start: int, grid: int, expected: float
) -> None:
    mask = np.zeros((256, 256), dtype=int)
    mask[start : start + side, start : start + side] = 1
    sample = masked(tmp_path, "square", mask.tolist())
    figures = tallied([(sample, plane(*mask.tolist()))], MapPoints(grid=grid))
    assert figures["oracle_iou"] == 1.0
    assert figures["oracle_iou_grid"] == pytest.approx(expected, abs=0.01)


# Maps that leave out the border of the image


def bordered(images: Sequence[tuple[Sample, Plane]], side: int, points: MapPoints) -> PixelTally:
    """Tallied at `side` px, the resolution of the masks."""
    tally = PixelTally(np.linspace(0, 1, 400), points)
    for sample, values in images:
        tally.add(sample, (side, side), values)
    return tally


def cut(
    images: Sequence[tuple[Sample, Plane]], root: Path, border: int
) -> list[tuple[Sample, Plane]]:
    """The same images without their border."""
    inner = slice(border, -border)
    found = []
    for k, (sample, values) in enumerate(images):
        truth = truth_of(sample, values.shape)[inner, inner]
        named = (
            sample if sample.mask is None else masked(root, f"cut{k}", truth.astype(int).tolist())
        )
        found.append((named, values[inner, inner]))
    return found


def test_figures_of_a_map_with_a_border_are_those_of_the_cut_images(tmp_path: Path) -> None:
    images = noisy(tmp_path, 6, side=24)
    named = {"paper": 0.5, "honest": 0.81}
    edges = np.unique([*np.linspace(0, 1, 400), *named.values()])
    whole = PixelTally(edges, MapPoints(named=named, grid=4, border=4))
    inner = PixelTally(edges, MapPoints(named=named, grid=4))
    for sample, values in images:
        covered = values.copy()
        covered[:4] = covered[-4:] = covered[:, :4] = covered[:, -4:] = 0
        whole.add(sample, (24, 24), covered)
    for sample, values in cut(images, tmp_path, 4):
        inner.add(sample, (16, 16), values)
    found, expected = whole.figures(), inner.figures()
    assert found.keys() - expected.keys() == {"num_outside", "num_regions_outside"}
    for name in expected.keys() - {"num_regions", "aupro"}:  # a region cut off is no smaller region
        assert found[name] == pytest.approx(expected[name], nan_ok=True), name


def test_what_the_border_holds_changes_nothing(tmp_path: Path) -> None:
    images = noisy(tmp_path, 4, side=24)
    figures = []
    for value in (0.0, 1.0):
        filled = [(sample, values.copy()) for sample, values in images]
        for _, values in filled:
            values[:4] = values[-4:] = values[:, :4] = values[:, -4:] = value
        tally = bordered(filled, 24, MapPoints(border=4))
        # at twice the resolution the border must not leak in by interpolation either
        fine = PixelTally(np.linspace(0, 1, 400), MapPoints(border=4))
        fine.add(samples(1)[0], (96, 96), filled[0][1])
        figures.append((tally.figures(), fine.normal.normal.tolist()))
    assert figures[0][1] == figures[1][1]
    assert figures[0][0] == pytest.approx(figures[1][0], nan_ok=True)


def test_a_region_outside_is_no_region_and_its_image_is_counted(tmp_path: Path) -> None:
    outside, both = np.zeros((16, 16), int), np.zeros((16, 16), int)
    outside[0, 3:6] = 1
    both[0, 3:6] = both[15, 15] = 1
    both[7:9, 7:9] = 1
    values = np.full((8, 8), 0.3, np.float32)
    images = [
        (masked(tmp_path, "a", outside.tolist()), values),
        (masked(tmp_path, "b", both.tolist()), values),
        (samples(1)[0], values),
    ]
    figures = bordered(images, 16, MapPoints(border=2)).figures()
    assert (figures["num_images"], figures["num_anomalous"]) == (3, 2)
    assert figures["num_regions"] == 1
    assert (figures["num_regions_outside"], figures["num_outside"]) == (3, 1)
    assert "num_outside" not in bordered(images[2:], 16, MapPoints()).figures()


def test_no_pixel_of_the_border_makes_an_edge() -> None:
    maps = np.full((2, 16, 16), 7.0, dtype=np.float32)
    maps[:, 4:12, 4:12] = np.random.default_rng(0).random((2, 8, 8))
    edges = draw_edges(iter([batch(maps)]), (), seed=0, border=4)
    assert edges is not None
    assert edges.max() < 2.5
    whole = draw_edges(iter([batch(maps)]), (), seed=0)
    assert whole is not None
    assert whole.max() >= 7
