"""Anomaly maps to train on: each image's map comes from a model that has not seen it.

A model that was trained on a normal image draws a flatteringly dark map of it. A classifier that
learns from such maps learns "dark = seen before", and a threshold taken from them gives false
alarms on every new part. So the training images get out-of-fold maps: for each part of the fold a
map model trained on the normal images of the other parts. New images get the map of the model
trained on all normal images of the fold.

Models are kept in `RUN/map_models/`, named after the images they were trained on. When the parts of
a fold are the other folds, the model that left out folds k and j serves both, and the final
detector takes its out-of-fold maps from the models of the folds: K(K-1)/2 + K + 1 trainings for K
folds.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from leanet.data.cache import Cache, images_in_unit_range
from leanet.files import reserve
from leanet.methods import colorizer
from leanet.methods.colorizer import Colorizer
from leanet.methods.recipe import INFERENCE_BATCH, Material
from leanet.ops.maps import MapScale, fit_scale, to_network
from leanet.records import NORMAL, Fold
from leanet.runtime import Runtime
from leanet.training import checkpoint
from leanet.training.checkpoint import WEIGHTS
from leanet.training.loop import forget

MapMode = Literal["out_of_fold", "in_sample"]
MAPS = "maps.f32"


class TrainingMaps(NamedTuple):
    """maps: network maps in [0, 1] of all samples, [N, 1, S, S] (zero outside the fold's training
    part); model: draws the maps of new images; scale: from a raw map to a network map; remarks."""

    maps: Cache
    model: Colorizer
    scale: MapScale
    remarks: dict[str, Any]


def training_maps(
    config: colorizer.Config,
    mode: MapMode,
    fold: Fold,
    data: Material,
    folder: Path,
    runtime: Runtime,
) -> TrainingMaps:
    """Train (or take from the run folder) the map models of a fold and draw its training maps into
    a file in `folder`, which may be deleted after the training."""
    shape = (len(data.samples), 1, data.img_size, data.img_size)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / MAPS
    file.unlink(missing_ok=True)
    reserve(file, 4 * math.prod(shape))
    maps = np.memmap(file, np.float32, "r+", shape=shape)  # raw first, network maps at the end
    model = map_model(config, fold.train, data, runtime)
    out_of_fold = mode == "out_of_fold" and bool(fold.parts)
    for part in fold.parts if out_of_fold else (fold.train,):
        drawer = map_model(config, _rest(fold, part), data, runtime) if out_of_fold else model
        draw(drawer, data.images, part, maps)
    normals = [i for i in fold.train if data.labels[i] == NORMAL]
    scale = fit_scale(
        torch.from_numpy(maps[normals[k : k + 16]]) for k in range(0, len(normals), 16)
    )
    remarks = {
        "map_mode": "out_of_fold" if out_of_fold else "in_sample",
        "map_scale": scale._asdict(),
        "map_mean_training_normals": float(np.mean([maps[i].mean() for i in normals])),
    }
    for index in fold.train:
        maps[index] = to_network(torch.from_numpy(maps[index]), scale).numpy()
    return TrainingMaps(Cache(maps, runtime.device), model, scale, remarks)


def trainings(mode: MapMode, fold: Fold) -> list[tuple[int, ...]]:
    """The training parts of all map models that a fold needs, as `map_model` takes them."""
    parts = fold.parts if mode == "out_of_fold" else ()
    return [fold.train, *(_rest(fold, part) for part in parts)]


def map_model(
    config: colorizer.Config, indices: Sequence[int], data: Material, runtime: Runtime
) -> Colorizer:
    """The colorizer trained on the normal images among `indices`; trained only once per run."""
    normals = tuple(i for i in indices if data.labels[i] == NORMAL)
    key = hashlib.sha256(",".join(map(str, normals)).encode()).hexdigest()[:12]
    folder = data.run / "map_models" / key
    if (folder / WEIGHTS).exists():
        model = colorizer.build(config, data.img_size, {"map_top": 0.0})
        model.load_state_dict(checkpoint.load(folder / WEIGHTS)[0])
        model.to(runtime.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    else:
        parts = colorizer.split_normals(config, normals, data, runtime)
        name = f"map model {key}"
        model, epochs = colorizer.train_on(config, parts, data, folder, runtime, name=name)
        metadata = {"epochs": epochs, "trained_on": [str(data.samples[i].path) for i in parts.rest]}
        checkpoint.save(folder / WEIGHTS, model.state_dict(), metadata)
    forget(folder)
    model.eval()
    return model


@torch.inference_mode()
def draw(
    model: Colorizer, images: Cache, indices: Sequence[int], target: np.ndarray[Any, Any]
) -> None:
    """Write the raw maps of some images into `target` [N, 1, S, S]."""
    for chosen in _chunks(indices):
        anomaly_map = model(images_in_unit_range(images.take(chosen))).map
        assert isinstance(anomaly_map, Tensor)
        target[chosen] = anomaly_map.cpu().numpy()


def _rest(fold: Fold, part: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted(set(fold.train) - set(part)))


def _chunks(indices: Sequence[int]) -> Iterator[list[int]]:
    for start in range(0, len(indices), INFERENCE_BATCH):
        yield list(indices[start : start + INFERENCE_BATCH])
