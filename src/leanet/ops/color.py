"""Color in the units of human vision: sRGB to CIE Lab, the CIEDE2000 difference, and fancy PCA.

CIE Lab describes a color by its lightness L (0 black, 100 white) and two opponent axes, a (green to
red) and b (blue to yellow); the distance from the L axis is the chroma C, the angle around it the
hue h. Plain distances in Lab exaggerate differences between vivid colors. CIEDE2000 divides those
of lightness, chroma and hue by weights S_L, S_C, S_H that depend on the place in the space, after
stretching a near the grey axis, and adds a term R_T that couples chroma and hue for blues. One
unit is about the smallest difference an observer can see.

The textbook wraps two hue angles at 360 degrees and takes five cosines of their mean. Here a hue is
a unit vector u: the complex square root of u2 / u1 is half the hue difference, times u1 the mean
hue, and polynomials of that give the cosines. Nothing wraps or cancels, and products are fast.

References: Luo, Cui and Rigg (2001), doi:10.1002/col.1049, for the formula; Sharma, Wu and Dalal
(2005), doi:10.1002/col.20070, for its fine print and test data; Krizhevsky, Sutskever and Hinton
(2012), ImageNet classification with deep convolutional neural networks, section 4.1, for fancy PCA.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

PcaForm = Literal["variance", "std"]  # alpha scales the eigenvalues or their square roots
# Linear sRGB to CIE XYZ, and the D65 white of the 2 degree observer, as scikit-image has them.
_XYZ_FROM_RGB = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
_RGB_FROM_XYZ = (
    (3.2404813432005266, -1.5371515162713185, -0.4985363261688878),
    (-0.9692549499965682, 1.8759900014898907, 0.04155592655829284),
    (0.05564663913517716, -0.20404133836651123, 1.0573110696453443),
)
_WHITE = (0.95047, 1.0, 1.08883)

_TINY = 1e-24  # smaller squares count as 0; still, its power -3/2 (in gradients) fits in float32
_CHUNK_PIXELS = 1 << 16  # per step on the CPU: the intermediate results stay in the cache


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """CIE Lab (D65, 2 degree observer) of sRGB in [0, 1], both `[B, 3, H, W]`, float32 or float64.

    L is in [0, 100], a and b in about [-108, 99]; the gradient is finite everywhere. Any number of
    leading dimensions will do. Raises `ValueError` for another shape or dtype.

    >>> red = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64).view(1, 3, 1, 1)
    >>> rgb_to_lab(red).flatten().round(decimals=2).tolist()
    [53.24, 80.09, 67.2]
    """
    _check_color("rgb", rgb)
    curve = ((rgb.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4
    xyz = _mix(_XYZ_FROM_RGB, *torch.where(rgb > 0.04045, curve, rgb / 12.92).unbind(-3))
    x, y, z = (_cube_root(v / white) for v, white in zip(xyz, _WHITE, strict=True))
    return torch.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)), dim=-3)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """sRGB of CIE Lab: the inverse of :func:`rgb_to_lab`, same rules, clipped to [0, 1].

    >>> grey = torch.tensor([50.0, 0.0, 0.0], dtype=torch.float64).view(1, 3, 1, 1)
    >>> lab_to_rgb(grey).flatten().round(decimals=3).tolist()
    [0.466, 0.466, 0.466]
    """
    _check_color("lab", lab)
    lightness, a, b = lab.unbind(-3)
    y = (lightness + 16) / 116
    roots = torch.stack((y + a / 500, y, y - b / 200))
    relative = torch.where(roots > 0.2068966, roots**3, (roots - 16 / 116) / 7.787)
    xyz = [v * white for v, white in zip(relative, _WHITE, strict=True)]
    linear = torch.stack(_mix(_RGB_FROM_XYZ, *xyz), dim=-3)
    curve = 1.055 * linear.clamp_min(0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(linear > 0.0031308, curve, 12.92 * linear).clamp(0, 1)


def delta_e_2000(lab1: Tensor, lab2: Tensor) -> Tensor:
    """CIEDE2000 color difference of each pixel (k_L = k_C = k_H = 1), `[B, 1, H, W]`, in dE00 >= 0.

    Both inputs are CIE Lab in true units (L to 100), `[B, 3, H, W]` with any number of leading
    dimensions, float32 or float64, same shape and dtype; anything else raises `ValueError`.
    If either chroma is zero, the hue difference is 0 and the mean hue has no effect. Identical
    colors are exactly 0 apart, with zero gradient. The gradient is finite also where the formula
    has kinks and jumps: at grey and between opposite hues.

    >>> blue, violet = (50.0, 2.6772, -79.7751), (50.0, 0.0, -82.7485)
    >>> lab1, lab2 = torch.tensor([blue, violet], dtype=torch.float64).view(2, 1, 3, 1, 1)
    >>> round(delta_e_2000(lab1, lab2).item(), 4)
    2.0425
    """
    _check_color("lab1", lab1)
    _check_color("lab2", lab2)
    if lab1.shape != lab2.shape or lab1.dtype != lab2.dtype:
        pair = " and ".join(f"{list(lab.shape)} {lab.dtype}" for lab in (lab1, lab2))
        raise ValueError(f"lab1 and lab2 are {pair}; give both the same shape and dtype")
    whole = torch.compiler.is_compiling() or lab1.device.type != "cpu"
    if whole or lab1.numel() <= 3 * _CHUNK_PIXELS:
        return _ciede2000(lab1, lab2)
    return _ciede2000_chunked(lab1, lab2, _CHUNK_PIXELS)


def rgb_principal_components(images: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Eigenvalues [3], largest first, and eigenvectors [3, 3], as columns, of the RGB covariance.

    Over all pixels of all batches `[B, 3, H, W]` in [0, 1], one in memory at a time; float64 on the
    CPU, the largest entry of each eigenvector positive. `ValueError` for another shape or dtype
    and for fewer than two pixels.

    >>> ramp = torch.linspace(0, 1, 5).expand(1, 3, 1, 5)
    >>> values, vectors = rgb_principal_components([ramp])
    >>> [round(v, 4) for v in values.tolist()], vectors[:, 0].round(decimals=4).tolist()
    ([0.4688, 0.0, 0.0], [0.5774, 0.5774, 0.5774])
    """
    count = 0
    total, moment = torch.zeros(3, dtype=torch.float64), torch.zeros(3, 3, dtype=torch.float64)
    for batch in images:
        _check_color("images", batch)
        pixels = batch.detach().movedim(-3, 0).reshape(3, -1).double()
        count += pixels.shape[1]
        total += pixels.sum(1).cpu()
        moment += (pixels @ pixels.T).cpu()
    if count < 2:
        raise ValueError(f"the images have {count} pixels; a covariance needs at least 2")
    values, vectors = torch.linalg.eigh((moment - total.outer(total) / count) / (count - 1))
    vectors = vectors * vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()
    return values.clamp_min(0).flip(0), vectors.flip(1)


