"""Anomaly maps against masks: which images count, at which size, and the pixel figures.

Pixels are counted at each mask's own resolution, to which the map is resized bilinearly. A normal
image counts as all normal; an anomalous image without a mask says nothing about its pixels and is
left out. Memory does not grow with the images: `start_tally` fixes the thresholds of the curves
from the maps of a few dozen images spread evenly over the data (`spread`), which are therefore
judged twice; then every image is added once (`leanet.ops.pixels`).

Two conventions stand side by side. AUROC, AUPRO, average precision, F1 and the plain IoU take the
pixels of all images. The IoU of papers on localization takes anomalous images only, for a normal
image has no region that a map could overlap: `iou_NAME` at each threshold that the detector names,
pooled over these images, `image_iou_NAME` the mean of their own IoUs, and two ceilings.
`oracle_iou` is the best of all thresholds for this very map. `oracle_iou_grid` is what a map of as
few places as the detector's would reach that knew the masks.

Where a map leaves out the border of the image (`map_border`), so do all pixel figures. A marked
region outside is no region, and an anomalous image all of whose marks lie there counts with its
normal pixels; `num_outside` and `num_regions_outside` say how many there are of both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from leanet.data.images import UnreadableImageError, read_mask
from leanet.inference.judge import Outputs
from leanet.ops import pixels
from leanet.ops.covered import Box, covered_box, extended, inside
from leanet.ops.maps import best_grid_map, resize
from leanet.records import NORMAL, Sample

PRO_LIMIT: Final = 0.3
EDGE_IMAGES: Final = 32
EDGE_PIXELS: Final = 16_384  # of each of them
GRID_LEVELS: Final = 1000  # thresholds of the grid's ceiling, evenly from 0 to 1

Judging = Callable[[Sequence[Sample]], Iterator[Outputs]]


class MapPoints(NamedTuple):
    """Where a map is judged: at the caller's threshold, at those that the detector names, and
    beside the ceiling of the grid of `grid` x `grid` places that the map comes from; its outer
    `border` pixels say nothing."""

    given: float | None = None
    named: Mapping[str, float] = {}
    grid: int | None = None
    border: int = 0


def map_points(detector: Any, given: float | None = None) -> MapPoints:
    """What a detector says of its own map, if it does (`map_thresholds`, `map_grid`,
    `map_border`)."""
    named = dict(getattr(detector, "map_thresholds", {}))
    border = getattr(detector, "map_border", 0)
    return MapPoints(given, named, getattr(detector, "map_grid", None), border)


def spread(samples: Sequence[Sample]) -> list[Sample]:
    """Up to `EDGE_IMAGES` of the samples that count in pixel figures, evenly over their order."""
    usable = [s for s in samples if s.label == NORMAL or s.mask is not None]
    places = np.linspace(0, len(usable) - 1, min(EDGE_IMAGES, len(usable))).round().astype(int)
    return [usable[place] for place in places]


def draw_edges(
    batches: Iterator[Outputs], thresholds: Iterable[float], seed: int, border: int = 0
) -> NDArray[np.float64] | None:
    """Edges [E] from random pixels of these images, without the border of their maps, and the
    thresholds; None without maps."""
    rng = np.random.default_rng(seed)
    drawn: list[NDArray[np.float32]] = []
    for batch in batches:
        for anomaly_map in () if batch.maps is None else batch.maps:
            pixel = anomaly_map[covered_box(anomaly_map.shape, len(anomaly_map), border)].ravel()
            drawn.append(rng.choice(pixel, min(EDGE_PIXELS, pixel.size), replace=False))
    return pixels.edges_from(np.concatenate(drawn), thresholds=thresholds) if drawn else None


def start_tally(
    samples: Sequence[Sample], judging: Judging, points: MapPoints, seed: int
) -> PixelTally | None:
    """An empty tally for these samples; None if none has a mask or the detector draws no maps."""
    if not any(sample.mask for sample in samples):
        return None
    exact = [*points.named.values(), *([] if points.given is None else [points.given])]
    edges = draw_edges(judging(spread(samples)), exact, seed, points.border)
    return None if edges is None else PixelTally(edges, points)


class PixelTally:
    """Pixel counts of the images added so far, normal and anomalous ones apart, the images left
    out, and masks that failed."""

    def __init__(self, edges: NDArray[np.float64], points: MapPoints) -> None:
        self.points = points
        self.normal = pixels.PixelCounts(edges)
        self.anomalous = pixels.PixelCounts(edges)
        self.ceiling = pixels.PixelCounts(np.linspace(0, 1, GRID_LEVELS + 1))
        self.ious = dict.fromkeys(points.named, (0.0, 0))  # sum over images, number of images
        self.num_images = 0
        self.num_anomalous = 0
        self.num_unmasked = 0  # anomalous, without a readable mask
        self.num_outside = 0  # anomalous, all of whose marks lie in the border of the map
        self.num_regions_outside = 0
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
        box = covered_box(size, len(anomaly_map), self.points.border)
        whole = torch.from_numpy(extended(anomaly_map, self.points.border))
        plane = resize(whole[None, None], size)[0, 0].numpy()
        self.num_images += 1
        if sample.label == NORMAL:
            self.normal.add(plane, mask, inside(size, box))
        else:
            self._add_anomalous(plane, mask, box)

    def figures(self) -> dict[str, float]:
        """Of all images AUROC, average precision, AUPRO, best F1 and IoU, and F1 and IoU at the
        given threshold; of the anomalous ones IoU at each named threshold and its ceilings."""
        counts = self.normal + self.anomalous
        figures = {
            "auroc": pixels.pixel_auroc(counts),
            "average_precision": pixels.pixel_average_precision(counts),
            "aupro": pixels.aupro(counts, PRO_LIMIT),
            "best_f1": pixels.pixel_f1(counts),
            "best_iou": pixels.best_iou(counts),
            "num_images": float(self.num_images),
            "num_regions": float(counts.num_regions),
            "num_anomalous": float(self.num_anomalous),
            "oracle_iou": pixels.best_iou(self.anomalous),
        }
        if self.points.given is not None:
            figures["threshold"] = self.points.given
            figures["f1"] = pixels.pixel_f1(counts, self.points.given)
            figures["iou"] = pixels.iou_at(counts, self.points.given)
        for name, threshold in self.points.named.items():
            total, num = self.ious[name]
            figures[f"threshold_{name}"] = threshold
            figures[f"iou_{name}"] = pixels.iou_at(self.anomalous, threshold)
            figures[f"image_iou_{name}"] = total / num if num else float("nan")
            figures[f"f1_{name}"] = pixels.pixel_f1(counts, threshold)
        if self.points.grid is not None:
            figures["map_grid"] = float(self.points.grid)
            figures["oracle_iou_grid"] = pixels.best_iou(self.ceiling)
        if self.points.border:
            figures["num_outside"] = float(self.num_outside)
            figures["num_regions_outside"] = float(self.num_regions_outside)
        return figures

    def _add_anomalous(self, plane: NDArray[np.float32], mask: NDArray[np.bool_], box: Box) -> None:
        self.num_anomalous += 1
        before = self.anomalous.num_regions
        self.anomalous.add(plane, mask, inside((mask.shape[0], mask.shape[1]), box))
        if self.points.border:
            seen = self.anomalous.num_regions - before
            self.num_regions_outside += pixels.num_regions(mask) - seen
            self.num_outside += bool(mask.any()) and seen == 0
        for name, threshold in self.points.named.items():
            iou = pixels.image_iou(plane[box], mask[box], threshold)
            if not np.isnan(iou):  # an empty mask in which nothing is found
                total, num = self.ious[name]
                self.ious[name] = total + iou, num + 1
        if self.points.grid is not None:
            truth = torch.from_numpy(mask[box].astype(np.float32))[None, None]
            self.ceiling.add(best_grid_map(truth, self.points.grid)[0, 0].numpy(), mask[box])

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
