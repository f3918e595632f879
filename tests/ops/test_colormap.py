from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from numpy.typing import NDArray

from leanet.ops.color import rgb_to_lab
from leanet.ops.colormap import NAMES, STEPS, color_table, colored


def lab(name: str) -> NDArray[np.float64]:
    """[256, 3] of a table."""
    rgb = torch.from_numpy(color_table(name) / 255.0).T[None, :, :, None]
    return np.asarray(rgb_to_lab(rgb)[0, :, :, 0].T)


def test_inferno_is_the_published_table() -> None:
    published = np.rint(255 * colormaps["inferno"](np.arange(STEPS))[:, :3])
    assert np.abs(color_table("inferno") - published).max() <= 1


def test_inferno_gets_lighter_with_every_step() -> None:
    assert np.diff(lab("inferno")[:, 0]).min() > 0


def test_the_signed_table_gets_darker_with_every_step_from_zero() -> None:
    lightness = lab("signed")[:, 0]
    assert np.diff(lightness[:128]).min() > 0
    assert np.diff(lightness[128:]).max() < 0


def test_the_signed_table_is_blue_grey_and_red_with_equally_dark_ends() -> None:
    table = lab("signed")
    assert table[0, 2] < -50
    assert table[-1, 1] > 50
    assert abs(table[0, 0] - table[-1, 0]) < 0.5
    assert np.abs(table[127:129, 1:]).max() < 1


def test_the_signed_table_is_linear_in_lab() -> None:
    table = lab("signed")
    for half in (table[:128], table[128:]):
        straight = np.linspace(half[0], half[-1], len(half))
        assert np.abs(half - straight).max() < 1.5  # of rounding to 8 bits, and the gamut's edge


def test_jet_is_not_monotone_in_lightness() -> None:
    steps = np.diff(lab("jet")[:, 0])
    assert steps.min() < 0 < steps.max()


@pytest.mark.parametrize("name", NAMES)
def test_a_table_is_shared_and_cannot_be_changed(name: str) -> None:
    table = color_table(name)
    assert table.shape == (256, 3)
    assert table.dtype == np.uint8
    with pytest.raises(ValueError, match="read-only"):
        table[0, 0] = 1


def test_shares_outside_the_table_get_its_ends() -> None:
    colors = colored(np.array([[-1.0, 2.0]]), "jet")
    assert colors.tolist() == [[color_table("jet")[0].tolist(), color_table("jet")[-1].tolist()]]


def test_an_unknown_table_is_refused() -> None:
    with pytest.raises(ValueError, match="'viridis'; choose one of inferno"):
        color_table("viridis")
