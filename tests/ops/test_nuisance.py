from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from skimage import color
from torch import Tensor

from leanet.data.surfaces import render
from leanet.ops.color import rgb_principal_components
from leanet.ops.color_shift import color_shift
from leanet.ops.nuisance import CHANGES, Draw, nuisance, whole_image_difference
from leanet.ops.synthetic import to_8_bit


def leaves(count: int, side: int = 32) -> Tensor:
    drawn = [render("leaf", np.random.default_rng(k), side)[0] for k in range(count)]
    return to_8_bit(torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).float())


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def median_difference(before: Tensor, after: Tensor) -> float:
    labs = [color.rgb2lab(x.permute(1, 2, 0).double().numpy()) for x in (before, after)]
    return float(np.median(color.deltaE_ciede2000(*labs)))


def test_the_whole_image_differs_as_much_as_the_anomalies_do() -> None:
    image = leaves(16, 24)
    anomalies = color_shift(image, generator())
    made = nuisance(image, generator(1), severities=anomalies.severity.flip(0).tolist())
    measured = [median_difference(*pair) for pair in zip(image, made.image, strict=True)]
    assert ks_2samp(measured, anomalies.severity.numpy()).pvalue > 0.05
    np.testing.assert_allclose(made.severity.numpy(), measured, atol=0.1)
    close = (made.severity - made.told["target"]).abs() <= (0.1 * made.told["target"]).clamp_min(
        0.3
    )
    assert torch.equal(~close, made.told["limited"].bool())
    assert close.float().mean() > 0.9


def test_a_nuisance_has_an_empty_mask_and_8_bits() -> None:
    image = leaves(3)
    made = nuisance(image, generator(), severities=[2.0, 5.0, 8.0])
    assert made.kind == "nuisance"
    assert made.mask.shape == (3, 1, 32, 32)
    assert made.mask.sum() == 0
    assert torch.equal(made.image, to_8_bit(made.image))
    assert not torch.equal(made.image, image)


def test_the_same_seed_gives_the_same_bytes() -> None:
    image = leaves(2)
    first, again, other = (nuisance(image, generator(k), severities=[3, 6]) for k in (1, 1, 2))
    assert torch.equal(first.image, again.image)
    assert not torch.equal(first.image, other.image)


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_grows_from_nothing(name: str) -> None:
    image = leaves(1, 48)
    axes = rgb_principal_components([image])
    change = CHANGES[name](Draw(image, axes, generator(2), brighter=True))
    values = [whole_image_difference(image, change(image, s)) for s in (0.0, 0.3, 1.0)]
    assert values[0] < (3.0 if name == "jpeg" else 0.05)  # quality 95 is not nothing
    assert values[0] <= values[1] <= values[2]
    assert values[2] > 0.3
    spoiled = change(image, 1.0)
    assert spoiled.shape == image.shape
    assert 0 <= float(spoiled.min()) <= float(spoiled.max()) <= 1


def test_what_no_light_can_change_is_flagged() -> None:
    made = nuisance(torch.zeros(1, 3, 16, 16), generator(), severities=[20.0])
    assert made.told["limited"].tolist() == [1]


def test_black_pixels_do_not_count() -> None:
    image = torch.zeros(1, 3, 8, 8)
    image[..., :2, :] = 0.5  # a quarter is lit
    brighter = torch.where(image > 0, 0.6, 0.0)
    lit = whole_image_difference(image[..., :2, :], brighter[..., :2, :])
    assert whole_image_difference(image, brighter) == pytest.approx(lit)
    assert lit > 5


def test_every_image_needs_its_severity() -> None:
    with pytest.raises(ValueError, match="2 images need as many severities, not 1"):
        nuisance(leaves(2), generator(), severities=[3.0])