def fancy_pca(
    rgb: Tensor,
    eigenvalues: Tensor,
    eigenvectors: Tensor,
    *,
    alpha: Tensor,
    form: PcaForm = "variance",
) -> Tensor:
    """RGB `[B, 3, H, W]` in [0, 1] plus the color sum_i alpha_i l_i p_i, clipped to [0, 1].

    Here l_i and p_i are those of :func:`rgb_principal_components` and `alpha` is `[B, 3]`, normal
    draws of SD 0.1 in the paper; form "std" takes the square root of l_i instead. `ValueError` for
    another form, shape or dtype.

    >>> grey, alpha = torch.full((1, 3, 1, 1), 0.5), torch.tensor([[1.0, -1.0, 0.0]])
    >>> fancy_pca(grey, torch.ones(3) / 4, torch.eye(3), alpha=alpha).flatten().tolist()
    [0.75, 0.25, 0.5]
    """
    _check_color("rgb", rgb)
    if rgb.ndim != 4 or alpha.shape != (len(rgb), 3):
        shapes = f"{list(rgb.shape)} and {list(alpha.shape)}"
        raise ValueError(f"rgb and alpha are {shapes}; they must be [B, 3, H, W] and [B, 3]")
    axes = _pca_axes(eigenvalues, eigenvectors, form).to(rgb)
    shift = (alpha.to(rgb).unsqueeze(1) * axes).sum(2)
    return (rgb + shift[..., None, None]).clamp(0, 1)


def fancy_pca_shift(
    eigenvalues: Tensor, eigenvectors: Tensor, sigma: float = 0.1, *, form: PcaForm = "variance"
) -> Tensor:
    """SD of the shift of R, G and B by :func:`fancy_pca`, [3] in grey levels (1/255), unclipped.

    `sigma` is the SD of alpha. If the norm of the three is below about 1, little is augmented.

    >>> fancy_pca_shift(torch.tensor([0.25, 0.0, 0.0]), torch.eye(3), sigma=0.5).tolist()
    [31.875, 0.0, 0.0]
    """
    return 255 * sigma * _pca_axes(eigenvalues, eigenvectors, form).square().sum(1).sqrt()


