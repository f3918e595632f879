"""Sets of synthetic anomalies from normal images, each with a harmless counterpart.

For training, every anomaly comes with a normal image, so that "was edited" says nothing: a
discolored image with one under changed light of the same strength (`leanet.ops.nuisance`), any
other with its untouched source. Half of the discolored ones stand under changed light, too. Which
images are used, what is drawn, and where, follows from the generators alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from leanet.config import nearest
from leanet.data.cache import images_in_unit_range
from leanet.data.images import IMAGE_SUFFIXES, read_image, resize_image
from leanet.data.scan import natural_key
from leanet.ops.color import rgb_principal_components
from leanet.ops.color_shift import color_shift
from leanet.ops.nuisance import Axes, nuisance
from leanet.ops.synthetic import Synthetic, cutpaste, noise_texture, patch_shuffle, perlin_blend
from leanet.records import ANOMALOUS, NORMAL

KINDS = ("color", "cutpaste", "perlin")
PREFIX = "synthetic-"  # before a kind, as the kind of a sample
NUISANCE, CLEAN = "nuisance", "clean"  # kinds of the normal counterparts
TRAINING_SEVERITIES = (3.0, 5.0, 8.0, 12.0, 20.0)  # dE00; below 3 JPEG does as much
FEWEST, MOST = 100, 600  # anomalies per kind at least, over all kinds at most
CHUNK = 16
MOST_TEXTURES = 200
IMAGES_FOR_AXES = 64


class Made(NamedTuple):
    """One image: uint8 [3, S, S]; mask [1, S, S] in [0, 1]; label, kind, number of its source;
    severity in dE00; what else is known of it."""

    image: Tensor
    mask: Tensor
    label: int
    kind: str
    source: int
    severity: float
    told: dict[str, float]


class Images(Protocol):
    """Decoded images by number."""

    def take(self, indices: Sequence[int]) -> Tensor:
        """uint8 [B, 3, S, S]."""
        ...


def parse_kinds(text: str) -> tuple[str, ...]:
    """Kinds from a list with commas; () from "".

    Raises ValueError for an unknown kind and for one that is named twice.

    >>> parse_kinds("color, perlin")
    ('color', 'perlin')
    """
    kinds = tuple(part.strip() for part in text.split(",") if part.strip())
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(
                f"unknown kind of synthetic anomaly {kind!r}{nearest(kind, KINDS)}; allowed: "
                f"{', '.join(KINDS)}, with commas between them"
            )
    if len(set(kinds)) < len(kinds):
        raise ValueError(f"synthetic anomalies {text}: name each kind once")
    return kinds


def per_kind(num_normal: int, kinds: Sequence[str]) -> int:
    """How many anomalies of each kind are made from so many normal images.

    >>> per_kind(120, ["color"]), per_kind(10, ["color"]), per_kind(9000, ["color", "perlin"])
    (120, 100, 300)
    """
    return max(1, min(max(num_normal, FEWEST), MOST // len(kinds)))


def training_set(
    images: Images,
    normals: Sequence[int],
    kinds: Sequence[str],
    generator: Callable[[str], torch.Generator],
    *,
    textures: Tensor | None = None,
) -> Iterator[Made]:
    """Anomalies of each kind and as many normal counterparts, `2 * per_kind` for each kind.

    `normals` number the sources among `images`; `generator` gives a stream for a kind; `textures`
    [T, 3, S, S] in [0, 1] are for perlin.

    Raises ValueError without normal images.
    """
    if not normals:
        raise ValueError("synthetic anomalies are made from normal images, and there are none")
    axes = _axes(images, normals) if "color" in kinds else None
    number = per_kind(len(normals), kinds)
    for kind in kinds:
        stream = generator(kind)
        sources = _cycled(normals, number, stream)
        for start in range(0, number, CHUNK):
            chosen = sources[start : start + CHUNK]
            image = images_in_unit_range(images.take(chosen)).cpu()
            if kind == "color":
                assert axes is not None
                yield from _colored(image, chosen, stream, axes)
            else:
                around = _textures(images, normals, stream) if textures is None else textures
                yield from unpack(make(kind, image, stream, textures=around), chosen)
                yield from (_clean(one, source) for one, source in zip(image, chosen, strict=True))


def make(
    kind: str,
    image: Tensor,
    generator: torch.Generator,
    *,
    severities: Sequence[float] = TRAINING_SEVERITIES,
    textures: Tensor | None = None,
    inside: Tensor | None = None,
) -> Synthetic:
    """Anomalies of one kind in images [B, 3, H, W] in [0, 1]; severities are for color, textures
    for perlin. Errors as those of the kinds."""
    if kind == "color":
        return color_shift(image, generator, severities=severities, inside=inside)
    if kind == "perlin":
        return perlin_blend(image, generator, textures=textures, inside=inside)
    return cutpaste(image, generator, inside=inside)


def read_textures(folder: Path, size: int) -> Tensor:
    """Up to 200 images of a folder as textures [T, 3, size, size] in [0, 1], evenly picked.

    Raises ValueError if there is none; `UnreadableImageError` for a damaged one.
    """
    found = [path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES]
    if not found:
        raise ValueError(f"{folder} has no images to take textures from")
    step = -(-len(found) // MOST_TEXTURES)
    chosen = sorted(found, key=natural_key)[::step]
    pixels = np.stack([resize_image(read_image(path), size) for path in chosen])
    return images_in_unit_range(torch.from_numpy(pixels).permute(0, 3, 1, 2))


def other_textures(images: Tensor, generator: torch.Generator) -> Tensor:
    """Textures for perlin [2 B, 3, H, W]: images, shuffled in patches, and as many of noise."""
    size = (images.shape[-2], images.shape[-1])
    noise = torch.stack([noise_texture(size, generator) for _ in images])
    return torch.cat([patch_shuffle(images, generator), noise.to(images)])


def unpack(synthetic: Synthetic, sources: Sequence[int]) -> Iterator[Made]:
    """The images of a set one by one, with their sources. Invisible ones (a color that could not be
    changed, as on black) are left as clean images."""
    normal = synthetic.kind == NUISANCE
    for k, source in enumerate(sources):
        severity = float(synthetic.severity[k])
        anomalous = not normal and severity > 0
        kind = NUISANCE if normal else f"{PREFIX}{synthetic.kind}" if anomalous else CLEAN
        yield Made(
            _bytes(synthetic.image[k]),
            synthetic.mask[k] if anomalous else torch.zeros_like(synthetic.mask[k]),
            ANOMALOUS if anomalous else NORMAL,
            kind,
            source,
            severity,
            {name: float(values[k]) for name, values in synthetic.told.items()},
        )


def _colored(
    image: Tensor, sources: Sequence[int], generator: torch.Generator, axes: Axes
) -> Iterator[Made]:
    """Discolored images, every other one under changed light, and as many under changed light
    alone, whose strengths are those of the discolorations in another order."""
    made = color_shift(image, generator, severities=TRAINING_SEVERITIES)
    both = made.image.clone()
    if len(image) > 1:
        lit, strengths = made.image[1::2], _shuffled(made.severity, generator)
        lamp = nuisance(lit, generator, severities=strengths[: len(lit)], axes=axes)
        both[1::2] = lamp.image
    yield from unpack(made._replace(image=both), sources)
    strengths = _shuffled(made.severity, generator)
    yield from unpack(nuisance(image, generator, severities=strengths, axes=axes), sources)


def _clean(image: Tensor, source: int) -> Made:
    return Made(_bytes(image), torch.zeros_like(image[:1]), NORMAL, CLEAN, source, 0.0, {})


def _textures(images: Images, normals: Sequence[int], generator: torch.Generator) -> Tensor:
    """Of a few other normal images, and of noise."""
    chosen = _cycled(normals, min(CHUNK // 2, len(normals)), generator)
    return other_textures(images_in_unit_range(images.take(chosen)).cpu(), generator)


def _axes(images: Images, normals: Sequence[int]) -> Axes:
    """The principal components of RGB over some of the normal images."""
    step = -(-len(normals) // IMAGES_FOR_AXES)
    chosen = list(normals[::step])
    parts = (chosen[k : k + CHUNK] for k in range(0, len(chosen), CHUNK))
    return rgb_principal_components(images_in_unit_range(images.take(part)) for part in parts)


def _cycled(values: Sequence[int], count: int, generator: torch.Generator) -> list[int]:
    """So many draws in which every value appears as often as any other, give or take one."""
    drawn: list[int] = []
    while len(drawn) < count:
        order = torch.randperm(len(values), generator=generator).tolist()
        drawn += [values[k] for k in order]
    return drawn[:count]


def _shuffled(values: Tensor, generator: torch.Generator) -> list[float]:
    order = torch.randperm(len(values), generator=generator)
    return [float(value) for value in values[order]]


def _bytes(image: Tensor) -> Tensor:
    return (image * 255).round().to(torch.uint8)
