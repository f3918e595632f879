from __future__ import annotations

from dataclasses import replace
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from leanet.ops.covered import GREY
from leanet.report import demo_frames
from leanet.report.demo_frames import ALARM_COLOR, NORMAL_COLOR, PANEL, Look, draw_frame
from leanet.report.gallery import Shown
from leanet.report.run import Trial

LOOK = Look(title="leather", low=1.0, high=5.0, truth=False)


def one(score: float = 0.5, label: int = 0, **arrays: NDArray[Any]) -> Shown:
    image = Trial(
        path="a.png", fold="final", label=label, kind="scratch" if label else "good",
        alarm=score >= 0.3, threshold=0.3, scores={"score": score},
    )  # fmt: skip
    given: dict[str, Any] = {
        "image": np.full((3, 32, 32), 90, np.uint8),
        "map": np.full((1, 32, 32), 1.0, np.float32),
    }
    return Shown(image, given | arrays)


def panel(frame: Image.Image, number: int) -> NDArray[np.uint8]:
    """A picture of a frame, without its outer pixels."""
    left = demo_frames._PAD + number * (PANEL + demo_frames._GAP) + 4
    top = demo_frames._HEAD + 4
    return np.asarray(frame.crop((left, top, left + PANEL - 8, top + PANEL - 8)))


def words(monkeypatch: pytest.MonkeyPatch, shown: Shown, look: Look = LOOK) -> list[str]:
    """All that is written on a frame."""
    said: list[str] = []
    text = ImageDraw.ImageDraw.text

    def keep(self: Any, place: Any, string: str, *rest: Any, **more: Any) -> None:
        said.append(string)
        text(self, place, string, *rest, **more)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", keep)
    draw_frame(shown, look, "3 / 12")
    return said


@pytest.mark.parametrize(
    ("score", "label", "verdict", "mark"),
    [
        (0.5, 1, "ANOMALOUS", ""),
        (0.5, 0, "ANOMALOUS", "FALSE ALARM"),
        (0.1, 1, "NORMAL", "MISSED DEFECT"),
        (0.1, 0, "NORMAL", ""),
    ],
)
def test_verdict_score_threshold_truth_and_what_is_wrong_stand_in_words(
    monkeypatch: pytest.MonkeyPatch, score: float, label: int, verdict: str, mark: str
) -> None:
    said = words(monkeypatch, one(score, label))
    sign = "≥" if score >= 0.3 else "<"
    assert verdict in said
    assert f"score {score:.3f} {sign} threshold 0.300" in said
    assert f"truth: {'scratch' if label else 'good'}" in said
    assert {"MISSED DEFECT", "FALSE ALARM"} & set(said) == ({mark} if mark else set())
    assert {"1", "5", "leather", "3 / 12"} <= set(said)


def test_the_edge_has_the_color_of_the_verdict() -> None:
    for score, color in ((0.5, ALARM_COLOR), (0.1, NORMAL_COLOR)):
        frame = draw_frame(one(score), LOOK, "")
        assert frame.getpixel((0, 0)) == frame.getpixel((frame.width - 1, 40)) == color


def test_the_map_is_colored_on_the_given_scale_and_where_it_is_low_the_image_stays() -> None:
    plane = np.full((1, 32, 32), 1.0, np.float32)
    plane[0, :16] = 3.0
    frame = draw_frame(one(map=plane), LOOK, "")
    image, colored, mixed = (panel(frame, k) for k in range(3))
    inferno = mpl.colormaps["inferno"]
    assert np.abs(colored[10, 10] - np.array(inferno(0.5, bytes=True)[:3]).astype(int)).max() <= 2
    assert np.abs(colored[-10, 10] - np.array(inferno(0.0, bytes=True)[:3]).astype(int)).max() <= 2
    assert (image == 90).all()
    assert (mixed[-10] == 90).all()
    assert (mixed[10] != 90).any()


def test_without_masks_there_are_three_pictures_and_with_them_four() -> None:
    mask = np.zeros((1, 32, 32), np.uint8)
    mask[0, 8:16, 8:16] = 1
    three = draw_frame(one(label=1, mask=mask), LOOK, "")
    four = draw_frame(one(label=1, mask=mask), replace(LOOK, truth=True), "")
    assert four.width - three.width == PANEL + demo_frames._GAP
    truth = panel(four, 3)
    assert {int(value) for value in np.unique(truth)} == {0, 255}
    assert (truth > 0).mean() == pytest.approx(64 / 1024, rel=0.1)


def test_a_small_defect_in_a_large_mask_stays() -> None:
    mask = np.zeros((1, 1024, 1024), np.uint8)
    mask[0, 501, 500] = 1
    frame = draw_frame(one(label=1, mask=mask), replace(LOOK, truth=True), "")
    assert (panel(frame, 3) == 255).any()


def test_a_defect_without_a_mask_is_not_shown_as_no_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    empty, look = np.zeros((1, 32, 32), np.uint8), replace(LOOK, truth=True)
    assert "true defect: no mask" in words(monkeypatch, one(label=1, mask=empty), look)
    assert "true defect: none" in words(monkeypatch, one(label=0, mask=empty), look)


def test_what_the_map_does_not_cover_is_grey_on_map_and_overlay() -> None:
    plane = np.full((1, 32, 32), 3.0, np.float32)
    color = np.zeros((3, 32, 32), np.uint8)
    color[0] = 200
    frame = draw_frame(one(map=plane, image=color)._replace(border=4), LOOK, "")
    assert (panel(frame, 1)[:20] == GREY).all()
    outside = panel(frame, 2)[:20]
    assert (outside == outside[..., :1]).all()
    assert not (panel(frame, 1)[40:-40, 40:-40] == GREY).all(axis=2).any()


def test_a_long_name_of_a_kind_is_shortened(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = one(0.1, 1)
    shown = shown._replace(image=replace(shown.image, kind="a kind of defect " * 9))
    truth = next(text for text in words(monkeypatch, shown) if text.startswith("truth"))
    assert truth.endswith("…")
    assert len(truth) < 60
