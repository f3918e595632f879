"""Pictures of how a detector judged its test images, kept as arrays for the report.

`maps/` holds every raw anomaly map, lossless (16-bit PNG, see `maps.json`). `gallery.safetensors`
holds, for a few dozen images, what the report draws: the image, the map, the mask where there are
masks, and whatever else the detector explains itself with. Nothing is scaled for display here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from leanet.data.cache import Cache, images_in_unit_range
from leanet.data.images import UnreadableImageError, read_mask, write_map
from leanet.data.scan import relative_name
from leanet.files import replacing, write_json
from leanet.inference.pictures import FULL_SCALE_TOPS, map_facts, picture_names
from leanet.ops.half_and_half import half_and_half
from leanet.records import Prediction, Sample

FULL_SCALE = 150.0  # dE00; color differences of sRGB images stay below
FULL_SCALES = {"dE00": FULL_SCALE, "L1": 1.0, "L2": 1.0, "attention": 1.0}  # the most of a unit
GALLERY_SIZE = 32
BATCH = 16


class Explaining(Protocol):
    """A detector that can also show pictures of how it came to its score."""

    def __call__(self, image: Tensor) -> Prediction:
        """Judge a batch."""
        ...

    def explain(self, image: Tensor) -> dict[str, Tensor]:
        """Named pictures [B, 1 or 3, h, w]; {} if there are none."""
        ...


class Pictures(Protocol):
    """Samples and their decoded images."""

    @property
    def samples(self) -> tuple[Sample, ...]:
        """What is known about each image."""
        ...

    @property
    def images(self) -> Cache:
        """The decoded images, in the order of `samples`."""
        ...


@torch.inference_mode()
def save_maps(detector: Explaining, data: Pictures, indices: Sequence[int], folder: Path) -> None:
    """Write the map of each image, and `maps.json`, which says which file is whose."""
    unit, full_scale = getattr(detector, "map_unit", None), full_scale_of(detector)
    clipped, files = 0, {}
    names = picture_names([data.samples[index].path for index in indices])
    for start in range(0, len(indices), BATCH):
        chosen = indices[start : start + BATCH]
        anomaly_map = detector(images_in_unit_range(data.images.take(chosen))).map
        if anomaly_map is None:
            return
        side = anomaly_map.shape[-1]
        for index, plane in zip(chosen, anomaly_map[:, 0].cpu().numpy(), strict=True):
            path = data.samples[index].path
            clipped += write_map(folder / names[path], plane, full_scale)
            files[names[path].as_posix()] = str(path)
    if files:
        facts = map_facts(full_scale, unit, side, getattr(detector, "map_border", 0))
        facts |= {"clipped_pixels": clipped, "maps": files}
        write_json(folder / "maps.json", facts)


def full_scale_of(detector: Any) -> float:
    """The map value of the brightest code: the most that the unit allows, or, in a unit without a
    natural end such as a distance, a multiple of where the colors of heat maps end."""
    unit, top = (getattr(detector, name, None) for name in ("map_unit", "map_top"))
    if unit in FULL_SCALES:
        return FULL_SCALES[unit]
    return FULL_SCALE_TOPS * float(top) if unit and top else FULL_SCALE


@torch.inference_mode()
def save_gallery(
    detector: Explaining,
    data: Pictures,
    indices: Sequence[int],
    scores: Mapping[str, Sequence[float]],
    wrong: Sequence[int],
    folder: Path,
    root: Path,
) -> None:
    """Write `gallery.safetensors` for some of the test images: wrongly judged ones (`wrong`) first,
    then those that stand for all (`half_and_half`), then evenly over the ranking by score. Its
    metadata lists their paths, and as `drawn` those that stand for all."""
    if not indices:
        return
    tested = [data.samples[index] for index in indices]
    lots = half_and_half([one.label for one in tested], [one.kind for one in tested])
    drawn = [indices[place] for place in lots]
    first = list(dict.fromkeys([*wrong[: GALLERY_SIZE // 2], *drawn]))
    ranking = [indices[place] for place in np.argsort(scores["score"], kind="stable")]
    rest = [index for index in ranking if index not in first]
    places = np.linspace(0, len(rest) - 1, min(GALLERY_SIZE - len(first), len(rest))).round()
    chosen = [*first, *(rest[int(place)] for place in places)]
    pictures: dict[str, list[Tensor]] = {}
    for start in range(0, len(chosen), BATCH):
        raw = data.images.take(chosen[start : start + BATCH])
        image = images_in_unit_range(raw)
        shown: dict[str, Any] = {"image": raw, **detector.explain(image)}
        anomaly_map = detector(image).map
        if anomaly_map is not None:
            shown["map"] = anomaly_map
        for name, value in shown.items():
            pictures.setdefault(name, []).append(value.cpu().contiguous())
    tensors = {name: torch.cat(values) for name, values in pictures.items()}
    masks = [_mask(data.samples[index].mask, tensors["image"].shape[-1]) for index in chosen]
    if any(mask is not None for mask in masks):
        empty = torch.zeros(1, *tensors["image"].shape[2:], dtype=torch.uint8)
        tensors["mask"] = torch.stack([empty if mask is None else mask for mask in masks])
    names = {
        key: [relative_name(data.samples[index].path, root) for index in some]
        for key, some in (("paths", chosen), ("drawn", drawn))
    }
    with replacing(folder / "gallery.safetensors") as temporary:
        save_file(tensors, temporary, {"json": json.dumps(names)})  # several keys: any order


def _mask(file: Path | None, side: int) -> Tensor | None:
    """A mask [1, side, side], 1 = anomalous, in which no defect vanishes; None without a readable
    one."""
    if file is None:
        return None
    try:
        mask = torch.from_numpy(read_mask(file))
    except UnreadableImageError:
        return None
    return F.adaptive_max_pool2d(mask[None].float(), side).to(torch.uint8)
