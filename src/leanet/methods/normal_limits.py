"""Working points of detectors that learn from normal images alone.

Without anomalous images there is nothing to trade off, so the limits are high quantiles of what
held-out normal images give: of their scores, and of the pixels of their maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from leanet.data.cache import images_in_unit_range
from leanet.data.folds import hold_out
from leanet.methods.recipe import (
    INFERENCE_BATCH,
    DetectorModule,
    Experience,
    HeldOut,
    Material,
    Trained,
    score_images,
)
from leanet.ops.cavga import honest_limits
from leanet.ops.maps import PixelHistogram
from leanet.ops.metrics import Threshold
from leanet.records import NORMAL, Fold

FEWEST_FOR_HOLD_OUT, FEWEST_HELD = 20, 5  # with fewer training normals all of them train
MAP_QUANTILE = 0.999
TOP = 2.0  # the color scale of heat maps ends at so many times the limit of the map


class Normals(NamedTuple):
    """Normal images to learn from, and those held out."""

    rest: tuple[int, ...]
    held: tuple[int, ...] = ()


def split_normals(
    fold: Fold,
    data: Material,
    seed: int,
    experience: Experience | None,
    val_fraction: float,
) -> Normals:
    """The normal training images of a fold in two parts: at least five are held out, but none of
    fewer than 20, nor where cross-validation has given the scores.

    Raises:
        ValueError: there are no normal images.
    """
    normals = tuple(i for i in fold.train if data.labels[i] == NORMAL)
    if not normals:
        raise ValueError("the training part has no normal images, and these are all it learns from")
    if experience is not None or len(normals) < FEWEST_FOR_HOLD_OUT or val_fraction == 0:
        return Normals(normals)
    fraction = max(val_fraction, FEWEST_HELD / len(normals))
    rest, held = hold_out(normals, data.samples, fraction, seed=seed)
    return Normals(tuple(rest), tuple(held))


def conclude(
    detector: DetectorModule,
    normals: Normals,
    data: Material,
    experience: Experience | None,
    *,
    epochs: int,
    remarks: dict[str, Any],
) -> Trained:
    """Set the limit of the map and the end of its color scale by normal images, and choose the
    working point of the score: their 0.99 quantile, or, after cross-validation, whatever its
    scores of normal and anomalous images say."""
    detector.eval()
    shown = normals.held or normals.rest
    detector.map_low, limit = map_quantiles(detector, data, shown, (0.5, MAP_QUANTILE))
    detector.map_thresholds = {"honest": limit}
    detector.map_top = TOP * limit or 1.0
    remarks["threshold_in_sample"] = not normals.held and experience is None
    if experience is not None:
        return Trained(detector, experience.held_out, epochs, remarks)
    scores = score_images(detector, data.images, shown)
    high = {name: honest_limits(values)[1] for name, values in scores.items()}
    thresholds = {name: Threshold(at, "honest", len(shown), 0) for name, at in high.items()}
    return Trained(detector, HeldOut(shown, scores), epochs, remarks, thresholds)


@torch.inference_mode()
def map_quantiles(
    detector: DetectorModule, data: Material, normals: Sequence[int], wanted: Sequence[float]
) -> list[float]:
    """Quantiles of the pixels of the maps of some normal images, without the uncovered border."""
    pixels, border = PixelHistogram(), detector.map_border
    for start in range(0, len(normals), INFERENCE_BATCH):
        image = images_in_unit_range(data.images.take(normals[start : start + INFERENCE_BATCH]))
        anomaly_map = detector(image).map
        assert anomaly_map is not None
        side = anomaly_map.shape[-1] - border
        pixels.add(anomaly_map[..., border:side, border:side])
    return [pixels.quantile(one) for one in wanted]
