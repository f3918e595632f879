"""An honest choice among variants of a method: attention points, or draws of initial weights.

The LEA-Net paper trains at each of five attention points and prints the one with the best *test*
score, while its baselines get one training: that flatters. Here a part of each fold's training
images is held out, every variant learns from the rest, the held-out images choose, and the chosen
variant is trained anew on the whole training part, for as many epochs as were best before. The test
images are scored once. A baseline gets as many tries: `tries` draws of its initial weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from leanet.methods.recipe import Experience, HeldOut, Material, Train, Trained
from leanet.ops.metrics import average_precision
from leanet.records import ANOMALOUS, Fold
from leanet.runtime import Runtime
from leanet.training.loop import forget

DECIDING = ("adn", "score")  # the output, a logit, whose loss decides between equal APs


def train_best(
    train: Train,
    variants: Mapping[str, Any],
    fold: Fold,
    data: Material,
    folder: Path,
    runtime: Runtime,
    experience: Experience | None = None,
) -> Trained:
    """Train each of the named configurations on a part of `fold.train`, then the best one on all.

    The best has the highest average precision on the held-out part; the lower cross-entropy
    decides between equals, then the order. Its remarks tell all the values under "choice".

    Raises:
        ValueError: nothing is held out, or only images of one class.
    """
    tried = {
        name: train(config, fold, data, folder / name, runtime, None)
        for name, config in variants.items()
    }
    figures = {name: _figures(trained.held_out, data) for name, trained in tried.items()}
    best = min(figures, key=lambda name: (-figures[name]["ap"], figures[name]["loss"]))
    if experience is None:
        experience = Experience(tried[best].held_out, tried[best].epochs)
    trained = train(variants[best], fold, data, folder / "chosen", runtime, experience)
    for name in (*variants, "chosen"):
        forget(folder / name)
    remarks = {**trained.remarks, "choice": {"chosen": best, "held_out": figures}}
    return trained._replace(remarks=remarks)


def _figures(held_out: HeldOut, data: Material) -> dict[str, float]:
    """Average precision of the score and cross-entropy of the classifier, on held-out images."""
    labels = [data.labels[i] for i in held_out.indices]
    if len(set(labels)) < 2:
        raise ValueError(
            f"a choice needs held-out images of both classes, and {labels.count(ANOMALOUS)} of "
            f"{len(labels)} are anomalous; raise --val_fraction, or choose by hand"
        )
    output = next(name for name in DECIDING if name in held_out.scores)
    logits = torch.tensor(held_out.scores[output], dtype=torch.float64)
    target = torch.tensor(labels, dtype=torch.float64)
    loss = float(functional.binary_cross_entropy_with_logits(logits, target))
    return {
        "ap": average_precision(labels, held_out.scores["score"]),
        "loss": loss if math.isfinite(loss) else math.inf,
    }
