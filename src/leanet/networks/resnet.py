"""ResNet 18, 34 and 50, run stage by stage (He et al. 2016, doi:10.1109/CVPR.2016.90).

The standard layout with torchvision's layer names, so that the usual ImageNet files fit. Stage 0
ends after the stem's BatchNorm and ReLU, *before* the max-pool, which opens stage 1: this is the
attention point A1 of LEA-Net at stride 2.

`stem_conv` is the ResNet of the LEA-Net programs: a bare 3x3 convolution before the max-pool (and
behind A1), a bias in every convolution, and shortcuts without BatchNorm.

Stem `small` is for small images: a 3x3 convolution of stride 1 and no max-pool, so that the five
stages have strides 1, 1, 2, 4, 8 instead of 2, 4, 8, 16, 32.
"""

from __future__ import annotations

from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from leanet.networks.blocks import BasicBlock, Bottleneck, Gate, StagedClassifier, he_normal_

LAYOUTS: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
}
"""Depth -> block and number of blocks in each of the four layers."""

Stem = Literal["normal", "small"]


class ResNet(StagedClassifier):
    """[B, in_chans, H, W] -> logits [B, num_outputs], with He-normal weights.

    `gate` adds a self-attention module to every block, after the last BatchNorm of its residual
    branch and before the addition; gates.py sets modules at other places. `dropout` is the share of
    averaged features that the head does not see while it learns.

    Raises ValueError for a depth other than 18, 34 or 50, for 50 with `stem_conv`, and for
    `stem_conv` with the small stem.
    """

    strides = (2, 4, 8, 16, 32)

    def __init__(
        self,
        depth: int,
        in_chans: int = 3,
        num_outputs: int = 1,
        *,
        gate: Gate | None = None,
        stem_conv: bool = False,
        stem: Stem = "normal",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        _check(depth, stem_conv, stem)
        block, (num1, num2, num3, num4) = LAYOUTS[depth]
        options: dict[str, Any] = {"gate": gate}
        if stem_conv:
            options["biased"] = True
        grow = block.expansion
        self.channels = (64, 64 * grow, 128 * grow, 256 * grow, 512 * grow)
        self.small_stem = stem == "small"
        if self.small_stem:
            self.strides = (1, 1, 2, 4, 8)
            self.conv1 = nn.Conv2d(in_chans, 64, 3, padding=1, bias=False)
        else:
            self.conv1 = nn.Conv2d(in_chans, 64, 7, stride=2, padding=3, bias=stem_conv)
        self.bn1 = nn.BatchNorm2d(64)
        self.stem_conv = nn.Conv2d(64, 64, 3, padding=1) if stem_conv else nn.Identity()
        self.layer1 = residual_layer(block, num1, 64, 64, 1, **options)
        self.layer2 = residual_layer(block, num2, self.channels[1], 128, 2, **options)
        self.layer3 = residual_layer(block, num3, self.channels[2], 256, 2, **options)
        self.layer4 = residual_layer(block, num4, self.channels[3], 512, 2, **options)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(self.channels[4], num_outputs)
        he_normal_(self)

    def stage(self, index: int, x: Tensor) -> Tensor:
        """Stage 0: stem; stage 1: max-pool (none with the small stem) and layer1; stages 2, 3, 4:
        layer2, layer3, layer4."""
        if index == 0:
            return F.relu(self.bn1(self.conv1(x)))  # [B, 64, H / 2, W / 2]
        if index == 1 and not self.small_stem:
            x = F.max_pool2d(self.stem_conv(x), 3, stride=2, padding=1)  # [B, 64, H / 4, W / 4]
        out: Tensor = (self.layer1, self.layer2, self.layer3, self.layer4)[index - 1](x)
        return out

    def head(self, x: Tensor) -> Tensor:
        """Global average, dropout, linear: [B, C, h, w] -> [B, num_outputs]."""
        logits: Tensor = self.fc(self.dropout(x.mean(dim=(2, 3))))
        return logits


def _check(depth: int, stem_conv: bool, stem: str) -> None:
    if depth not in LAYOUTS:
        raise ValueError(f"ResNet depth {depth} is not known: choose one of {sorted(LAYOUTS)}")
    if stem_conv and LAYOUTS[depth][0] is not BasicBlock:
        raise ValueError(f"stem_conv for ResNet depth {depth}: that variant is of depth 18 or 34")
    if stem not in ("normal", "small"):
        raise ValueError(f"stem {stem!r} is not known: allowed are normal, small")
    if stem_conv and stem == "small":
        raise ValueError("stem_conv is the LEA-Net programs' stem: it cannot be the small one too")


def residual_layer(
    block: type[BasicBlock] | type[Bottleneck],
    num_blocks: int,
    in_channels: int,
    width: int,
    stride: int,
    **options: Any,
) -> nn.Sequential:
    """`num_blocks` residual blocks; the first has the stride and the change of channels."""
    blocks = [block(in_channels, width, stride, **options)]
    blocks += [block(width * block.expansion, width, **options) for _ in range(num_blocks - 1)]
    return nn.Sequential(*blocks)
