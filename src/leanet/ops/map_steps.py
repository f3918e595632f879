"""From a raw anomaly map to what the networks of LEA-Net see, step by step.

Later work on external attention finds that sparse, well localized maps steer best, so a map may be
smoothed and thinned out. The order is always

    blur          Gaussian, SD in pixels
    threshold     pixels below a fixed level become 0
    top_fraction  of each map only the highest pixels stay, all others become 0
    scale         d / (h s), clipped to [0, 1]
    binarize      what is left becomes 1
    ablation      takes something away from the map, to see what it was good for

Level and s are quantiles of the blurred maps of training normals (`fit_steps`), taken once. Every
step looks at one map alone, so that an image does not depend on its batch mates, and all of them
trace and export.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from leanet.ops.maps import MapScale, PixelHistogram, blur, scale_from, to_network

Ablation = Literal["none", "shuffled", "constant", "scaled"]
GRID = 8  # blocks along a side of a shuffled map
SCALED = 0.5  # what is left of the intensity of a scaled map


class MapSteps(NamedTuple):
    """What is to be done to every map; the defaults leave it as it is."""

    blur: float = 0.0  # SD in pixels
    threshold: float = 0.0  # quantile of the pixels of training normals
    top_fraction: float = 1.0  # of the pixels of a map
    binarize: bool = False
    ablation: Ablation = "none"


AS_IT_IS = MapSteps()


class MapPreparation(NamedTuple):
    """The same, fitted: with the scale, and with the level (in the unit of the map) that the
    quantile `threshold` has come to."""

    scale: MapScale
    steps: MapSteps = AS_IT_IS
    level: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """As JSON, for the file of a detector."""
        steps = self.steps._asdict()
        return {"scale": self.scale._asdict(), "map_steps": steps, "map_level": self.level}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MapPreparation:
        """From a dictionary with what `to_dict` gave; without steps there are none."""
        steps = MapSteps(**values.get("map_steps", {}))
        return cls(MapScale(**values["scale"]), steps, values.get("map_level", 0.0))


def refuse_steps(steps: MapSteps) -> None:
    """Raise ValueError for numbers out of range and for a map of ones alone."""
    allowed = {
        "map_blur": (0 <= steps.blur < math.inf, steps.blur, "an SD >= 0 in pixels"),
        "map_threshold": (0 <= steps.threshold < 1, steps.threshold, "a quantile in [0, 1)"),
        "map_top_fraction": (
            0 < steps.top_fraction <= 1,
            steps.top_fraction,
            "a share above 0, at most 1",
        ),
    }
    for name, (fits, value, words) in allowed.items():
        if not fits:
            raise ValueError(f"{name} {value}: give {words}")
    if steps.binarize and steps.threshold == 0 and steps.top_fraction == 1:
        raise ValueError(
            "map_binarize makes 1 of every pixel above 0, which is nearly all of them: add "
            "--map_threshold 0.99 or --map_top_fraction 0.05"
        )


def fit_steps(
    steps: MapSteps, maps: Iterable[Tensor], quantile: float, headroom: float
) -> MapPreparation:
    """Scale and level for the raw maps >= 0 [B, 1, H, W] of training normals, batch by batch; the
    scale as `leanet.ops.maps.fit_scale` says, with its errors, of the blurred maps."""
    pixels = PixelHistogram()
    for anomaly_map in maps:
        pixels.add(blur(anomaly_map, steps.blur))
    level = pixels.quantile(steps.threshold) if steps.threshold else 0.0
    return MapPreparation(scale_from(pixels, quantile, headroom), steps, level)


def prepare_map(anomaly_map: Tensor, preparation: MapPreparation) -> Tensor:
    """Raw maps >= 0 [B, 1, H, W] -> network maps in [0, 1], same shape.

    Raises ValueError where a map is to be shuffled whose sides are no multiples of `GRID`.
    """
    scale, steps, level = preparation
    anomaly_map = blur(anomaly_map, steps.blur)
    if level > 0:
        anomaly_map = anomaly_map * (anomaly_map >= level)
    if steps.top_fraction < 1:
        anomaly_map = keep_top(anomaly_map, steps.top_fraction)
    network_map = to_network(anomaly_map, scale)
    if steps.binarize:
        network_map = (network_map > 0).to(network_map.dtype)
    return ablate(network_map, steps.ablation)


def keep_top(anomaly_map: Tensor, fraction: float) -> Tensor:
    """Maps >= 0 [B, 1, H, W] with 0 in place of all but the highest `fraction` of the pixels, at
    least one; pixels equal to the lowest that stays, stay as well.

    >>> keep_top(torch.tensor([[[[1.0, 4.0], [3.0, 4.0]]]]), 0.25)
    tensor([[[[0., 4.],
              [0., 4.]]]])
    """
    pixels = anomaly_map.flatten(1)
    count = max(1, round(fraction * pixels.shape[1]))
    lowest = pixels.topk(count, dim=1).values[:, -1]
    return anomaly_map * (anomaly_map >= lowest[:, None, None, None])


def ablate(network_map: Tensor, ablation: Ablation) -> Tensor:
    """Network maps [B, 1, H, W] without some of what they say, same shape.

    "shuffled": the blocks of an 8 x 8 grid change places, always in the same way and none of them
    keeping its own: the same values, elsewhere. "constant": the mean of the map everywhere.
    "scaled": half as bright. Raises ValueError as `prepare_map`.
    """
    if ablation == "shuffled":
        return _shuffled(network_map)
    if ablation == "constant":
        return network_map.mean(dim=(2, 3), keepdim=True).expand_as(network_map)
    return network_map * SCALED if ablation == "scaled" else network_map


def _shuffled(network_map: Tensor) -> Tensor:
    height, width = network_map.shape[-2:]
    if height % GRID or width % GRID:
        raise ValueError(
            f"a map of {height} x {width} pixels cannot be shuffled in {GRID} x {GRID} blocks; "
            f"give sides that are multiples of {GRID}"
        )
    h, w = height // GRID, width // GRID
    blocks = network_map.reshape(-1, GRID, h, GRID, w).movedim(3, 2)  # [B, g, g, h, w]
    moved = blocks.flatten(1, 2)[:, list(_places())].reshape(-1, GRID, GRID, h, w)
    return moved.movedim(3, 2).reshape(network_map.shape)


@cache
def _places() -> tuple[int, ...]:
    """A permutation of all blocks that is one large cycle, so that no block stays."""
    order = torch.randperm(GRID * GRID, generator=torch.Generator().manual_seed(0)).tolist()
    following = dict(zip(order, order[1:] + order[:1], strict=True))
    return tuple(following[place] for place in range(GRID * GRID))
