"""From a data set to what every training starts with: samples, decoded images and folds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from leanet.config import option
from leanet.data.cache import Cache, UnreadableImagesError, cache_images
from leanet.data.folds import make_folds, single_fold
from leanet.data.scan import scan
from leanet.methods.recipe import Material
from leanet.networks.unet import unet_depth
from leanet.records import NORMAL, Fold, Sample
from leanet.runtime import Runtime

Tell = Callable[[str], None]
FINAL = "final"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `leanet fit` that do not depend on the method."""

    folds: int = option(0, "cross-validation folds before the final training; 0 = none")
    inner_splits: int = option(5, "parts of the training images for out-of-fold maps")
    img_size: int = option(128, "side in pixels that images are resized to; a multiple of 32")
    seed: int = option(0, "makes everything repeatable: draws, folds, weights, order")
    positives: int | None = option(None, "draw so many of the anomalous images, with the seed")
    normal: str | None = option(None, "name of the normal class in a folder-per-class layout")
    skip_bad: bool = option(False, "leave out unreadable images instead of stopping")
    device: str = option("auto", "auto, cpu or cuda")
    precision: str = option("auto", "auto, 32-true, bf16-mixed or 16-mixed")


class Found(NamedTuple):
    """The samples of a data set, those to train on first, in paths below `root`; `pooled`: a given
    split was given up for cross-validation."""

    samples: tuple[Sample, ...]
    root: Path
    pooled: bool


def find_samples(data: Path, options: Options, *, needs_anomalous: bool) -> Found:
    """Scan a data set and draw from it what the options ask for.

    Raises:
        ValueError: an image size that does not work, anything wrong with the data.
    """
    unet_depth(options.img_size)  # refuses sizes that do not work before any work is done
    found = scan(data, normal=options.normal, positives=options.positives, seed=options.seed)
    samples, pooled = _order(found.samples, options.folds, needs_anomalous)
    return Found(samples, found.root, pooled)


def decode_samples(
    found: Found, options: Options, out: Path, runtime: Runtime, tell: Tell
) -> Material:
    """Decode the images into `out/cache`, or reuse what an earlier call left there.

    Raises:
        ValueError: names all images that cannot be read (left out with `options.skip_bad`).
    """
    samples, images = _decode(found.samples, options, out, runtime, tell)
    return Material(
        samples=samples, images=images, img_size=options.img_size, run=out, root=found.root
    )


def folds_of(samples: Sequence[Sample], options: Options) -> tuple[Fold, ...]:
    """Cross-validation folds within the training samples, and the final one at the end."""
    train = [sample for sample in samples if sample.split != "test"]
    if options.folds < 2:
        if options.folds != 0:
            raise ValueError(f"--folds {options.folds}: give 0 (none) or 2 and more")
        return (single_fold(samples, seed=options.seed, inner_splits=options.inner_splits),)
    outer = make_folds(train, options.folds, seed=options.seed, inner_splits=options.inner_splits)
    final = Fold(
        name=FINAL,
        train=tuple(range(len(train))),
        test=tuple(range(len(train), len(samples))),
        parts=tuple(fold.test for fold in outer) if options.inner_splits else (),
    )
    return (*outer, final)


def _order(
    samples: Sequence[Sample], num_folds: int, needs_anomalous: bool
) -> tuple[tuple[Sample, ...], bool]:
    """Training samples first, then test samples; whether a given split was given up.

    A data set whose training part has normal images only (as MVTec AD's) is pooled for
    cross-validation.
    """
    train = [sample for sample in samples if sample.split != "test"]
    test = [sample for sample in samples if sample.split == "test"]
    only_normal = all(sample.label == NORMAL for sample in train)
    if not test or not only_normal:
        return tuple(train + test), False
    if num_folds >= 2:
        return tuple(dataclasses.replace(sample, split=None) for sample in train + test), True
    if needs_anomalous:
        raise ValueError(
            f"the training part has {len(train)} normal images and no anomalous ones, and this "
            "method learns from both.\nUse --folds 5 to pool training and test part, or "
            "`leanet fit colorizer`, which learns from normal images alone."
        )
    return tuple(train + test), False


def _decode(
    samples: tuple[Sample, ...], options: Options, out: Path, runtime: Runtime, tell: Tell
) -> tuple[tuple[Sample, ...], Cache]:
    folder = out / "cache"
    try:
        paths = [sample.path for sample in samples]
        return samples, cache_images(paths, options.img_size, folder, runtime.device)
    except UnreadableImagesError as error:
        if not options.skip_bad:
            raise
        bad = {problem.path for problem in error.errors}
        tell(f"left out {len(bad)} unreadable image(s): {', '.join(map(str, sorted(bad)))}")
    samples = tuple(sample for sample in samples if sample.path not in bad)
    paths = [sample.path for sample in samples]
    return samples, cache_images(paths, options.img_size, folder, runtime.device)
