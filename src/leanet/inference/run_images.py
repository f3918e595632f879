"""What a run folder knows of images: held-out ones in its galleries, the true classes, and which of
a test part the run has learned from."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from safetensors import safe_open
from torch import Tensor

from leanet.data.cache import images_in_unit_range
from leanet.data.scan import relative_name
from leanet.files import read_csv
from leanet.records import NORMAL, Sample

GALLERY, PREDICTIONS = "gallery.safetensors", "predictions.csv"
SAMPLES, CONFIG = "samples.csv", "config.yaml"
MOST = 64


class RunImages(NamedTuple):
    """Images [N, 3, S, S] in [0, 1], and which of them [N] are normal (False where unknown)."""

    image: Tensor
    normal: Tensor


def run_images(run: Path, most: int = MOST) -> RunImages | None:
    """Test images of a run's folds, at most so many, evenly chosen; None if it kept none."""
    found: list[Tensor] = []
    normal: list[bool] = []
    for file in sorted(run.glob(f"*/{GALLERY}")):
        labels = {row["path"]: row.get("label", "") for row in _predictions(file.parent)}
        with safe_open(file, framework="pt") as tensors:
            found.append(tensors.get_tensor("image"))
            paths = json.loads(tensors.metadata()["json"])["paths"]
        normal += [labels.get(path) == str(NORMAL) for path in paths]
    if not found or len({image.shape[1:] for image in found}) > 1:
        return None
    images = torch.cat(found)
    chosen = np.unique(np.linspace(0, len(images) - 1, min(most, len(images))).round().astype(int))
    kept = torch.from_numpy(chosen)
    return RunImages(images_in_unit_range(images[kept]), torch.tensor(normal)[kept])


def true_classes(paths: Sequence[Path], names: Sequence[str], run: Path) -> dict[Path, int]:
    """The index of every image's true class: that of the nearest folder above it that is called as
    a class, else the one in the run's predictions.

    Raises:
        ValueError: an image of which neither is known.
    """
    listed = _listed(run, names)
    classes = {}
    for path in paths:
        place = path.absolute()
        folders = [unicodedata.normalize("NFC", parent.name) for parent in place.parents]
        found = next((names.index(name) for name in folders if name in names), None)
        if found is None:
            ends = ("/".join(place.parts[-k:]) for k in range(len(place.parts), 0, -1))
            found = next((listed[end] for end in ends if end in listed), None)
        if found is None:
            raise ValueError(
                f"the true class of {path} is not known: no folder above it is called as one of "
                f"the classes ({', '.join(names)}), and it is no test image of the run"
            )
        classes[path] = found
    return classes


def unlearned(run: Path, data: Path, samples: Sequence[Sample]) -> list[Sample]:
    """The samples of a data set but those that it has for a test and the run has learned from, as
    weak labels, and others of their groups.

    The data set is the run's own if it lies where that lay. Where that is not known, as nothing
    lies there any more or the run has a relative path, it is if the two have the same name.
    """
    text = (run / CONFIG).read_text(encoding="utf-8")
    own = Path(str(yaml.safe_load(text)["data"])).expanduser()
    here, there = data.resolve(), own.resolve()
    known = own.is_absolute() and own.exists()
    if here != there and (known or here.name != there.name):
        return list(samples)
    trained = {row["path"] for row in read_csv(run / SAMPLES) if row["split"] == "train"}
    root = data if data.is_dir() else data.parent
    tested = [sample for sample in samples if sample.split == "test"]
    learned = {one.path for one in tested if relative_name(one.path, root) in trained}
    groups = {one.group for one in tested if one.path in learned} - {None}
    left = {one.path for one in tested if one.path in learned or one.group in groups}
    return [sample for sample in samples if sample.path not in left]


def _listed(run: Path, names: Sequence[str]) -> dict[str, int]:
    """Path as in predictions.csv -> class, of all folds."""
    listed = {}
    for folder in sorted(file.parent for file in run.glob(f"*/{PREDICTIONS}")):
        for row in _predictions(folder):
            if row.get("true") in names:
                listed[row["path"]] = names.index(row["true"])
            elif row.get("label") in ("0", "1") and len(names) == 2 and "true" not in row:
                listed[row["path"]] = int(row["label"])
    return listed


def _predictions(folder: Path) -> list[dict[str, Any]]:
    file = folder / PREDICTIONS
    return list(read_csv(file)) if file.exists() else []
