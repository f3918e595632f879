from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage import color

from leanet.ops import light

GENERATOR = torch.Generator().manual_seed(0)
IMAGE = (torch.rand(2, 3, 16, 16, generator=GENERATOR) * 200 + 20).round() / 255


def test_linear_light_and_back() -> None:
    gray = torch.linspace(0, 1, 256).view(1, 1, 1, 256).expand(1, 3, 1, 256)
    torch.testing.assert_close(light.from_linear(light.to_linear(gray)), gray)
    assert float(light.to_linear(torch.tensor(0.5))) == pytest.approx(0.2140, abs=1e-4)
    xyz = color.rgb2xyz(gray.permute(0, 2, 3, 1).double().numpy())[..., 1]
    torch.testing.assert_close(
        light.to_linear(gray)[:, 0].double(), torch.from_numpy(xyz), atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("kelvin", [2000, 2856, 3500, 5000, 6504, 10000, 15000])
def test_black_bodies_have_the_color_of_planck_s_law(kelvin: float) -> None:
    """Planck's law times analytic color matching functions (Wyman, Sloan and Shirley 2013)."""
    nm = np.arange(380.0, 781.0, 1.0)
    spectrum = nm**-5 / (np.exp(1.438777e7 / (nm * kelvin)) - 1)

    def lobe(mean: float, below: float, above: float) -> np.ndarray:
        spread = np.where(nm < mean, below, above)
        curve: np.ndarray = np.exp(-0.5 * ((nm - mean) * spread) ** 2)
        return curve

    x = 1.056 * lobe(599.8, 1 / 37.9, 1 / 31.0) + 0.362 * lobe(442.0, 1 / 16.0, 1 / 26.7)
    x -= 0.065 * lobe(501.1, 1 / 20.4, 1 / 26.2)
    y = 0.821 * lobe(568.8, 1 / 46.9, 1 / 40.5) + 0.286 * lobe(530.9, 1 / 16.3, 1 / 31.1)
    z = 1.217 * lobe(437.0, 1 / 11.8, 1 / 36.0) + 0.681 * lobe(459.0, 1 / 26.0, 1 / 13.8)
    total = [float((spectrum * curve).sum()) for curve in (x, y, z)]
    expected = (total[0] / sum(total), total[1] / sum(total))
    assert light.black_body(kelvin) == pytest.approx(expected, abs=4e-3)


def test_other_temperatures_are_refused() -> None:
    with pytest.raises(ValueError, match="from 1667 to 25000"):
        light.black_body(1000)


def test_low_temperatures_are_warm_and_daylight_changes_nothing() -> None:
    gray = torch.full((1, 3, 2, 2), 0.5)
    torch.testing.assert_close(light.white_balance(IMAGE, light.DAYLIGHT), IMAGE, atol=1e-4, rtol=0)
    for kelvin, warm in ((3000, True), (15000, False)):
        red, _, blue = light.white_balance(gray, kelvin)[0, :, 0, 0].tolist()
        assert (red > 0.52 > 0.48 > blue) is warm
        assert (red < blue) is not warm
        before, after = (
            color.rgb2xyz(x[0].permute(1, 2, 0).numpy())[0, 0, 1]
            for x in (gray, light.white_balance(gray, kelvin))
        )
        assert after == pytest.approx(before, rel=2e-3)  # white keeps its luminance


def test_the_white_takes_the_chromaticity_of_the_black_body() -> None:
    """Nearly: sRGB's own white, daylight, is a little greener than the black body it stands for."""
    gray = torch.full((1, 3, 1, 1), 0.5, dtype=torch.float64)
    xyz = color.rgb2xyz(light.white_balance(gray, 5000)[0].permute(1, 2, 0).numpy())[0, 0]
    assert tuple(xyz[:2] / xyz.sum()) == pytest.approx(light.black_body(5000), abs=8e-3)


def test_exposure_multiplies_the_light() -> None:
    darker = light.to_linear(light.exposure(IMAGE, 0.7))
    torch.testing.assert_close(darker, 0.7 * light.to_linear(IMAGE), atol=1e-6, rtol=1e-4)
    white = torch.ones(1, 3, 1, 1)
    torch.testing.assert_close(light.exposure(white, 1.4), white)  # clipped


def test_gamma_below_one_lifts_the_dark() -> None:
    assert (light.gamma(IMAGE, 0.8) > IMAGE).all()
    assert (light.gamma(IMAGE, 1.25) < IMAGE).all()


@pytest.mark.parametrize("turn", [0.0, 0.6, math.pi / 2])
def test_a_gradient_goes_from_edge_to_edge(turn: float) -> None:
    gray = torch.full((1, 3, 64, 64), 0.5)
    ratio = light.to_linear(light.gradient(gray, 0.3, turn)) / light.to_linear(gray)
    assert float(ratio.max()) == pytest.approx(1.3, abs=0.02)
    assert float(ratio.min()) == pytest.approx(0.7, abs=0.02)
    if turn == 0.0:
        assert torch.equal(ratio[..., 0, :], ratio[..., 1, :])


def test_a_shadow_darkens_where_its_field_is() -> None:
    field = torch.zeros(16, 16)
    field[:8] = 1
    shaded = light.shadow(IMAGE, 0.5, field)
    torch.testing.assert_close(shaded[..., 8:, :], IMAGE[..., 8:, :])
    half = light.to_linear(IMAGE[..., :8, :]) / 2
    torch.testing.assert_close(light.to_linear(shaded[..., :8, :]), half, atol=1e-6, rtol=1e-4)


def test_bright_pixels_are_noisier_in_linear_light() -> None:
    normal = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    spreads = []
    for level in (0.2, 0.7):
        noisy = light.sensor_noise(torch.full((1, 3, 64, 64), level), 0.02, normal)
        spreads.append(float(light.to_linear(noisy).std()))
        expected = 0.02 * math.sqrt(float(light.to_linear(torch.tensor(level))) + 0.01)
        assert spreads[-1] == pytest.approx(expected, rel=0.05)
    assert spreads[1] > 2 * spreads[0]


def test_jpeg_changes_a_little_and_more_at_a_lower_quality() -> None:
    smooth = torch.nn.functional.interpolate(IMAGE, (64, 64), mode="bilinear")
    errors = [float((light.jpeg(smooth, q) - smooth).abs().mean()) for q in (95, 75)]
    assert 0 < errors[0] < errors[1] < 0.05
    assert light.jpeg(smooth, 95).shape == smooth.shape
