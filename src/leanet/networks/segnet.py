"""SegNet as a reconstruction network (Badrinarayanan et al. 2017, arXiv:1511.00561).

The convolutions of VGG16 and their mirror image. No features are joined: each max-pool hands its
partner only the places of its maxima, and the un-pooling puts the values back there. Between the
halves, at 1/32 of the sides, are the residual blocks of the auto-encoder, as in the LEA-Net
program (Katafuchi & Tokunaga 2021, arXiv:2109.05493). Weights start at PyTorch's default.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leanet.networks.autoencoder import NUM_BLOCKS, ResidualBlock
from leanet.networks.blocks import conv_bn, require_multiple

NUM_CONVS = (2, 2, 3, 3, 3)


class SegNet(nn.Module):
    """[B, in_chans, H, W] -> [B, out_chans, H, W] in (0, 1); H and W are multiples of 32.

    `base` 64 is VGG16; the stages have base, 2 base, 4 base, 8 base and 8 base channels.
    """

    def __init__(self, in_chans: int, out_chans: int, *, base: int = 64) -> None:
        super().__init__()
        widths = [base, 2 * base, 4 * base, 8 * base, 8 * base]
        sources = [in_chans, *widths]
        self.down = nn.ModuleList(
            _convs([sources[level]] + [widths[level]] * num_convs)
            for level, num_convs in enumerate(NUM_CONVS)
        )
        self.blocks = nn.Sequential(*(ResidualBlock(widths[-1]) for _ in range(NUM_BLOCKS)))
        self.up = nn.ModuleList(
            _convs([widths[level]] * NUM_CONVS[level] + [widths[max(level - 1, 0)]])
            for level in (4, 3, 2, 1, 0)
        )
        self.out = nn.Conv2d(base, out_chans, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Encode, residual blocks, decode, sigmoid.

        Raises ValueError for sides that are no multiple of 32.
        """
        require_multiple(x, 32)
        places: list[Tensor] = []
        for layer in self.down:
            x, where = F.max_pool2d(layer(x), 2, return_indices=True)  # half the sides
            places.append(where)
        x = self.blocks(x)  # [B, 8 base, H / 32, W / 32]
        for layer in self.up:
            x = layer(F.max_unpool2d(x, places.pop(), [2, 2]))  # twice the sides
        return torch.sigmoid(self.out(x))  # [B, out_chans, H, W]


def _convs(widths: list[int]) -> nn.Sequential:
    return nn.Sequential(*(conv_bn(source, width, 3) for source, width in pairwise(widths)))
