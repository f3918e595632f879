"""What detectors of frozen features share: options, the way from an image to a map, weights.

An image is described place by place by a network that was trained on photographs
(`leanet.networks.frozen`); a method gives each place a distance to what is normal. The distances
are enlarged to the side of the image and blurred.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from leanet.config import option
from leanet.data.cache import images_in_unit_range
from leanet.methods.recipe import DetectorModule, Material
from leanet.networks.frozen import STRIDES, FrozenFeatures
from leanet.ops.embedding import pooled
from leanet.ops.maps import blur, resize
from leanet.records import Prediction

CROP = 224 / 256  # the share of the side that a center crop keeps
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of every detector of frozen features."""

    backbone: str = option("wide_resnet50_2.tv_in1k", "any timm backbone with feature maps")
    weights: str | None = option(
        None, "file with ImageNet weights of `backbone` (safetensors or torch)"
    )
    pretrained: bool = option(
        True, "without a file: weights from timm's hub; false = random features, which mean little"
    )
    backbone_args: dict[str, Any] = dataclasses.field(
        default_factory=dict,
        metadata={"help": "arguments for timm's create_model, e.g. {pad_type: same}"},
    )
    feature_indices: tuple[int, ...] | None = option(
        None, "feature levels of the backbone; default: those of stride 4, 8 and 16"
    )
    mean: tuple[float, float, float] = option(
        IMAGENET_MEAN, "subtracted from the RGB image in [0, 1]"
    )
    std: tuple[float, float, float] = option(IMAGENET_STD, "divides the image after that")
    crop: Literal["none", "center"] = option(
        "none", "center looks at the middle 224/256 of each side only; the border stays unseen"
    )
    blur_sigma: float = option(4.0, "SD in pixels of the Gaussian over the map; 0 = none")
    val_fraction: float = option(
        0.1, "share of the training normals held out for the working points, at least five"
    )


def features_of(config: Config, img_size: int, strides: Sequence[int] = STRIDES) -> FrozenFeatures:
    """The backbone that the options name, with random weights."""
    return FrozenFeatures(
        config.backbone,
        config.feature_indices,
        img_size=img_size - 2 * border_of(config, img_size),
        mean=config.mean,
        std=config.std,
        model_args=config.backbone_args,
        strides=strides,
    )


def load_features(config: Config, features: FrozenFeatures) -> dict[str, Any]:
    """Load the weights that the options name, in place; returns remarks (JSON) on them."""
    if config.weights is None and not config.pretrained:
        notice = "the backbone is random: its features mean little (--weights FILE)"
        return {"backbone": "random", "notices": [notice]}
    features.load(None if config.weights is None else Path(config.weights))
    return {"backbone": config.weights or f"timm's hub: {config.backbone}", "notices": []}


def border_of(config: Config, img_size: int) -> int:
    """Pixels at each side of the image that the crop leaves out."""
    return round(img_size * (1 - CROP) / 2) if config.crop == "center" else 0


class PatchDetector(DetectorModule):
    """Detector: score [B], map [B, 1, S, S] >= 0, both in the unit of the distance."""

    map_unit = "distance"
    strides: tuple[int, ...] = STRIDES  # of the feature maps, where the options name none

    def __init__(self, config: Config, img_size: int) -> None:
        super().__init__()
        self.config: Any = config
        self.img_size, self.map_border = img_size, border_of(config, img_size)
        self.features = features_of(config, img_size, self.strides)
        self.__dict__["network"] = self.features  # not registered: it is stored once

    def distances(self, maps: list[Tensor]) -> Tensor:
        """Feature maps -> distances to what is normal, [B, 1, h, w], on the grid of the first."""
        raise TypeError(f"{type(self).__name__} is no complete detector: it lacks distances")

    def image_score(self, distances: Tensor, anomaly_map: Tensor, maps: list[Tensor]) -> Tensor:
        """Scores [B] from the distances [B, 1, h, w], the blurred map without its border, and the
        feature maps: the maximum of the map."""
        return anomaly_map.flatten(1).amax(dim=1)

    def see(self, image: Tensor) -> list[Tensor]:
        """Images [B, 3, S, S] in [0, 1] -> feature maps of the part that is looked at, float32."""
        border, side = self.map_border, self.img_size - self.map_border
        with torch.autocast(image.device.type, enabled=False):
            maps: list[Tensor] = self.features(image[..., border:side, border:side].float())
        return maps

    def embed(self, image: Tensor) -> Tensor:
        """The mean description of the places, from every feature map."""
        return pooled(*self.see(image))

    def forward(self, image: Tensor) -> Prediction:
        """Images [B, 3, S, S] in [0, 1] -> Prediction."""
        return self.judge(self.see(image))

    def judge(self, maps: list[Tensor]) -> Prediction:
        """What `forward` gives, from feature maps that `see` has given."""
        with torch.autocast(maps[0].device.type, enabled=False):
            distances = self.distances(maps)
            side = self.img_size - 2 * self.map_border
            anomaly_map = resize(distances, (side, side))
            anomaly_map = blur(anomaly_map, self.config.blur_sigma, border="reflect")
            score = self.image_score(distances, anomaly_map, maps)
        return Prediction(score, F.pad(anomaly_map, (self.map_border,) * 4))

    def extra(self) -> dict[str, Any]:
        """Ends of the color scale, and limit, of the map."""
        return {
            "map_top": self.map_top,
            "map_low": self.map_low,
            "map_thresholds": self.map_thresholds,
        }

    def take(self, extra: dict[str, Any]) -> None:
        """Put back what `extra` gave."""
        self.map_top = extra.get("map_top", self.map_top)
        self.map_low = extra.get("map_low")
        self.map_thresholds = dict(extra.get("map_thresholds", {}))


@torch.inference_mode()
def seen(
    detector: PatchDetector, data: Material, indices: Sequence[int], batch_size: int
) -> Iterator[list[Tensor]]:
    """Feature maps of some images, batch by batch, in order."""
    for start in range(0, len(indices), batch_size):
        image = images_in_unit_range(data.images.take(indices[start : start + batch_size]))
        yield detector.see(image)
