from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from leanet.inference.overlay import (
    ALPHA,
    CONTOUR_COLOR,
    contoured,
    outlined,
    overlay,
    parse_scale,
    picture_scale,
    run_scale,
)
from leanet.ops.colormap import color_table


def picture(height: int = 24, width: int = 36) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def flat(value: float, side: int = 6) -> NDArray[np.float32]:
    return np.full((side, side), value, dtype=np.float32)


def faint(seed: int, top: float) -> NDArray[np.float32]:
    return (top * np.random.default_rng(seed).random((6, 6))).astype(np.float32)


# --- the overlay ---------------------------------------------------------------------------------


def test_pixels_without_evidence_are_unchanged_to_the_bit() -> None:
    heat = np.zeros((6, 9), dtype=np.float32)
    heat[0, 0] = 3.0
    drawn = overlay(picture(), heat, scale=3.0)
    assert np.array_equal(drawn[8:, 12:], picture()[8:, 12:])
    assert not np.array_equal(drawn[:4, :4], picture()[:4, :4])


@pytest.mark.parametrize("signed", [False, True])
def test_a_map_of_zeros_leaves_the_picture_alone(signed: bool) -> None:
    assert np.array_equal(overlay(picture(), flat(0.0), scale=1.0, signed=signed), picture())


def test_negative_values_show_in_signed_maps_only() -> None:
    assert np.array_equal(overlay(picture(), flat(-1.0), scale=1.0), picture())
    blue = color_table("signed")[0].astype(float)
    expected = (1 - ALPHA) * picture() + ALPHA * blue
    drawn = overlay(picture(), flat(-1.0), scale=1.0, signed=True)
    assert np.abs(drawn - expected).max() <= 1


def test_the_top_of_the_scale_has_the_last_color_at_the_given_opacity() -> None:
    last = color_table("inferno")[-1].astype(float)
    drawn = overlay(picture(), flat(2.0), scale=2.0, alpha=0.25)
    assert np.abs(drawn - (0.75 * picture() + 0.25 * last)).max() <= 1
    assert np.array_equal(overlay(picture(), flat(9.0), scale=2.0, alpha=0.25), drawn)


def test_more_evidence_is_more_opaque() -> None:
    grey = np.full((8, 8, 3), 128, dtype=np.uint8)
    black = np.zeros((8, 8, 3), dtype=np.uint8)
    shares = np.linspace(0, 1, 11)
    hidden = [
        128
        - (
            overlay(grey, flat(s), scale=1.0).astype(int) - overlay(black, flat(s), scale=1.0)
        ).mean()
        for s in shares
    ]
    assert hidden == pytest.approx(128 * ALPHA * shares, abs=1)


def test_flat_jet_is_the_look_of_older_programs() -> None:
    drawn = overlay(picture(), flat(0.0), scale=1.0, cmap="jet", alpha=0.4, blend="flat")
    expected = 0.6 * picture() + 0.4 * color_table("jet")[0].astype(float)
    assert np.abs(drawn - expected).max() <= 1


def test_a_dark_picture_stays_dark_where_nothing_speaks() -> None:
    dark = np.full((24, 24, 3), 9, dtype=np.uint8)
    heat = np.zeros((6, 6), dtype=np.float32)
    heat[0, 0] = 1.0
    assert (overlay(dark, heat, scale=1.0)[12:, 12:] == 9).all()


def test_the_inputs_are_not_changed() -> None:
    image, heat = picture(), flat(1.0)
    overlay(image, heat, scale=1.0)
    assert np.array_equal(image, picture())
    assert np.array_equal(heat, flat(1.0))


@pytest.mark.parametrize("scale", [0.0, -1.0, np.inf, np.nan])
def test_a_scale_that_is_not_positive_is_refused(scale: float) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        overlay(picture(), flat(1.0), scale=scale)


