"""Extra training images: synthetic anomalies, and images that somebody or a generator has made.

They enter the part of a fold that is trained on, after the held-out part has been taken away, and
nothing else: no validation, no threshold, no test ever sees one. Synthetic ones are made from the
normal images of that very part. In training they take the place of a share of every batch, so that
the number of steps stays what it is without them: what they change is what is seen, not how long.

Samples keep their numbers; the extra images are numbered after them, set by set. Their arrays lie
in the folder of the fold while it trains, and a resumed run makes the same ones again.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from leanet.config import nearest, option
from leanet.data.cache import Cache, cache_images
from leanet.data.class_list import class_of
from leanet.data.generated import read_generated, refuse_leak
from leanet.data.loader import Joined, Part
from leanet.data.synthetic import parse_kinds, per_kind, read_textures, training_set
from leanet.files import reserve
from leanet.methods.recipe import Material
from leanet.progress import Progress
from leanet.records import ANOMALOUS, NORMAL
from leanet.runtime import Runtime

SYNTHETIC_FILE, REPEATED_FILE, GENERATED_FOLDER = "synthetic.u8", "repeated.u8", "generated"
FILES = (SYNTHETIC_FILE, REPEATED_FILE, GENERATED_FOLDER)  # in the folder of a training
REPEAT = "repeat"
SHARE, SHARE_ALONE = 0.25, 0.5  # of synthetic images: beside real defects, and without any
GENERATED_SHARE = 0.5
CHUNK = 64


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options about extra training images."""

    synthetic: str = option(
        "", "synthetic anomalies to learn from, with commas: color, cutpaste, perlin; '' = none"
    )
    synthetic_share: float | None = option(
        None,
        "their share of every batch, half of it normal counterparts; default: 0.25, or 0.5 without "
        "real defects; never more synthetic than real defects",
    )
    textures: str | None = option(
        None, "folder of images as textures for perlin; default: the normal images, and noise"
    )
    generated: str | None = option(
        None,
        "folder of `leanet generate` with images to learn from; repeat = real images once more, "
        "every class equally often, as its control",
    )
    generated_share: float | None = option(None, "their share of every batch; default: 0.5")


@dataclass(frozen=True, kw_only=True)
class Extra:
    """A set of extra images: uint8 [M, 3, S, S], each with its label (NORMAL or ANOMALOUS, or the
    number of its class where several are told apart), kind, and the number of the sample that it
    was made from (-1 = none); `share` of every batch comes from them."""

    images: Cache
    labels: tuple[int, ...]
    kinds: tuple[str, ...]
    sources: tuple[int, ...]
    share: float
    remarks: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lengths = {len(self.images), len(self.labels), len(self.kinds), len(self.sources)}
        if len(lengths) > 1 or not self.labels or not 0 < self.share < 1:
            raise ValueError(
                f"extra images need one label, kind and source each, and a share of every batch "
                f"between 0 and 1; got {len(self.images)} images, {len(self.labels)} labels, "
                f"{len(self.kinds)} kinds, {len(self.sources)} sources, share {self.share:g}"
            )

    def told(self) -> dict[str, Any]:
        """What the remarks of a training say about them."""
        return {"images": dict(Counter(self.kinds)), "share": round(self.share, 4), **self.remarks}


@dataclass(frozen=True, kw_only=True)
class Beside:
    """What the extra images stand beside: the samples trained on, in which part of the run, the
    share of defects in a batch of real images, what the random numbers are named after, and the
    folder for files."""

    rest: tuple[int, ...]
    part: str
    anomalous_share: float
    names: tuple[str, ...]
    folder: Path


