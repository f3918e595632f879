"""Attention transfer: a network learns to look where a teacher looks, at no cost when it judges.

Zagoruyko & Komodakis, ICLR 2017, arXiv:1612.03928. Where features A [B, C, h, w] are strong is

    v(A) = q / |q|,   q = flatten(mean_c A^2)                          [B, h w]

and the loss of a student with features S beside a teacher with features T, at some stages, is

    beta * sum over the stages of mean((v(S) - v(T))^2)

with the mean over images and positions, as in the authors' program, so that a term gets weaker with
the number of positions. Where the grids differ, both q are averaged to the smaller one (ours).

The teacher may also be an anomaly map, whose values stand for q. An image with an all-zero map
tells nothing and leaves the mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

BETA = 1000.0  # of the authors


def attention_vector(features: Tensor) -> Tensor:
    """Where features [B, C, h, w] are strong: [B, h w] of length 1; 0 where they are all 0."""
    return _vector(_strength(features))


def transfer_loss(
    student: Sequence[Tensor], teacher: Sequence[Tensor], beta: float = BETA
) -> Tensor:
    """The loss of features [B, C, h, w] of some stages against those of a teacher, in the same
    order; channels and grids may differ. The teacher gets no gradient.

    Raises ValueError if their numbers differ or are 0.
    """
    if len(student) != len(teacher) or not student:
        raise ValueError(
            f"features of {len(student)} stages of the student and {len(teacher)} of the teacher: "
            f"give the same stages of both, at least one"
        )
    terms = []
    for own, other in zip(student, teacher, strict=True):
        mine, theirs = _same_grid(_strength(own), _strength(other.detach()))
        terms.append((_vector(mine) - _vector(theirs)).square().mean())
    return beta * torch.stack(terms).sum()


def map_transfer_loss(student: Sequence[Tensor], anomaly_map: Tensor, beta: float = BETA) -> Tensor:
    """The same with a map [B, 1, H, W] >= 0 as the teacher of every stage; 0 if all maps are 0.

    Raises ValueError without stages.
    """
    if not student:
        raise ValueError("features of 0 stages: give at least one")
    told = (anomaly_map.flatten(1).amax(dim=1) > 0).float()  # [B]
    terms = []
    for own in student:
        strength = _strength(own)
        mine, theirs = _same_grid(strength, anomaly_map.detach().to(strength))
        per_image = (_vector(mine) - _vector(theirs)).square().mean(dim=1)  # [B]
        terms.append((per_image * told).sum() / told.sum().clamp(min=1))
    return beta * torch.stack(terms).sum()


def _strength(features: Tensor) -> Tensor:
    features = features.to(torch.promote_types(features.dtype, torch.float32))  # of 16 bits too
    return features.square().mean(dim=1, keepdim=True)  # [B, 1, h, w]


def _same_grid(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Average both maps to the smaller height and the smaller width."""
    height = min(first.shape[-2], second.shape[-2])
    width = min(first.shape[-1], second.shape[-1])
    return (
        F.adaptive_avg_pool2d(first, (height, width)),
        F.adaptive_avg_pool2d(second, (height, width)),
    )


def _vector(strength: Tensor) -> Tensor:
    return F.normalize(strength.flatten(1), dim=1)
