from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from leanet.inference.faithfulness_curves import UNTRAINED, Curves, draw_curves, save_curves
from leanet.inference.subject import EDGES, GAUSSIAN, RANDOM

SHARES = (0.1, 0.5)


def own(height: float) -> dict[str, list[float]]:
    falling = [1.0, 0.5, height]
    return {
        "deletion": falling,
        "insertion": falling[::-1],
        "road_morf": [0.9, height],
        "road_lerf": [1.0, 0.8],
    }


def found(redrawn: Mapping[str, Mapping[str, float]] | None = None) -> Curves:
    methods = {"grad_cam": own(0.1), "layer_cam": own(0.2)}
    baselines = {name: own(0.4) for name in (RANDOM, GAUSSIAN, EDGES)}
    untrained = {"grad_cam, random weights": own(0.2), "layer_cam, random weights": own(0.4)}
    return Curves({**methods, **baselines, **untrained}, redrawn or {}, SHARES, 30, "image")


def lines(axes: Axes) -> dict[str, np.ndarray]:
    return {str(line.get_label()): np.asarray(line.get_ydata()) for line in axes.lines}


def test_every_method_and_baseline_has_a_line_and_random_weights_share_one() -> None:
    drawn = lines(draw_curves(found()).axes[0])
    assert list(drawn) == ["grad_cam", "layer_cam", RANDOM, GAUSSIAN, EDGES, UNTRAINED]
    assert drawn["grad_cam"].tolist() == [1.0, 0.5, 0.1]
    assert drawn[UNTRAINED].tolist() == pytest.approx([1.0, 0.5, 0.3])


def test_road_has_two_lines_for_each_map() -> None:
    assert len(draw_curves(found()).axes[2].lines) == 12


def test_the_fall_under_new_weights_starts_at_one() -> None:
    redrawn = {"grad_cam": {"fc": 0.8, "all": 0.1}, "layer_cam": {"fc": 0.7, "all": 0.0}}
    figure = draw_curves(found(redrawn))
    assert len(figure.axes) == 4
    assert figure.axes[3].lines[0].get_ydata().tolist() == [1.0, 0.8, 0.1]  # type: ignore[union-attr]
    names = [label.get_text() for label in figure.axes[3].get_xticklabels()]
    assert names == ["none", "fc", "all"]


def test_the_picture_says_what_was_removed_and_from_how_many_images() -> None:
    figure = draw_curves(found())
    assert "means of 30 images" in [text.get_text() for text in figure.texts]
    assert figure.axes[0].get_xlabel() == "share of the pixels taken from the image"


def test_the_file_is_a_picture(tmp_path: Path) -> None:
    save_curves(found(), tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > picture.height > 300