def make_extras(
    options: Options, beside: Beside, data: Material, runtime: Runtime
) -> tuple[Extra, ...]:
    """All extra images that the options ask for; () if none.

    Raises:
        ValueError: options that ask for too much, nothing to make the images from, or generated
            images whose generator has seen what is not trained on here.
    """
    _check(options)
    extras, taken = [], 0.0
    if options.generated is not None:
        taken = GENERATED_SHARE if options.generated_share is None else options.generated_share
        make = repeated_extra if options.generated == REPEAT else generated_extra
        extras.append(make(options.generated, taken, beside, data, runtime))
    if kinds := parse_kinds(options.synthetic):
        textures = _textures(options, data.img_size)
        share = synthetic_share(options.synthetic_share, beside.anomalous_share, 1 - taken)
        extras.append(make_synthetic_extra(kinds, share, beside, data, runtime, textures=textures))
    return tuple(extras)


def synthetic_share(wanted: float | None, anomalous_share: float, room: float = 1.0) -> float:
    """The share of every batch for synthetic images, half of which are anomalous.

    `anomalous_share` is that of real defects in a batch of real images; where there are some, at
    most as many synthetic ones may stand beside them. `room` is what other extra images leave.

    Raises ValueError for a wanted share that is not between 0 and 1, or too large.

    >>> synthetic_share(None, 0.25), synthetic_share(None, 0.0), synthetic_share(None, 0.125)
    (0.25, 0.5, 0.2)
    """
    most = room * (anomalous_share / (anomalous_share + 0.5) if anomalous_share else 1.0)
    if wanted is None:
        return min(SHARE, most) if anomalous_share else SHARE_ALONE * room
    if not 0 < wanted < 1 or wanted > most + 1e-9:
        limit = math.floor(most * 100) / 100
        raise ValueError(
            f"synthetic_share {wanted:g}: give a share of every batch above 0 and below 1"
            + (f", here at most {limit:g}, so that half of the defects are real" * (most < 1))
        )
    return wanted


def make_synthetic_extra(
    kinds: Sequence[str],
    share: float,
    beside: Beside,
    data: Material,
    runtime: Runtime,
    *,
    textures: Tensor | None = None,
) -> Extra:
    """Synthetic anomalies and their normal counterparts from the normal images of `beside.rest`.

    Raises:
        ValueError: there are no normal images.
    """
    normals = [i for i in beside.rest if data.labels[i] == NORMAL]
    count = 2 * per_kind(len(normals), kinds) * len(kinds)
    array = _reserved(beside.folder / SYNTHETIC_FILE, (count, 3, data.img_size, data.img_size))
    generator = partial(runtime.generator, *beside.names, "synthetic")
    made, severities = [], []
    with Progress("synthetic anomalies", total=count) as bar:
        for k, one in enumerate(
            training_set(data.images, normals, kinds, generator, textures=textures)
        ):
            array[k] = one.image.numpy()
            made.append((one.label, one.kind, one.source))
            severities += [one.severity] if one.label == ANOMALOUS else []
            bar.advance()
    labels, names, sources = zip(*made, strict=True)
    quartiles = np.quantile(severities, [0.25, 0.5, 0.75]).round(2).tolist()
    return Extra(
        images=Cache(array, runtime.device),
        labels=labels,
        kinds=names,
        sources=sources,
        share=share,
        remarks={"severity_quartiles": quartiles, "sources": len(set(sources))},
    )


def generated_extra(
    folder: str, share: float, beside: Beside, data: Material, runtime: Runtime
) -> Extra:
    """The images that `leanet generate` has written for this part of a run.

    Raises:
        ValueError: no such images, of other classes, or by a generator that has learned from a
            sample outside `beside.rest`.
    """
    generated = read_generated(Path(folder), beside.part)
    rest = set(beside.rest)
    refuse_leak(generated, data.samples, [i for i in range(len(data.samples)) if i not in rest])
    numbers = _numbers(data, generated.kinds)
    place = beside.folder / GENERATED_FOLDER
    return Extra(
        images=cache_images(generated.paths, data.img_size, place, runtime.device),
        labels=numbers,
        kinds=generated.kinds,
        sources=(-1,) * len(numbers),
        share=share,
        remarks={"generated": folder},
    )


