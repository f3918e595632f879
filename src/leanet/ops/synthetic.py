"""Synthetic anomalies with exact masks: patches in wrong places, foreign textures, noisy features.

One contract for every kind: `make(image, generator, **options) -> Synthetic`. Images [B, 3, H, W]
in [0, 1] are spoiled one by one, with random numbers from a CPU generator alone: the same seed
gives the same bytes. Results are rounded to 8 bits where they differ from the image, and outside
the mask they are the image to the bit. Severity is the median CIEDE2000 over the core of the mask
(mask > 0.5): what is invisible is drawn anew, because as a training example it would be a lie.

References: Li, Sohn, Yoon and Pfister (2021), CutPaste, arXiv 2104.04015; Zavrtanik, Kristan and
Skočaj (2021), DRAEM, arXiv 2108.07610; Rolih, Fučka and Skočaj (2024), SuperSimpleNet,
arXiv 2408.03143, for noise in features. Sizes are those of the papers, scaled to the side.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from leanet.ops.color import delta_e_2000, rgb_to_lab
from leanet.ops.perlin import drawn_region, perlin_region, random_noise

Shape = Literal["either", "rectangle", "scar"]
VISIBLE = 1.0  # least severity, in dE00; less is drawn anew
ATTEMPTS = 20
RECTANGLE_AREA, _LOG_ASPECT = (0.02, 0.15), (math.log(0.3), math.log(3.3))
SCAR_WIDTH, SCAR_LENGTH = (2 / 256, 16 / 256), (10 / 256, 25 / 256)  # of the side
SCAR_TURN = math.radians(45)
GAIN, SHIFT = (0.9, 1.1), (-0.05, 0.05)  # jitter of a pasted patch's colors
SHOWING_THROUGH = (0.0, 0.8)  # share of the image in a blended texture
SHUFFLED_CELLS = 8  # per side


class Synthetic(NamedTuple):
    """image [B, 3, H, W] in [0, 1], of 8-bit steps; mask [B, 1, H, W] in [0, 1], 0 where nothing
    was changed; severity [B] in dE00; told: more figures per image [B], by name."""

    image: Tensor
    mask: Tensor
    severity: Tensor
    kind: str
    told: dict[str, Tensor] = {}  # noqa: RUF012 - never mutated, a NamedTuple default


def cutpaste(
    image: Tensor,
    generator: torch.Generator,
    *,
    shape: Shape = "either",
    feather: float = 0.0,
    inside: Tensor | None = None,
) -> Synthetic:
    """A patch of each image [B, 3, H, W], its colors slightly changed, pasted somewhere else.

    A rectangle of 2-15 % of the area, or a thin "scar" turned by up to 45 degrees. `feather` is the
    width of a soft edge as a share of the side; `inside` [B, 1, H, W] limits where it may go.

    Raises ValueError for images outside [0, 1], for an unknown shape, where no patch differs, and
    where the foreground has no room.
    """

    def spoil(one: Tensor, allowed: Tensor | None) -> tuple[Tensor, Tensor]:
        patches: list[_Patch] = []

        def draw() -> Tensor:
            patches.append(_draw_patch(shape, (one.shape[-2], one.shape[-1]), generator))
            return patches[-1].alpha(feather)

        alpha = drawn_region(draw, allowed)
        gain, shift = _uniform(GAIN, generator), torch.rand(3, 1, 1, generator=generator)
        pasted = patches[-1].taken(one) * gain + (SHIFT[0] + (SHIFT[1] - SHIFT[0]) * shift)
        return alpha, torch.lerp(one, pasted, alpha)

    return _each(image, inside, spoil, "cutpaste")


def perlin_blend(
    image: Tensor,
    generator: torch.Generator,
    *,
    textures: Tensor | None = None,
    inside: Tensor | None = None,
) -> Synthetic:
    """A foreign texture inside Perlin blobs of each image [B, 3, H, W]: with the mask m and a share
    b of the image, drawn from [0, 0.8], (1 - m) image + m ((1 - b) texture + b image).

    `textures` [T, 3, H, W] in [0, 1]: one of them, shifted around; without them, colored noise.

    Raises ValueError as `cutpaste` does, and for textures of another size.
    """
    if textures is not None and (not len(textures) or textures.shape[1:] != image.shape[1:]):
        raise ValueError(
            f"textures are {list(textures.shape)}; images of {list(image.shape[1:])} need at least "
            "one texture of the same shape"
        )

    def spoil(one: Tensor, allowed: Tensor | None) -> tuple[Tensor, Tensor]:
        size = (one.shape[-2], one.shape[-1])
        alpha = drawn_region(lambda: perlin_region(size, generator), allowed)
        texture = noise_texture(size, generator)
        if textures is not None:
            chosen = int(torch.randint(len(textures), (), generator=generator))
            shifts = tuple(int(torch.randint(side, (), generator=generator)) for side in size)
            texture = textures[chosen].roll(shifts, (-2, -1))
        through = _uniform(SHOWING_THROUGH, generator)
        return alpha, torch.lerp(one, torch.lerp(texture, one, through), alpha)

    return _each(image, inside, spoil, "perlin")


def feature_noise(
    features: Tensor, generator: torch.Generator, *, std: float = 0.015
) -> tuple[Tensor, Tensor]:
    """Features [B, C, h, w] plus Gaussian noise of SD `std` inside Perlin blobs, and the blobs
    [B, 1, h, w], for detectors that learn on features. Gradients pass through."""
    size = (features.shape[-2], features.shape[-1])
    blobs = [drawn_region(lambda: perlin_region(size, generator)) for _ in features]
    mask = torch.stack(blobs).unsqueeze(1).to(features)
    noise = torch.randn(features.shape, generator=generator).to(features)
    return features + std * mask * noise, mask


def noise_texture(size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Colored Perlin noise [3, H, W] in [0, 1]."""
    return torch.stack([0.5 + 0.5 * random_noise(size, generator) for _ in range(3)])


