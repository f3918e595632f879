"""Anomaly maps to train on: each image's map comes from a model that has not seen it.

A model that was trained on a normal image draws a flatteringly dark map of it. A classifier that
learns from such maps learns "dark = seen before", and a threshold taken from them gives false
alarms on every new part. So the training images get out-of-fold maps: for each part of the fold a
map model trained on the normal images of the other parts. New images get the map of the model
trained on all normal images of the fold. Maps that come from elsewhere (`MapSource.fixed`) are
drawn by one detector throughout.

Models are kept in `RUN/map_models/`, named after the method, its options and the images they were
trained on. When the parts of a fold are the other folds, the model that left out folds k and j
serves both, and the final detector takes its out-of-fold maps from the models of the folds:
K(K-1)/2 + K + 1 trainings for K folds.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from leanet.config import to_dict
from leanet.data.cache import Cache, images_in_unit_range
from leanet.data.loader import Joined
from leanet.files import reserve, write_json
from leanet.methods.detector_file import read_detector, write_detector
from leanet.methods.extra import Extra, extra_sources, joined
from leanet.methods.map_catalog import find_map_method, name_of
from leanet.methods.recipe import INFERENCE_BATCH, DetectorModule, Material
from leanet.ops.map_steps import AS_IT_IS, MapPreparation, MapSteps, fit_steps, prepare_map
from leanet.ops.maps import MapScale, PixelHistogram, blur
from leanet.progress import say_once
from leanet.records import NORMAL, Fold
from leanet.runtime import Runtime
from leanet.training.checkpoint import WEIGHTS
from leanet.training.loop import forget

MapMode = Literal["out_of_fold", "in_sample"]
MAPS, FACTS = "maps.f32", "maps.json"


@dataclass(frozen=True, kw_only=True)
class MapSource:
    """Where maps come from: a method of `leanet.methods.map_catalog`, told by its options, that is
    trained anew on each part, or a `fixed` detector that draws all of them.

    quantile and headroom make the scale of the maps, as in `leanet.ops.maps.fit_scale`; `steps` is
    what else becomes of them; `told` says in a few words what the maps are.
    """

    config: Any
    told: str
    fixed: DetectorModule | None = None
    quantile: float = 0.999
    headroom: float = 4.0
    steps: MapSteps = AS_IT_IS

    def model(self, indices: Sequence[int], data: Material, runtime: Runtime) -> DetectorModule:
        """What draws maps for those who know the normal images among `indices`."""
        if self.fixed is not None:
            return self.fixed
        return map_model(self.config, indices, data, runtime)

    def mode(self, wanted: MapMode, fold: Fold) -> str:
        """How the training maps of a fold are made."""
        if self.fixed is not None:
            return "fixed"
        return wanted if fold.parts else "in_sample"


class TrainingMaps(NamedTuple):
    """maps: network maps in [0, 1] of all samples, [N, 1, S, S] (zero outside the fold's training
    part), then of the extra images; model: draws the maps of new images; preparation: from a raw
    map to a network map; remarks."""

    maps: Cache
    model: DetectorModule
    preparation: MapPreparation
    remarks: dict[str, Any]

    @property
    def scale(self) -> MapScale:
        """Of the network maps."""
        return self.preparation.scale


def training_maps(
    source: MapSource,
    mode: MapMode,
    fold: Fold,
    data: Material,
    folder: Path,
    runtime: Runtime,
    extras: Sequence[Extra] = (),
) -> TrainingMaps:
    """Train (or take from the run folder) the map models of a fold and draw its training maps into
    a file in `folder`, which may be deleted after the training; `maps.json` beside it says how they
    were made. The map of an extra image comes from the model that draws that of the sample it was
    made from."""
    images, from_sample = joined(data, extras), _by_sample(extras, len(data.samples))
    shape = (len(images), 1, data.img_size, data.img_size)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / MAPS
    file.unlink(missing_ok=True)
    reserve(file, 4 * math.prod(shape))
    maps = np.memmap(file, np.float32, "r+", shape=shape)  # raw first, network maps at the end
    model = source.model(fold.train, data, runtime)
    made = source.mode(mode, fold)
    for part in fold.parts if made == "out_of_fold" else (fold.train,):
        drawer = source.model(_rest(fold, part), data, runtime) if made == "out_of_fold" else model
        draw(drawer, images, (*part, *(e for i in part for e in from_sample.pop(i, ()))), maps)
    if left := [e for made in from_sample.values() for e in made]:
        draw(model, images, left, maps)
    normals = [i for i in fold.train if data.labels[i] == NORMAL]
    planes = _planes(maps, normals)
    preparation = fit_steps(source.steps, planes, source.quantile, source.headroom)
    remarks = {
        "map_source": source.told,
        "map_mode": made,
        "map_scale": preparation.scale._asdict(),
        "map_steps": preparation.steps._asdict(),
        "map_level": preparation.level,
        "map_mean_training_normals": float(np.mean([maps[i].mean() for i in normals])),
        "map_shift": map_shift(model, preparation, source.quantile, fold, data),
    }
    if model.map_border:
        remarks["notices"] = [_cropped(model.map_border)]
    write_json(folder / FACTS, {"unit": model.map_unit, "seed": runtime.seed, **remarks})
    for index in (*fold.train, *range(len(data.samples), len(images))):
        maps[index] = prepare_map(torch.from_numpy(maps[index])[None], preparation)[0].numpy()
    return TrainingMaps(Cache(maps, runtime.device), model, preparation, remarks)


@torch.inference_mode()
def map_shift(
    model: DetectorModule,
    preparation: MapPreparation,
    quantile: float,
    fold: Fold,
    data: Material,
) -> float | None:
    """How much brighter the maps of unseen normal images are: the high quantile of the test
    normals' pixels in multiples of that of the training normals, 1 = no shift. None without test
    normals."""
    pixels = PixelHistogram()
    normals = [i for i in fold.test if data.labels[i] == NORMAL]
    for chosen in chunks(normals):
        anomaly_map = model(images_in_unit_range(data.images.take(chosen))).map
        assert isinstance(anomaly_map, Tensor)
        pixels.add(blur(anomaly_map, preparation.steps.blur))
    return pixels.quantile(quantile) / preparation.scale.divisor if normals else None


def trainings(mode: MapMode, fold: Fold) -> list[tuple[int, ...]]:
    """The training parts of all map models that a fold needs, as `map_model` takes them."""
    parts = fold.parts if mode == "out_of_fold" else ()
    return [fold.train, *(_rest(fold, part) for part in parts)]


def map_model(
    config: Any, indices: Sequence[int], data: Material, runtime: Runtime
) -> DetectorModule:
    """The map method that the options belong to, trained on the normal images among `indices`;
    trained only once per run."""
    method = name_of(config)
    normals = tuple(i for i in indices if data.labels[i] == NORMAL)
    options = json.dumps([method, to_dict(config), runtime.seed, data.img_size])
    folder = data.run / "map_models" / _key(f"{options} {_listed(normals)}")
    if not (folder / WEIGHTS).exists():
        # the streams of random numbers depend on the images only: options can be compared
        fold = Fold(name=f"map model {_key(_listed(normals))}", train=normals, test=())
        trained = find_map_method(method).train(config, fold, data, folder, runtime, None)
        seen = [str(data.samples[i].path) for i in normals]
        more: dict[str, Any] = {"trained_on": seen, "remarks": trained.remarks}
        write_detector(folder, method, config, trained.detector, epochs=trained.epochs, **more)
    forget(folder)
    return read_detector(folder, find_map_method, runtime.device)


@torch.inference_mode()
def draw(
    model: DetectorModule,
    images: Cache | Joined,
    indices: Sequence[int],
    target: np.ndarray[Any, Any],
) -> None:
    """Write the raw maps of some images into `target` [N, 1, S, S]."""
    for chosen in chunks(indices):
        anomaly_map = model(images_in_unit_range(images.take(chosen))).map
        assert isinstance(anomaly_map, Tensor)
        target[chosen] = anomaly_map.cpu().numpy()


def _cropped(border: int) -> str:
    notice = (
        f"the maps are 0 in {border} px at each side, which their model does not look at "
        "(crop: center); crop: none lets it see the whole image"
    )
    say_once(f"notice: {notice}")
    return notice


def _planes(maps: np.ndarray[Any, Any], indices: Sequence[int]) -> Iterable[Tensor]:
    return (torch.from_numpy(maps[chosen]) for chosen in chunks(indices))


def _by_sample(extras: Sequence[Extra], first: int) -> dict[int, list[int]]:
    """Sample -> the numbers, from `first` on, of the extra images made from it; -1 = from none."""
    made: dict[int, list[int]] = {}
    for number, source in enumerate(extra_sources(extras), start=first):
        made.setdefault(source, []).append(number)
    return made


def _rest(fold: Fold, part: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted(set(fold.train) - set(part)))


def _listed(indices: Sequence[int]) -> str:
    return ",".join(map(str, indices))


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def chunks(indices: Sequence[int]) -> Iterator[list[int]]:
    """The indices, so many at a time as fit into a batch."""
    for start in range(0, len(indices), INFERENCE_BATCH):
        yield list(indices[start : start + INFERENCE_BATCH])
