"""A model that anomalib has trained, as a detector: its raw scores and maps, before any clamp.

It comes from a Lightning checkpoint of anomalib 2.7 or newer, which is plain data and is read as
such (`leanet.methods.anomalib_file`). The bare network is built again from the arguments in it and
sees images through the transform in it; anomalib's own thresholds, and its scaling of scores to
[0, 1], have no part in this.

What is trained already cannot be trained anew without the images that it is to judge. So nothing
here cross-validates, and the digests of the images that it has learned from are kept: it draws no
maps of them to steer LEA-Net with, and working points come from others wherever there are some.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from leanet.config import option
from leanet.data.cache import images_in_unit_range
from leanet.data.images import IMAGE_SUFFIXES
from leanet.data.scan import visible_files
from leanet.methods.anomalib_file import build_network, build_transform, digest, read_checkpoint
from leanet.methods.normal_limits import FEWEST_HELD, Normals, conclude
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
from leanet.ops.maps import resize
from leanet.ops.metrics import Threshold
from leanet.records import NORMAL, Fold, Prediction
from leanet.runtime import Runtime


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options."""

    checkpoint: str | None = option(None, "Lightning checkpoint (.ckpt) of anomalib 2.7 or newer")
    model: str | None = option(None, "class of the model in anomalib, e.g. Patchcore or Padim")
    trained_on: str | None = option(
        None,
        "folder with the normal images that it was trained on; without it those of the training "
        "part of DATA count as seen, and the run cannot steer LEA-Net",
    )


