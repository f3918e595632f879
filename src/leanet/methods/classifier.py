"""Classifier: the plain network, or one with self-attention; image in, good or bad out.

The control of every comparison: the same classifier as in LEA-Net, trained by the same loop on the
same images, without a map. Where the data set has several classes, `leanet.methods.classes` tells
those apart instead.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from leanet.methods import attention, classes, supervised
from leanet.methods.attention import Config
from leanet.methods.choice import train_best
from leanet.methods.held_out import parts_of
from leanet.methods.recipe import (
    DetectorModule,
    Experience,
    HeldOut,
    Material,
    Method,
    Trained,
    score_images,
)
from leanet.methods.supervised import Normalize, Plan, binary_loss, one_logit, seed_names
from leanet.methods.transfer import Teach, find_teacher
from leanet.networks.abn import ABN
from leanet.networks.blocks import StagedClassifier
from leanet.ops.embedding import pooled
from leanet.records import Batch, Fold, Prediction
from leanet.runtime import Runtime

COMPARISON: dict[str, Any] = {
    "epochs": 50,
    "batch_size": 32,
    "lr": 1e-3,
    "lr_schedule": "warmup",
    "weight_decay": 0.05,
    "dropout": 0.1,
    "monitor": "",
    "patience": 0,
    "augment": "crop",
    "balance": "none",
    "norm_batches": 0,
}
PRESETS: dict[str, dict[str, Any]] = {"paper": supervised.PAPER, "comparison": COMPARISON}


class Classifier(DetectorModule):
    """Detector: score [B] is the logit of "anomalous"; map [B, 1, S, S] that of ABN, or None."""

    network: StagedClassifier
    logits = ("score",)

    def __init__(self, normalize: Normalize, network: StagedClassifier, img_size: int) -> None:
        super().__init__()
        self.normalize, self.network, self.img_size = normalize, network, img_size
        if isinstance(network, ABN):
            self.map_unit, self.map_top = "attention", 1.0

    def forward(self, image: Tensor) -> Prediction:
        """Images [B, 3, S, S] in [0, 1] -> Prediction."""
        logits, anomaly_map = classes.logits_and_map(self.network, *self.prepare(image))
        return Prediction(one_logit(logits), anomaly_map)

    def prepare(self, image: Tensor) -> tuple[Tensor, ...]:
        """The normalized images."""
        return (self.normalize(image),)

    def embed(self, image: Tensor) -> Tensor:
        """What the stages before the last see: that one only tells the classes apart."""
        features = self.network.features(*self.prepare(image))
        return pooled(*(features[:-1] or features))

    def logits_of(self, output: Any, head: str = "") -> Tensor:
        """There is one head: [B, 1 or 2]."""
        supervised.refuse_head(head)
        logits: Tensor = output
        return logits


def build(config: Config, img_size: int, extra: dict[str, Any]) -> DetectorModule:
    """The detector with random weights."""
    if extra.get("classes"):
        return classes.build(config, img_size, extra)
    network = attention.build_network(config, config.num_outputs, img_size)
    return Classifier(Normalize(config.mean, config.std), network, img_size)


def train(
    config: Config,
    fold: Fold,
    data: Material,
    folder: Path,
    runtime: Runtime,
    experience: Experience | None = None,
) -> Trained:
    """Train on the images of both classes in `fold.train`, with `tries` the best of them; or on
    those of several classes."""
    if config.tries > 1 and not data.classes:
        draws = supervised.draws(config)
        return train_best(train, draws, fold, data, folder, runtime, experience)
    supervised.require_weights(config)
    teacher = find_teacher(config, _classifier, fold, data, folder, runtime)
    if data.classes:
        return classes.train(config, fold, data, folder, runtime, experience, teacher)
    rest, held = parts_of(config, fold, data, runtime, experience)
    with runtime.seeded(*seed_names(config, fold.name), "adn"):
        detector = build(config, data.img_size, {}).to(runtime.device)
    assert isinstance(detector, Classifier)
    attention.start_from_weights(config, detector.network, data.img_size)
    teach, maps = teacher
    extras = supervised.extras_of(config, fold, rest, data, folder, runtime)
    supervised.refuse_without_maps(extras, maps)
    plan = Plan(
        name=f"{fold.name} classifier",
        network=detector.network,
        loss=_loss(config, detector.normalize, teach),
        rest=rest,
        held=held,
        maps=maps,
        epochs=experience.epochs if experience else None,
        param_groups=attention.param_groups(config, detector.network),
        methods=attention.called(config),
        extras=extras,
    )
    epochs = supervised.train_network(config, plan, data, folder, runtime)
    remarks: dict[str, Any] = {
        "trained_on": supervised.counts(rest, data),
        **attention.measure(config, detector, data, held or rest),
        **supervised.told_of(extras),
    }
    if experience is not None:
        return Trained(detector, experience.held_out, epochs, remarks)
    unseen = held or rest
    scores = score_images(detector, data.images, unseen)
    remarks["threshold_in_sample"] = not held
    return Trained(detector, HeldOut(unseen, scores), epochs, remarks)


def _classifier(name: str) -> Method:
    """The one method that can teach."""
    if name != "classifier":
        raise ValueError(f"--transfer_from needs a run of `leanet fit classifier`, not of {name}")
    return Method(Config, PRESETS, train, build, True)


def _loss(config: Config, normalize: Normalize, teach: Teach | None) -> supervised.HeadsLoss:
    def loss(network: nn.Module, batch: Batch, positive_weight: Tensor | None) -> dict[str, Tensor]:
        heads = attention.run(config, network, normalize(batch.image))
        total = binary_loss(heads.logits, batch.label, positive_weight)
        right = (one_logit(heads.logits) > 0) == (batch.label > 0)
        told = {"accuracy": right.float().mean()}
        if heads.branch is not None:
            told["branch_loss"] = binary_loss(heads.branch, batch.label, positive_weight)
            total = total + told["branch_loss"]
        if teach is not None and network.training:
            told["transfer_loss"] = teach(heads, batch, batch.image)
            total = total + told["transfer_loss"]
        return {"loss": total, **told}

    return loss
