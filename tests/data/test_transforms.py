from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from leanet.data.transforms import Augment, augment, move
from leanet.records import Batch

SIDE = 16
ROUNDING = 1e-4  # far below the step of an 8-bit image, 1 / 255


def batch(count: int = 64, side: int = SIDE, seed: int = 0) -> Batch:
    random = torch.Generator().manual_seed(seed)
    return Batch(
        torch.rand(count, 3, side, side, generator=random),
        torch.arange(count).float(),
        torch.rand(count, 1, side, side, generator=random),
    )


def drawn(given: Batch, how: Augment, seed: int = 0) -> Batch:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return augment(given, how)


def eight_copies(planes: Tensor) -> list[Tensor]:
    """Planes [C, S, S], turned and mirrored by moving whole pixels."""
    return [
        torch.rot90(mirrored, turns, (1, 2))
        for mirrored in (planes, planes.flip(2))
        for turns in range(4)
    ]


def marked(count: int, row: int, column: int, side: int = 33) -> Batch:
    """Black but for a square of 5 pixels in the first color and in the map."""
    planes = torch.zeros(count, 1, side, side)
    planes[:, :, row - 2 : row + 3, column - 2 : column + 3] = 1
    image = torch.cat([planes, torch.zeros(count, 2, side, side)], dim=1)
    return Batch(image, torch.ones(count), planes)


def test_none_gives_back_the_same_batch() -> None:
    given = batch()
    assert augment(given, "none") is given


@pytest.mark.parametrize("side", [SIDE, 15, 96])
def test_a_flip_moves_whole_pixels(side: int) -> None:
    given = batch(64, side)
    changed = drawn(given, "flips")
    used = set()
    for before, after in zip(given.image, changed.image, strict=True):
        distances = [float((after - copy).abs().max()) for copy in eight_copies(before)]
        used.add(distances.index(min(distances)))
        assert min(distances) < ROUNDING
    assert used == set(range(8))


def test_flips_come_equally_often() -> None:
    corners = torch.zeros(1, 1, 2, 2)
    corners[0, 0] = torch.tensor([[0.0, 1.0], [2.0, 3.0]]) / 3
    given = Batch(corners.expand(4000, 3, 2, 2), torch.zeros(4000))
    seen = (drawn(given, "flips").image[:, 0].flatten(1) * 3).round().long()
    counts = torch.unique(seen, dim=0, return_counts=True)[1]
    assert len(counts) == 8
    assert float((counts - 500).abs().max()) < 5 * math.sqrt(500 * 7 / 8)


@pytest.mark.parametrize("how", ["flips", "affine"])
def test_image_and_map_move_together(how: Augment) -> None:
    given = batch()
    given = given._replace(anomaly_map=given.image[:, :1].clone())
    changed = drawn(given, how)
    assert changed.anomaly_map is not None
    assert torch.equal(changed.anomaly_map, changed.image[:, :1])
    assert not torch.allclose(changed.image, given.image, atol=0.01)


@pytest.mark.parametrize("how", ["flips", "affine"])
def test_a_mark_stays_marked_in_both_and_goes_to_many_places(how: Augment) -> None:
    changed = drawn(marked(200, row=9, column=20), how)
    assert changed.anomaly_map is not None
    peaks = changed.image[:, 0].flatten(1).argmax(dim=1)
    assert torch.equal(peaks, changed.anomaly_map.flatten(1).argmax(dim=1))
    assert changed.image[:, 0].flatten(1).amax(dim=1).min() > 0.9
    assert changed.image[:, 1:].abs().max() == 0
    assert len(torch.unique(peaks)) >= 8


