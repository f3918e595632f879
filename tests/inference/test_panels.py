from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from leanet.inference.overlay import PictureScale, outlined, overlay
from leanet.inference.panels import FACT, Panel, Row, draw, save
from leanet.ops.colormap import color_table

HEIGHT, WIDTH = 24, 36


def picture() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def mask() -> NDArray[np.bool_]:
    inside = np.zeros((HEIGHT, WIDTH), dtype=bool)
    inside[4:8, 4:10] = True
    return inside


def row(name: str = "grad_cam", *, signed: bool = False) -> Row:
    heat = np.linspace(-1, 2, 24, dtype=np.float32).reshape(4, 6)
    scale = PictureScale(2.0, "99.5 % of |map| on validation images")
    details = ["stage4", "32 px per cell"]
    return Row(name=name, heat=heat, scale=scale, unit="logit", signed=signed, details=details)


def panel(*rows: Row, masked: bool = True) -> Panel:
    return Panel(
        title="crack/7.png",
        image=picture(),
        rows=rows or (row(),),
        mask=mask() if masked else None,
        verdict="anomalous: score 3.2",
        alarm=True,
    )


def pictures(figure: Figure) -> list[NDArray[np.uint8]]:
    """What is shown, without the color bars, in order."""
    arrays = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    return [array for array in arrays if array.shape[0] > 1]


def words(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def test_the_untouched_image_is_always_there() -> None:
    shown = pictures(draw(panel()))
    assert len(shown) == 4
    assert np.array_equal(shown[0], picture())


def test_the_overlay_and_the_outline_are_those_of_the_overlay_module() -> None:
    one = row(signed=True)
    shown = pictures(draw(panel(one)))
    assert np.array_equal(shown[2], overlay(picture(), one.heat, scale=2.0, signed=True))
    assert np.array_equal(shown[3], outlined(picture(), mask()))


def test_the_raw_map_is_not_smoothed() -> None:
    shown = pictures(draw(panel()))
    assert shown[1].shape == (4, 6, 3)
    assert np.array_equal(shown[1][0, 0], color_table("inferno")[0])  # negative: none
    assert np.array_equal(shown[1][-1, -1], color_table("inferno")[-1])


def test_zero_is_grey_in_a_signed_map() -> None:
    flat = Row(
        name="grad_cam",
        heat=np.zeros((2, 2), dtype=np.float32),
        scale=PictureScale(1.0, "fixed scale"),
        signed=True,
    )
    shown = pictures(draw(panel(flat)))
    assert np.ptp(shown[1][0, 0].astype(int)) <= 1
    assert np.array_equal(shown[2], picture())


def test_without_a_mask_there_are_three_columns() -> None:
    assert len(pictures(draw(panel(masked=False)))) == 3


def test_every_method_has_a_row() -> None:
    figure = draw(panel(row(), row("layer_cam"), row("hires_cam", signed=True)))
    assert len(pictures(figure)) == 12
    assert {"grad_cam", "layer_cam", "hires_cam"} <= set(words(figure))


def test_the_picture_says_scale_unit_layer_and_what_a_map_is() -> None:
    told = words(draw(panel(row(signed=True))))
    assert "99.5 % of |map| on validation images" in told
    assert {"-2", "2", "logit", "stage4", "32 px per cell", "crack/7.png"} <= set(told)
    assert FACT.split(".")[0] in " ".join(told)


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_it_is_written_in_the_asked_format(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"panel.{ending}"
    save(panel(), path)
    start = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[ending]
    assert path.read_bytes().startswith(start)


def test_the_png_shows_the_untouched_pixels(tmp_path: Path) -> None:
    image = np.full((HEIGHT, WIDTH, 3), (201, 37, 90), dtype=np.uint8)
    still = Row(name="m", heat=np.zeros((2, 3)), scale=PictureScale(1.0, "fixed scale"))
    save(Panel(title="t", image=image, rows=[still]), tmp_path / "p.png")
    with Image.open(tmp_path / "p.png") as drawn:
        pixels = np.asarray(drawn.convert("RGB")).reshape(-1, 3)
    same = (pixels == (201, 37, 90)).all(axis=1)
    assert same.sum() > 2 * 400 * 250  # the image and the overlay, at twice the layout's pixels


def test_an_unknown_format_and_a_panel_without_maps_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="png, svg or pdf"):
        save(panel(), tmp_path / "panel.bmp")
    with pytest.raises(ValueError, match="at least one map"):
        draw(Panel(title="t", image=picture(), rows=[]))
