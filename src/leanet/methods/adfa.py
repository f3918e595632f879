"""ADFA and CFA: how far is what is seen in a place from what is normal?

Frozen features of photographs describe each place of an image; a small descriptor is trained so
that the descriptions of normal images come close to a bank of mean descriptions, which was filled
before the training and stays. ADFA (arXiv:2308.15280) asks for a soft distance to the top-k entries
of the bank, CFA (arXiv:2206.04325) for the nearest ones inside small spheres; a place is anomalous
as far as its description is away from the bank.

The descriptor is in `leanet.networks.adfa`, the distances in `leanet.ops.topk` and
`leanet.ops.adfa`, the bank and the training in `leanet.methods.adfa_training`. CFA is the same
recipe with other defaults (`leanet.methods.adfa_config`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from leanet.methods.adfa_config import CFA_PRESETS, PRESETS, CfaConfig, Config
from leanet.methods.adfa_training import Adapted, fill_bank, squared_distances, train_descriptor
from leanet.methods.memory import peak_memory
from leanet.methods.normal_limits import conclude, split_normals
from leanet.methods.patches import load_features
from leanet.methods.recipe import Experience, Material, Trained
from leanet.networks.adfa import Adapter, Attention, Descriptor
from leanet.networks.frozen import patches
from leanet.ops.adfa import softmin_score, top_mean
from leanet.progress import say_once
from leanet.records import Fold
from leanet.runtime import Runtime

__all__ = ["CFA_PRESETS", "PRESETS", "AdfaDetector", "CfaConfig", "Config", "build", "train"]

BATCH_CMAX = (
    "cmax batch counts in training alone: here every image is scored by its own largest cost, "
    "whereas the scores of the published program depend on what else is in a batch"
)


class AdfaDetector(Adapted):
    """Detector: map [B, 1, S, S], the blurred distances of descriptions to the bank; score [B], its
    largest pixel, or the mean of its largest pixels.

    The score of an image never depends on the images beside it.
    """

    def __init__(self, config: Config, img_size: int) -> None:
        super().__init__(config, img_size)
        self.network = build_adapter(config, sum(self.features.channels), self.features.grid**2)

    def distances(self, maps: list[Tensor]) -> Tensor:
        """Feature maps -> distances [B, 1, h, w] on the grid of the first."""
        height, width = maps[0].shape[-2:]
        return self._distances(self.network(patches(maps))).view(-1, 1, height, width)

    def image_score(self, distances: Tensor, anomaly_map: Tensor, maps: list[Tensor]) -> Tensor:
        """Scores [B] from the map without its border."""
        if self.config.image_score == "top_mean":
            return top_mean(anomaly_map, self.config.top_pixels)
        return super().image_score(distances, anomaly_map, maps)

    def explain(self, image: Tensor) -> dict[str, Tensor]:
        """The distances [B, 1, h, w] on their own grid, before they are enlarged and blurred."""
        return {"distances": self.distances(self.see(image))}

    def _distances(self, phi: Tensor) -> Tensor:
        """Descriptions [B, T, D] -> distances [B, T]."""
        config = self.config
        squared = squared_distances(config, self.network, phi, cmax="image", count=config.k)
        if config.topk == "soft":
            return squared.sqrt()
        if config.score == "softmin":
            return softmin_score(squared)
        return squared.sum(dim=2).sqrt()


def build(config: Config, img_size: int, extra: dict[str, Any]) -> AdfaDetector:
    """The detector with random weights; `extra` as `AdfaDetector.extra` gives it."""
    detector = AdfaDetector(config, img_size)
    detector.take(extra)
    return detector


def build_adapter(config: Config, channels: int, places: int) -> Adapter:
    """Descriptor and empty bank for features of so many channels in so many places.

    Raises ValueError if nothing is left of the channels, or more neighbors are asked for than
    there are entries.
    """
    width, entries = channels // config.gamma_d, places // config.gamma_c
    if width < 1:
        raise ValueError(
            f"gamma_d {config.gamma_d}: the features have {channels} channels only; give less"
        )
    fewest = config.k + 1 if config.topk == "soft" else config.neighbors
    if entries < fewest:
        raise ValueError(
            f"the bank has {entries} entries (places of the first feature map / gamma_c) and must "
            f"have {fewest} for so many neighbors; give a larger --img_size, or a lower --k"
        )
    eca = Attention(config.eca_kernel, config.eca_factor, config.eca_second)
    descriptor = Descriptor(channels, width, eca if config.eca else None)
    return Adapter(descriptor, entries, config.radius, learn_radius=config.radius_learnable)


def train(
    config: Config,
    fold: Fold,
    data: Material,
    folder: Path,
    runtime: Runtime,
    experience: Experience | None = None,
) -> Trained:
    """Train the descriptor on the normal images of `fold.train`; the anomalous ones are not looked
    at.

    Raises:
        ValueError: no normal images, a backbone or weights that do not fit, or a loss that became
            NaN.
    """
    normals = split_normals(fold, data, runtime.seed, experience, config.val_fraction)
    with runtime.seeded(fold.name, "adfa"):
        detector = build(config, data.img_size, {})
    remarks = load_features(config, detector.features)
    if config.cmax == "batch":
        remarks["notices"].append(BATCH_CMAX)
    for notice in remarks["notices"]:
        say_once(f"{fold.name}: {notice}")
    detector.to(runtime.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    fill_bank(detector, data, sorted(normals.rest), runtime.seed)
    records = train_descriptor(detector, normals, data, folder, runtime, name=fold.name)
    remarks |= peak_memory(runtime.device)
    epochs = len(records)
    return conclude(detector, normals, data, experience, epochs=epochs, remarks=remarks)
