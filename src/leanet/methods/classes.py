"""Classifier of several classes: image in, a probability for each class out.

Every image's class is the folder it lies in (`leanet.data.class_list`). Where one of the classes is
the normal one, 1 - p(normal) is the score of an anomaly detector, with a threshold from held-out
images; where none is, the score is always 0 and only the classes count.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from leanet.data.class_list import class_numbers
from leanet.data.folds import hold_out
from leanet.methods import attention, supervised
from leanet.methods.attention import Config
from leanet.methods.recipe import (
    DetectorModule,
    Experience,
    HeldOut,
    Material,
    Trained,
    score_images,
)
from leanet.methods.supervised import Normalize, Plan, seed_names
from leanet.methods.transfer import Teach
from leanet.networks.abn import ABN
from leanet.networks.blocks import StagedClassifier
from leanet.ops.embedding import pooled
from leanet.records import Batch, Fold, Prediction
from leanet.runtime import Runtime

FEWEST_VALIDATED = 5  # images of a class in the validation part of a split that we draw ourselves
MEASURED = 128  # training images whose loss and accuracy are taken in evaluation mode, every epoch


class ClassDetector(DetectorModule):
    """Detector: probs [B, K]; score [B] is 1 - p(normal); map [B, 1, S, S] that of ABN, or None."""

    network: StagedClassifier

    def __init__(
        self,
        normalize: Normalize,
        network: StagedClassifier,
        img_size: int,
        classes: tuple[str, ...],
        normal: int | None,
    ) -> None:
        super().__init__()
        self.normalize, self.network, self.img_size = normalize, network, img_size
        self.classes, self.normal = classes, normal
        if isinstance(network, ABN):
            self.map_unit, self.map_top = "attention", 1.0

    def forward(self, image: Tensor) -> Prediction:
        """Images [B, 3, S, S] in [0, 1] -> Prediction."""
        logits, anomaly_map = logits_and_map(self.network, *self.prepare(image))
        probs = logits.float().softmax(dim=1)
        if self.normal is None:
            score = torch.zeros_like(probs[:, 0])
        else:
            others = [k for k in range(len(self.classes)) if k != self.normal]
            score = probs[:, others].sum(dim=1)  # 1 - p(normal), exact where that is tiny
        return Prediction(score, anomaly_map, probs)

    def prepare(self, image: Tensor) -> tuple[Tensor, ...]:
        """The normalized images."""
        return (self.normalize(image),)

    def embed(self, image: Tensor) -> Tensor:
        """What the stages before the last see: that one only tells the classes apart."""
        features = self.network.features(*self.prepare(image))
        return pooled(*(features[:-1] or features))

    def logits_of(self, output: Any, head: str = "") -> Tensor:
        """There is one head: [B, K]."""
        supervised.refuse_head(head)
        logits: Tensor = output
        return logits

    def extra(self) -> dict[str, Any]:
        """The classes, in the order of the outputs, and which of them is normal."""
        return {"classes": self.classes, "normal": self.normal}


def logits_and_map(network: StagedClassifier, image: Tensor) -> tuple[Tensor, Tensor | None]:
    """Logits [B, K] of normalized images [B, 3, S, S], and ABN's attention [B, 1, S, S]."""
    if not isinstance(network, ABN):
        return network(image), None
    attended = network.attend(image)
    upsampled = functional.interpolate(attended.map, image.shape[-2:], mode="bilinear")
    return attended.logits, upsampled


def build(config: Config, img_size: int, extra: dict[str, Any]) -> ClassDetector:
    """The detector with random weights."""
    classes = tuple(extra["classes"])
    network = attention.build_network(config, len(classes), img_size)
    normalize = Normalize(config.mean, config.std)
    return ClassDetector(normalize, network, img_size, classes, extra["normal"])


def train(
    config: Config,
    fold: Fold,
    data: Material,
    folder: Path,
    runtime: Runtime,
    experience: Experience | None,
    teacher: tuple[Teach | None, Any],
) -> Trained:
    """Train on the images of all classes in `fold.train`."""
    _check(config)
    numbers = class_numbers(data.samples, data.classes)
    rest, held = _parts(config, fold, data, numbers, runtime, experience)
    normal = None if data.normal is None else data.classes.index(data.normal)
    with runtime.seeded(*seed_names(config, fold.name), "adn"):
        extra = {"classes": data.classes, "normal": normal}
        detector = build(config, data.img_size, extra).to(runtime.device)
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
        classes=numbers,
        measured=rest[:: max(1, len(rest) // MEASURED)],
        methods=attention.called(config),
        extras=extras,
    )
    epochs = supervised.train_network(config, plan, data, folder, runtime)
    remarks: dict[str, Any] = {
        "trained_on": dict(Counter(data.classes[numbers[i]] for i in rest)),
        **attention.measure(config, detector, data, held or rest),
        **supervised.told_of(extras),
    }
    if experience is not None:
        return Trained(detector, experience.held_out, epochs, remarks)
    unseen = held or rest
    scores = score_images(detector, data.images, unseen)
    remarks["threshold_in_sample"] = not held
    return Trained(detector, HeldOut(unseen, scores), epochs, remarks)


def _check(config: Config) -> None:
    two_class = {"tries": 1, "keep_positive": 1.0, "num_outputs": 1, "synthetic": ""}
    for key, value in two_class.items():
        if getattr(config, key) != value:
            raise ValueError(
                f"{key} is about normal and anomalous images, and this data set has several "
                "classes; leave it out, or use --classes two"
            )


def _parts(
    config: Config,
    fold: Fold,
    data: Material,
    numbers: tuple[int, ...],
    runtime: Runtime,
    experience: Experience | None,
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(to train on, held out); with experience nothing is held out.

    Raises:
        ValueError: too few images to validate on, without cross-validation.
    """
    if experience is not None or config.val_fraction == 0:
        return fold.train, ()
    rest, held = hold_out(fold.train, data.samples, config.val_fraction, seed=runtime.seed)
    counts = Counter(numbers[i] for i in held)
    least = min(range(len(data.classes)), key=lambda k: counts[k])
    if fold.name == "final" and counts[least] < FEWEST_VALIDATED:
        raise ValueError(
            f"only {counts[least]} image(s) of {data.classes[least]} would be left to validate on, "
            f"fewer than {FEWEST_VALIDATED}; cross-validate with --folds 5"
        )
    return tuple(rest), tuple(held)


def _loss(config: Config, normalize: Normalize, teach: Teach | None) -> supervised.HeadsLoss:
    def loss(network: nn.Module, batch: Batch, weight: Tensor | None) -> dict[str, Tensor]:
        heads = attention.run(config, network, normalize(batch.image))
        true = batch.label.long()
        logits = heads.logits.float()
        total = functional.cross_entropy(logits, true, weight)
        told = {"accuracy": (logits.argmax(dim=1) == true).float().mean()}
        if heads.branch is not None:
            told["branch_loss"] = functional.cross_entropy(heads.branch.float(), true, weight)
            total = total + told["branch_loss"]
        if teach is not None and network.training:
            told["transfer_loss"] = teach(heads, batch, batch.image)
            total = total + told["transfer_loss"]
        return {"loss": total, **told}

    return loss