def patch_shuffle(image: Tensor, generator: torch.Generator) -> Tensor:
    """Images [B, 3, H, W] cut into 8 x 8 patches that change places, each image in its own way:
    colors and fine texture stay, shapes go. A rest that does not divide by 8 stays in place."""
    result = image.clone()
    height, width = (side // SHUFFLED_CELLS for side in image.shape[-2:])
    if min(height, width) < 1:
        return result
    for k, one in enumerate(image):
        inner = one[:, : height * SHUFFLED_CELLS, : width * SHUFFLED_CELLS]
        cells = inner.unfold(1, height, height).unfold(2, width, width).flatten(1, 2)
        order = torch.randperm(cells.shape[1], generator=generator)
        moved = cells[:, order].unflatten(1, (SHUFFLED_CELLS, SHUFFLED_CELLS))
        result[k, :, : inner.shape[1], : inner.shape[2]] = moved.transpose(2, 3).reshape_as(inner)
    return result


def to_8_bit(image: Tensor) -> Tensor:
    """Images in [0, 1] at the nearest multiples of 1/255."""
    return (image.clamp(0, 1) * 255).round() / 255


def differences(before: Tensor, after: Tensor) -> Tensor:
    """CIEDE2000 of each pixel between images [B, 3, H, W] in [0, 1]: [B, 1, H, W]."""
    return delta_e_2000(rgb_to_lab(before), rgb_to_lab(after))


def median(values: Tensor) -> float:
    """The mean of the two middle ones of an even number of values."""
    ordered = values.flatten().sort().values
    count = len(ordered)
    return float((ordered[(count - 1) // 2] + ordered[count // 2]) / 2)


def nearest_strength(
    reached: Callable[[float], float], wanted: float, *, close: float, steps: int = 24
) -> tuple[float, float]:
    """The strength in (0, 1] whose effect comes nearest to `wanted`, and that effect.

    `reached` is a rising function that starts at 0, with steps perhaps, because of rounding. Its
    bracket is cut where a straight line would meet the wanted effect, but not nearer to an end than
    a tenth: few steps on a line, and as safe as bisection on anything else. The search ends within
    `close` of the wanted effect.

    >>> nearest_strength(lambda x: 8 * x, 2.0, close=1e-6)
    (0.25, 2.0)
    """
    low, high = (0.0, 0.0), (1.0, reached(1.0))
    best = high
    for _ in range(steps):
        if abs(best[1] - wanted) < close or high[1] < wanted:
            break
        rise = max(high[1] - low[1], 1e-9)
        share = min(max((wanted - low[1]) / rise, 0.1), 0.9)
        middle = low[0] + share * (high[0] - low[0])
        found = (middle, reached(middle))
        best = min(best, found, key=lambda one: abs(one[1] - wanted))
        low, high = (found, high) if found[1] < wanted else (low, found)
    return best


def check_images(image: Tensor) -> None:
    """Raise ValueError unless these are images [B, 3, H, W] in [0, 1]."""
    if image.ndim != 4 or image.shape[1] != 3 or not len(image):
        raise ValueError(f"images are {list(image.shape)}; they must be [B, 3, H, W] with B >= 1")
    low, high = (float(value) for value in image.aminmax())
    if not 0 <= low <= high <= 1:
        raise ValueError(f"images lie in [{low:g}, {high:g}]; divide 8-bit values by 255 first")


class _Patch(NamedTuple):
    """A rectangle to cut out of an image of `size`: half its sides, the middle of where it is cut,
    the middle of where it goes, in pixels (down, right), and the turn of what is pasted."""

    size: tuple[int, int]
    half: tuple[float, float]
    middle: tuple[float, float]
    target: tuple[float, float]
    turn: float

    def alpha(self, feather: float) -> Tensor:
        """How opaque it is at every pixel [H, W]."""
        down, right = self._local()
        depth = torch.minimum(self.half[0] - down.abs(), self.half[1] - right.abs())
        width = feather * min(self.size)
        return (depth / width).clamp(0, 1) if width > 0 else (depth >= 0).float()

    def taken(self, image: Tensor) -> Tensor:
        """What it would show at every pixel [3, H, W]; whole pixels, so that noise stays noise."""
        down, right = self._local()
        rows = (down + self.middle[0] - 0.5).round().long().clamp(0, self.size[0] - 1)
        columns = (right + self.middle[1] - 0.5).round().long().clamp(0, self.size[1] - 1)
        return image[:, rows, columns]

    def _local(self) -> tuple[Tensor, Tensor]:
        """How far every pixel [H, W] lies from the target, along the patch's own axes."""
        y = torch.arange(self.size[0]) + 0.5 - self.target[0]
        x = torch.arange(self.size[1]) + 0.5 - self.target[1]
        down, right = torch.meshgrid(y, x, indexing="ij")
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        return cos * down + sin * right, cos * right - sin * down


def _draw_patch(shape: Shape, size: tuple[int, int], generator: torch.Generator) -> _Patch:
    height, width = size
    if shape == "either":
        shape = "rectangle" if _uniform((0, 1), generator) < 0.5 else "scar"
    if shape == "rectangle":
        area = _uniform(RECTANGLE_AREA, generator) * height * width
        aspect = math.exp(_uniform(_LOG_ASPECT, generator))
        tall, wide, turn = math.sqrt(area / aspect) / 2, math.sqrt(area * aspect) / 2, 0.0
    else:
        tall = _uniform(SCAR_LENGTH, generator) * min(size) / 2
        wide = _uniform(SCAR_WIDTH, generator) * min(size) / 2
        turn = _uniform((-SCAR_TURN, SCAR_TURN), generator)
    half = (min(tall, height / 2), min(wide, width / 2))
    middle, target = (
        (
            _uniform((half[0], height - half[0]), generator),
            _uniform((half[1], width - half[1]), generator),
        )
        for _ in range(2)
    )
    return _Patch(size, half, middle, target, turn)


Spoil = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]
"""(image [3, H, W], allowed [H, W] or None) -> opacity [H, W], spoiled image [3, H, W]"""


def _each(image: Tensor, inside: Tensor | None, spoil: Spoil, kind: str) -> Synthetic:
    """Spoil one image after the other, each until the change is visible."""
    check_images(image)
    images, masks, severities = [], [], []
    for k, one in enumerate(image.cpu()):
        allowed = None if inside is None else inside[k, 0].cpu()
        best: tuple[float, Tensor, Tensor] | None = None
        for _ in range(ATTEMPTS):
            alpha, result = spoil(one, allowed)
            result = torch.where(alpha > 0, to_8_bit(result), one)
            severity = median(differences(one[None], result[None])[0, 0][alpha > 0.5])
            if best is None or severity > best[0]:
                best = (severity, alpha, result)
            if severity >= VISIBLE:
                break
        assert best is not None
        if best[0] == 0:
            raise ValueError(f"no {kind} shows on image {k} of {len(image)}: is it of one color?")
        severities.append(best[0])
        masks.append(best[1])
        images.append(best[2])
    return Synthetic(
        torch.stack(images).to(image),
        torch.stack(masks).unsqueeze(1).to(image),
        torch.tensor(severities),
        kind,
    )


def _uniform(ends: tuple[float, float], generator: torch.Generator) -> float:
    return ends[0] + (ends[1] - ends[0]) * float(torch.rand((), generator=generator))
