from __future__ import annotations

import numpy as np
import pytest

from leanet.ops.covered import GREY, covered_box, extended, greyed, in_words, inside


@pytest.mark.parametrize(("side", "border"), [(256, 16), (128, 8), (32, 2), (64, 5), (256, 0)])
def test_a_pixel_is_covered_where_its_center_is(side: int, border: int) -> None:
    for pixels in range(3, 300):
        centers = (np.arange(pixels) + 0.5) / pixels
        low, high = border / side, 1 - border / side
        expected = (centers >= low - 1e-12) & (centers <= high + 1e-12)
        rows, columns = covered_box((pixels, 2 * pixels), side, border)
        found = np.zeros(pixels, bool)
        found[rows] = True
        assert np.array_equal(found, expected)
        assert columns == covered_box((2 * pixels, 1), side, border)[0]


def test_a_border_that_leaves_nothing_is_refused() -> None:
    for border in (-1, 16, 20):
        with pytest.raises(ValueError, match=rf"border must lie in \[0, 32/2\).*not {border}"):
            covered_box((8, 8), 32, border)


def test_a_box_as_an_array() -> None:
    mask = inside((4, 6), covered_box((4, 6), 8, 2))
    assert mask.sum() == 2 * 4 - 2 * (6 - 4 - 2)
    assert mask[1:3, 2:4].all()
    assert not mask[0].any()


def test_an_extended_map_repeats_its_outer_covered_values() -> None:
    plane = np.zeros((6, 6), np.float32)
    plane[2:4, 2:4] = [[1, 2], [3, 4]]
    whole = extended(plane, 2)
    assert np.array_equal(whole[:3, :3], np.ones((3, 3)))
    assert np.array_equal(whole[3:, 3:], np.full((3, 3), 4.0))
    assert extended(plane, 0) is plane


def test_grey_has_no_color_little_contrast_and_spares_the_box() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    drawn = greyed(picture, covered_box((8, 8), 8, 2))
    assert np.array_equal(drawn[2:6, 2:6], picture[2:6, 2:6])
    outside = drawn[0].astype(int)
    assert (outside == outside[:, :1]).all()
    assert np.abs(outside - GREY).max() < 0.5 * np.abs(picture.astype(int) - GREY).max()


def test_the_words_name_the_share_of_each_side() -> None:
    told = in_words(256, 16)
    assert "outer 6.25 % of each side (16 of 256 px)" in told
    assert "a method with the option --crop covers all" in told, "models of anomalib have none"