def repeated_extra(
    folder: str, share: float, beside: Beside, data: Material, runtime: Runtime
) -> Extra:
    """Copies of the real training images, every class as often as the most frequent one: what
    generated images change beside being new, namely how often each class is seen."""
    members: dict[str, list[int]] = {}
    for index in beside.rest:
        members.setdefault(class_of(data.samples[index]), []).append(index)
    most = max(map(len, members.values()))
    sources = [own[k % len(own)] for own in members.values() for k in range(most)]
    kinds = tuple(class_of(data.samples[index]) for index in sources)
    shape = (len(sources), 3, data.img_size, data.img_size)
    array = _reserved(beside.folder / REPEATED_FILE, shape)
    for start in range(0, len(sources), CHUNK):
        chosen = sources[start : start + CHUNK]
        array[start : start + CHUNK] = data.images.take(chosen).cpu().numpy()
    return Extra(
        images=Cache(array, runtime.device),
        labels=_numbers(data, kinds),
        kinds=kinds,
        sources=tuple(sources),
        share=share,
        remarks={"generated": folder},
    )


def _numbers(data: Material, kinds: Sequence[str]) -> tuple[int, ...]:
    """What a loss is told of images of these classes: the number of the class, or whether it is
    anomalous.

    Raises:
        ValueError: a class that the data set does not have.
    """
    number = {name: k for k, name in enumerate(data.classes)}
    if not data.classes:
        number = {class_of(sample): sample.label for sample in data.samples}
    for kind in kinds:
        if kind not in number:
            raise ValueError(
                f"the generated images have a class {kind!r}, and the data set has not"
                f"{nearest(kind, number)}; its classes are {', '.join(number)}"
            )
    return tuple(number[kind] for kind in kinds)


def joined(data: Material, extras: Sequence[Extra]) -> Cache | Joined:
    """The images of all samples and of all extras, numbered in this order."""
    return Joined([data.images, *(extra.images for extra in extras)]) if extras else data.images


def parts(data: Material, extras: Sequence[Extra]) -> tuple[Part, ...]:
    """The numbers of each set of extra images, with its share of every batch.

    Raises:
        ValueError: the shares add up to 1 or more.
    """
    total = sum(extra.share for extra in extras)
    if total >= 1:
        raise ValueError(f"extra images take {total:.0%} of every batch; leave room for real ones")
    found, first = [], len(data.samples)
    for extra in extras:
        found.append(Part(tuple(range(first, first + len(extra.labels))), extra.share))
        first += len(extra.labels)
    return tuple(found)


def extra_labels(extras: Sequence[Extra]) -> tuple[int, ...]:
    """Of all extra images, in the order of their numbers."""
    return tuple(label for extra in extras for label in extra.labels)


def extra_sources(extras: Sequence[Extra]) -> tuple[int, ...]:
    """The samples that the extra images were made from, in the order of their numbers."""
    return tuple(source for extra in extras for source in extra.sources)


def _reserved(file: Path, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    reserve(file, math.prod(shape))
    return np.memmap(file, np.uint8, "r+", shape=shape)


def _textures(options: Options, size: int) -> Tensor | None:
    return None if options.textures is None else read_textures(Path(options.textures), size)


def _check(options: Options) -> None:
    """Raise ValueError for an option about images that are not asked for."""
    for name in ("synthetic_share", "textures"):
        if getattr(options, name) is not None and not options.synthetic:
            raise ValueError(f"--{name} is about synthetic anomalies; add --synthetic color")
    if options.textures is not None and "perlin" not in parse_kinds(options.synthetic):
        raise ValueError("--textures are for --synthetic perlin, which is not asked for")
    share = options.generated_share
    if share is not None and options.generated is None:
        raise ValueError("--generated_share is about generated images; add --generated FOLDER")
    if share is not None and not 0 < share < 1:
        raise ValueError(f"generated_share {share:g}: give a share of every batch, e.g. 0.5")
