"""What light and camera do to a picture of the same thing, mostly in linear light.

sRGB values are a curve of the light that fell on the sensor. Whatever the lamp does is a product in
that linear light: a longer exposure, a gradient across the table, a shadow, another color
temperature. The last is a von Kries adaptation: the cone responses (L, M, S) are scaled by those of
the new white over those of the old one, both black bodies of about daylight's color or not.

Images are [B, 3, H, W] in [0, 1], and so are the results. Chromaticities of the black body: the
cubic fits of Kang, Moon, Hong, Lee, Cho and Kim (2002), J. Korean Phys. Soc. 41, 865, for 1,667 to
25,000 K. Cone responses: Hunt-Pointer-Estevez, normalized to D65. sRGB: IEC 61966-2-1.
"""

from __future__ import annotations

import io
import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor

DAYLIGHT = 6504.0  # kelvin; about the color temperature of sRGB's white
_XYZ_FROM_RGB = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
_LMS_FROM_XYZ = (
    (0.40024, 0.70760, -0.08081),
    (-0.22630, 1.16532, 0.04570),
    (0.0, 0.0, 0.91822),
)


def to_linear(image: Tensor) -> Tensor:
    """sRGB values in [0, 1] as linear light in [0, 1]."""
    curve = ((image.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4
    return torch.where(image > 0.04045, curve, image / 12.92)


def from_linear(light: Tensor) -> Tensor:
    """Linear light as sRGB values; what is outside [0, 1] is clipped."""
    light = light.clamp(0, 1)
    curve = 1.055 * light.clamp_min(0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(light > 0.0031308, curve, 12.92 * light)


def black_body(kelvin: float) -> tuple[float, float]:
    """CIE 1931 chromaticity (x, y) of a black body of 1,667 to 25,000 K.

    Raises ValueError for another temperature.

    >>> [round(value, 3) for value in black_body(2856)]  # CIE illuminant A: 0.4476, 0.4074
    [0.447, 0.408]
    """
    if not 1667 <= kelvin <= 25000:
        raise ValueError(f"{kelvin:g} K: the fit of a black body's color holds from 1667 to 25000")
    u = 1e3 / kelvin
    if kelvin < 4000:
        x = ((-0.2661239 * u - 0.2343589) * u + 0.8776956) * u + 0.179910
    else:
        x = ((-3.0258469 * u + 2.1070379) * u + 0.2226347) * u + 0.240390
    if kelvin < 2222:
        y = ((-1.1063814 * x - 1.34811020) * x + 2.18555832) * x - 0.20219683
    elif kelvin < 4000:
        y = ((-0.9549476 * x - 1.37418593) * x + 2.09137015) * x - 0.16748867
    else:
        y = ((3.0817580 * x - 5.87338670) * x + 3.75112997) * x - 0.37001483
    return x, y


def white_balance(image: Tensor, kelvin: float) -> Tensor:
    """The images as if the white of about 6,500 K had become that of a black body of `kelvin`:
    lower is warmer. A white surface keeps its luminance."""
    to_lms = _matrix(_LMS_FROM_XYZ) @ _matrix(_XYZ_FROM_RGB)
    old, new = (_matrix(_LMS_FROM_XYZ) @ _white(one) for one in (DAYLIGHT, kelvin))
    adapt = torch.linalg.solve(to_lms, torch.diag(new / old) @ to_lms).to(image)
    return from_linear(torch.einsum("ij,bjhw->bihw", adapt, to_linear(image)))


def exposure(image: Tensor, factor: float) -> Tensor:
    """`factor` times as much light everywhere."""
    return from_linear(factor * to_linear(image))


def gamma(image: Tensor, exponent: float) -> Tensor:
    """sRGB values to the power `exponent`: below 1 lifts the dark, above 1 lowers it."""
    return image**exponent


def gradient(image: Tensor, strength: float, turn: float) -> Tensor:
    """Light that rises along the direction `turn` (radians) from 1 - strength to 1 + strength
    between the edges of the image."""
    height, width = image.shape[-2:]
    y = (torch.arange(height) + 0.5) / height * 2 - 1
    x = (torch.arange(width) + 0.5) / width * 2 - 1
    along = y[:, None] * math.sin(turn) + x[None] * math.cos(turn)
    along = along / (abs(math.sin(turn)) + abs(math.cos(turn)))
    return from_linear(to_linear(image) * (1 + strength * along.to(image)))


def shadow(image: Tensor, depth: float, field: Tensor) -> Tensor:
    """Light less a share `depth` where `field` [H, W] in [0, 1] is 1."""
    return from_linear(to_linear(image) * (1 - depth * field.to(image)))


def sensor_noise(image: Tensor, strength: float, normal: Tensor) -> Tensor:
    """Photon and read noise: `normal` (standard normal draws, shaped as the images) times an SD of
    `strength` times the square root of light + 0.01, in linear light."""
    light = to_linear(image)
    return from_linear(light + strength * (light + 0.01).sqrt() * normal.to(image))


def jpeg(image: Tensor, quality: int) -> Tensor:
    """The images through JPEG of a quality of 1 to 95, in memory."""
    result = []
    for one in image.cpu():
        pixels = (one * 255).round().byte().permute(1, 2, 0).numpy()
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
        decoded = np.asarray(Image.open(buffer).convert("RGB"), dtype=np.float32) / 255
        result.append(torch.from_numpy(decoded).permute(2, 0, 1))
    return torch.stack(result).to(image)


def _white(kelvin: float) -> Tensor:
    """XYZ of a black body's color at luminance 1."""
    x, y = black_body(kelvin)
    return torch.tensor([x / y, 1.0, (1 - x - y) / y], dtype=torch.float64)


def _matrix(rows: tuple[tuple[float, ...], ...]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)
