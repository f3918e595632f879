"""Graded discolorations, measured with scikit-image."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage import color
from torch import Tensor

from leanet.data.surfaces import render
from leanet.ops.color_shift import (
    DIRECTIONS,
    Direction,
    DirectionName,
    color_shift,
    shift_lab,
)
from leanet.ops.perlin import AREA
from leanet.ops.synthetic import to_8_bit


def pictures(surface: str = "leaf", count: int = 4, side: int = 48) -> Tensor:
    drawn = [render(surface, np.random.default_rng(k), side)[0] for k in range(count)]
    return to_8_bit(torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).float())


IMAGES = {surface: pictures(surface, side=32) for surface in ("leaf", "textile")}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def core_differences(before: Tensor, after: Tensor, mask: Tensor) -> np.ndarray:
    labs = [color.rgb2lab(one.permute(1, 2, 0).double().numpy()) for one in (before, after)]
    found: np.ndarray = color.deltaE_ciede2000(*labs)[mask[0].numpy() > 0.5]
    return found


@pytest.mark.parametrize("severity", [2.0, 5.0, 12.0])
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("surface", IMAGES)
def test_the_wanted_severity_is_met_within_a_fifth_of_a_unit(
    surface: str, direction: DirectionName, severity: float
) -> None:
    image = IMAGES[surface]
    made = color_shift(image, generator(1), severities=[severity], directions=[direction])
    for k in range(len(image)):
        measured = core_differences(image[k], made.image[k], made.mask[k])
        assert float(made.severity[k]) == pytest.approx(np.median(measured), abs=0.02)
        low, high = np.quantile(measured, [0.05, 0.95])
        assert float(made.told["low"][k]) == pytest.approx(low, abs=0.05)
        assert float(made.told["high"][k]) == pytest.approx(high, abs=0.05)
        missed = abs(np.median(measured) - severity) > 0.2
        assert bool(made.told["gamut_limited"][k]) is bool(missed)
    assert made.told["gamut_limited"].sum() <= (direction == "chroma" and severity == 12)
    assert made.told["target"].tolist() == [severity] * len(image)
    assert {DIRECTIONS[k] for k in made.told["direction"].tolist()} == {direction}


def test_outside_the_mask_the_image_is_the_same_to_the_bit() -> None:
    for surface, image in IMAGES.items():
        before = image.clone()
        made = color_shift(image, generator(3))
        outside = (made.mask == 0).expand_as(image)
        assert torch.equal(made.image[outside], image[outside]), surface
        assert torch.equal(image, before)
        assert torch.equal(made.image, to_8_bit(made.image))
        shares = (made.mask > 0.5).float().flatten(1).mean(1)
        assert ((shares >= AREA[0]) & (shares <= AREA[1])).all()


def test_the_same_seed_gives_the_same_bytes() -> None:
    first, again, other = (color_shift(IMAGES["leaf"], generator(k)) for k in (2, 2, 3))
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.mask, again.mask)
    assert not torch.equal(first.image, other.image)


def test_an_image_alone_is_spoiled_as_it_would_be_first_in_a_batch() -> None:
    batch, alone = (
        color_shift(image, generator(4)) for image in (IMAGES["leaf"], IMAGES["leaf"][:1])
    )
    assert torch.equal(batch.image[:1], alone.image)


@pytest.mark.parametrize("amount", [0.1, 0.7, 1.0])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_before_clipping_a_change_of_hue_keeps_lightness_and_chroma(
    amount: float, sign: float
) -> None:
    lab = torch.rand(3, 50, generator=generator(), dtype=torch.float64) * 80 - 20
    moved = shift_lab(lab, torch.full((50,), amount), Direction("hue", sign, 0.0))
    torch.testing.assert_close(moved[0], lab[0])
    torch.testing.assert_close(moved[1:].norm(dim=0), lab[1:].norm(dim=0))
    turned = torch.atan2(moved[2], moved[1]) - torch.atan2(lab[2], lab[1])
    expected = torch.full((50,), sign * amount * math.pi, dtype=torch.float64)
    torch.testing.assert_close(turned.cos(), expected.cos())
    torch.testing.assert_close(turned.sin(), expected.sin(), atol=1e-6, rtol=0)


def test_the_other_directions_change_one_thing_each() -> None:
    lab, amount = torch.tensor([[50.0], [30.0], [-40.0]]), torch.tensor([0.5])
    vivid = shift_lab(lab, amount, Direction("chroma", 1.0, 0.0)).flatten().tolist()
    assert vivid == [50.0, 75.0, -100.0]
    dull = shift_lab(lab, amount, Direction("chroma", -1.0, 0.0)).flatten().tolist()
    assert dull == [50.0, 15.0, -20.0]
    light = shift_lab(lab, amount, Direction("lightness", 1.0, 0.0)).flatten().tolist()
    assert light == [80.0, 30.0, -40.0]
    away = shift_lab(lab, amount, Direction("random", 1.0, math.pi / 2)).flatten()
    torch.testing.assert_close(away, torch.tensor([50.0, 30.0, 0.0]), atol=1e-4, rtol=0)


def test_on_an_image_the_directions_keep_what_they_promise() -> None:
    """Up to the rounding of 8 bits."""
    image = IMAGES["leaf"]
    for name, kept in (("lightness", (1, 2)), ("chroma", (0,)), ("random", (0,)), ("hue", (0,))):
        made = color_shift(image, generator(7), severities=[5.0], directions=[name])  # type: ignore[list-item]
        core = made.mask[:, 0].numpy() > 0.5
        labs = [color.rgb2lab(x.permute(0, 2, 3, 1).numpy()) for x in (image, made.image)]
        change = np.abs(labs[1] - labs[0])[core]
        for axis in kept:
            assert np.median(change[:, axis]) < 1.0, name
        assert np.median(change.max(axis=1)) > 3.0


def test_what_is_out_of_reach_is_kept_as_the_nearest_and_flagged() -> None:
    gray = torch.full((2, 3, 32, 32), 128 / 255)
    made = color_shift(gray, generator(), severities=[10.0], directions=["hue"])
    assert made.told["gamut_limited"].tolist() == [1, 1]
    assert made.severity.tolist() == [0.0, 0.0]
    free = color_shift(gray, generator(), severities=[10.0])  # other directions may stand in
    assert free.told["gamut_limited"].tolist() == [0, 0]


def test_severities_and_directions_are_drawn_from_those_given() -> None:
    image = IMAGES["textile"].repeat(4, 1, 1, 1)
    made = color_shift(image, generator(), severities=[3.0, 8.0], directions=["hue", "lightness"])
    assert set(made.told["target"].tolist()) == {3.0, 8.0}
    assert set(made.told["direction"].tolist()) == {0, 2}
    assert set(made.told["sign"].tolist()) == {1.0, -1.0}


def test_a_discoloration_stays_inside_the_foreground() -> None:
    inside = torch.zeros(4, 1, 32, 32)
    inside[..., :20] = 1
    made = color_shift(IMAGES["leaf"], generator(), inside=inside)
    assert made.mask[..., 20:].sum() == 0


def test_errors_say_what_is_allowed() -> None:
    image = IMAGES["leaf"]
    with pytest.raises(ValueError, match=r"\['tint'\]; allowed are hue, chroma, lightness, random"):
        color_shift(image, generator(), directions=["tint"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="give values above 0"):
        color_shift(image, generator(), severities=[0.0])
    with pytest.raises(ValueError, match="divide 8-bit values by 255"):
        color_shift(image * 255, generator())
