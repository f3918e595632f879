"""VGG 16 and 19, run stage by stage (Simonyan & Zisserman 2015, arXiv:1409.1556).

As the LEA-Net program has them: without BatchNorm and dropout. A stage is a block of convolutions
and the max-pool behind it, so that the attention points A1..A5 lie behind the pools. The dense
layers see 8 x 8 positions, those of an image of 256 px; other sizes are averaged or repeated.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from leanet.networks.blocks import Gate, StagedClassifier, he_normal_

LAYOUTS: dict[int, tuple[int, int, int, int, int]] = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Depth -> number of convolutions in each of the five blocks."""

HEAD_SIDE = 8


class VGG(StagedClassifier):
    """[B, in_chans, H, W] -> logits [B, num_outputs], He-normal but for the last layer.

    `hidden` is the width of the two dense layers, which hold nine tenths of the weights. `gate`
    adds a self-attention module to every block, after its last ReLU and before its pool. `dropout`
    stands before the last layer.

    Raises ValueError for a depth other than 16 or 19.
    """

    strides = (2, 4, 8, 16, 32)
    channels = (64, 128, 256, 512, 512)

    def __init__(
        self,
        depth: int,
        in_chans: int = 3,
        num_outputs: int = 1,
        *,
        gate: Gate | None = None,
        hidden: int = 4096,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if depth not in LAYOUTS:
            raise ValueError(f"VGG depth {depth} is not known: choose one of {sorted(LAYOUTS)}")
        sources = (in_chans, *self.channels)
        self.blocks = nn.ModuleList(
            _block(num_convs, source, width)
            for num_convs, source, width in zip(
                LAYOUTS[depth], sources, self.channels, strict=False
            )
        )
        self.gates = nn.ModuleList(
            gate(width) if gate else nn.Identity() for width in self.channels
        )
        self.fc1 = nn.Linear(self.channels[-1] * HEAD_SIDE**2, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(hidden, num_outputs)
        he_normal_(self)
        for dense in (self.fc1, self.fc2):
            nn.init.kaiming_normal_(dense.weight, nonlinearity="relu")
            nn.init.zeros_(dense.bias)

    def stage(self, index: int, x: Tensor) -> Tensor:
        """One block, its gate, and the max-pool that halves the sides."""
        return F.max_pool2d(self.gates[index](self.blocks[index](x)), 2)

    def head(self, x: Tensor) -> Tensor:
        """Three dense layers on 8 x 8 positions: [B, 512, h, w] -> [B, num_outputs]."""
        flat = F.adaptive_avg_pool2d(x, HEAD_SIDE).flatten(1)  # [B, 512 * 8 * 8]
        logits: Tensor = self.fc(self.dropout(F.relu(self.fc2(F.relu(self.fc1(flat))))))
        return logits


def _block(num_convs: int, in_channels: int, width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index in range(num_convs):
        layers += [nn.Conv2d(width if index else in_channels, width, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers)