def _ciede2000_chunked(lab1: Tensor, lab2: Tensor, pixels: int) -> Tensor:
    """`_ciede2000` in steps of about `pixels`: some images, or some rows of one, at a time."""
    *lead, _, height, width = lab1.shape
    images, rows = max(1, pixels // (height * width)), max(1, pixels // width)
    batches = (torch.split(lab.reshape(-1, 3, height, width), images) for lab in (lab1, lab2))
    parts = [
        torch.cat([*map(_ciede2000, torch.split(x, rows, 2), torch.split(y, rows, 2))], dim=2)
        for x, y in zip(*batches, strict=True)
    ]
    return torch.cat(parts).reshape(*lead, 1, height, width)


def _ciede2000(lab1: Tensor, lab2: Tensor) -> Tensor:
    """The formula; comments give the equations of Sharma, Wu and Dalal (2005)."""
    l1, a1, b1 = lab1.unbind(-3)
    l2, a2, b2 = lab2.unbind(-3)
    chromas = _sqrt(_square_norm(a1, b1)) + _sqrt(_square_norm(a2, b2))
    stretch = _linear(1.5, (-0.5, _vividness(chromas)))  # 1 + G, eqs. 2-5
    c1, x1, y1 = _chroma_and_hue(a1 * stretch, b1)
    c2, x2, y2 = _chroma_and_hue(a2 * stretch, b2)
    chromas = c1 + c2
    cos_half, sin_half = _half_turn(x1, y1, x2, y2)
    cos = torch.addcmul(x1 * cos_half, y1, sin_half, value=-1)  # mean hue: u1 turned half way
    sin = torch.addcmul(y1 * cos_half, x1, sin_half)
    middle = _linear(-50.0, (0.5, l1 + l2)).square()
    weight_l = _linear(1.0, (0.015, middle * (middle + 20).rsqrt()))  # S_L, eq. 18
    weight_c = _linear(1.0, (0.045 / 2, chromas))  # S_C, eq. 19
    weight_h = _linear(1.0, (0.015 / 2, chromas * _hue_weight(cos, sin)))  # S_H, eq. 20
    delta_l, delta_c = (l2 - l1) / weight_l, (c2 - c1) / weight_c
    delta_h = 2 * _sqrt(c1 * c2) * sin_half / weight_h  # eq. 11
    blue = _blue_rotation(cos, sin) * _vividness(chromas)  # -R_T / 2, eq. 21
    square = torch.addcmul(_square_norm(delta_l, delta_c), delta_h, delta_h)
    return _sqrt(torch.addcmul(square, delta_c * delta_h, blue, value=-2)).unsqueeze(-3)  # eq. 22


def _chroma_and_hue(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Chroma, and the cosine and sine of the hue (both 0 for grey)."""
    square = _square_norm(a, b)
    inverse = square.clamp_min(_TINY).rsqrt()
    return square * inverse, a * inverse, b * inverse


def _half_turn(x1: Tensor, y1: Tensor, x2: Tensor, y2: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of half the hue difference, the shorter way round from u1 to u2.

    The square root of the complex number u2 / u1, by the branch that does not cancel. Between
    exactly opposite hues the way leads up from the smaller hue in [0, 360), as in eqs. 10 and 14.
    """
    cos = torch.addcmul(x1 * x2, y1, y2)
    sin = x1 * y2 - y1 * x2  # not fused: exactly 0 for equal and for opposite hues
    side = _with_sign(cos.new_ones(()), cos)  # unlike abs, the product has a gradient at 0
    large = _linear(0.5, (0.5, side * cos)).sqrt()
    small = 0.5 * sin / large
    upper = torch.add(y1, x1, alpha=1e-15)  # > 0 if the hue of u1 is below 180; breaks ties only
    signed = _with_sign(large, torch.add(sin, upper, alpha=1e-20))
    acute = side > 0
    return torch.where(acute, large, small.abs()), torch.where(acute, small, signed)


def _with_sign(size: Tensor, of: Tensor) -> Tensor:
    """Sizes >= 0 with the signs of `of`. Exported formats have no copysign; the zeros that it tells
    apart give the same color difference."""
    if torch.compiler.is_exporting():
        return torch.where(of < 0, -size, size)
    return torch.copysign(size, of)


def _hue_weight(cos: Tensor, sin: Tensor) -> Tensor:
    """T of the mean hue, eq. 15, as the real part of a polynomial in cos h + i sin h.

    1 - 0.17 cos(h - 30) + 0.24 cos(2h) + 0.32 cos(3h + 6) - 0.20 cos(4h - 63)
    """
    terms = ((-0.17, -30), (0.32, 6), (-0.20, -63))
    k1, k3, k4 = (cmath.rect(size, math.radians(phase)) for size, phase in terms)
    cos2 = torch.addcmul(cos * cos, sin, sin, value=-1)
    sin2 = 2 * cos * sin
    real = _linear(0.24, (k3.real, cos), (-k3.imag, sin), (k4.real, cos2), (-k4.imag, sin2))
    imag = _linear(0.0, (k3.imag, cos), (k3.real, sin), (k4.imag, cos2), (k4.real, sin2))
    rest = _linear(1.0, (k1.real, cos), (-k1.imag, sin))
    return torch.addcmul(torch.addcmul(rest, cos2, real), sin2, imag, value=-1)


def _blue_rotation(cos: Tensor, sin: Tensor) -> Tensor:
    """Sine of twice delta theta, eqs. 16 and 21: how far chroma and hue mix, most at h = 275."""
    opposite = torch.atan2(-sin, -cos)  # h - 180 degrees, for h in [0, 360)
    distance = _linear((180 - 275) / 25, (math.degrees(1) / 25, opposite))
    angle = math.radians(60) * torch.exp(-distance * distance)
    return _short_sine(angle) if torch.compiler.is_exporting() else torch.sin(angle)


def _short_sine(angle: Tensor) -> Tensor:
    """Sine of angles in [0, pi / 3] by its series, to 4e-8: runtimes of exported graphs are slow at
    what is no product or sum."""
    square = angle * angle
    series = _linear(-1 / 5040, (1 / 362880, square))
    for inverse in (1 / 120, -1 / 6, 1.0):
        series = series * square + inverse
    return series * angle


def _vividness(chromas: Tensor) -> Tensor:
    """Square root of C^7 / (C^7 + 25^7), 2 C = `chromas`, eqs. 4, 17; < 1e-10 where clamped."""
    inverse = chromas.clamp_min(0.05).reciprocal()
    cube = inverse * inverse * inverse
    return _linear(1.0, (50.0**7, cube * cube * inverse)).rsqrt()


def _linear(constant: float, *terms: tuple[float, Tensor]) -> Tensor:
    """Constant plus weighted tensors, one pass over memory each."""
    result = torch.rsub(terms[0][1], constant, alpha=-terms[0][0])
    for weight, x in terms[1:]:
        result = torch.add(result, x, alpha=weight)
    return result


def _square_norm(x: Tensor, y: Tensor) -> Tensor:
    return torch.addcmul(x * x, y, y)


def _sqrt(square: Tensor) -> Tensor:
    """Square root whose value and gradient at 0 are 0."""
    return square * square.clamp_min(_TINY).rsqrt()


def _mix(matrix: tuple[tuple[float, ...], ...], x: Tensor, y: Tensor, z: Tensor) -> list[Tensor]:
    """Matrix times the three channels, in full precision on every device (no TF32)."""
    return [i * x + j * y + k * z for i, j, k in matrix]


def _cube_root(x: Tensor) -> Tensor:
    """Cube root, with the CIE's straight line near 0."""
    return torch.where(x > 0.008856, x.clamp_min(0.008856) ** (1 / 3), 7.787 * x + 16 / 116)


def _pca_axes(eigenvalues: Tensor, eigenvectors: Tensor, form: PcaForm) -> Tensor:
    """Eigenvectors as columns, each times its eigenvalue or the square root of it."""
    if form not in ("variance", "std"):
        raise ValueError(f"form is {form!r}; it must be 'variance' or 'std'")
    return eigenvectors * (eigenvalues if form == "variance" else eigenvalues.sqrt())


def _check_color(name: str, colors: Tensor) -> None:
    if colors.ndim < 3 or colors.shape[-3] != 3:
        raise ValueError(f"{name} has shape {list(colors.shape)}; it must be [..., 3, H, W]")
    if colors.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{name} is {colors.dtype}; convert it to float32 or float64 first")
