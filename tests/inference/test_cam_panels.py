from __future__ import annotations

import numpy as np
import pytest
import torch

from leanet.inference.cam_panels import Look, Scales, checked


def heat(*values: float) -> np.ndarray:
    return np.array([values], dtype=np.float32)


def test_the_scale_of_the_run_comes_from_its_images_and_says_so() -> None:
    scales = Scales("run", None)
    scales.take(iter([("a", torch.full((1, 1, 10, 100), -2.0))]), "7 images of the run")
    scales.see("a", heat(99))  # an explained image does not count then
    scale = scales.of("a", heat(99))
    assert scale.top == pytest.approx(2, rel=1e-3)
    assert scale.words == "99.5 % of |map| on 7 images of the run"


def test_without_images_of_the_run_the_explained_ones_share_a_scale() -> None:
    scales = Scales("run", None)
    scales.see("a", heat(*[0.1] * 50))
    scales.see("a", heat(*[-4.0] * 50))
    assert scales.of("a", heat(0.1)).top == pytest.approx(4, rel=1e-3)
    assert scales.of("a", heat(0.1)).words.endswith("on these")


def test_the_other_scales_are_as_said() -> None:
    assert Scales("fixed", 2.5).of("a", heat(9)).top == 2.5
    itself = Scales("image", None).of("a", heat(-9, 1))
    assert (itself.top, itself.words) == (9, "scaled to itself")


@pytest.mark.parametrize(
    ("look", "told"),
    [
        (Look(scale="pair"), "two runs"),
        (Look(scale="mine"), "unknown"),
        (Look(cmap="rainbow"), "rainbow"),
        (Look(alpha=1.5), r"\[0, 1\]"),
    ],
)
def test_impossible_looks_are_refused(look: Look, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        checked(look)
