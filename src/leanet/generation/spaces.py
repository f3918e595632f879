"""Spaces in which images are compared: a name, the hash of its weights, and features [B, D].

Numbers of two spaces must never be compared, so the name and the hash stand beside every one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from leanet.data.cache import images_in_unit_range
from leanet.data.generated import sha256_of
from leanet.methods.recipe import DetectorModule
from leanet.methods.store import load_detector
from leanet.networks.blocks import StagedClassifier
from leanet.networks.choose import build_adn
from leanet.networks.weights import load_weights
from leanet.ops.neighbors import pixel_features
from leanet.training.checkpoint import WEIGHTS

BATCH = 64
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean, SD


class Space(NamedTuple):
    """features: images [B, 3, S, S] in [0, 1] -> [B, D]; sha256 of the weights file, or None."""

    name: str
    sha256: str | None
    features: Callable[[Tensor], Tensor]

    def of(self, image: Tensor) -> Tensor:
        """Features [N, D], on the CPU, of images uint8 [N, 3, S, S]."""
        return torch.cat([self.features(part).float().cpu() for part in batches(image)])


def batches(image: Tensor) -> Iterator[Tensor]:
    """uint8 images [N, 3, S, S] in portions, as [0, 1]."""
    for part in torch.split(image, BATCH):
        yield images_in_unit_range(part)


PIXELS = Space("16x16 pixel means", None, pixel_features)


def backbone_space(name: str, weights: Path, img_size: int, device: torch.device) -> Space:
    """The global averages of the last stage of a backbone with given weights, on images that are
    normalized as for ImageNet.

    Raises:
        ValueError: an unknown backbone, weights that do not fit.
    """
    network = build_adn(name, img_size=img_size)
    load_weights(network, weights)
    network.to(device).eval()
    mean, sd = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in IMAGENET)

    @torch.inference_mode()
    def features(image: Tensor) -> Tensor:
        return _last_stage(network, (image.to(device) - mean) / sd)

    return Space(name, sha256_of(weights), features)


def run_space(run: Path, part: str, device: torch.device) -> tuple[Space, DetectorModule]:
    """The global averages of the last stage of the classifier that `leanet fit classifier` has
    trained for the same part ("fold-0", ..., "final"), and that classifier.

    Raises:
        ValueError: no such run, or its detector is no plain classifier.
    """
    detector = load_detector(run / part, device).eval()
    network = detector.network
    prepare = getattr(detector, "prepare", None)
    if not isinstance(network, StagedClassifier) or prepare is None:
        raise ValueError(
            f"{run} holds no plain classifier, whose features could be taken; give a run of "
            "`leanet fit classifier`"
        )

    @torch.inference_mode()
    def features(image: Tensor) -> Tensor:
        inputs = prepare(sized(image.to(device), detector.img_size))
        return _last_stage(network, inputs[0])

    return Space(f"classifier {run.name}", sha256_of(run / part / WEIGHTS), features), detector


def sized(image: Tensor, side: int) -> Tensor:
    """Images [B, C, S, S] at another side."""
    if image.shape[-1] == side:
        return image
    return F.interpolate(image, (side, side), mode="bilinear", align_corners=False, antialias=True)


def _last_stage(network: StagedClassifier, image: Tensor) -> Tensor:
    return network.features(image)[-1].mean(dim=(2, 3))
