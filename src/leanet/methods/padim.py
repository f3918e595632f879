"""PaDiM: how unusual is a place of an image, compared with the same place of normal images?

At every place the descriptions that a frozen network gives of normal images have a mean and a
covariance, and a new image is judged by its Mahalanobis distance there (Defard et al. 2021,
arXiv:2011.08785). It fits parts that always lie alike. Nothing is trained.

The formulas are in `leanet.ops.gaussian`. What differs from the paper stands in
docs/methods/padim.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from leanet.config import option
from leanet.methods import patches
from leanet.methods.memory import megabytes, peak_memory, told
from leanet.methods.normal_limits import conclude, split_normals
from leanet.methods.patches import PatchDetector, load_features, seen
from leanet.methods.recipe import INFERENCE_BATCH, Experience, Material, Trained
from leanet.networks.frozen import joined
from leanet.ops.gaussian import PlaceMoments, mahalanobis
from leanet.progress import Progress, say_once
from leanet.records import Fold
from leanet.runtime import Runtime

FEW, MANY, FROM = (
    100,
    550,
    500,
)  # channels that the paper keeps of ResNet-18's 448, of WRN-50's 1792


@dataclass(frozen=True, kw_only=True)
class Config(patches.Config):
    """Options of PaDiM."""

    channels: int | None = option(
        None, "feature channels drawn at random; default: 100 of up to 500, 550 of more"
    )
    ridge: float = option(0.01, "added to the diagonal of the covariances")


PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"crop": "center"},
    "small": {"backbone": "resnet18.tv_in1k", "channels": 100},
}


class PadimDetector(PatchDetector):
    """Detector: map [B, 1, S, S] >= 0, Mahalanobis distances in SDs, and its maximum [B].

    Buffers: the channels drawn [d]; of the P places the mean [P, d] and the whitening [P, d, d].
    """

    channels: Tensor
    mean: Tensor
    whitening: Tensor

    def __init__(self, config: Config, img_size: int) -> None:
        super().__init__(config, img_size)
        places, dims = self.features.grid**2, dims_of(config, sum(self.features.channels))
        self.register_buffer("channels", torch.arange(dims))
        self.register_buffer("mean", torch.zeros(places, dims))
        self.register_buffer("whitening", torch.zeros(places, dims, dims))

    def described(self, maps: list[Tensor]) -> Tensor:
        """Feature maps -> the drawn channels of every place, [B, d, P]."""
        return joined(maps, mode="nearest")[:, self.channels].flatten(2)

    def distances(self, maps: list[Tensor]) -> Tensor:
        """Feature maps -> Mahalanobis distances [B, 1, h, w]."""
        grid = self.features.grid
        found = mahalanobis(self.described(maps), self.mean, self.whitening)
        return found.reshape(-1, 1, grid, grid)


def dims_of(config: Config, known: int) -> int:
    """How many of `known` channels are drawn.

    Raises:
        ValueError: fewer than one.
    """
    wanted = config.channels
    if wanted is not None and wanted < 1:
        raise ValueError(f"channels {wanted}: draw at least one of the {known} feature channels")
    return min(known, (FEW if known <= FROM else MANY) if wanted is None else wanted)


def build(config: Config, img_size: int, extra: dict[str, Any]) -> PadimDetector:
    """The detector without its weights; `extra` as `PadimDetector.extra` gives it."""
    detector = PadimDetector(config, img_size)
    detector.take(extra)
    return detector


def train(
    config: Config,
    fold: Fold,
    data: Material,
    folder: Path,
    runtime: Runtime,
    experience: Experience | None = None,
) -> Trained:
    """Take means and covariances from the normal images of `fold.train`.

    Raises:
        ValueError: fewer than two normal images, options or weights that do not fit.
    """
    normals = split_normals(fold, data, runtime.seed, experience, config.val_fraction)
    with runtime.seeded(fold.name, "padim"):
        detector = PadimDetector(config, data.img_size)
    remarks = load_features(config, detector.features) | sizes(detector)
    if (config.channels or 0) > remarks["channels"]:
        remarks["notices"].append(
            f"{config.channels} channels asked for; the backbone gives {remarks['channels']}"
        )
    for notice in remarks["notices"]:
        say_once(notice)
    learn(detector, normals.rest, data, fold, runtime)
    remarks |= peak_memory(runtime.device)
    say_once(
        f"{fold.name}: {remarks['channels']} of {remarks['channels_known']} channels at "
        f"{remarks['places']} places, covariances of {remarks['covariance_mb']} MB{told(remarks)}"
    )
    return conclude(detector, normals, data, experience, epochs=1, remarks=remarks)


def sizes(detector: PadimDetector) -> dict[str, Any]:
    """Remarks (JSON) on how much there is to learn."""
    places, dims, _ = detector.whitening.shape
    return {
        "places": places,
        "channels": dims,
        "channels_known": sum(detector.features.channels),
        "covariance_mb": megabytes(4 * places * dims**2),
    }


def learn(
    detector: PadimDetector,
    indices: tuple[int, ...],
    data: Material,
    fold: Fold,
    runtime: Runtime,
) -> None:
    """Draw the channels and set the buffers by some images."""
    places, dims, _ = detector.whitening.shape
    draw = runtime.generator(fold.name, "padim channels")
    order = torch.randperm(sum(detector.features.channels), generator=draw)
    detector.channels = order[:dims].sort().values
    detector.whitening = torch.empty(0)  # makes room: the sums are as large
    detector.to(runtime.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    moments = PlaceMoments(places, dims, device=runtime.device)
    with Progress("covariances", total=len(indices)) as bar:
        for maps in seen(detector, data, indices, INFERENCE_BATCH):
            moments.add(detector.described(maps))
            bar.advance(steps=len(maps[0]))
    detector.mean, detector.whitening = moments.gaussians(detector.config.ridge)
