"""What the plain classifier and LEA-Net have in common: the same loop, the same held-out part, the
same options, so that a comparison of the two compares the methods and nothing else."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from leanet.config import option
from leanet.data.cache import Cache
from leanet.data.loader import ANOMALOUS_SHARE, Source
from leanet.data.transforms import Augment, augment
from leanet.methods.balance import Wanted, of_several, of_two
from leanet.methods.extra import Beside, Extra, extra_labels, joined, make_extras, parts
from leanet.methods.extra import Options as ExtraOptions
from leanet.methods.recipe import Material
from leanet.networks.blocks import StagedClassifier
from leanet.networks.choose import ADNS, TIMM, build_adn
from leanet.networks.timm_stages import TimmStages, hub_weights, require_hub
from leanet.networks.weights import load_tensors, load_weights, require_file
from leanet.records import ANOMALOUS, Batch, Fold
from leanet.runtime import Runtime
from leanet.training.loop import (
    Job,
    Loss,
    LrSchedule,
    Schedule,
    best_epoch,
    fit,
    mean_losses,
    settle_norms,
)


@dataclass(frozen=True, kw_only=True)
class Config(ExtraOptions):
    """Options of every supervised method."""

    adn: str = option(
        "resnet18",
        f"the classifier: {', '.join(ADNS)}, or timm/NAME for any timm backbone",
    )
    adn_args: dict[str, Any] = field(
        default_factory=dict,
        metadata={"help": "arguments for timm's create_model, e.g. {pad_type: same}"},
    )
    weights: str | None = option(None, "file with ImageNet weights of `adn` (safetensors or torch)")
    pretrained: bool = option(False, "take the weights from timm's hub (needs a network)")
    mean: tuple[float, float, float] = option(
        (0.0, 0.0, 0.0), "subtracted from the RGB image in [0, 1]; ImageNet: 0.485, 0.456, 0.406"
    )
    std: tuple[float, float, float] = option(
        (1.0, 1.0, 1.0), "divides the image after that; ImageNet: 0.229, 0.224, 0.225"
    )
    epochs: int = option(40, "upper limit; early stopping may end sooner")
    batch_size: int = option(16, "images per step")
    lr: float = option(1e-3, "step size of Adam; the paper has 1e-4 for ResNets")
    lr_schedule: LrSchedule = option(
        "cosine", "course of the step size; warmup = cosine after 5 % of rising"
    )
    weight_decay: float = option(0.0, "decoupled weight decay (AdamW)")
    patience: int = option(20, "epochs without improvement before stopping; 0 = never stop early")
    monitor: str = option(
        "auto",
        "journal entry to stop on and to keep the best weights of, '' = last weights; auto = "
        "val_loss if at least 5 anomalous images are held out, else the last weights",
    )
    val_fraction: float = option(
        0.2, "share of the training images held out to stop on and to take thresholds from"
    )
    val_anomalous: Literal["auto", "always"] = option(
        "auto",
        "whether anomalous images are held out, too; auto = only where 5 or more would be: fewer "
        "decide nothing, and are worth more in training",
    )
    balance: Wanted = option(
        "auto",
        "against class imbalance: weigh the loss, or fill a quarter of each batch with anomalous "
        "images; auto = batches where they are rarer than that",
    )
    norm_batches: int = option(
        20,
        "batches, with every image once, from which BatchNorms take their statistics anew before "
        "an epoch is measured and at the end; 0 = running averages, which lag in short trainings",
    )
    augment: Augment = option("affine", "random changes of image and map: flips, affine")
    num_outputs: Literal[1, 2] = option(
        1, "units of a head: one logit, or a softmax pair as in the original program"
    )
    keep_positive: float = option(
        1.0, "share of the anomalous training images to train on; smaller shares are subsets"
    )
    tries: int = option(
        1, "train so many draws of initial weights and let held-out images choose one of them"
    )
    draw: int = option(
        0, "another draw of initial weights, order and kept positives, on the same folds"
    )


AnyConfig = TypeVar("AnyConfig", bound=Config)
FEWEST_TO_STOP_ON = 5  # held-out anomalous images; with fewer the held-out loss is mostly noise
PAPER: dict[str, Any] = {
    "epochs": 100,
    "batch_size": 16,
    "lr": 1e-4,
    "lr_schedule": "constant",
    "weight_decay": 0.0,
    "monitor": "",
    "patience": 0,
    "augment": "none",
    "balance": "none",
    "norm_batches": 0,
}


def build_classifier(
    config: Config, in_chans: int, num_outputs: int, img_size: int, **attention: Any
) -> StagedClassifier:
    """The network that `config.adn` names, with random weights; `attention` as for `build_adn`."""
    return build_adn(
        config.adn, in_chans, num_outputs, img_size=img_size, **attention, **config.adn_args
    )


def has_weights(config: Config) -> bool:
    """Whether the network starts from trained weights."""
    return config.weights is not None or config.pretrained


def require_weights(config: Config) -> None:
    """Refuse weights that cannot be had, before any work on maps.

    Raises:
        ValueError: a file and the hub were both asked for, no such file, or a hub out of reach.
    """
    if config.weights is not None and config.pretrained:
        raise ValueError("give either a file with --weights or --pretrained, not both")
    if config.weights is not None:
        require_file(Path(config.weights))
    elif config.pretrained:
        require_hub(config.adn.removeprefix(TIMM))


def start_from_weights(
    config: Config, network: StagedClassifier, img_size: int, in_chans: int = 3
) -> None:
    """Load the file `config.weights`, or with `pretrained` timm's weights, if asked for.

    The head keeps its own weights where the file's do not fit.

    Raises:
        ValueError: both were asked for, weights that do not fit, or a hub that cannot be reached.
    """
    require_weights(config)
    if not has_weights(config):
        return
    file = None if config.weights is None else Path(config.weights)
    if isinstance(network, TimmStages):
        given = {"weights": file, "pretrained": config.pretrained, **config.adn_args}
        loaded = build_adn(config.adn, in_chans, img_size=img_size, **given)
        assert isinstance(loaded, TimmStages)
        network.stages.load_state_dict(loaded.stages.state_dict())
    elif file is not None:
        load_weights(network, file)
    else:
        load_tensors(network, hub_weights(config.adn), source=f"timm model {config.adn}")


class Normalize(nn.Module):
    """RGB in [0, 1] to what the backbone was trained on."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Images [B, 3, H, W] -> the same shape."""
        return (image - self.mean) / self.std


