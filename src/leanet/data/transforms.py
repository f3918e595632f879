"""Random geometric changes of training batches: image and map (or mask) move together.

Whatever moves the image moves its anomaly map by the same transformation, so that the map keeps
pointing at the right place. Draws come from torch's global stream, which the training loop seeds
and stores in its checkpoints.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from leanet.records import Batch

Augment = Literal["none", "flips", "affine", "crop"]
MAX_TURN = math.radians(15)
MAX_ZOOM = 0.1
MAX_SHIFT = 0.06  # of the side
LEAST_CROP = 0.7  # of the area


def augment(batch: Batch, how: Augment) -> Batch:
    """A changed copy of a batch.

    flips: one of the eight mirrored and turned copies, per image. affine: that, then a turn of up
    to 15 degrees, a zoom of up to 10 % and a shift of up to 6 %, mirrored beyond the border.
    crop: mirrored left to right or not, then a square of 70 to 100 % of the area, enlarged.
    """
    if how == "none":
        return batch
    matrix = _crop(len(batch.image)) if how == "crop" else _dihedral(len(batch.image))
    if how == "affine":
        matrix = matrix @ _small_affine(len(batch.image))
    image = move(batch.image, matrix)
    anomaly_map = None if batch.anomaly_map is None else move(batch.anomaly_map, matrix)
    return batch._replace(image=image, anomaly_map=anomaly_map)


def move(planes: Tensor, matrix: Tensor, mode: str = "bilinear") -> Tensor:
    """Transform planes [B, C, H, W] by matrices [B, 3, 3] (output -> input, coordinates -1..1)."""
    grid = functional.affine_grid(
        matrix[:, :2].to(planes.device), list(planes.shape), align_corners=False
    )
    return functional.grid_sample(
        planes, grid, mode=mode, padding_mode="reflection", align_corners=False
    )


def _dihedral(count: int) -> Tensor:
    """Random elements of the symmetry group of the square, [B, 3, 3]."""
    turn = torch.randint(4, (count,)) * (math.pi / 2)
    mirror = torch.randint(2, (count,)) * 2.0 - 1.0
    matrix = _rotation(turn).round()
    matrix[:, :, 0] *= mirror[:, None]
    return matrix


def _crop(count: int) -> Tensor:
    side = (1 - (1 - LEAST_CROP) * torch.rand(count)).sqrt()
    matrix = torch.eye(3).repeat(count, 1, 1)
    matrix[:, 0, 0] = side * (torch.randint(2, (count,)) * 2.0 - 1.0)
    matrix[:, 1, 1] = side
    matrix[:, :2, 2] = (torch.rand(count, 2) * 2 - 1) * (1 - side)[:, None]
    return matrix


def _small_affine(count: int) -> Tensor:
    matrix = _rotation(_uniform(count, MAX_TURN))
    matrix[:, :2, :2] *= (1 + _uniform(count, MAX_ZOOM))[:, None, None]
    matrix[:, 0, 2] = _uniform(count, 2 * MAX_SHIFT)
    matrix[:, 1, 2] = _uniform(count, 2 * MAX_SHIFT)
    return matrix


def _rotation(angle: Tensor) -> Tensor:
    matrix = torch.zeros(len(angle), 3, 3)
    matrix[:, 0, 0] = matrix[:, 1, 1] = angle.cos()
    matrix[:, 1, 0] = angle.sin()
    matrix[:, 0, 1] = -angle.sin()
    matrix[:, 2, 2] = 1
    return matrix


def _uniform(count: int, limit: float) -> Tensor:
    return (torch.rand(count) * 2 - 1) * limit