def test_other_types_shapes_and_words_are_refused() -> None:
    with pytest.raises(ValueError, match="not float64"):
        overlay(picture() / 255, flat(1.0), scale=1.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="36 values of the map are not finite"):
        overlay(picture(), flat(np.nan), scale=1.0)
    with pytest.raises(ValueError, match="alpha must lie in"):
        overlay(picture(), flat(1.0), scale=1.0, alpha=1.5)
    with pytest.raises(ValueError, match="no color table 'rainbow'"):
        overlay(picture(), flat(1.0), scale=1.0, cmap="rainbow")


# --- outlines ------------------------------------------------------------------------------------


def test_an_outline_runs_around_the_region_and_not_over_it() -> None:
    image, inside = np.zeros((20, 20, 3), dtype=np.uint8), np.zeros((20, 20), dtype=bool)
    inside[5:7, 5:7] = True
    line = (outlined(image, inside) != 0).any(axis=-1)
    expected = np.zeros((20, 20), dtype=bool)
    expected[4:8, 4:8] = True
    assert np.array_equal(line, expected & ~inside)
    with pytest.raises(ValueError, match="one size"):
        outlined(image, inside[1:])


def test_a_contour_runs_around_a_stated_level() -> None:
    heat = np.zeros((24, 36), dtype=np.float32)
    heat[8:12, 8:12] = 2.0
    line = (contoured(picture(), heat, 2.0) == CONTOUR_COLOR).all(axis=-1)
    expected = np.zeros((24, 36), dtype=bool)
    expected[7:13, 7:13] = True
    expected[8:12, 8:12] = False
    assert np.array_equal(line, expected)
    assert np.array_equal(contoured(picture(), heat, 2.1), picture())


# --- scales --------------------------------------------------------------------------------------


def test_a_normal_picture_stays_dark_under_the_scale_of_the_run() -> None:
    """Scaled to itself, the noise of a normal picture looks like a defect."""
    normal, defect = faint(1, 0.05), faint(2, 0.05)
    defect[2:4, 2:4] = 4.0
    top = run_scale([torch.from_numpy(normal), torch.from_numpy(defect)])
    own = picture_scale("image", None, [normal]).top
    black = np.zeros((24, 24, 3), dtype=np.uint8)
    assert overlay(black, normal, scale=top).max() <= 2
    assert overlay(black, normal, scale=own).max() > 100


def test_the_scale_of_a_run_is_a_quantile_of_the_absolute_values() -> None:
    maps = [torch.randn(40, 1, 16, 16, generator=torch.Generator().manual_seed(k)) for k in (0, 1)]
    expected = np.quantile(torch.cat(maps).abs().numpy(), 0.995)
    assert run_scale(maps) == pytest.approx(expected, rel=2e-3)
    assert run_scale([torch.zeros(1, 1, 4, 4)]) == 1
    with pytest.raises(ValueError, match="at least one map"):
        run_scale([])


def test_scales_are_read_from_words() -> None:
    assert parse_scale("run") == ("run", None)
    assert parse_scale("image") == ("image", None)
    assert parse_scale("pair") == ("pair", None)
    assert parse_scale("fixed:0.5") == ("fixed", 0.5)


@pytest.mark.parametrize("text", ["", "fixed", "fixed:", "fixed:-1", "fixed:inf", "run:3", "max"])
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="allowed are run, image, pair, and fixed:V"):
        parse_scale(text)


def test_the_picture_says_which_scale_it_has() -> None:
    assert picture_scale("run", 2.0, []).words == "99.5 % of |map| on validation images"
    assert picture_scale("fixed", 2.0, []) == (2.0, "fixed scale")
    assert picture_scale("image", None, [flat(-3.0)]) == (3.0, "scaled to itself")
    assert picture_scale("pair", None, [flat(1.0), flat(2.0)]) == (2.0, "one scale for the pair")
    assert picture_scale("image", None, [flat(0.0)]).top == 1
    with pytest.raises(ValueError, match="needs the value"):
        picture_scale("run", None, [flat(1.0)])
