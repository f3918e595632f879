"""A fold of a tree in memory maps: images, network maps, and what drew the maps.

Images are the files of GT, decoded once at the side that phase 2 works at. A map file becomes a raw
map d, resized like the images, and then the network map clip(d / (h s), 0, 1) with the s and h of
its `maps.json`. 8-bit maps without one are shares of full brightness, x = v / 255 as in the
original, unless `--rescale_legacy` takes s from the training normals.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from leanet.config import UsageError
from leanet.data.cache import Cache, cache_images
from leanet.data.images import read_image
from leanet.data.map_folder import cache_maps
from leanet.files import reserve
from leanet.methods.detector_file import read_detector
from leanet.methods.given_maps import GivenMaps
from leanet.methods.map_catalog import find_map_method
from leanet.methods.map_models import TrainingMaps
from leanet.methods.map_sources import FOLDER
from leanet.methods.recipe import DetectorModule, Material
from leanet.ops.color import lab_to_rgb
from leanet.ops.map_steps import MapPreparation
from leanet.ops.maps import MapScale, PixelHistogram, scale_from, to_network
from leanet.programs import trees
from leanet.programs.flags import Phase2
from leanet.programs.sources import Part, TreeFold
from leanet.programs.trees import MODEL
from leanet.records import NORMAL, Fold, Sample
from leanet.runtime import Runtime
from leanet.training import checkpoint

AS_IT_IS = MapScale(divisor=0.25, headroom=4.0)  # clip(d / 1, 0, 1)
CHUNK = 16


class Loaded(NamedTuple):
    """A fold ready to be trained on; facts go into the summary."""

    data: Material
    fold: Fold
    names: tuple[str, ...]  # of the images, for people
    maps: TrainingMaps
    drawn_by: dict[str, Any]
    facts: dict[str, Any]


def load_fold(tree: TreeFold, flags: Phase2, folder: Path, runtime: Runtime) -> Loaded:
    """Decode a fold into caches below `folder`.

    Raises:
        ValueError: files that cannot be read.
    """
    samples = (*_samples(tree.train), *_samples(tree.test))
    num_train = len(tree.train.images)
    fold = Fold(
        name=f"phase 2, {tree.name}",
        train=tuple(range(num_train)),
        test=tuple(range(num_train, len(samples))),
    )
    images = cache_images(
        [sample.path for sample in samples],
        flags.img_size,
        folder / "cache",
        runtime.device,
        read=read_lab_picture if flags.legacy_gt == "lab" else None,
    )
    data = Material(samples=samples, images=images, img_size=flags.img_size, run=folder)
    raw = cache_maps(
        [*tree.train.maps, *tree.test.maps],
        tree.facts.get("D", 1.0),
        flags.img_size,
        folder / "cache",
    )
    scale, told = _scale(tree, flags, raw, data, fold)
    maps = _network_maps(raw, scale, folder / "cache" / "network-maps.f32")
    model, drawn_by = _map_model(tree, flags, runtime)
    facts = {
        "origin": tree.origin,
        "map_mode": tree.facts.get("map_mode", "unknown"),
        "map_metric": tree.facts.get("metric", "unknown"),
        "map_scale": {**scale._asdict(), "rule": told},
        "normal_quantile_ratio": tree.facts.get("normal_quantile_ratio", _ratio(raw, data, fold)),
    }
    training = TrainingMaps(Cache(maps, runtime.device), model, MapPreparation(scale), {})
    names = (*tree.train.names, *tree.test.names)
    return Loaded(data, fold, names, training, drawn_by, facts)


def refuse_legacy_flags(dataset: Path, flags: Phase2) -> None:
    """Refuse the two flags for the original's trees where there is nothing to mend.

    Raises:
        UsageError: names those that were given.
    """
    wrong = []
    if flags.legacy_gt != "rgb":
        wrong.append("--legacy_gt: its images have their true colors")
    if flags.rescale_legacy:
        wrong.append("--rescale_legacy: its maps are scaled by the training normals")
    if wrong:
        raise UsageError(
            f"{dataset} is no tree of the original program; leave out {'; '.join(wrong)}"
        )


def read_lab_picture(path: Path) -> NDArray[np.uint8]:
    """A false-color GT image of the original's colorization as RGB [H, W, 3].

    Its channels are the 8-bit Lab of OpenCV: L * 255 / 100, a + 128, b + 128. Colors outside sRGB,
    which JPEG makes, are clipped.
    """
    codes = torch.from_numpy(read_image(path)).permute(2, 0, 1)[None].float()
    lab = torch.cat([codes[:, :1] * (100 / 255), codes[:, 1:] - 128], dim=1)
    rgb = (lab_to_rgb(lab).clamp(0, 1) * 255).round().to(torch.uint8)
    return rgb[0].permute(1, 2, 0).numpy()


def _samples(part: Part) -> Iterator[Sample]:
    for path, label, group in zip(part.images, part.labels, part.groups, strict=True):
        yield Sample(path=path, label=label, group=group)


def _scale(
    tree: TreeFold, flags: Phase2, raw: NDArray[np.float32], data: Material, fold: Fold
) -> tuple[MapScale, str]:
    """The scale and where it comes from."""
    if tree.facts:
        scale = MapScale(divisor=tree.facts["s"], headroom=tree.facts["h"])
        return scale, f"{trees.MAPS} of phase 1"
    if flags.rescale_legacy:
        return scale_from(_normals(raw, data, fold.train)), "training normals of the 8-bit maps"
    return AS_IT_IS, "shares of full brightness, as in the original"


def _ratio(raw: NDArray[np.float32], data: Material, fold: Fold) -> float | None:
    return trees.ratio(_normals(raw, data, fold.test), _normals(raw, data, fold.train))


def _normals(raw: NDArray[np.float32], data: Material, indices: tuple[int, ...]) -> PixelHistogram:
    """All pixels of the raw maps of the normal images among some."""
    pixels = PixelHistogram()
    for index in indices:
        if data.labels[index] == NORMAL:
            pixels.add(torch.from_numpy(np.array(raw[index])))
    return pixels


def _network_maps(raw: NDArray[np.float32], scale: MapScale, file: Path) -> NDArray[np.float32]:
    file.unlink(missing_ok=True)
    reserve(file, 4 * math.prod(raw.shape))
    maps = np.memmap(file, np.float32, "r+", shape=raw.shape)
    for start in range(0, len(raw), CHUNK):
        planes = torch.from_numpy(np.array(raw[start : start + CHUNK]))
        maps[start : start + CHUNK] = to_network(planes, scale).numpy()
    return maps


def _map_model(
    tree: TreeFold, flags: Phase2, runtime: Runtime
) -> tuple[DetectorModule, dict[str, Any]]:
    """What draws maps of new images: the reconstructor of phase 1, or nobody but their owner."""
    if tree.model is None:
        given = GivenMaps(flags.img_size, str(tree.facts.get("unit", "given")))
        return given, {"method": FOLDER, "config": None, "extra": given.extra()}
    model = read_detector(tree.folder, find_map_method, runtime.device, file=MODEL)
    _, stored = checkpoint.load(tree.folder / MODEL)
    return model, {key: stored[key] for key in ("method", "config", "extra")}
