"""Classifier: the plain network, image in, good or bad out.

The control of every comparison: the same classifier as in LEA-Net, trained by the same loop on the
same images, without a map.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from leanet.methods import supervised
from leanet.methods.choice import train_best
from leanet.methods.recipe import (
    DetectorModule,
    Experience,
    HeldOut,
    Material,
    Trained,
    score_images,
)
from leanet.methods.supervised import Normalize, Plan, binary_loss, one_logit, seed_names
from leanet.networks.blocks import StagedClassifier
from leanet.records import Batch, Fold, Prediction
from leanet.runtime import Runtime


@dataclass(frozen=True, kw_only=True)
class Config(supervised.Config):
    """Options of the plain classifier."""


PRESETS: dict[str, dict[str, Any]] = {"paper": supervised.PAPER}


class Classifier(DetectorModule):
    """Detector: score [B] is the logit of "anomalous"; there is no map."""

    network: StagedClassifier
    logits = ("score",)

    def __init__(self, normalize: Normalize, network: StagedClassifier, img_size: int) -> None:
        super().__init__()
        self.normalize, self.network, self.img_size = normalize, network, img_size

    def forward(self, image: Tensor) -> Prediction:
        """Images [B, 3, S, S] in [0, 1] -> Prediction."""
        return Prediction(one_logit(self.network(self.normalize(image))))


def build(config: Config, img_size: int, extra: dict[str, Any]) -> Classifier:
    """The detector with random weights."""
    network = supervised.build_classifier(config, 3, img_size)
    return Classifier(Normalize(config.mean, config.std), network, img_size)


def train(
    config: Config,
    fold: Fold,
    data: Material,
    folder: Path,
    runtime: Runtime,
    experience: Experience | None = None,
) -> Trained:
    """Train on the images of both classes in `fold.train`; with `tries`, the best of them."""
    if config.tries > 1:
        draws = supervised.draws(config)
        return train_best(train, draws, fold, data, folder, runtime, experience)
    rest, held = supervised.parts_of(config, fold, data, runtime, experience)
    with runtime.seeded(*seed_names(config, fold.name), "adn"):
        detector = build(config, data.img_size, {}).to(runtime.device)
    supervised.start_from_weights(config, detector.network, data.img_size)
    plan = Plan(
        name=f"{fold.name} classifier",
        network=detector.network,
        loss=_loss(detector.normalize),
        rest=rest,
        held=held,
        epochs=experience.epochs if experience else None,
    )
    epochs = supervised.train_network(config, plan, data, folder, runtime)
    remarks: dict[str, Any] = {"trained_on": supervised.counts(rest, data)}
    if experience is not None:
        return Trained(detector, experience.held_out, epochs, remarks)
    unseen = held or rest
    scores = score_images(detector, data.images, unseen)
    remarks["threshold_in_sample"] = not held
    return Trained(detector, HeldOut(unseen, scores), epochs, remarks)


def _loss(normalize: Normalize) -> supervised.HeadsLoss:
    def loss(network: nn.Module, batch: Batch, positive_weight: Tensor | None) -> dict[str, Tensor]:
        logit = network(normalize(batch.image))
        return {"loss": binary_loss(logit, batch.label, positive_weight)}

    return loss
