"""The basic CNN that LEA-Net is also tried on (Katafuchi & Tokunaga 2021, arXiv:2109.05493).

Five strided convolutions, each an attention point, and one dense layer on 8 x 8 positions, those of
an image of 256 px; other sizes are averaged or repeated.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from leanet.networks.blocks import Gate, StagedClassifier, conv_bn, he_normal_

HEAD_SIDE = 8


class CNN(StagedClassifier):
    """[B, in_chans, H, W] -> logits [B, num_outputs], with He-normal convolutions.

    `gate` adds a self-attention module to every stage, after its ReLU. `dropout` stands before the
    dense layer.
    """

    strides = (2, 4, 8, 16, 32)
    channels = (64, 128, 256, 512, 512)

    def __init__(
        self,
        in_chans: int = 3,
        num_outputs: int = 1,
        *,
        gate: Gate | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        sources = (in_chans, *self.channels[:-1])
        self.convs = nn.ModuleList(
            conv_bn(source, width, 3, stride=2)
            for source, width in zip(sources, self.channels, strict=True)
        )
        self.gates = nn.ModuleList(
            gate(width) if gate else nn.Identity() for width in self.channels
        )
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(self.channels[-1] * HEAD_SIDE**2, num_outputs)
        he_normal_(self)

    def stage(self, index: int, x: Tensor) -> Tensor:
        """Convolution with stride 2, BatchNorm, ReLU, gate."""
        out: Tensor = self.gates[index](self.convs[index](x))
        return out

    def head(self, x: Tensor) -> Tensor:
        """One dense layer on 8 x 8 positions: [B, 512, h, w] -> [B, num_outputs]."""
        logits: Tensor = self.fc(self.dropout(F.adaptive_avg_pool2d(x, HEAD_SIDE).flatten(1)))
        return logits
