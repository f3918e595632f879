"""Colorizer: what would this picture's colors be if it were normal?

Phase 1 of LEA-Net (Katafuchi & Tokunaga, arXiv 2109.05493). A U-Net learns to predict the colors
(a, b of CIE Lab) of *normal* images from their lightness L. On a new image it paints what normal
would look like; the CIEDE2000 difference to the real colors is the anomaly map, in color-difference
units, and its mean the image score.

Different from the paper: the network is half as wide (`base` 32; `--preset paper` has 64 and 500
epochs), early stopping looks at held-out normals and restores the best weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from leanet.config import option
from leanet.data.folds import hold_out
from leanet.data.loader import Source
from leanet.methods.recipe import (
    INFERENCE_BATCH,
    DetectorModule,
    Experience,
    HeldOut,
    Material,
    Trained,
    score_images,
)
from leanet.networks.unet import UNet, unet_depth
from leanet.ops.color import (
    delta_e_2000,
    fancy_pca,
    lab_to_rgb,
    rgb_principal_components,
    rgb_to_lab,
)
from leanet.ops.maps import MapReduction, fit_scale, map_score
from leanet.records import NORMAL, Batch, Fold, Prediction
from leanet.runtime import Runtime
from leanet.training.loop import Job, Loss, Schedule, best_epoch, fit, mean_losses

FEWEST_FOR_HOLD_OUT = 20  # with fewer training normals all of them train


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of the colorizer."""

    epochs: int = option(100, "upper limit; early stopping may end sooner")
    batch_size: int = option(16, "images per step")
    lr: float = option(1e-3, "step size of Adam")
    lr_schedule: Literal["constant", "cosine"] = option("constant", "course of the step size")
    patience: int = option(20, "epochs without improvement before stopping; 0 = never stop early")
    val_fraction: float = option(0.1, "share of the training normals held out to stop on")
    base: int = option(32, "channels of the U-Net's first layer; the paper's Table 9 has 64")
    dropout: float = option(0.0, "dropout in the first three decoder layers")
    loss: Literal["mse", "bce", "l1"] = option("mse", "distance of predicted and true colors")
    pca_sigma: float = option(0.1, "SD of the fancy PCA color shift in training; 0 = none")
    pca_form: Literal["variance", "std"] = option(
        "variance", "shift by eigenvalues (Krizhevsky 2012) or by their square roots"
    )
    map_score: MapReduction = option("mean", "how a map becomes an image score")


PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"base": 64, "epochs": 500, "lr": 1e-3, "lr_schedule": "constant"}
}


class Normals(NamedTuple):
    """Normal images to train on, to stop on, and for how long where nothing is held out."""

    rest: tuple[int, ...]
    held: tuple[int, ...] = ()
    epochs: int | None = None


class Colorizer(DetectorModule):
    """Detector: score [B] and map [B, 1, S, S], both in CIEDE2000 units."""

    map_unit = "dE00"

    def __init__(self, network: UNet, img_size: int, how: MapReduction, map_top: float) -> None:
        super().__init__()
        self.network, self.img_size, self.how, self.map_top = network, img_size, how, map_top

    def forward(self, image: Tensor) -> Prediction:
        """Images [B, 3, S, S] in [0, 1] -> Prediction."""
        lab = rgb_to_lab(image)
        anomaly_map = delta_e_2000(lab, self.repaint(lab))
        return Prediction(map_score(anomaly_map, self.how), anomaly_map)

    def repaint(self, lab: Tensor) -> Tensor:
        """The same lightness with the colors that the network expects, Lab [B, 3, S, S]."""
        return torch.cat([lab[:, :1], decode_colors(self.network(lab[:, :1] / 100))], dim=1)

    def extra(self) -> dict[str, Any]:
        """Top of the display scale."""
        return {"map_top": self.map_top}

    def explain(self, image: Tensor) -> dict[str, Tensor]:
        """The repainted image, RGB [B, 3, S, S]."""
        return {"repainted": lab_to_rgb(self.repaint(rgb_to_lab(image)))}


def encode_colors(lab: Tensor) -> Tensor:
    """a, b of Lab [B, 3, H, W] as network targets in [0, 1], [B, 2, H, W]."""
    return (lab[:, 1:] + 128) / 255


def decode_colors(output: Tensor) -> Tensor:
    """Network output in [0, 1] -> a, b."""
    return output * 255 - 128


