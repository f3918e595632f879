"""Maps that come from files instead of a model: a detector that knows some images and their maps.

An image is found again by what it shows (`leanet.ops.fingerprint`), so that everything that
follows a detector, from test scores to heat maps, works as with any other. Of an image whose map
it was not given it says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from leanet.data.cache import Cache, images_in_unit_range
from leanet.data.images import UnreadableImageError, read_image, resize_image
from leanet.data.map_folder import (
    MapFolder,
    cache_maps,
    find_maps,
    open_map_folder,
    read_given_map,
    resize_map,
)
from leanet.methods.recipe import INFERENCE_BATCH, DetectorModule, Material
from leanet.ops.fingerprint import fingerprints
from leanet.ops.maps import map_score
from leanet.records import Prediction


class GivenMaps(DetectorModule):
    """Detector: the map [B, 1, S, S] that was given for an image, in the unit of its file; the
    score [B] is its mean. It has no weights, and a stored one knows no images."""

    not_exportable = "its maps come from a folder, and a file can only hold a model that draws them"

    def __init__(self, img_size: int, unit: str, full_scale: float = 1.0, border: int = 0) -> None:
        super().__init__()
        self.img_size, self.map_unit, self.map_top = img_size, unit, 0.0
        self.map_border = border
        self.full_scale = full_scale  # of the integers in the files that it was trained with
        self._known: dict[str, np.ndarray[Any, Any]] = {}

    def give(self, image: Tensor, planes: Sequence[np.ndarray[Any, Any]]) -> None:
        """From now on, these are the maps [S, S] of the images [B, 3, S, S] in [0, 1].

        Raises:
            ValueError: an image that is known already has another map.
        """
        for name, plane in zip(fingerprints(image), planes, strict=True):
            known = self._known.setdefault(name, plane)
            if known is not plane and not np.array_equal(known, plane):
                raise ValueError(
                    f"two images that show the same at {self.img_size} px have different maps; "
                    "leave one of them out (`leanet scan` lists duplicates)"
                )

    def forward(self, image: Tensor) -> Prediction:
        """Images [B, 3, S, S] in [0, 1] -> Prediction.

        Raises:
            ValueError: an image without a map.
        """
        names = fingerprints(image)
        missing = sum(name not in self._known for name in names)
        if missing:
            raise ValueError(
                f"{missing} image(s) have no map: this detector was trained on maps from a folder "
                "and cannot draw any itself; give the maps of new images with "
                "`leanet predict RUN PATHS --maps_from FOLDER`"
            )
        planes = np.stack([self._known[name] for name in names])
        anomaly_map = torch.from_numpy(planes)[:, None].to(image)
        return Prediction(map_score(anomaly_map), anomaly_map)

    def extra(self) -> dict[str, Any]:
        """Unit and full scale of the files, and the border in which they say nothing."""
        facts = {"unit": self.map_unit, "full_scale": self.full_scale}
        return {**facts, "border": self.map_border}


def maps_of(folder: MapFolder, data: Material) -> GivenMaps:
    """A detector that knows the maps of all images of a data set.

    Raises:
        ValueError: maps that are missing or cannot be read.
    """
    paths = find_maps(folder, [sample.path for sample in data.samples], data.root)
    planes = cache_maps(paths, folder.full_scale, data.img_size, data.run / "cache")
    border = round(folder.border * data.img_size)
    given = GivenMaps(data.img_size, folder.unit, folder.full_scale, border)
    for start in range(0, len(paths), INFERENCE_BATCH):
        chosen = range(start, min(start + INFERENCE_BATCH, len(paths)))
        given.give(_images(data.images, chosen), [planes[k, 0] for k in chosen])
    return given


def give_maps(detector: nn.Module, images: Sequence[Path], root: Path, folder: Path) -> None:
    """Give a detector that needs them the maps of some image files; `root` is the folder that the
    images' places in the folder of maps are relative to. A folder that does not tell its full scale
    has that of the maps that the detector was trained with. Images that cannot be read get none:
    whoever judges them says so.

    Raises:
        ValueError: a detector that draws its own maps, or maps that are missing or unreadable.
    """
    given = next((part for part in detector.modules() if isinstance(part, GivenMaps)), None)
    if given is None:
        raise ValueError(
            "this detector draws its maps itself; --maps_from is for those that were trained with "
            "--map_source FOLDER"
        )
    opened = open_map_folder(folder, given.full_scale)
    for image, file in zip(images, find_maps(opened, images, root), strict=True):
        try:
            pixels = resize_image(read_image(image), given.img_size)
        except UnreadableImageError:
            continue
        raw = torch.from_numpy(pixels).permute(2, 0, 1)[None]
        plane = read_given_map(file, opened.full_scale)
        given.give(images_in_unit_range(raw), [resize_map(plane, given.img_size)])


def _images(images: Cache, indices: Sequence[int]) -> Tensor:
    return images_in_unit_range(images.take(indices))
