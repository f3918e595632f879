"""What lamp and camera do to a whole picture, as a few numbers.

A part changes a few of its pixels when it is defective; a lamp that ages, a lens that lost its
focus, a gain that was turned up change nearly all of them. These statistics are therefore taken
over the whole picture, and none looks for a place. Colors are CIE Lab (`leanet.ops.color`), whose
L* is lightness from 0 to 100, a* green to red and b* blue to yellow. Sharpness is the variance of
the Laplacian over that of the picture itself, so that a contrast that was turned up does not count
(the variance alone: Pech-Pacheco et al. 2000, doi:10.1109/ICPR.2000.903548). Noise is what the
operator of Immerkaer (1996, doi:10.1006/cviu.1996.0060) leaves of a picture, which is blind to
edges and gradients; of its values the median counts, so that a texture in places does not.

A picture must be of one size for its figures to be compared: shrinking takes noise away.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from leanet.ops.color import rgb_to_lab

_LAPLACIAN: Final = ((0.0, 1.0, 0.0), (1.0, -4.0, 1.0), (0.0, 1.0, 0.0))
_IMMERKAER: Final = ((1.0, -2.0, 1.0), (-2.0, 4.0, -2.0), (1.0, -2.0, 1.0))
_GAIN: Final = 6.0  # the root of the sum of its squares: what it makes of noise of SD 1
_MEDIAN: Final = 0.6745  # of |x|, x standard normal
_FLAT: Final = 0.01  # variance of L* that is added, so that a picture without contrast is not sharp
_STEP: Final = 1 / 255


class Statistic(NamedTuple):
    """A statistic in words: its title, its unit ("" = none), what less and more of it means, and
    the smallest spread that counts: what nobody would call a change."""

    title: str
    unit: str
    less: str
    more: str
    least: float


STATISTICS: Final[dict[str, Statistic]] = {
    "brightness": Statistic("brightness", "L*", "darker", "brighter", 0.5),
    "contrast": Statistic("contrast", "L*", "flatter", "richer in contrast", 0.3),
    "red": Statistic("green to red", "a*", "greener", "redder", 0.3),
    "yellow": Statistic("blue to yellow", "b*", "bluer", "yellower", 0.3),
    "saturation": Statistic("saturation", "C*", "paler", "more colorful", 0.3),
    "sharpness": Statistic("sharpness", "", "less sharp", "sharper", 0.003),
    "noise": Statistic("noise", "L*", "less noisy", "noisier", 0.02),
    "black": Statistic("pixels without light", "%", "less black", "more black", 0.3),
    "white": Statistic("pixels at the limit", "%", "less overexposed", "more overexposed", 0.3),
}


def image_statistics(image: Tensor) -> dict[str, Tensor]:
    """Statistics by name, each [B] in the units of `STATISTICS`, of images [B, 3, H, W] in [0, 1].

    brightness: mean L*; contrast: its SD; red, yellow: mean a* and b*; saturation: mean chroma;
    sharpness: variance of the Laplacian of L* over the variance of L*; noise: SD in L*; black and
    white: percent of the pixels without light in any channel and with a channel at its limit.

    Raises ValueError for another shape or dtype, or fewer than 3 pixels at a side.

    >>> grey = image_statistics(torch.full((1, 3, 4, 4), 0.5))
    >>> round(grey["brightness"].item(), 1), round(grey["contrast"].item(), 3)
    (53.4, 0.0)
    """
    if image.ndim != 4 or min(image.shape[-2:]) < 3:
        raise ValueError(
            f"images have shape {list(image.shape)}; they must be [B, 3, H, W] of at least 3 pixels"
        )
    lab = rgb_to_lab(image)
    lightness, a, b = lab.flatten(2).unbind(1)  # [B, H W] each
    variance = lightness.var(dim=1, correction=0)
    plane = lab[:, :1]
    laplacian = _filtered(plane, _LAPLACIAN).var(dim=1, correction=0)
    rest = _filtered(plane, _IMMERKAER).abs()
    return {
        "brightness": lightness.mean(dim=1),
        "contrast": variance.sqrt(),
        "red": a.mean(dim=1),
        "yellow": b.mean(dim=1),
        "saturation": torch.hypot(a, b).mean(dim=1),
        "sharpness": laplacian / (variance + _FLAT),
        "noise": rest.median(dim=1).values / (_MEDIAN * _GAIN),
        "black": _percent(image.amax(dim=1) <= 1.5 * _STEP),
        "white": _percent(image.amax(dim=1) >= 1 - 1.5 * _STEP),
    }


def _filtered(plane: Tensor, kernel: tuple[tuple[float, ...], ...]) -> Tensor:
    """Planes [B, 1, H, W] under a kernel where it fits, [B, (H - 2) (W - 2)]."""
    weight = torch.tensor(kernel, dtype=plane.dtype, device=plane.device)[None, None]
    return F.conv2d(plane, weight).flatten(1)


def _percent(chosen: Tensor) -> Tensor:
    """Share of the True pixels of [B, H, W], [B] in percent."""
    return 100 * chosen.flatten(1).float().mean(dim=1)