def build(config: Config, img_size: int, extra: dict[str, Any]) -> Colorizer:
    """The detector with random weights."""
    depth = unet_depth(img_size)
    network = UNet(1, 2, depth=depth, base=config.base, dropout=config.dropout)
    return Colorizer(network, img_size, config.map_score, extra["map_top"])


def train(
    config: Config,
    fold: Fold,
    data: Material,
    folder: Path,
    runtime: Runtime,
    experience: Experience | None = None,
) -> Trained:
    """Train on the normal images of `fold.train`; the anomalous ones are not looked at."""
    normals = tuple(i for i in fold.train if data.labels[i] == NORMAL)
    if experience is None:
        parts = split_normals(config, normals, data, runtime)
    else:
        parts = Normals(normals, epochs=experience.epochs)
    detector, epochs = train_on(config, parts, data, folder, runtime, name=fold.name)
    detector.map_top = display_top(detector, data, parts.held or normals)
    if experience is not None:
        return Trained(detector, experience.held_out, epochs, {})
    unseen = parts.held or normals
    scores = score_images(detector, data.images, unseen)
    remarks = {"threshold_in_sample": not parts.held}
    return Trained(detector, HeldOut(unseen, scores), epochs, remarks)


@torch.inference_mode()
def display_top(detector: Colorizer, data: Material, normals: Sequence[int]) -> float:
    """Where the color scale of heat maps ends: the 99.9 % quantile of normal pixels."""
    source = Source(images=data.images, labels=data.labels, indices=tuple(normals))
    maps = (detector(batch.image).map for _, batch in source.ordered(INFERENCE_BATCH))
    scale = fit_scale(anomaly_map.cpu() for anomaly_map in maps)
    return scale.divisor


def split_normals(
    config: Config, normals: Sequence[int], data: Material, runtime: Runtime
) -> Normals:
    """The normals in two parts; nothing is held out of fewer than 20."""
    if len(normals) < FEWEST_FOR_HOLD_OUT or config.val_fraction == 0:
        return Normals(tuple(normals))
    rest, held = hold_out(normals, data.samples, config.val_fraction, seed=runtime.seed)
    return Normals(tuple(rest), tuple(held))


def train_on(
    config: Config,
    normals: Normals,
    data: Material,
    folder: Path,
    runtime: Runtime,
    *,
    name: str,
) -> tuple[Colorizer, int]:
    """The detector and after how many epochs it was best."""
    with runtime.seeded(name, "colorizer"):
        detector = build(config, data.img_size, {"map_top": 0.0}).to(runtime.device)
    source = Source(images=data.images, labels=data.labels, indices=normals.rest)
    loss = _loss(config, source)
    schedule = Schedule(
        epochs=config.epochs,
        batch_size=config.batch_size,
        lr=config.lr,
        lr_schedule=config.lr_schedule,
        patience=config.patience,
        monitor="" if normals.epochs else "val_loss" if normals.held else "train_loss",
        stop_at=normals.epochs,
    )
    held = Source(images=data.images, labels=data.labels, indices=normals.held)
    job = Job(
        name=name,
        network=detector.network,
        loss=loss,
        source=source,
        schedule=schedule,
        validate=partial(mean_losses, loss=loss, source=held, batch_size=config.batch_size)
        if normals.held
        else None,
        files=[sample.path for sample in data.samples],
    )
    records = fit(job, runtime, folder)
    detector.eval()
    return detector, best_epoch(records, schedule.monitor) + 1


def _loss(config: Config, source: Source) -> Loss:
    """Distance of predicted and true colors; in training after a fancy PCA shift of the image."""
    pixels = (batch.image for _, batch in source.ordered(config.batch_size))
    eigenvalues, eigenvectors = rgb_principal_components(pixels)
    distances: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "mse": functional.mse_loss,
        "bce": functional.binary_cross_entropy,
        "l1": functional.l1_loss,
    }
    distance = distances[config.loss]

    def loss(network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        image = batch.image
        if network.training and config.pca_sigma > 0:
            alpha = torch.randn(len(image), 3).to(image) * config.pca_sigma
            image = fancy_pca(image, eigenvalues, eigenvectors, alpha=alpha, form=config.pca_form)
        lab = rgb_to_lab(image)
        predicted = network(lab[:, :1] / 100).float()
        return {"loss": distance(predicted, encode_colors(lab).clamp(0, 1))}

    return loss
