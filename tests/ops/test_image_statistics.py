from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage import color
from torch import Tensor

from leanet.ops import light
from leanet.ops.image_statistics import STATISTICS, image_statistics
from leanet.ops.maps import blur

GENERATOR = torch.Generator().manual_seed(0)
NOISE = torch.rand(3, 3, 40, 30, generator=GENERATOR, dtype=torch.float64)
IMAGE = (0.8 * blur(NOISE, 1.0) + 0.2 * NOISE).clamp(0, 1)


def of(image: Tensor) -> dict[str, float]:
    return {name: float(value[0]) for name, value in image_statistics(image).items()}


def test_every_statistic_is_what_another_library_computes() -> None:
    laplacian = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]])
    immerkaer = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]])
    found = image_statistics(IMAGE)
    assert found.keys() == STATISTICS.keys()
    for k, pixels in enumerate(IMAGE.permute(0, 2, 3, 1).numpy()):
        lab = color.rgb2lab(pixels)
        lightness = lab[..., 0]
        inner = (slice(1, -1), slice(1, -1))
        second = ndimage.convolve(lightness, laplacian)[inner]
        rest = np.abs(ndimage.convolve(lightness, immerkaer)[inner])
        lower_median = np.sort(rest.ravel())[(rest.size - 1) // 2]
        expected = {
            "brightness": lightness.mean(),
            "contrast": lightness.std(),
            "red": lab[..., 1].mean(),
            "yellow": lab[..., 2].mean(),
            "saturation": np.hypot(lab[..., 1], lab[..., 2]).mean(),
            "sharpness": second.var() / (lightness.var() + 0.01),
            "noise": lower_median / 0.6745 / 6,
            "black": 100 * (pixels.max(axis=2) < 1.5 / 255).mean(),
            "white": 100 * (pixels.max(axis=2) > 253.5 / 255).mean(),
        }
        for name, value in expected.items():
            assert float(found[name][k]) == pytest.approx(value, rel=1e-3, abs=1e-3), name


def test_noise_is_measured_on_an_edge_as_on_a_gradient() -> None:
    """In L*, whose slope near grey is about 100 per unit of sRGB."""
    normal = torch.randn(1, 1, 128, 128, generator=GENERATOR, dtype=torch.float64)
    ramp = torch.linspace(0.3, 0.7, 128, dtype=torch.float64).expand(1, 1, 128, 128).clone()
    ramp[..., 64:] += 0.2
    grey = (ramp + 0.01 * normal).expand(1, 3, -1, -1)
    lightness = color.rgb2lab(grey[0].permute(1, 2, 0).numpy())[..., 0]
    smooth = color.rgb2lab(ramp.expand(1, 3, -1, -1)[0].permute(1, 2, 0).numpy())[..., 0]
    assert of(grey)["noise"] == pytest.approx((lightness - smooth).std(), rel=0.05)
    assert of(ramp.expand(1, 3, -1, -1))["noise"] < 0.02


def test_each_change_of_lamp_or_camera_moves_its_statistic() -> None:
    image, before = IMAGE[:1], of(IMAGE[:1])
    draw = torch.randn(image.shape, generator=GENERATOR, dtype=torch.float64)
    for name, changed, up in (
        ("brightness", light.exposure(image, 0.7), False),
        ("brightness", light.gamma(image, 0.8), True),
        ("contrast", 0.5 + 0.5 * (image - 0.5), False),
        ("yellow", light.white_balance(image, 4000), True),
        ("red", image * torch.tensor([0.9, 1.0, 0.9]).view(1, 3, 1, 1), False),
        ("saturation", image.mean(dim=1, keepdim=True).expand_as(image), False),
        ("sharpness", blur(image, 1.0), False),
        ("noise", light.sensor_noise(image, 0.08, draw), True),
        ("white", light.exposure(image, 3.0), True),
        ("black", (image - 0.4).clamp_min(0), True),
    ):
        assert (of(changed)[name] > before[name]) is up, name


def test_contrast_alone_is_no_sharpness() -> None:
    plane = IMAGE[:1].mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    flatter = of(0.45 + 0.7 * (plane - plane.mean()))["sharpness"]
    assert flatter == pytest.approx(of(0.45 + (plane - plane.mean()))["sharpness"], rel=0.05)


def test_a_flat_picture_has_finite_statistics() -> None:
    for value in (0.0, 1.0):
        found = of(torch.full((1, 3, 8, 8), value))
        assert found["contrast"] == found["noise"] == found["sharpness"] == 0.0
        assert (found["black"], found["white"]) == (100 * (1 - value), 100 * value)


def test_a_picture_has_the_same_figures_alone() -> None:
    together, alone = image_statistics(IMAGE), of(IMAGE[1:2])
    assert alone == pytest.approx({name: float(v[1]) for name, v in together.items()})


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 3, 2, 8), (1, 1, 8, 8)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must be"):
        image_statistics(torch.zeros(shape))
