"""Pictures of harmless things: leaves on a table and woven cloth, drawn from noise.

Every picture goes through the same four steps, in linear light and at twice the wanted size:

1. an *albedo*, what the material reflects: outline, veins or threads, pigment that varies;
2. *nuisances*, marks that are unusual but harmless (dew, pollen and a shadow on a leaf; lint and a
   crease on cloth), so that "anything unusual" is not the same as "anything bad";
3. *light*: exposure, a gradient, color temperature, vignetting;
4. a *camera*: reduction to the wanted size, photon and read noise, the sRGB curve (IEC 61966-2-1).

Natural surfaces have amplitude spectra that fall as a power of the frequency (Field 1987,
doi:10.1364/JOSAA.4.002379); `fractal_noise` draws such fields and everything irregular uses them.
Each step has a random stream of its own: another strength of nuisance leaves the object unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

Array: TypeAlias = NDArray[np.float64]
Mask: TypeAlias = NDArray[np.bool_]

OVERSAMPLING: Final = 2
MIN_SIZE: Final = 16
LIGHT_FROM: Final = np.array([-0.6, -0.8])  # direction (x, y) of the lamp: upper left


class Scene(NamedTuple):
    """Linear albedo [N, N, 3], coverage of the object [N, N] in {0, 1}, coordinates in [-1, 1]."""

    albedo: Array
    inside: Mask
    x: Array
    y: Array


def fractal_noise(rng: Generator, size: int, slope: float) -> Array:
    """Random field [size, size], mean 0 and deviation 1, amplitude ~ frequency ** -slope.

    Slope 0 is white noise, 1 looks like clouds, 2 and more like slow drifts.
    """
    spectrum = np.fft.rfft2(rng.standard_normal((size, size)))
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    spectrum[0, 0], frequency[0, 0] = 0.0, 1.0
    field = np.fft.irfft2(spectrum * frequency**-slope, s=(size, size))
    normed: Array = field / field.std()
    return normed


def render(surface: str, rng: Generator, size: int, *, nuisance: float = 1.0) -> tuple[Array, Mask]:
    """Draw one normal picture.

    Args:
        surface: "leaf" or "textile".
        rng: all randomness comes from it; the picture is a function of its state.
        size: side in pixels, at least 16.
        nuisance: mean number of harmless marks, relative to the usual one; 0 draws none.

    Returns:
        sRGB [size, size, 3] in [0, 1], and the mask of the object [size, size] (all of it for a
        textile).

    Raises:
        ValueError: for an unknown surface, a size below 16 or a negative nuisance.
    """
    if surface not in SURFACES:
        raise ValueError(f"unknown surface {surface!r}; allowed are {', '.join(SURFACES)}")
    if size < MIN_SIZE:
        raise ValueError(f"size is {size}; a picture needs at least {MIN_SIZE} pixels a side")
    if nuisance < 0:
        raise ValueError(f"nuisance is {nuisance}; give 0 (none), 1 (usual) or more")
    draw, marks = SURFACES[surface]
    object_rng, nuisance_rng, light_rng, camera_rng = rng.spawn(4)
    scene = draw(object_rng, size)
    for mark, mean_count in marks:
        for _ in range(nuisance_rng.poisson(mean_count * nuisance)):
            scene = scene._replace(albedo=mark(scene, nuisance_rng))
    exposed = scene.albedo * _light(scene, light_rng)
    return _camera(_reduce(exposed), camera_rng), _reduce(scene.inside[..., None])[..., 0] > 0.5


# ---------------------------------------------------------------------------------------- surfaces


def _leaf(rng: Generator, size: int) -> Scene:
    n = size * OVERSAMPLING
    x, y = _grid(n)
    u, v = _leaf_coordinates(rng, x, y)
    half_width = _half_width(rng, u, v)
    inside = (np.abs(v) < half_width) & (u > 0) & (u < 1)
    stalk = (np.abs(v) < 0.014) & (u <= 0.02) & (u > -rng.uniform(0.05, 0.15))
    veins, bulge = _veins(rng, u, v, half_width)
    green = rng.uniform(0.13, 0.24)
    leaf = green * np.array([rng.uniform(0.42, 0.66), 1.0, rng.uniform(0.18, 0.34)])
    pigment = 0.10 * fractal_noise(rng, n, 1.6) + 0.05 * fractal_noise(rng, n, 0.7)
    yellow = 0.07 * fractal_noise(rng, n, 1.8)
    blade = leaf * np.exp(pigment[..., None] + yellow[..., None] * np.array([1.0, 0.2, -0.6]))
    pale = leaf * np.array([2.1, 1.75, 1.9])
    blade += 0.55 * veins[..., None] * (pale - blade)
    height = bulge + 0.006 * fractal_noise(rng, n, 1.2) + 0.05 * fractal_noise(rng, n, 2.2)
    blade *= _relief(height, 1.3)[..., None]
    albedo = np.where(stalk[..., None], pale * 0.9, _table(rng, n, inside | stalk))
    return Scene(np.where(inside[..., None], blade, albedo), inside, x, y)


def _leaf_coordinates(rng: Generator, x: Array, y: Array) -> tuple[Array, Array]:
    """Along the midrib (0 = base, 1 = tip) and across it, in leaf lengths."""
    turn, length = rng.uniform(0, 2 * np.pi), rng.uniform(1.5, 1.8)
    x, y = x - rng.uniform(-0.1, 0.1), y - rng.uniform(-0.1, 0.1)
    u = (x * np.cos(turn) + y * np.sin(turn)) / length + 0.5
    v = (y * np.cos(turn) - x * np.sin(turn)) / length
    return u, v + rng.uniform(-0.25, 0.25) * ((u - 0.5) ** 2 - 0.08)


def _half_width(rng: Generator, u: Array, v: Array) -> Array:
    """Ovate outline u^p (1 - u)^q with a wavy, slightly toothed edge that differs by side."""
    p, q = rng.uniform(0.45, 0.62), rng.uniform(0.75, 1.1)
    along = np.clip(u, 0.0, 1.0)
    peak = (p / (p + q)) ** p * (q / (p + q)) ** q
    wave = np.zeros_like(u)
    for k in (2, 3, 5, 9, 24):
        left, right = rng.uniform(0, 2 * np.pi, 2)
        wave += rng.uniform(0.02, 0.07) / k**0.7 * np.sin(k * 6 * u + np.where(v < 0, left, right))
    outline: Array = rng.uniform(0.27, 0.37) * along**p * (1 - along) ** q / peak
    return outline * (1 + wave)


def _veins(rng: Generator, u: Array, v: Array, half_width: Array) -> tuple[Array, Array]:
    """Paleness of the veins in [0, 1], and the height of the blade that bulges between them."""
    across = np.abs(v)
    reach = np.clip(across / np.maximum(half_width, 1e-3), 0.0, 1.0)
    count, slant = rng.uniform(6.0, 8.5), rng.uniform(0.55, 0.9)
    start = np.where(v < 0, rng.uniform(), rng.uniform())
    phase = count * (u - slant * across - rng.uniform(0.3, 1.0) * across**2) + start
    offset = np.abs(phase - np.round(phase))  # 0 on a vein, 0.5 midway between two
    secondary = np.exp(-((offset / 0.07) ** 2)) * (1 - reach) ** 0.7
    midrib = np.exp(-((v / (0.016 * (1.25 - np.clip(u, 0, 1)))) ** 2))
    bulge = 0.035 * np.sin(np.pi * offset) * (1 - reach**3) - 0.03 * midrib
    return np.maximum(midrib, 0.8 * secondary), np.asarray(bulge)


def _table(rng: Generator, n: int, object_mask: Mask) -> Array:
    """A matt table top of varying tone with the soft shadow of the object on it."""
    tone = rng.uniform(0.16, 0.62) * np.exp(rng.normal(0.0, 0.05, 3))
    texture = 0.05 * fractal_noise(rng, n, 1.5) + 0.04 * fractal_noise(rng, n, 0.4)
    shift = -LIGHT_FROM[::-1] * n * rng.uniform(0.012, 0.035)
    shadow = ndimage.shift(object_mask.astype(np.float64), shift, order=1)
    shadow = ndimage.gaussian_filter(shadow, n * rng.uniform(0.008, 0.02))
    brightness: Array = np.exp(texture) * (1 - 0.6 * shadow)
    return tone * brightness[..., None]


def _textile(rng: Generator, size: int) -> Scene:
    n = size * OVERSAMPLING
    x, y = _grid(n)
    turn, threads = rng.normal(0.0, 0.06), min(rng.uniform(15.0, 19.0), size / 4.5)
    scale = threads / 2
    drift = 0.12 * np.stack([fractal_noise(rng, n, 2.2), fractal_noise(rng, n, 2.2)])
    p = scale * (x * np.cos(turn) + y * np.sin(turn) + 1.5) + drift[0] + rng.uniform()
    q = scale * (y * np.cos(turn) - x * np.sin(turn) + 1.5) + drift[1] + rng.uniform()
    warp_tone, warp_height = _yarn(rng, p, q)
    weft_tone, weft_height = _yarn(rng, q, p)
    over = (np.floor(p) + np.floor(q)) % 2 == 0
    height = np.where(over, warp_height, weft_height)
    tone = np.where(over, warp_tone, weft_tone)
    dye = rng.uniform(0.09, 0.2) * np.array([rng.uniform(0.35, 0.6), 1.0, rng.uniform(1.7, 2.4)])
    weft_dye = dye * np.array([1.35, 1.2, 1.05])
    color = np.where(over[..., None], dye, weft_dye) * np.exp(tone)[..., None]
    fibers = 0.07 * fractal_noise(rng, n, 0.3) + 0.06 * fractal_noise(rng, n, 1.6)
    shade = (0.25 + 0.75 * height**0.7) * np.exp(fibers)
    return Scene(color * shade[..., None], np.ones((n, n), dtype=np.bool_), x, y)


def _yarn(rng: Generator, across: Array, along: Array) -> tuple[Array, Array]:
    """Log tone and height of parallel yarns, one per unit of `across`, each with its own slubs."""
    index = np.floor(across).astype(np.int64)
    count = int(index.max()) + 1
    tone, phase = rng.normal(0.0, 0.09, count)[index], rng.uniform(0, 6.3, count)[index]
    thick = 1 + rng.normal(0.0, 0.05, count)[index] + 0.08 * np.sin(0.7 * along + phase)
    side = (across - index - 0.5) / thick
    crown = along - np.floor(along) - 0.5
    profile = np.cos(np.pi * np.clip(side, -0.5, 0.5)) * np.cos(0.75 * np.pi * crown)
    return tone + 0.05 * np.sin(1.3 * along + 2 * phase), np.clip(profile, 0.0, 1.0)


# --------------------------------------------------------------------------------------- nuisances


def _dew(scene: Scene, rng: Generator) -> Array:
    """A water drop: dark towards the lamp, bright away from it, one glint."""
    dx, dy = _from_a_point_inside(scene, rng)
    radius = rng.uniform(0.03, 0.065)
    distance = np.hypot(dx, dy) / radius
    drop = np.clip(4 * (1 - distance), 0.0, 1.0)
    toward = (dx * LIGHT_FROM[0] + dy * LIGHT_FROM[1]) / radius
    glint = np.hypot(dx / radius - 0.4 * LIGHT_FROM[0], dy / radius - 0.4 * LIGHT_FROM[1])
    lens = 1 + drop * (-0.15 - 0.55 * toward)
    flash = 0.9 * np.exp(-((glint / 0.32) ** 2))
    wet: Array = scene.albedo * lens[..., None] + flash[..., None]
    return wet


def _pollen(scene: Scene, rng: Generator) -> Array:
    """A small pale grain."""
    dx, dy = _from_a_point_inside(scene, rng)
    alpha = rng.uniform(0.4, 0.8) * np.exp(-(dx**2 + dy**2) / rng.uniform(0.014, 0.024) ** 2)
    return _mix(scene.albedo, np.array([0.75, 0.75, 0.66]), alpha)


def _shadow(scene: Scene, rng: Generator) -> Array:
    """The soft edge of a shadow that falls over part of the picture."""
    across = _across_a_line(scene, rng) + 0.06 * fractal_noise(rng, len(scene.x), 2.2)
    dark = 1 / (1 + np.exp(-across / rng.uniform(0.02, 0.07)))
    return scene.albedo * (1 - rng.uniform(0.2, 0.45) * dark)[..., None]


def _lint(scene: Scene, rng: Generator) -> Array:
    """A curly pale fiber that lies on the cloth."""
    turn = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0.0, 0.06) + rng.normal(0, 0.15, 60))
    step = rng.uniform(0.006, 0.012)
    path = rng.uniform(-0.9, 0.9, (2, 1)) + step * np.cumsum([np.cos(turn), np.sin(turn)], axis=1)
    column, row = np.rint((path + 1) / 2 * (len(scene.x) - 1)).astype(np.int64)
    trace = np.zeros_like(scene.x)
    kept = (np.minimum(row, column) >= 0) & (np.maximum(row, column) < len(scene.x))
    trace[row[kept], column[kept]] = 1.0
    alpha = np.clip(1.6 * ndimage.gaussian_filter(trace, 0.8), 0.0, 1.0) * rng.uniform(0.3, 0.7)
    return _mix(scene.albedo, np.array([0.62, 0.62, 0.6]), alpha)


def _crease(scene: Scene, rng: Generator) -> Array:
    """A fold: one flank faces the lamp, the other one turns away."""
    across = _across_a_line(scene, rng) + 0.03 * fractal_noise(rng, len(scene.x), 2.4)
    across /= rng.uniform(0.05, 0.12)
    flank = 1.65 * across * np.exp(-(across**2))  # between about -0.7 and 0.7
    return scene.albedo * (1 + rng.uniform(0.2, 0.5) * flank)[..., None]


def _from_a_point_inside(scene: Scene, rng: Generator) -> tuple[Array, Array]:
    rows, columns = np.nonzero(scene.inside)
    at = rng.integers(len(rows))
    return scene.x - scene.x[rows[at], columns[at]], scene.y - scene.y[rows[at], columns[at]]


def _across_a_line(scene: Scene, rng: Generator) -> Array:
    turn = rng.uniform(0, 2 * np.pi)
    across: Array = scene.x * np.cos(turn) + scene.y * np.sin(turn) - rng.uniform(-0.6, 0.6)
    return across


def _mix(albedo: Array, color: Array, alpha: Array) -> Array:
    return albedo + alpha[..., None] * (color - albedo)


# -------------------------------------------------------------------------------- light and camera


def _light(scene: Scene, rng: Generator) -> Array:
    """Illumination [N, N, 3]: exposure, linear gradient, warm or cold, darker corners."""
    turn, warmth = rng.uniform(0, 2 * np.pi), rng.normal(0.0, 0.05)
    slope = rng.uniform(0.0, 0.22) * (scene.x * np.cos(turn) + scene.y * np.sin(turn))
    corner = rng.uniform(0.0, 0.16) * (scene.x**2 + scene.y**2)
    level: Array = rng.uniform(0.75, 1.3) * (1 + slope) * (1 - corner)
    tint: Array = np.exp(warmth * np.array([1.0, 0.0, -1.0]))
    return level[..., None] * tint


def _camera(linear: Array, rng: Generator) -> Array:
    """Photon and read noise, then the sRGB curve."""
    sigma = np.sqrt(2e-4 * np.clip(linear, 0.0, 1.0) + 1e-6)
    linear = np.clip(linear + sigma * rng.standard_normal(linear.shape), 0.0, 1.0)
    curve = 1.055 * linear ** (1 / 2.4) - 0.055
    return np.where(linear <= 0.0031308, 12.92 * linear, curve)


def _relief(height: Array, strength: float) -> Array:
    """Brightness of a height field (in half picture sides) under the lamp, 1 where it is flat."""
    dy, dx = np.gradient(height, 2 / len(height))
    brightness: Array = 1 - strength * (dx * LIGHT_FROM[0] + dy * LIGHT_FROM[1])
    return np.clip(brightness, 0.45, 1.7)


def _grid(n: int) -> tuple[Array, Array]:
    axis = (np.arange(n) + 0.5) * 2 / n - 1
    y, x = np.meshgrid(axis, axis, indexing="ij")
    return x, y


def _reduce(picture: Array | Mask) -> Array:
    k = OVERSAMPLING
    rows, columns, channels = picture.shape
    blocks = picture.reshape(rows // k, k, columns // k, k, channels)
    reduced: Array = blocks.mean(axis=(1, 3))
    return reduced


Draw: TypeAlias = Callable[[Generator, int], Scene]
Mark: TypeAlias = Callable[[Scene, Generator], Array]

# How a surface is drawn, and its harmless marks with their mean count in a picture.
SURFACES: Final[dict[str, tuple[Draw, tuple[tuple[Mark, float], ...]]]] = {
    "leaf": (_leaf, ((_shadow, 0.5), (_pollen, 5.0), (_dew, 3.0))),
    "textile": (_textile, ((_crease, 0.6), (_lint, 1.5))),
}
