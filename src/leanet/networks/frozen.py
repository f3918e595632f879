"""Frozen features: what a network that was trained on photographs sees in each place of an image.

Any timm backbone whose intermediate features are maps; it is never trained here, neither its
weights nor the statistics of its BatchNorms. Layers behind the last map that is used are cut off.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leanet.networks.timm_stages import has_fixed_size, hub_weights
from leanet.networks.weights import load_tensors, read_weights

STRIDES = (4, 8, 16)  # of the maps that are taken where none are named


class FrozenFeatures(nn.Module):
    """Images [B, 3, S, S] in [0, 1] -> feature maps [B, C_i, h_i, w_i], shallow ones first.

    `indices` name timm's feature levels; None takes those of the `strides` (of a plain vision
    transformer as many blocks, the last ones of three that are evenly spaced). `mean` and `std` are
    what the backbone's images were normalized with. The weights are random until `load`;
    `model_args` go to timm's model.

    Raises ValueError for an unknown name, a backbone without such maps, an index that it does not
    have, or an argument that it does not take.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        indices: Sequence[int] | None = None,
        *,
        img_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        model_args: Mapping[str, Any] | None = None,
        strides: Sequence[int] = STRIDES,
    ) -> None:
        super().__init__()
        self.name = name
        self._make = partial(_create, name, img_size, dict(model_args or {}))
        self.backbone: Any = self._make()
        levels = _levels(self.backbone)
        self.indices = _indices(name, [stride for stride, _ in levels], indices, strides)
        self.strides = tuple(levels[i][0] for i in self.indices)
        self.channels = tuple(levels[i][1] for i in self.indices)
        if min(std) <= 0:
            raise ValueError(f"std {', '.join(map(str, std))}: give three positive numbers")
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        _cut(self.backbone, self.indices)
        self.requires_grad_(False)
        self.eval()
        self.grid = self._look(img_size)  # side of the first map

    def load(self, weights: Path | None = None) -> None:
        """Take the weights of a file, under timm's names, or without one those of timm's hub.

        Raises ValueError for weights that do not fit, or a hub that cannot be reached.
        """
        if weights is None:
            tensors, source = hub_weights(self.name), f"timm model {self.name}"
        else:
            tensors, source = read_weights(weights), f"{weights} for timm model {self.name}"
        whole = self._make()
        load_tensors(whole, tensors, source=source)
        _cut(whole, self.indices)
        self.backbone.load_state_dict(whole.state_dict())

    @torch.no_grad()
    def _look(self, img_size: int) -> int:
        """Run a black image once: the side of the first map (not all backbones have the one that
        their stride promises). The maps must be square and have the channels of timm's table."""
        try:
            maps = self(torch.zeros(1, 3, img_size, img_size))
            got = [tuple(one.shape) for one in maps]
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise ValueError(f"timm model {self.name} sees no {img_size} px: {error}") from error
        sides = [shape[-1] for shape in got]
        if got != [(1, c, n, n) for c, n in zip(self.channels, sides, strict=True)]:
            raise ValueError(
                f"timm model {self.name} gives features of the shapes {got}, not maps of "
                f"{', '.join(map(str, self.channels))} channels; choose another backbone, such as "
                "resnet18"
            )
        return int(sides[0])

    def train(self, mode: bool = True) -> FrozenFeatures:
        """Stays in evaluation mode: the statistics of BatchNorm are frozen as well."""
        return super().train(False)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Images [B, 3, S, S] in [0, 1] -> feature maps [B, C_i, h_i, w_i]."""
        maps: list[Tensor] = self.backbone.forward_intermediates(
            (image - self.mean) / self.std,
            indices=list(self.indices),
            norm=False,
            stop_early=True,
            output_fmt="NCHW",
            intermediates_only=True,
        )
        return maps


def patches(maps: Sequence[Tensor], *, mode: str = "bilinear") -> Tensor:
    """Feature maps -> one description of each place, [B, sum of C_i, h_0, w_0], on the grid of the
    first map.

    Each map is averaged over 3x3 places (zeros count at the border, PyTorch's default) and then
    enlarged, never the other way round.
    """
    pooled = [F.avg_pool2d(one, 3, stride=1, padding=1) for one in maps]
    return joined(pooled, mode=mode)


def joined(maps: Sequence[Tensor], *, mode: str = "bilinear") -> Tensor:
    """Maps [B, C_i, h_i, w_i] on the grid of the first, side by side: [B, sum of C_i, h_0, w_0]."""
    size = tuple(maps[0].shape[-2:])
    aligned = {} if mode == "nearest" else {"align_corners": False}
    rest = [F.interpolate(one, size, mode=mode, **aligned) for one in maps[1:]]
    return torch.cat([maps[0], *rest], dim=1)


def _cut(backbone: Any, indices: Sequence[int]) -> None:
    """Remove the layers behind the last feature level that is taken."""
    backbone.prune_intermediate_layers(list(indices), prune_norm=True, prune_head=True)


def _create(name: str, img_size: int, model_args: dict[str, Any]) -> nn.Module:
    if not timm.is_model(name.split(".")[0]):
        close = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"did you mean {', '.join(close)}?" if close else "timm.list_models() names all"
        raise ValueError(f"timm knows no model {name!r}: {hint}")
    if has_fixed_size(name):
        model_args = {"img_size": img_size, **model_args}
    try:
        model: nn.Module = timm.create_model(name, pretrained=False, **model_args)
    except (TypeError, RuntimeError, AssertionError) as error:
        raise ValueError(f"timm cannot build {name} with {model_args}: {error}") from error
    needed = ("forward_intermediates", "prune_intermediate_layers", "feature_info")
    if not all(hasattr(model, part) for part in needed):
        raise ValueError(
            f"timm model {name} gives no feature maps; choose another backbone, such as resnet18"
        )
    return model


def _levels(model: Any) -> list[tuple[int, int]]:
    """(stride, channels) of every feature level."""
    info = model.feature_info
    listed = info.info if hasattr(info, "info") else info
    return [(int(level["reduction"]), int(level["num_chs"])) for level in listed]


def _indices(
    name: str, strides: list[int], wanted: Sequence[int] | None, usual: Sequence[int]
) -> tuple[int, ...]:
    """The feature levels to take: the wanted ones, else those of the usual strides."""
    known = range(len(strides))
    if wanted is not None:
        wrong = [i for i in wanted if i not in known]
        if wrong or not wanted or list(wanted) != sorted(set(wanted)):
            raise ValueError(
                f"feature_indices {', '.join(map(str, wanted))}: {name} has the levels 0 to "
                f"{len(strides) - 1} (strides {', '.join(map(str, strides))}); name one or more of "
                "them, shallow ones first"
            )
        return tuple(wanted)
    if len(set(strides)) == 1:
        return tuple(round(k * (len(strides) - 1) / 3) for k in (1, 2, 3))[-len(usual) :]
    found = {stride: i for i, stride in enumerate(strides)}  # the last level of a stride
    if not set(usual) <= set(found):
        raise ValueError(
            f"{name} has feature maps of stride {', '.join(map(str, sorted(found)))}, not of all "
            f"of {', '.join(map(str, usual))}; name others by --feature_indices"
        )
    return tuple(found[stride] for stride in usual)
