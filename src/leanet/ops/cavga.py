"""The terms of CAVGA as functions of tensors (Venkataramanan et al. 2020, arXiv:1911.08616).

An attention map A in [0, 1] comes from a raw map M by a normalization:

    sigmoid    A = 1 / (1 + exp(-M))
    relu_max   A = max(M, 0) / (largest of this image + 1e-6)
    minmax     A = (M - smallest) / (largest - smallest + 1e-6), for display only

All are per image, so that no map depends on the other images of its batch. Training covers normal
images with attention (`expansion`), or, with labels, gives normal images the attention of the
normal class alone (`guidance`). What a test image lacks, 1 - A, is its anomaly map.

Every loss is a mean over elements and over images: sums would drown the small weights of the
attention terms.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

Normalization = Literal["sigmoid", "relu_max", "minmax"]
NORMALIZATIONS: tuple[Normalization, ...] = ("sigmoid", "relu_max", "minmax")
EPSILON = 1e-6
HONEST_QUANTILE = 0.99  # of held-out normal scores: 0.5 on the normalized scale


def attention(raw: Tensor, how: Normalization = "sigmoid") -> Tensor:
    """A in [0, 1] of raw maps M [B, T, h, w], map by map."""
    if how == "sigmoid":
        return raw.sigmoid()
    if how == "relu_max":
        positive = raw.clamp(min=0)
        return positive / (positive.amax(dim=(2, 3), keepdim=True) + EPSILON)
    low, high = raw.amin(dim=(2, 3), keepdim=True), raw.amax(dim=(2, 3), keepdim=True)
    return (raw - low) / (high - low + EPSILON)


def missing(raw: Tensor, how: Normalization = "sigmoid") -> Tensor:
    """1 - A [B, T, h, w]. Under `sigmoid` it is computed as sigmoid(-M), which keeps the order of
    places where A rounds to 1."""
    return (-raw).sigmoid() if how == "sigmoid" else 1 - attention(raw, how)


def expansion(lack: Tensor) -> Tensor:
    """Attention expansion loss L_ae of 1 - A [B, 1, h, w]: 0 where normal images are covered with
    attention, 1 where there is none."""
    return lack.mean()


def guidance(lack_normal: Tensor, anomalous: Tensor, gate: Tensor) -> Tensor:
    """Complementary guided attention loss L_cga, in [0, 2] for an open gate.

    1 - A of the normal class and A of the anomalous one, both [B, 1, h, w]; gate [B]: 1 for normal
    images that are taken for normal. It is a constant; the mean is over all images, so that few
    open gates pull little.
    """
    per_image = (lack_normal + anomalous).mean(dim=(1, 2, 3))
    return (gate.detach().to(per_image) * per_image).mean()


def open_gate(classes: Tensor, label: Tensor) -> Tensor:
    """Where the gate of `guidance` is open [B]: images labeled normal (label [B]: 0) whose larger
    logit (classes [B, 2]) is that of the normal class."""
    return (label == 0) & (classes.argmax(dim=1) == 0)


def kl(mu: Tensor, logvar: Tensor, reduction: str = "element_mean") -> Tensor:
    """KL divergence of N(mu, exp(logvar)) from N(0, 1): the mean over all elements, or, with
    `image_sum`, the sum over those of an image and the mean over images."""
    each = (mu.square() + logvar.exp() - 1 - logvar) / 2
    return each.mean() if reduction == "element_mean" else each.flatten(1).sum(dim=1).mean()


def reconstruction(logits: Tensor, image: Tensor, how: str = "bce") -> Tensor:
    """Distance of sigmoid(logits) to images [B, 3, S, S] in [0, 1], mean over pixels; of `bce` the
    floor is the entropy of the image, not 0."""
    if how == "bce":
        return F.binary_cross_entropy_with_logits(logits, image)
    return F.mse_loss(logits.sigmoid(), image)


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """L_adv = -mean(log D(x)) - mean(log(1 - D(x-hat))), from logits [B]; 2 ln 2 for zeros."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def generator_loss(fake: Tensor, mode: str = "nonsaturating") -> Tensor:
    """What the generator's side minimizes, from the logits [B] of its images: -mean(log D), or,
    `saturating`, mean(log(1 - D)), whose gradient is gone where the discriminator is sure."""
    return F.softplus(-fake).mean() if mode == "nonsaturating" else -F.softplus(fake).mean()


def honest_limits(scores: Sequence[float]) -> tuple[float, float]:
    """The smallest and the 0.99 quantile of scores of normal images that were not learned from.

    Raises ValueError without scores.
    """
    if not len(scores):
        raise ValueError("the limits of normal scores need at least one score")
    values = np.asarray(scores, dtype=np.float64)
    return float(values.min()), float(np.quantile(values, HONEST_QUANTILE))


def normalized(score: Tensor, low: float, high: float) -> Tensor:
    """Scores [B] on a scale from 0 to 1 on which `high` is exactly 0.5.

    >>> normalized(torch.tensor([0.0, 1.0, 3.0, 9.0]), 1.0, 3.0)
    tensor([0.0000, 0.0000, 0.5000, 1.0000])
    """
    return (0.5 * (score - low) / max(high - low, EPSILON)).clamp(0, 1)


def dark_share(alpha: Tensor) -> Tensor:
    """Share of negative channel weights [T, K] -> [T]. Features behind a ReLU are never negative,
    so without negative weights no place can lack attention."""
    return (alpha < 0).to(torch.float32).mean(dim=1)
