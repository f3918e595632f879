"""A fine-tuned copy of the classifier, which joins guided attention where labels are many.

A frozen backbone cannot learn features that tell the defects at hand apart; a fine-tuned one can,
given some dozens of them. Three copies start from the same weights and each learns from two thirds
of the training images, so that every image is judged by a copy that has not seen it: how much a
copy may say is decided by such judgements alone (ops/correction.py). Their weights are then
averaged into one network, which has learned from all images and costs one pass instead of three
("model soup", Wortsman et al. 2022, arXiv:2203.05482).
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from leanet.data.cache import Cache, images_in_unit_range
from leanet.data.folds import count_groups, split_parts
from leanet.data.loader import Joined
from leanet.methods import supervised
from leanet.methods.lea_config import Config
from leanet.methods.map_models import chunks
from leanet.methods.recipe import Material
from leanet.methods.supervised import Normalize, Plan, binary_loss, one_logit, seed_names
from leanet.networks.blocks import StagedClassifier
from leanet.networks.guided import has_linear_head
from leanet.ops.fusion import spread_of
from leanet.progress import say_once
from leanet.records import ANOMALOUS, NORMAL, Batch, Fold
from leanet.runtime import Runtime
from leanet.training.loop import forget

COPIES = 3


class Tuned(NamedTuple):
    """network: the average of the copies; level, spread: of its logits on normal training images;
    opinions [N]: of every row that was asked for, the logit of a copy that has not seen it, in
    spreads of such logits of normal images, and 0 = their median."""

    network: StagedClassifier
    level: float
    spread: float
    opinions: NDArray[np.float64]


class Rows(NamedTuple):
    """Images to judge: the cache that holds them, their labels, for each the sample that it is or
    was made from (-1 = none), and its number in the cache."""

    images: Cache | Joined
    labels: NDArray[np.int64]
    samples: tuple[int, ...]
    numbers: tuple[int, ...]


def is_wanted(
    config: Config, network: StagedClassifier, rest: Sequence[int], data: Material
) -> bool:
    """Whether there are labelled defects enough; says so where they are, and copies cannot be."""
    defects = sum(data.labels[i] == ANOMALOUS for i in rest)
    if not 0 < config.tuned_from <= defects:
        return False
    apart, hindrance = count_groups(rest, data.samples)[ANOMALOUS], ""
    if apart < COPIES:
        hindrance = f"the {defects} defects are of {apart} groups, and {COPIES} are needed"
    elif not has_linear_head(network):
        hindrance = f"{config.adn} has another head than a linear layer on the channels' means"
    if hindrance:
        say_once(f"notice: no fine-tuned copy joins in: {hindrance}")
    return not hindrance


def fine_tune(
    config: Config,
    fold: Fold,
    rest: tuple[int, ...],
    rows: Rows,
    data: Material,
    folder: Path,
    runtime: Runtime,
) -> Tuned:
    """Train the copies on the samples `rest` and let them judge the `rows`, each by a copy that has
    not seen its sample."""
    config = dataclasses.replace(config, epochs=config.tuned_epochs, monitor="", patience=0)
    normalize = Normalize(config.mean, config.std).to(runtime.device)
    parts = split_parts(rest, data.samples, COPIES, runtime.seed)
    plans = []
    for number, part in enumerate(parts):
        unseen = set(part)
        plan = Plan(
            name=f"{fold.name} copy {number}",
            network=_start(config, fold, data, runtime),
            loss=_loss(normalize),
            rest=tuple(i for i in rest if i not in unseen),
            held=(),
        )
        supervised.train_network(config, plan, data, folder / f"copy-{number}", runtime)
        plans.append(plan)
    judges = [cast(StagedClassifier, plan.network) for plan in plans]
    logits = _unseen(judges, parts, rows, normalize)
    soup = dataclasses.replace(
        plans[0], name=f"{fold.name} copies", network=mean(judges), rest=rest
    )
    supervised.settle(config, soup, data, runtime)
    for number in range(COPIES):
        forget(folder / f"copy-{number}")
    normal = rows.labels == NORMAL
    network = cast(StagedClassifier, soup.network)
    own = _logits(network, rows.images, np.array(rows.numbers)[normal], normalize)
    level, spread = float(np.median(logits[normal])), spread_of(logits[normal])
    return Tuned(network, float(np.median(own)), spread_of(own), (logits - level) / spread)


@torch.no_grad()
def mean(networks: Sequence[StagedClassifier]) -> StagedClassifier:
    """A network whose weights are the means of those of networks of one kind."""
    result = copy.deepcopy(networks[0])
    given = [network.state_dict() for network in networks]
    for name, value in result.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.stack([one[name] for one in given]).mean(dim=0))
    return result


def _start(config: Config, fold: Fold, data: Material, runtime: Runtime) -> StagedClassifier:
    """All copies of a fold start alike: a mean of networks with nothing in common is useless."""
    with runtime.seeded(*seed_names(config, fold.name), "tuned"):
        network = supervised.build_classifier(config, 3, 1, data.img_size)
    supervised.start_from_weights(config, network, data.img_size)
    return network


def _loss(normalize: Normalize) -> supervised.HeadsLoss:
    def loss(network: nn.Module, batch: Batch, positive_weight: Tensor | None) -> dict[str, Tensor]:
        logits = network(normalize(batch.image))
        return {"loss": binary_loss(logits, batch.label, positive_weight)}

    return loss


def _unseen(
    judges: Sequence[StagedClassifier],
    parts: Sequence[Sequence[int]],
    rows: Rows,
    normalize: Normalize,
) -> NDArray[np.float64]:
    """Logits [N] of the rows; of the sample that it was made from, a row's judge knows nothing."""
    judge_of = {sample: k for k, part in enumerate(parts) for sample in part}
    chosen = np.array([judge_of.get(sample, 0) for sample in rows.samples])
    logits = np.empty(len(chosen))
    for k, network in enumerate(judges):
        own = np.flatnonzero(chosen == k)
        logits[own] = _logits(network, rows.images, np.array(rows.numbers)[own], normalize)
    return logits


@torch.inference_mode()
def _logits(
    network: StagedClassifier,
    images: Cache | Joined,
    numbers: NDArray[np.int64],
    normalize: Normalize,
) -> NDArray[np.float64]:
    network.eval()
    seen = (images_in_unit_range(images.take(some)) for some in chunks(numbers.tolist()))
    return np.array([v for image in seen for v in one_logit(network(normalize(image))).tolist()])
