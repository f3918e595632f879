"""Anomaly maps against masks: which images count, at which size, and the pixel figures.

Pixels are counted at each mask's own resolution, to which the map is resized bilinearly. A normal
image counts as all normal; an anomalous image without a mask says nothing about its pixels and is
left out. Memory does not grow with the images: `empty_counts` fixes the thresholds of the curves
from the maps of a few dozen images spread evenly over the data (`spread`), which are therefore
judged twice; then every image is added once (`leanet.ops.pixels`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from leanet.data.images import UnreadableImageError, read_mask
from leanet.inference.judge import Outputs
from leanet.ops import pixels
from leanet.ops.maps import resize
from leanet.records import NORMAL, Sample

PRO_LIMIT: Final = 0.3
EDGE_IMAGES: Final = 32
EDGE_PIXELS: Final = 16_384  # of each of them


def spread(samples: Sequence[Sample]) -> list[Sample]:
    """Up to `EDGE_IMAGES` of the samples that count in pixel figures, evenly over their order."""
    usable = [s for s in samples if s.label == NORMAL or s.mask is not None]
    places = np.linspace(0, len(usable) - 1, min(EDGE_IMAGES, len(usable))).round().astype(int)
    return [usable[place] for place in places]


def empty_counts(
    batches: Iterator[Outputs], map_threshold: float | None, seed: int
) -> pixels.PixelCounts | None:
    """Counts with edges from random pixels of these images; None if the detector draws no maps."""
    rng = np.random.default_rng(seed)
    drawn: list[NDArray[np.float32]] = []
    for batch in batches:
        for anomaly_map in () if batch.maps is None else batch.maps:
            pixel = anomaly_map.ravel()
            drawn.append(rng.choice(pixel, min(EDGE_PIXELS, pixel.size), replace=False))
    if not drawn:
        return None
    exact = () if map_threshold is None else (map_threshold,)
    return pixels.PixelCounts(pixels.edges_from(np.concatenate(drawn), thresholds=exact))


class PixelTally:
    """Pixel counts of the images added so far, the images left out, and masks that failed."""

    def __init__(self, counts: pixels.PixelCounts) -> None:
        self.counts = counts
        self.num_images = 0
        self.num_unmasked = 0  # anomalous, without a readable mask
        self.bad_masks: list[UnreadableImageError] = []

    def add(self, sample: Sample, size: tuple[int, int], anomaly_map: NDArray[np.float32]) -> None:
        """Count one image of `size` (height, width) with its map [h, w].

        Raises:
            ValueError: the mask has another size than the image.
        """
        mask = self._mask(sample, size)
        if mask is None:
            self.num_unmasked += 1
            return
        planes = resize(torch.from_numpy(anomaly_map)[None, None], size)
        self.counts.add(planes[0, 0].numpy(), mask)
        self.num_images += 1

    def figures(self, map_threshold: float | None) -> dict[str, float]:
        """AUROC, average precision, AUPRO, best F1 and IoU; with a threshold F1 and IoU at it."""
        best = pixels.pixel_f1(self.counts)
        figures = {
            "auroc": pixels.pixel_auroc(self.counts),
            "average_precision": pixels.pixel_average_precision(self.counts),
            "aupro": pixels.aupro(self.counts, PRO_LIMIT),
            "best_f1": best,
            "best_iou": best / (2 - best),  # from the same counts, so at the same threshold
            "num_images": float(self.num_images),
            "num_regions": float(self.counts.num_regions),
        }
        if map_threshold is not None:
            figures["threshold"] = map_threshold
            figures["f1"] = pixels.pixel_f1(self.counts, map_threshold)
            figures["iou"] = pixels.iou_at(self.counts, map_threshold)
        return figures

    def _mask(self, sample: Sample, size: tuple[int, int]) -> NDArray[np.bool_] | None:
        """Ground truth at the image's size; None for an anomalous image that has none."""
        if sample.mask is None:
            return np.zeros(size, dtype=np.bool_) if sample.label == NORMAL else None
        try:
            mask = read_mask(sample.mask)
        except UnreadableImageError as error:
            self.bad_masks.append(error)
            return None
        if mask.shape != size:
            raise ValueError(
                f"the mask {sample.mask} is {mask.shape[1]}x{mask.shape[0]} pixels and its image "
                f"{size[1]}x{size[0]}; make them equal (`leanet scan` lists all such masks)"
            )
        return mask