def test_an_affine_change_stays_within_its_limits() -> None:
    """The mark moves by the shift, and by what a turn and a zoom do to its distance."""
    side, row, column = 101, 60, 70
    changed = drawn(marked(500, row, column, side), "affine").image[:, 0]
    centers = torch.stack([mean_position(one) for one in changed])
    distances = (centers - (side - 1) / 2).norm(dim=1)
    before = math.hypot(row - (side - 1) / 2, column - (side - 1) / 2)
    shift = math.sqrt(2) * 0.06 * side * 1.1
    assert distances.max() <= (before + shift) / 0.9 + 0.5
    assert distances.min() >= before / 1.1 - shift / 0.9 - 0.5
    assert distances.max() - distances.min() > 0.5 * shift


def mean_position(plane: Tensor) -> Tensor:
    at = torch.arange(len(plane), dtype=torch.float32)
    return torch.stack([(plane.sum(dim=1) * at).sum(), (plane.sum(dim=0) * at).sum()]) / plane.sum()


def test_an_affine_change_keeps_the_range() -> None:
    changed = drawn(batch(200), "affine")
    assert changed.anomaly_map is not None
    for planes in (changed.image, changed.anomaly_map):
        assert planes.min() >= 0
        assert planes.max() <= 1 + 1e-6


def test_what_is_of_one_color_stays_so_beyond_the_border() -> None:
    given = Batch(torch.full((50, 3, SIDE, SIDE), 0.7), torch.zeros(50))
    changed = drawn(given, "affine").image
    assert torch.allclose(changed, torch.tensor(0.7), atol=1e-5)


@pytest.mark.parametrize("how", ["flips", "affine"])
def test_draws_follow_the_global_stream(how: Augment) -> None:
    given = batch()
    assert torch.equal(drawn(given, how, seed=1).image, drawn(given, how, seed=1).image)
    assert not torch.equal(drawn(given, how, seed=1).image, drawn(given, how, seed=2).image)


def test_the_given_batch_is_not_changed_and_labels_stay() -> None:
    given = batch()
    before = given.image.clone()
    changed = drawn(given, "affine")
    assert torch.equal(given.image, before)
    assert torch.equal(changed.label, given.label)
    assert changed.image.shape == given.image.shape


def test_a_batch_without_a_map_stays_without() -> None:
    assert drawn(batch()._replace(anomaly_map=None), "affine").anomaly_map is None


def test_a_mask_keeps_its_two_values_when_it_is_moved_by_nearest_pixels() -> None:
    mask = (batch(8).anomaly_map > 0.5).float()  # type: ignore[operator]
    turn = torch.tensor([[0.8, -0.6, 0.1], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
    moved = move(mask, turn.expand(8, 3, 3), mode="nearest")
    assert set(moved.unique().tolist()) == {0.0, 1.0}


def test_the_identity_moves_nothing() -> None:
    planes = batch(4).image
    assert torch.allclose(move(planes, torch.eye(3).expand(4, 3, 3)), planes, atol=1e-5)


def test_a_crop_keeps_at_least_seven_tenths_of_the_area() -> None:
    side = 64
    ramp = torch.linspace(0, 1, side)
    image = torch.stack([ramp.expand(side, side), ramp[:, None].expand(side, side)])
    given = Batch(image.expand(200, 2, side, side), torch.zeros(200))
    cropped = drawn(given, "crop").image
    widths = (cropped[:, 0, 0, -1] - cropped[:, 0, 0, 0]).abs()
    heights = cropped[:, 1, -1, 0] - cropped[:, 1, 0, 0]
    assert (heights > 0).all()  # never upside down
    mirrored = (cropped[:, 0, 0, -1] < cropped[:, 0, 0, 0]).float().mean()
    assert 0.35 < float(mirrored) < 0.65
    areas = widths * heights
    assert 0.68 < float(areas.min()) < 0.75
    assert 0.95 < float(areas.max()) < 1.01
    torch.testing.assert_close(widths, heights, rtol=5e-3, atol=0)  # a square stays one


def test_a_crop_moves_image_and_map_together() -> None:
    given = batch(8)
    tied = given._replace(anomaly_map=given.image[:, :1].clone())
    changed = drawn(tied, "crop")
    assert changed.anomaly_map is not None
    torch.testing.assert_close(changed.image[:, :1], changed.anomaly_map)
