"""ResNet 18, 34 and 50, run stage by stage (He et al. 2016, doi:10.1109/CVPR.2016.90).

The standard layout with torchvision's layer names, so that the usual ImageNet files fit. Stage 0
ends after the stem's BatchNorm and ReLU, *before* the max-pool, which opens stage 1: this is the
attention point A1 of LEA-Net at stride 2.

`stem_conv` is the ResNet of the LEA-Net programs: a bare 3x3 convolution before the max-pool (and
behind A1), a bias in every convolution, and shortcuts without BatchNorm.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from leanet.networks.blocks import BasicBlock, Bottleneck, Gate, StagedClassifier, he_normal_

LAYOUTS: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
}
"""Depth -> block and number of blocks in each of the four layers."""


class ResNet(StagedClassifier):
    """[B, in_chans, H, W] -> logits [B, num_outputs], with He-normal weights.

    `gate` adds a self-attention module to every block, after the last BatchNorm of its residual
    branch and before the addition.

    Raises ValueError for a depth other than 18, 34 or 50, and for 50 with `stem_conv`.
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
    ) -> None:
        super().__init__()
        if depth not in LAYOUTS:
            raise ValueError(f"ResNet depth {depth} is not known: choose one of {sorted(LAYOUTS)}")
        block, (num1, num2, num3, num4) = LAYOUTS[depth]
        options: dict[str, Any] = {"gate": gate}
        if stem_conv:
            options["biased"] = True
            if block is not BasicBlock:
                raise ValueError(
                    f"stem_conv for ResNet depth {depth}: that variant is of depth 18 or 34"
                )
        grow = block.expansion
        self.channels = (64, 64 * grow, 128 * grow, 256 * grow, 512 * grow)
        self.conv1 = nn.Conv2d(in_chans, 64, 7, stride=2, padding=3, bias=stem_conv)
        self.bn1 = nn.BatchNorm2d(64)
        self.stem_conv = nn.Conv2d(64, 64, 3, padding=1) if stem_conv else nn.Identity()
        self.layer1 = _layer(block, num1, 64, 64, 1, **options)
        self.layer2 = _layer(block, num2, self.channels[1], 128, 2, **options)
        self.layer3 = _layer(block, num3, self.channels[2], 256, 2, **options)
        self.layer4 = _layer(block, num4, self.channels[3], 512, 2, **options)
        self.fc = nn.Linear(self.channels[4], num_outputs)
        he_normal_(self)

    def stage(self, index: int, x: Tensor) -> Tensor:
        """Stage 0: stem; stage 1: max-pool and layer1; stages 2, 3, 4: layer2, layer3, layer4."""
        if index == 0:
            return F.relu(self.bn1(self.conv1(x)))  # [B, 64, H / 2, W / 2]
        if index == 1:
            x = F.max_pool2d(self.stem_conv(x), 3, stride=2, padding=1)  # [B, 64, H / 4, W / 4]
        out: Tensor = (self.layer1, self.layer2, self.layer3, self.layer4)[index - 1](x)
        return out

    def head(self, x: Tensor) -> Tensor:
        """Global average, then linear: [B, C, h, w] -> [B, num_outputs]."""
        logits: Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits


def _layer(
    block: type[BasicBlock] | type[Bottleneck],
    num_blocks: int,
    in_channels: int,
    width: int,
    stride: int,
    **options: Any,
) -> nn.Sequential:
    blocks = [block(in_channels, width, stride, **options)]
    blocks += [block(width * block.expansion, width, **options) for _ in range(num_blocks - 1)]
    return nn.Sequential(*blocks)
