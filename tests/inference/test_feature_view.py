from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from leanet.inference import feature_view
from leanet.inference.feature_view import (
    MAP_COLORS,
    SHARPNESS,
    WIDTH,
    Photo,
    Point,
    Scale,
    View,
    draw,
    gain,
    is_weighed,
    save,
    shared_scale,
    shortened,
    signed_scale,
)

PHOTO = Photo("image", np.full((8, 8, 3), 120, np.uint8))


def plane(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def point(name: str = "A4", strength: float = 0.5, run: str = "run", seed: int = 0) -> Point:
    before, attention = plane(6, 6, seed=seed), plane(6, 6, seed=seed + 1)
    after = before * (1 + np.float32(strength) * attention)
    return Point(
        run=run, name=name, before=before, attention=attention, after=after, strength=strength
    )


def view(points: Sequence[Point] = (), photos: Sequence[Photo] = (PHOTO,), **fields: Any) -> View:
    return View(**{"title": "a.png", "points": points, "photos": photos, **fields})


def words(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def images(figure: Figure) -> list[AxesImage]:
    return [image for axes in figure.axes for image in axes.images]


def pictures_of(figure: Figure, array: NDArray[Any]) -> list[AxesImage]:
    """Those that show this array, element by element."""
    return [
        image for image in images(figure) if np.array_equal(np.asarray(image.get_array()), array)
    ]


def bar_axes(figure: Figure, colors: str) -> list[Axes]:
    return [
        axes
        for axes in figure.axes
        for image in axes.images
        if image.get_array().shape == (1, 256) and image.get_cmap().name == colors  # type: ignore[union-attr]
    ]


def test_the_shared_scale_spans_both_pictures() -> None:
    low, high = np.float32([[-1.0, 0.5]]), np.float32([[0.0, 2.0]])
    assert shared_scale(low, high) == shared_scale(high, low) == (-1.0, 2.0)


@pytest.mark.parametrize("strength", [0.0, 0.5, -0.3])
def test_both_features_of_a_column_share_one_scale_and_attention_has_zero_to_one(
    strength: float,
) -> None:
    points = [point("A1", strength), point("A2", strength, seed=5)]
    figure = draw(view(points))
    for one in points:
        ends = shared_scale(one.before, one.after)
        for array in (one.before, one.after):
            found = pictures_of(figure, array)
            assert found
            assert {image.get_clim() for image in found} == {ends}
            assert {image.get_cmap().name for image in found} == {"cividis"}
        assert [image.get_clim() for image in pictures_of(figure, one.attention)] == [(0, 1)]


def test_arrays_are_drawn_element_by_element_without_smoothing() -> None:
    one = point()
    for array in (one.before, one.attention, one.after):
        for image in pictures_of(draw(view([one])), array):
            assert image.get_interpolation() in ("auto", "antialiased", "nearest")


def test_rows_are_before_attention_after_from_top_to_bottom() -> None:
    one = point()
    figure = draw(view([one]))
    tops = []
    for array in (one.before, one.attention, one.after):
        axes = pictures_of(figure, array)[0].axes
        assert axes is not None
        tops.append(axes.get_position().y1)
    assert tops == sorted(tops, reverse=True)
    labels = [
        text for text in figure.texts if text.get_text() in ("before", "attention M", "after")
    ]
    assert [text.get_text() for text in labels] == ["before", "attention M", "after"]
    heights = [text.get_position()[1] for text in labels]
    assert heights == sorted(heights, reverse=True)


def test_w_and_mean_and_spatial_sd_of_the_attention_are_printed() -> None:
    one = point("A3", strength=0.25)
    text = words(draw(view([one])))
    assert "A3" in text
    assert "6 × 6,  w = 0.25" in text
    mean, sd = np.mean(one.attention, dtype=float), np.std(one.attention, dtype=float)
    assert f"mean {mean:.3f},  SD {sd:.3f}" in text
    low, high = 1 + 0.25 * one.attention.min(), 1 + 0.25 * one.attention.max()
    assert f"1 + w M:  {low:.3f} to {high:.3f}" in text


def test_an_unknown_w_is_not_printed() -> None:
    text = words(draw(view([replace(point(), strength=None)])))
    assert "6 × 6" in text
    assert not [word for word in text if "w" in word and "M" in word]


def test_the_frame_in_the_bar_covers_the_range_of_the_attention() -> None:
    one = replace(point(), attention=np.float32([[0.25, 0.75]]))
    axes = bar_axes(draw(view([one])), "viridis")[0]
    frame = next(patch for patch in axes.patches if isinstance(patch, Rectangle))
    left, right = frame.get_x(), frame.get_x() + frame.get_width()
    assert (left + 0.5) / 256 == pytest.approx(0.25)
    assert (right + 0.5) / 256 == pytest.approx(0.75)


def test_the_gain_is_that_of_a_resized_attention_where_sizes_differ() -> None:
    before = plane(4, 4) + 1
    attention = np.float32([[0.2, 0.2], [0.6, 0.6]])
    rows = np.float32([0.2, 0.3, 0.5, 0.6])[:, None]  # bilinear, pixel centers aligned
    one = Point(run="", name="A4", before=before, attention=attention,
                after=before * (1 + 2 * rows), strength=2.0)  # fmt: skip
    assert gain(one) == pytest.approx((1.4, 2.2))


def test_there_is_no_gain_where_the_features_are_fused_in_another_way() -> None:
    one = point()
    assert gain(one) is not None
    assert gain(replace(one, after=one.before + 0.5 * one.attention)) is None
    assert gain(replace(one, strength=None)) is None


def guided_point() -> Point:
    """Features times an attention of mean 1 that exceeds 1, without w."""
    before = plane(2, 2) - 0.5
    attention = np.float32([[0.25, 0.5], [0.25, 3.0]])
    return Point(run="run", name="A5", before=before, attention=attention, after=before * attention)


def test_attention_that_moves_weight_is_drawn_to_its_highest_value_with_one_marked() -> None:
    one = guided_point()
    assert is_weighed(one)
    assert not is_weighed(point())
    figure = draw(view([one]))
    assert [image.get_clim() for image in pictures_of(figure, one.attention)] == [(0, 3)]
    axes = bar_axes(figure, "viridis")[0]
    frame = next(patch for patch in axes.patches if isinstance(patch, Rectangle))
    ends = np.array([frame.get_x(), frame.get_x() + frame.get_width()])
    assert (ends + 0.5) / 256 == pytest.approx(np.array([0.25 / 3, 1]))
    (mark,) = axes.lines
    assert (np.asarray(mark.get_xdata()) + 0.5) / 256 == pytest.approx(np.array([1 / 3, 1 / 3]))
    text = words(figure)
    assert "M:  0.250 to 3.000" in text
    assert not [word for word in text if "w" in word and "M" in word]


def test_what_has_a_sign_is_blue_below_zero_and_red_above() -> None:
    array = np.float32([[-1.0, 0.0], [0.5, 2.0]])
    figure = draw(view(photos=[PHOTO, Photo("evidence", array, signed_scale(array, "log-odds"))]))
    (image,) = pictures_of(figure, array)
    assert image.get_clim() == (-2, 2)
    colors = image.to_rgba(array)
    assert colors[0, 0, 2] > colors[0, 0, 0]
    assert np.ptp(colors[0, 1, :3]) < 0.01
    assert colors[1, 1, 0] > colors[1, 0, 0] - 0.2 > colors[1, 1, 2]
    assert "evidence, log-odds" in words(figure)


@pytest.mark.parametrize("mark", [0.0, 5.0, 20.0])
def test_s_is_marked_at_its_place_in_the_bar_of_the_map(mark: float) -> None:
    scale = Scale(0.0, 20.0, MAP_COLORS, "ΔE₀₀", mark, "s")
    figure = draw(view([point()], [PHOTO, Photo("map", plane(8, 8), scale)]))
    line = bar_axes(figure, MAP_COLORS)[0].lines[0]
    assert (np.asarray(line.get_xdata()) + 0.5) / 256 == pytest.approx(mark / 20)
    assert f"s = {mark:g}" in words(figure)
    assert "map, ΔE₀₀" in words(figure)


def test_an_s_beyond_the_bar_is_said_but_not_marked() -> None:
    photo = Photo("map", plane(8, 8), Scale(0.0, 20.0, MAP_COLORS, "", 30.0, "s"))
    figure = draw(view(photos=[photo]))
    assert not bar_axes(figure, MAP_COLORS)[0].lines
    assert "s = 30" in words(figure)


def test_without_points_the_pictures_stand_side_by_side_with_the_note() -> None:
    flat = Photo("flat", np.zeros((4, 4), np.float32), Scale(0, 0, MAP_COLORS))
    figure = draw(view(photos=[PHOTO, flat], notes=["nothing to show"]))
    assert "nothing to show" in words(figure)
    bars = bar_axes(figure, MAP_COLORS)
    boxes = [axes.get_position() for axes in figure.axes if axes not in bars]
    assert [box.y1 for box in boxes] == pytest.approx([boxes[0].y1] * 2)
    assert boxes[0].x1 < boxes[1].x0


def test_runs_are_named_only_where_there_are_several() -> None:
    several = [point(run="first"), point("A5", run="second", seed=3)]
    assert {"first", "second"} <= set(words(draw(view(several))))
    assert "first" not in words(draw(view(several[:1])))


@pytest.mark.parametrize("count", [1, 3, 5, 8])
def test_nothing_lies_outside_the_figure_or_on_another_picture(count: int) -> None:
    points = [point(f"A{k}", run=f"r{k}", seed=k) for k in range(count)]
    scale = Scale(0, 1, MAP_COLORS)
    photos = [PHOTO, PHOTO, Photo("map", plane(8, 8), scale), Photo("more", plane(8, 8), scale)]
    figure = draw(view(points, photos, notes=["note " * 60]))
    boxes = [axes.get_position() for axes in figure.axes]
    for box in boxes:
        assert min(box.x0, box.y0) >= 0
        assert max(box.x1, box.y1) <= 1
    for k, one in enumerate(boxes):
        for other in boxes[k + 1 :]:
            apart = one.x1 <= other.x0 or other.x1 <= one.x0
            assert apart or one.y1 <= other.y0 or other.y1 <= one.y0


def test_the_paper_s_five_points_fill_1280_pixels(tmp_path: Path) -> None:
    save(view([point(f"A{k + 1}", seed=k) for k in range(5)]), tmp_path / "sub" / "a.png")
    with Image.open(tmp_path / "sub" / "a.png") as file:
        width, height = file.size
        assert file.format == "PNG"
    assert WIDTH - 20 <= width / SHARPNESS <= WIDTH
    assert height / SHARPNESS < 1000
    assert [file.name for file in (tmp_path / "sub").iterdir()] == ["a.png"]


@pytest.mark.parametrize("title", ["costs $5 and $6.png", "画像.png", "a_{b^c.png", "x" * 300])
def test_any_file_name_can_stand_above_the_picture(title: str, tmp_path: Path) -> None:
    save(view([point()], title=title), tmp_path / "a.png")
    assert (tmp_path / "a.png").exists()


def test_drawing_leaves_matplotlib_as_it_was_and_equal_views_are_equal_files(
    tmp_path: Path,
) -> None:
    before = dict(mpl.rcParams)
    save(view([point()]), tmp_path / "a.png")
    save(view([point()]), tmp_path / "b.png")
    assert dict(mpl.rcParams) == before
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_long_text_loses_its_middle() -> None:
    assert shortened("short", 5) == "short"
    assert shortened("two\nlines", 20) == "two lines"
    cut = shortened("part_0001_left_side.png", 13)
    assert cut == "part_0…de.png"
    assert len(cut) <= 13


def test_numbers_have_three_digits_and_a_true_minus() -> None:
    assert [feature_view.number(value) for value in (-0.5, 1234.0, 0.00012345)] == [
        "−0.5",
        "1.23e+03",
        "0.000123",
    ]
