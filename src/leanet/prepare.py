"""From a data set to what every training starts with: samples, decoded images and folds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from leanet.config import option
from leanet.data.cache import Cache, UnreadableImagesError, cache_images
from leanet.data.class_list import LAYOUT as CLASS_FOLDERS
from leanet.data.class_list import Classes, class_names, normal_class
from leanet.data.folds import hold_out, make_folds, single_fold
from leanet.data.scan import Scan, scan
from leanet.data.weak import WeakSplit, move_weak
from leanet.methods.recipe import Material
from leanet.networks.unet import unet_depth
from leanet.records import NORMAL, Fold, Sample
from leanet.runtime import Runtime

Tell = Callable[[str], None]
FINAL = "final"
TEST_FRACTION = 0.2  # of the images of several classes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `leanet fit` that do not depend on the method."""

    folds: int = option(0, "cross-validation folds before the final training; 0 = none")
    inner_splits: int = option(5, "parts of the training images for out-of-fold maps")
    img_size: int = option(128, "side in pixels that images are resized to; a multiple of 32")
    seed: int = option(0, "makes everything repeatable: draws, folds, weights, order")
    positives: int | None = option(None, "draw so many of the anomalous images, with the seed")
    normal: str | None = option(
        None, "name of the normal class in a folder-per-class layout (also --normal_class)"
    )
    test_fraction: float | None = option(
        None,
        "share of the images to keep for the test where neither the data set nor --folds gives "
        "one; default: 0.2 for a classifier of several classes, else none",
    )
    skip_bad: bool = option(False, "leave out unreadable images instead of stopping")
    device: str = option("auto", "auto, cpu or cuda")
    precision: str = option("auto", "auto, 32-true, bf16-mixed or 16-mixed")


class Found(NamedTuple):
    """The samples of a data set, those to train on first, in paths below `root`; `pooled`: a given
    split was given up for cross-validation; the classes to tell apart, () for normal and
    anomalous, and the normal one of them; how many images `left_test` for weak labels."""

    samples: tuple[Sample, ...]
    root: Path
    pooled: bool = False
    classes: tuple[str, ...] = ()
    normal: str | None = None
    left_test: int = 0


def find_samples(
    data: Path,
    options: Options,
    *,
    needs_anomalous: bool,
    classes: Classes = "two",
    weak: WeakSplit | None = None,
) -> Found:
    """Scan a data set and draw from it what the options ask for.

    Where the training part has normal images only and nothing is pooled, the `weak` share of the
    anomalous test images moves to the training part, or is left out.

    Raises:
        ValueError: an image size that does not work, anything wrong with the data.
    """
    unet_depth(options.img_size)  # refuses sizes that do not work before any work is done
    found = scan(
        data,
        normal=options.normal,
        positives=options.positives,
        seed=options.seed,
        normal_required=classes == "two",
    )
    if _by_kind(found, classes):
        return _of_classes(found, options)
    samples, left = _weakened(found, weak, options)
    samples, pooled = _order(samples, options.folds, needs_anomalous)
    if options.test_fraction and not pooled:
        samples = _with_test(samples, options.test_fraction, options)
    return Found(samples, found.root, pooled, left_test=left)


def _by_kind(found: Scan, classes: Classes) -> bool:
    """Whether the classes are the kinds; "auto": where there is a folder for each of three or more
    classes, or none of them could be the normal one."""
    if classes != "auto":
        return classes == "kinds"
    if found.layout != CLASS_FOLDERS:
        return False
    return len({s.kind for s in found.samples}) > 2 or all(s.label == NORMAL for s in found.samples)


def _weakened(
    found: Scan, weak: WeakSplit | None, options: Options
) -> tuple[tuple[Sample, ...], int]:
    """The samples once weak labels have left the test part, and how many images that cost it.

    Nothing moves where the training part has anomalous images, or folds test them all.
    """
    samples = found.samples
    if weak is None:
        return samples, 0
    if weak.learn and all(sample.label == NORMAL for sample in samples):
        raise ValueError(
            f"{found.root} has {len(samples)} normal images and no anomalous one, and this method "
            "learns from a few of them as well.\n"
            "Give some, or use a variant that learns from normal images alone."
        )
    if options.folds < 2 and _trains_on_normal(samples):
        return move_weak(samples, weak, options.seed)
    if not weak.learn:
        raise ValueError(
            "--weak_test_split takes images out of a given test part: it needs a data set whose "
            "training part has normal images only, and no --folds; leave it out"
        )
    return samples, 0


def _of_classes(found: Scan, options: Options) -> Found:
    samples = tuple(sorted(found.samples, key=lambda sample: sample.split == "test"))
    names = class_names(samples)
    if options.test_fraction != 0 and options.folds == 0:
        samples = _with_test(samples, options.test_fraction or TEST_FRACTION, options)
    return Found(samples, found.root, classes=names, normal=normal_class(samples, names))


def _with_test(
    samples: tuple[Sample, ...], fraction: float, options: Options
) -> tuple[Sample, ...]:
    """The samples with a part of them marked as test and put last, if there is no test yet.

    Raises:
        ValueError: beside --folds, or a part that leaves a class with too few images to learn from.
    """
    if options.folds:
        raise ValueError("--test_fraction keeps images for one test, --folds tests all; give one")
    if any(sample.split == "test" for sample in samples):
        return samples
    rest, test = hold_out(range(len(samples)), samples, fraction, seed=options.seed)
    tested = tuple(dataclasses.replace(samples[i], split="test") for i in test)
    return (*(samples[i] for i in rest), *tested)


def decode_samples(
    found: Found, options: Options, out: Path, runtime: Runtime, tell: Tell
) -> Material:
    """Decode the images into `out/cache`, or reuse what an earlier call left there.

    Raises:
        ValueError: names all images that cannot be read (left out with `options.skip_bad`).
    """
    samples, images = _decode(found.samples, options, out, runtime, tell)
    return Material(
        samples=samples,
        images=images,
        img_size=options.img_size,
        run=out,
        root=found.root,
        classes=found.classes,
        normal=found.normal,
        weak_moved=found.left_test > 0,
    )


def folds_of(
    samples: Sequence[Sample], options: Options, *, by_kind: bool = False
) -> tuple[Fold, ...]:
    """Cross-validation folds within the training samples, and the final one at the end; `by_kind`:
    every fold needs every kind."""
    train = [sample for sample in samples if sample.split != "test"]
    if options.folds < 2:
        if options.folds != 0:
            raise ValueError(f"--folds {options.folds}: give 0 (none) or 2 and more")
        return (single_fold(samples, seed=options.seed, inner_splits=options.inner_splits),)
    outer = make_folds(
        train,
        options.folds,
        seed=options.seed,
        inner_splits=options.inner_splits,
        by_kind=by_kind,
    )
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
    if not _trains_on_normal(samples):
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


def _trains_on_normal(samples: Sequence[Sample]) -> bool:
    """Whether the training part has normal images only, beside a test part."""
    train = [sample for sample in samples if sample.split != "test"]
    return len(train) < len(samples) and all(sample.label == NORMAL for sample in train)


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