def extras_of(
    config: Config,
    fold: Fold,
    rest: tuple[int, ...],
    data: Material,
    folder: Path,
    runtime: Runtime,
) -> tuple[Extra, ...]:
    """The extra images beside the samples `rest` in training; errors as those of `make_extras`."""
    anomalous = sum(data.labels[i] == ANOMALOUS for i in rest) / len(rest)
    if anomalous and config.balance in ("auto", "batches"):
        anomalous = max(anomalous, ANOMALOUS_SHARE)
    beside = Beside(
        rest=rest,
        part=fold.name,
        anomalous_share=anomalous,
        names=seed_names(config, fold.name),
        folder=folder,
    )
    return make_extras(config, beside, data, runtime)


def refuse_without_maps(extras: Sequence[Extra], maps: Cache | None) -> None:
    """Raise ValueError where the maps that teach attention are those of the samples alone."""
    if maps is not None and extras:
        raise ValueError(
            "--transfer_from map has no maps of synthetic or generated images; leave one of them "
            "out"
        )


def told_of(extras: Sequence[Extra]) -> dict[str, Any]:
    """What the remarks of a training say about the extra images; {} without any."""
    return {"extra": [extra.told() for extra in extras]} if extras else {}


def counts(indices: Sequence[int], data: Material) -> dict[str, int]:
    """How many normal and anomalous images these are."""
    anomalous = sum(data.labels[i] == ANOMALOUS for i in indices)
    return {"normal": len(indices) - anomalous, "anomalous": anomalous}


def draws(config: AnyConfig) -> dict[str, AnyConfig]:
    """One configuration for each of `config.tries` draws, by name; where there are several,
    anomalous images are held out to choose by."""
    if config.tries < 1:
        raise ValueError(f"tries {config.tries}: give 1 or more")
    if config.tries == 1:
        return {f"draw {config.draw}": config}
    numbers = range(config.draw, config.draw + config.tries)
    choosing = dataclasses.replace(config, tries=1, val_anomalous="always")
    return {f"draw {d}": dataclasses.replace(choosing, draw=d) for d in numbers}


def seed_names(config: Config, name: str) -> tuple[str, ...]:
    """What the draws of a training are named after: its name, and `config.draw` if that is not
    the first."""
    return (name,) if config.draw == 0 else (name, f"draw {config.draw}")


