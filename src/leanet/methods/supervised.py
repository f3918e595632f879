"""What the plain classifier and LEA-Net have in common: the same loop, the same held-out part, the
same options, so that a comparison of the two compares the methods and nothing else."""

from __future__ import annotations

import dataclasses
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
from leanet.data.folds import hold_out
from leanet.data.loader import ANOMALOUS_SHARE, Balance, Source
from leanet.data.transforms import Augment, augment
from leanet.methods.recipe import Experience, Material
from leanet.networks.blocks import StagedClassifier
from leanet.networks.choose import ADNS, build_adn
from leanet.networks.timm_stages import TimmStages, hub_weights
from leanet.networks.weights import load_tensors, load_weights
from leanet.records import ANOMALOUS, NORMAL, Batch, Fold
from leanet.runtime import Runtime
from leanet.training.loop import Job, Loss, Schedule, best_epoch, fit, mean_losses


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of every supervised method."""

    adn: str = option(
        "resnet18",
        f"the classifier: {', '.join(ADNS)}, or timm/NAME for any timm backbone",
    )
    self_attention: Literal["none", "se", "cbam", "eca", "simam", "srm"] = option(
        "none", "attention module inside every block of the classifier"
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
    lr_schedule: Literal["constant", "cosine"] = option("cosine", "course of the step size")
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
    balance: Literal["auto", "none", "loss", "batches"] = option(
        "auto",
        "against class imbalance: weigh the loss, or fill a quarter of each batch with anomalous "
        "images; auto = batches where they are rarer than that",
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
}


def build_classifier(config: Config, in_chans: int, img_size: int) -> StagedClassifier:
    """The network that `config.adn` names, with random weights."""
    return build_adn(
        config.adn,
        in_chans,
        config.num_outputs,
        self_attention=config.self_attention,
        identity_start=config.weights is not None or config.pretrained,
        img_size=img_size,
        **config.adn_args,
    )


def start_from_weights(
    config: Config, network: StagedClassifier, img_size: int, in_chans: int = 3
) -> None:
    """Load the file `config.weights`, or with `pretrained` timm's weights, if asked for.

    The head keeps its own weights where the file's do not fit.

    Raises:
        ValueError: both were asked for, weights that do not fit, or a hub that cannot be reached.
    """
    if config.weights is None and not config.pretrained:
        return
    if config.weights is not None and config.pretrained:
        raise ValueError("give either a file with --weights or --pretrained, not both")
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


def parts_of(
    config: Config,
    fold: Fold,
    data: Material,
    runtime: Runtime,
    experience: Experience | None,
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(to train on, held out). With experience nothing is held out.

    Raises:
        ValueError: only one class in the training part.
    """
    train = kept_positives(config, fold, data.labels, runtime)
    counts = [sum(data.labels[i] == label for i in train) for label in (NORMAL, ANOMALOUS)]
    if min(counts) == 0:
        raise ValueError(
            f"the training part has {counts[0]} normal and {counts[1]} anomalous images, and this "
            "method needs both; `leanet fit colorizer` learns from normal images alone"
        )
    if experience is not None or config.val_fraction == 0:
        return train, ()
    rest, held = hold_out(train, data.samples, config.val_fraction, seed=runtime.seed)
    return tuple(rest), tuple(held)


def kept_positives(
    config: Config, fold: Fold, labels: Sequence[int], runtime: Runtime
) -> tuple[int, ...]:
    """The training part with a share of its anomalous images, at least one; the subsets of
    smaller shares are nested.

    Raises:
        ValueError: a share outside (0, 1].
    """
    if not 0 < config.keep_positive <= 1:
        raise ValueError(f"keep_positive {config.keep_positive}: give a share above 0, at most 1")
    positives = [i for i in fold.train if labels[i] == ANOMALOUS]
    generator = runtime.generator(*seed_names(config, fold.name), "keep_positive")
    order = torch.randperm(len(positives), generator=generator).tolist()
    dropped = {positives[k] for k in order[max(1, round(config.keep_positive * len(order))) :]}
    return tuple(i for i in fold.train if i not in dropped)


def counts(indices: Sequence[int], data: Material) -> dict[str, int]:
    """How many normal and anomalous images these are."""
    anomalous = sum(data.labels[i] == ANOMALOUS for i in indices)
    return {"normal": len(indices) - anomalous, "anomalous": anomalous}


def draws(config: AnyConfig) -> dict[str, AnyConfig]:
    """One configuration for each of `config.tries` draws, by name."""
    if config.tries < 1:
        raise ValueError(f"tries {config.tries}: give 1 or more")
    numbers = range(config.draw, config.draw + config.tries)
    return {f"draw {d}": dataclasses.replace(config, draw=d, tries=1) for d in numbers}


def seed_names(config: Config, name: str) -> tuple[str, ...]:
    """What the draws of a training are named after: its name, and `config.draw` if that is not
    the first."""
    return (name,) if config.draw == 0 else (name, f"draw {config.draw}")


HeadsLoss = Callable[[nn.Module, Batch, Tensor | None], dict[str, Tensor]]
"""(network, batch, weight of the anomalous images or None) -> losses, as the loop wants them."""


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


def train_network(
    config: Config, plan: Plan, data: Material, folder: Path, runtime: Runtime
) -> int:
    """Train `plan.network` in place; returns the best number of epochs."""
    source = Source(images=data.images, labels=data.labels, indices=plan.rest, maps=plan.maps)
    held = Source(images=data.images, labels=data.labels, indices=plan.held, maps=plan.maps)
    balance, positive_weight = _balance(config, source)
    loss = _augmented(config, plan.loss, positive_weight)
    monitor = _monitor(config, held)
    schedule = Schedule(
        epochs=config.epochs,
        batch_size=config.batch_size,
        lr=config.lr,
        weight_decay=config.weight_decay,
        lr_schedule=config.lr_schedule,
        patience=config.patience,
        monitor=monitor,
        stop_at=plan.epochs,
        balance=balance,
    )
    job = Job(
        name=" ".join(seed_names(config, plan.name)),
        network=plan.network,
        loss=loss,
        source=source,
        schedule=schedule,
        validate=partial(mean_losses, loss=loss, source=held, batch_size=config.batch_size)
        if plan.held
        else None,
        files=[sample.path for sample in data.samples],
        param_groups=plan.param_groups,
    )
    return best_epoch(fit(job, runtime, folder), monitor) + 1


def _monitor(config: Config, held: Source) -> str:
    if config.monitor != "auto":
        measured = held.indices or config.monitor.startswith("train_")
        return config.monitor if measured else ""
    return "val_loss" if held.num_anomalous() >= FEWEST_TO_STOP_ON else ""


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


def _balance(config: Config, source: Source) -> tuple[Balance, Tensor | None]:
    anomalous = source.num_anomalous()
    normal = len(source.indices) - anomalous
    if config.balance == "loss":
        return "none", torch.tensor(normal / anomalous, device=source.images.device)
    if config.balance == "auto":
        rare = anomalous / len(source.indices) < ANOMALOUS_SHARE
        return ("batches" if rare else "none"), None
    return config.balance, None