class AnomalibModel(DetectorModule):
    """Detector: score [B] and map [B, 1, S, S], both in the unit of the model; of models that only
    score images the map is None. The map is raised by a constant where the model draws negative
    values, so that the lowest pixel of a normal image is 0; lower ones are 0 too."""

    def __init__(self, config: Config, img_size: int, extra: dict[str, Any]) -> None:
        super().__init__()
        self.img_size, self._extra = img_size, extra
        self.network = build_network(str(config.model), extra)
        self.transform, share = build_transform(extra["transform"])
        self.map_border = round(img_size * (1 - share) / 2)
        self.map_unit = f"raw {config.model}" if extra.get("draws", True) else None
        self.map_top, self.map_low = extra.get("map_top"), extra.get("map_low")
        self.map_thresholds = dict(extra.get("map_thresholds", {}))
        self.floor = float(extra.get("floor", 0.0))

    def forward(self, image: Tensor) -> Prediction:
        """Images [B, 3, S, S] in [0, 1] -> Prediction."""
        score, raw = self.raw(image)
        if raw is None:
            return Prediction(score)
        side = self.img_size - 2 * self.map_border
        lifted = resize((raw - self.floor).clamp_min(0), (side, side))
        return Prediction(score, F.pad(lifted, (self.map_border,) * 4))

    def raw(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        """Images [B, 3, S, S] in [0, 1] -> scores [B] and maps [B, 1, h, w], as the model gives
        them; a model without a score has the maximum of its map.

        Raises ValueError for a model that gives neither.
        """
        with torch.autocast(image.device.type, enabled=False):
            output = self.network(self.transform(image.float()))
        score, drawn = (getattr(output, name, None) for name in ("pred_score", "anomaly_map"))
        if drawn is not None:
            drawn = drawn.float().reshape(image.shape[0], 1, *drawn.shape[-2:])
            score = drawn.flatten(1).amax(dim=1) if score is None else score
        if score is None:
            raise ValueError(f"{type(self.network).__name__} gives neither score nor map")
        return score.float().reshape(image.shape[0]), drawn

    def extra(self) -> dict[str, Any]:
        """What rebuilds the network, the images that it has seen, the limits of its map."""
        return {
            **self._extra,
            "draws": self.map_unit is not None,
            "floor": self.floor,
            "map_top": self.map_top,
            "map_low": self.map_low,
            "map_thresholds": self.map_thresholds,
        }

    def why_not(self, images: Sequence[Path]) -> str:
        """Why it may not draw the maps of these images; "" if it may."""
        if self.map_unit is None:
            return "this model only scores images"
        if not self._extra["told"]:
            return (
                "nobody has said which images the checkpoint was trained on; fit it again with "
                "--trained_on FOLDER"
            )
        seen = set(self._extra["seen"])
        shared = sum(digest(path) in seen for path in images)
        if not shared:
            return ""
        return (
            f"its model has learned from {shared} of these images and cannot be trained anew "
            "without them, so its maps of them would flatter; leave them out, or use a method "
            "that is trained here, such as patchcore or padim"
        )


def build(config: Config, img_size: int, extra: dict[str, Any]) -> AnomalibModel:
    """The detector without its weights; needs anomalib."""
    return AnomalibModel(config, img_size, extra)


def train(
    config: Config,
    fold: Fold,
    data: Material,
    folder: Path,
    runtime: Runtime,
    experience: Experience | None,
) -> Trained:
    """Take over the checkpoint as it is, and set its working points by normal images that it has
    not seen, if there are five or more, else by those that it has."""
    if experience is not None or fold.name != "final":
        raise ValueError(
            "the model of an anomalib checkpoint is trained already and has seen its images, so "
            "nothing can be cross-validated; leave out --folds"
        )
    if config.checkpoint is None or config.model is None:
        raise ValueError("give --checkpoint FILE.ckpt and --model CLASS, such as Patchcore")
    taken = read_checkpoint(Path(config.checkpoint), config.model)
    normals, learned = _normals(config, fold, data)
    detector = build(config, data.img_size, {**taken.extra, **learned})
    detector.network.load_state_dict(taken.tensors)
    detector.to(runtime.device).eval()
    _look_at_maps(detector, data, normals.held or normals.rest)
    remarks: dict[str, Any] = {"anomalib": taken.version, "notices": _notices(normals)}
    if detector.map_unit is not None:
        return conclude(detector, normals, data, None, epochs=1, remarks=remarks)
    return _by_scores(detector, normals, data, remarks)


def _normals(config: Config, fold: Fold, data: Material) -> tuple[Normals, dict[str, Any]]:
    """Normal images, those held out unknown to the model, and what is known of those it has seen.

    Raises:
        ValueError: no normal images, or no image in the folder that it was trained on.
    """
    normals = tuple(i for i in fold.train if data.labels[i] == NORMAL)
    if not normals:
        raise ValueError("the training part has no normal images to set the threshold by")
    own = {i: digest(data.samples[i].path) for i in normals}
    if config.trained_on is None:
        return Normals(normals), {"seen": sorted(set(own.values())), "told": False}
    seen = set(_digests_below(Path(config.trained_on)))
    held = tuple(i for i in normals if own[i] not in seen)
    split = Normals(normals, held if len(held) >= FEWEST_HELD else ())
    return split, {"seen": sorted(seen), "told": True}


def _digests_below(folder: Path) -> Iterator[str]:
    files = [f for f in visible_files(folder) if f.suffix.lower() in IMAGE_SUFFIXES]
    if not files:
        raise ValueError(f"--trained_on {folder} has no images; name the folder of those images")
    yield from (digest(folder / file) for file in files)


@torch.inference_mode()
def _look_at_maps(detector: AnomalibModel, data: Material, shown: Sequence[int]) -> None:
    """Find out whether the model draws maps, and how far below 0 they reach."""
    lowest = 0.0
    for start in range(0, len(shown), INFERENCE_BATCH):
        chosen = shown[start : start + INFERENCE_BATCH]
        _, raw = detector.raw(images_in_unit_range(data.images.take(chosen)))
        if raw is None:
            detector.map_unit = None
            return
        lowest = min(lowest, float(raw.min()))
    detector.floor = lowest


def _by_scores(
    detector: AnomalibModel, normals: Normals, data: Material, remarks: dict[str, Any]
) -> Trained:
    shown = normals.held or normals.rest
    scores = score_images(detector, data.images, shown)
    limit = honest_limits(scores["score"])[1]
    remarks["threshold_in_sample"] = not normals.held
    thresholds = {"score": Threshold(limit, "honest", len(shown), 0)}
    return Trained(detector, HeldOut(shown, scores), 1, remarks, thresholds)


def _notices(normals: Normals) -> list[str]:
    if normals.held:
        return []
    return [
        "the threshold comes from images that the model has learned from, or may have, so it is "
        "low and raises false alarms; give at least five other normal images and --trained_on"
    ]
