"""Are the maps of a run to be believed? Faithfulness on any images, location where masks exist."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from scipy import ndimage
from torch import Tensor

from leanet.data.class_list import class_of
from leanet.data.images import UnreadableImageError, read_mask
from leanet.data.loader import stream
from leanet.inference import faithfulness, localization
from leanet.inference.cam_layers import cell
from leanet.inference.cam_run import Explainer, Tell
from leanet.inference.cam_subject import ClassOf, subject_of
from leanet.inference.cam_targets import class_index
from leanet.inference.faithfulness import NUM_IMAGES
from leanet.inference.run_images import run_images
from leanet.records import Sample

CALIBRATION = 64  # images for the batch norms of networks with weights drawn anew
MASKS_LOOKED_AT = 200


class Measures(NamedTuple):
    """What to measure, and on how many images the faithfulness."""

    faithfulness: bool
    masks: bool
    num: int = NUM_IMAGES


def measure_run(  # noqa: PLR0913 - the options of a verb, by name
    explainer: Explainer,
    samples: Sequence[Sample],
    what: Measures,
    *,
    run: Path,
    out: Path,
    skip_bad: bool = False,
    overwrite: bool = False,
    tell: Tell = print,
) -> str:
    """Judge the maps of an explainer on labelled samples; writes tables into `out` and returns
    them as text.

    Raises:
        UnreadableImagesError: without `skip_bad`; for the faithfulness before it is measured.
        ValueError: no masks where they are asked for, or earlier results in `out`.
    """
    true = _true_class(explainer)
    subject = subject_of(
        {"": explainer},
        calibration=_calibration(explainer, samples, run),
        class_of=_explained(explainer, true),
        true_class=true,
    )
    texts = []
    if what.masks:
        _warn_of_large_cells(explainer, samples, tell)
        found = localization.localization(
            subject,
            samples,
            out=out,
            device=explainer.device,
            batch_size=explainer.options.batch_size,
            skip_bad=skip_bad,
            overwrite=overwrite,
            tell=tell,
        )
        texts.append(localization.to_text(found))
    if what.faithfulness:
        settings = faithfulness.Settings(num=what.num, batch_size=explainer.options.batch_size)
        rows = faithfulness.faithfulness(
            subject,
            samples,
            out=out,
            device=explainer.device,
            settings=settings,
            skip_bad=skip_bad,
            overwrite=overwrite,
            tell=tell,
        )
        texts.append(faithfulness.to_text(rows))
    return "\n\n".join(texts)


def _true_class(explainer: Explainer) -> ClassOf:
    names = explainer.detector.classes

    def of(sample: Sample) -> int:
        if not names:
            return sample.label
        name = class_of(sample)
        return names.index(name) if name in names else -1

    return of


def _explained(explainer: Explainer, true: ClassOf) -> ClassOf | None:
    """The class to explain; None is the one that the network names."""
    if explainer.which == "predicted":
        return None
    if explainer.which == "true":
        return true
    index = class_index(explainer.which, explainer.names)
    return lambda sample: index


def _calibration(explainer: Explainer, samples: Sequence[Sample], run: Path) -> list[Tensor]:
    """Some batches of images, of the run or else of the data."""
    size, images = explainer.options.batch_size, run_images(run, CALIBRATION)
    if images is not None:
        return list(torch.split(images.image, size))
    few = [one.path for one in samples[:: max(1, len(samples) // CALIBRATION)]]
    bad: list[UnreadableImageError] = []
    loaded = stream(few, explainer.detector.img_size, batch_size=size, bad=bad)
    return [batch.image for batch in loaded]


def _warn_of_large_cells(explainer: Explainer, samples: Sequence[Sample], tell: Tell) -> None:
    """Say so if half of the defects are smaller than a cell of a map."""
    sides = [
        side
        for sample in samples[:: max(1, len(samples) // MASKS_LOOKED_AT)]
        for side in _defect_sides(sample, explainer.detector.img_size)
    ]
    if not sides:
        return
    median = statistics.median(sides)
    for key, stride in explainer.strides().items():
        if median < min(stride):
            tell(
                f"{key} has {cell(stride)}, and half of the defects are smaller than "
                f"{median:.0f} px: take --methods layer_cam on a finer --layer"
            )


def _defect_sides(sample: Sample, img_size: int) -> list[float]:
    """The square root of the area of every defect, in pixels of the detector's images."""
    if sample.mask is None:
        return []
    try:
        mask = read_mask(sample.mask)
    except UnreadableImageError:
        return []  # `localization` names it
    regions, count = ndimage.label(mask)
    areas = ndimage.sum_labels(mask, regions, range(1, count + 1)) / mask.size
    return [float(area) ** 0.5 * img_size for area in areas]
