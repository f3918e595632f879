from __future__ import annotations

import numpy as np
import pytest
from matplotlib import colormaps
from numpy.typing import NDArray
from skimage.transform import resize

from leanet.inference.heatmap import MAP_TOP, OPACITY, overlay


def picture(height: int = 24, width: int = 36, seed: int = 0) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def flat(value: float, side: int = 6) -> NDArray[np.float32]:
    return np.full((side, side), value, dtype=np.float32)


def hill(height: int, width: int, top: float) -> NDArray[np.float32]:
    rows, columns = np.mgrid[:height, :width] / max(height, width) - 0.4
    return np.asarray(top * np.exp(-20 * (rows**2 + columns**2)), dtype=np.float32)


def test_where_the_map_is_zero_the_picture_stays() -> None:
    assert np.array_equal(overlay(picture(), flat(0.0)), picture())


def test_negative_values_count_as_zero() -> None:
    assert np.array_equal(overlay(picture(), flat(-3.0)), picture())


def test_at_the_top_the_last_color_of_inferno_covers_the_picture_partly() -> None:
    color = 255 * np.asarray(colormaps["inferno"](1.0)[:3])
    expected = (1 - OPACITY) * picture() + OPACITY * color
    assert np.abs(overlay(picture(), flat(MAP_TOP)) - expected).max() <= 1


def test_values_above_the_top_look_like_the_top() -> None:
    at_top = overlay(picture(), flat(10.0), top=10)
    assert np.array_equal(overlay(picture(), flat(99.0), top=10), at_top)
    assert not np.array_equal(overlay(picture(), flat(9.0), top=10), at_top)


def test_a_value_looks_the_same_whatever_else_the_map_holds() -> None:
    alone, beside_a_peak = flat(5.0), flat(5.0)
    beside_a_peak[0, 0] = 500.0
    far = (slice(12, None), slice(18, None))
    assert np.array_equal(overlay(picture(), alone)[far], overlay(picture(), beside_a_peak)[far])


def test_a_higher_value_is_a_brighter_color_and_nearly_normal_is_hardly_touched() -> None:
    black = np.zeros((8, 8, 3), dtype=np.uint8)
    brightness = [overlay(black, flat(s), top=1).mean() for s in np.linspace(0, 1, 21)]
    assert brightness[0] == 0
    assert all(np.diff(brightness) > 0)
    assert brightness[1] < brightness[-1] / 50


def test_the_map_is_stretched_bilinearly_to_the_picture() -> None:
    small = np.random.default_rng(1).random((6, 9)).astype(np.float32) * 20
    large = resize(small, (24, 36), order=1, mode="edge", anti_aliasing=False)  # type: ignore[no-untyped-call]
    difference = overlay(picture(), small).astype(int) - overlay(picture(), large).astype(int)
    assert np.abs(difference).max() <= 1


def test_a_tall_picture_is_the_same_as_its_pieces() -> None:
    image, anomaly_map = picture(700, 40), hill(700, 40, 60.0)
    whole = overlay(image, anomaly_map)
    pieces = [overlay(image[k : k + 100], anomaly_map[k : k + 100]) for k in range(0, 700, 100)]
    assert np.array_equal(whole, np.concatenate(pieces))


def test_the_contour_encloses_what_lies_above_it() -> None:
    image = np.zeros((20, 20, 3), dtype=np.uint8)
    anomaly_map = np.zeros((20, 20), dtype=np.float32)
    anomaly_map[5:15, 5:15] = 10.0
    line = (overlay(image, anomaly_map, contour=10.0) == (0, 255, 255)).all(axis=-1)
    ring = np.zeros((20, 20), dtype=bool)
    ring[5:15, 5:15] = True
    ring[6:14, 6:14] = False
    assert np.array_equal(line, ring)


def test_a_contour_does_not_follow_the_border_of_the_picture() -> None:
    line = (overlay(picture(), flat(20.0), contour=10.0) == (0, 255, 255)).all(axis=-1)
    assert not line.any()


def test_the_inputs_are_not_changed() -> None:
    image, anomaly_map = picture(), hill(6, 6, 40.0)
    before = image.copy(), anomaly_map.copy()
    overlay(image, anomaly_map, contour=5.0)
    assert np.array_equal(image, before[0])
    assert np.array_equal(anomaly_map, before[1])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_map_that_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="36 pixels of the map are not finite"):
        overlay(picture(), flat(bad))


@pytest.mark.parametrize("top", [0.0, -1.0, np.inf, np.nan])
def test_a_top_that_is_not_positive_is_refused(top: float) -> None:
    with pytest.raises(ValueError, match="0 <= low < top"):
        overlay(picture(), flat(1.0), top=top)


def test_float_pictures_and_batched_maps_are_refused() -> None:
    with pytest.raises(ValueError, match="not float64"):
        overlay(picture() / 255, flat(1.0))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"\[1, 6, 6\]"):
        overlay(picture(), flat(1.0)[None])


def test_the_border_of_a_map_that_says_nothing_is_grey_and_the_rest_as_without() -> None:
    values = hill(16, 16, 40.0)
    plain = overlay(picture(32, 64), values)
    drawn = overlay(picture(32, 64), values, border=2, contour=20.0)
    assert (drawn[:4] == drawn[:4, :, :1]).all()
    assert (drawn[:, -8:] == drawn[:, -8:, :1]).all()
    same = overlay(picture(32, 64), values, contour=20.0)
    assert np.array_equal(drawn[8:-8, 16:-16], same[8:-8, 16:-16])
    assert not np.array_equal(plain[:4], drawn[:4])


def test_zeros_in_the_border_do_not_darken_what_is_beside_it() -> None:
    values = np.full((16, 16), 30.0, np.float32)
    values[:2] = values[-2:] = values[:, :2] = values[:, -2:] = 0
    drawn = overlay(picture(64, 64), values, border=2)
    expected = overlay(picture(64, 64), np.full((16, 16), 30.0, np.float32))
    assert np.array_equal(drawn[8:-8, 8:-8], expected[8:-8, 8:-8])


def test_colors_begin_at_low() -> None:
    image = np.full((4, 4, 3), 100, dtype=np.uint8)
    plane = np.array([[5.0, 5.0], [5.0, 9.0]])

    same = overlay(image, np.full((2, 2), 5.0), top=9.0, low=5.0)
    shifted = overlay(image, plane, top=9.0, low=5.0)

    assert np.array_equal(same, image)
    assert np.array_equal(shifted, overlay(image, plane - 5.0, top=4.0))