HeadsLoss = Callable[[nn.Module, Batch, Tensor | None], dict[str, Tensor]]
"""(network, batch, weight of the anomalous images, weights [K] of the classes, or None) -> losses,
as the loop wants them."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to train, on which images, and how long."""

    name: str
    network: nn.Module
    loss: HeadsLoss
    rest: tuple[int, ...]  # samples to train on
    held: tuple[int, ...]  # samples to stop on; empty: train for `epochs`
    maps: Cache | None = None
    epochs: int | None = None
    param_groups: tuple[dict[str, Any], ...] = ()
    classes: tuple[int, ...] | None = None  # class of every sample; None = normal and anomalous
    measured: tuple[int, ...] = ()  # training samples whose loss is taken as that of `held`, too
    methods: tuple[str, ...] = ()  # of the network that the loss calls beside forward
    extras: tuple[Extra, ...] = ()  # to train on, too; numbered after the samples


def train_network(
    config: Config, plan: Plan, data: Material, folder: Path, runtime: Runtime
) -> int:
    """Train `plan.network` in place; returns the best number of epochs."""
    job = _job(config, plan, data)
    return best_epoch(fit(job, runtime, folder), job.schedule.monitor) + 1


def settle(config: Config, plan: Plan, data: Material, runtime: Runtime) -> None:
    """Give the BatchNorms of `plan.network`, which was not trained as it stands, their statistics
    from its images."""
    settle_norms(_job(config, plan, data), plan.network, runtime, epoch=config.epochs)
    plan.network.eval()


def _job(config: Config, plan: Plan, data: Material) -> Job:
    source = dataclasses.replace(_source(plan, data, plan.rest), extra=parts(data, plan.extras))
    several = plan.classes is not None
    balance, weight = (of_several if several else of_two)(config.balance, source)
    loss = _augmented(config, plan.loss, weight)
    measure = partial(_measure, plan=plan, data=data, loss=loss, batch_size=config.batch_size)
    schedule = Schedule(
        epochs=config.epochs,
        batch_size=config.batch_size,
        lr=config.lr,
        weight_decay=config.weight_decay,
        lr_schedule=config.lr_schedule,
        patience=config.patience,
        monitor=_monitor(config, _source(plan, data, plan.held), several=several),
        stop_at=plan.epochs,
        balance=balance,
        norm_batches=config.norm_batches,
    )
    return Job(
        name=" ".join(seed_names(config, plan.name)),
        network=plan.network,
        loss=loss,
        source=source,
        schedule=schedule,
        validate=measure if plan.held or plan.measured else None,
        files=[s.path for s in data.samples] + [Path(k) for e in plan.extras for k in e.kinds],
        param_groups=plan.param_groups,
        methods=plan.methods,
    )


def _monitor(config: Config, held: Source, *, several: bool) -> str:
    if config.monitor != "auto":
        measured = held.indices or config.monitor.startswith("train_")
        return config.monitor if measured else ""
    counts = Counter(held.labels[i] for i in held.indices)
    decisive = set(held.labels) if several else {ANOMALOUS}
    return "val_loss" if min(counts[c] for c in decisive) >= FEWEST_TO_STOP_ON else ""


def _source(plan: Plan, data: Material, indices: tuple[int, ...]) -> Source:
    labels = data.labels if plan.classes is None else plan.classes
    return Source(
        images=joined(data, plan.extras),
        labels=labels + extra_labels(plan.extras),
        indices=indices,
        maps=plan.maps,
    )


def _measure(
    network: nn.Module, *, plan: Plan, data: Material, loss: Loss, batch_size: int
) -> dict[str, float]:
    """Losses of the held-out images ("val_") and of the measured training images ("fit_")."""
    figures: dict[str, float] = {}
    for prefix, indices in (("val_", plan.held), ("fit_", plan.measured)):
        if indices:
            figures |= mean_losses(network, loss, _source(plan, data, indices), batch_size, prefix)
    return figures


def refuse_head(head: str) -> None:
    """Raise ValueError for a named head, for a network with one."""
    if head:
        raise ValueError(f"head {head!r}: this network has only one head; leave it out")


def one_logit(logits: Tensor) -> Tensor:
    """Logits [B, 1], or a softmax pair [B, 2], as the logit of "anomalous" [B]."""
    return logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]


def binary_loss(logits: Tensor, label: Tensor, positive_weight: Tensor | None) -> Tensor:
    """Cross-entropy of logits [B, 1] or [B, 2] against labels [B]."""
    return functional.binary_cross_entropy_with_logits(
        one_logit(logits.float()), label, pos_weight=positive_weight
    )


def _augmented(config: Config, heads_loss: HeadsLoss, positive_weight: Tensor | None) -> Loss:
    def loss(network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        if not network.training:
            return heads_loss(network, batch, None)
        return heads_loss(network, augment(batch, config.augment), positive_weight)

    return loss
