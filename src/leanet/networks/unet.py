"""The U-Net that draws anomaly maps: Table 9 of LEA-Net (Katafuchi & Tokunaga 2021,
arXiv:2109.05493), in the spirit of pix2pix (Isola et al. 2017, doi:10.1109/CVPR.2017.632).

Strided 4x4 convolutions halve the image down to one pixel (at 256 px), strided 2x2 transposed
convolutions bring it back; the features of equal size are joined on the way, but never those of
full size, which would make the identity easy. Convolutions keep their biases although BatchNorm
follows; weights start at PyTorch's default.

In training mode, BatchNorm needs more than one value per channel: where the smallest features
have one pixel, a batch needs at least two images (the loaders merge a last batch of one into the
batch before).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from leanet.networks.blocks import require_multiple

MAX_DEPTH = 8
MIN_DEPTH = 5


def unet_depth(img_size: int) -> int:
    """The number of times that a square image of `img_size` px is halved, at most 8.

    Raises ValueError for a side that is not a positive multiple of 32.

    >>> unet_depth(256), unet_depth(96)
    (8, 5)
    """
    multiple = 2**MIN_DEPTH
    if img_size < multiple or img_size % multiple:
        below = max(img_size // multiple, 1) * multiple
        raise ValueError(
            f"img_size {img_size} does not fit, it is halved {MIN_DEPTH} times or more: choose a "
            f"multiple of {multiple} px, for example {below} or {below + multiple}"
        )
    halvings = (img_size & -img_size).bit_length() - 1  # exponent of the factor two
    return min(MAX_DEPTH, halvings)


class UNet(nn.Module):
    """[B, in_chans, H, W] -> [B, out_chans, H, W] in (0, 1); H and W are multiples of 2**depth.

    `depth` 8 and `base` 64 are Table 9; the encoder has base, 2 base, 4 base, then 8 base
    channels. `dropout` is the probability after the first three decoder layers (the paper's older
    code has 0.5, the paper none).

    Raises ValueError for a depth outside 2..8.
    """

    def __init__(
        self, in_chans: int, out_chans: int, *, depth: int = 8, base: int = 64, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if not 2 <= depth <= MAX_DEPTH:
            raise ValueError(
                f"U-Net depth {depth} is out of range: choose 2 to {MAX_DEPTH}, "
                f"or let unet_depth(img_size) choose"
            )
        self.depth = depth
        widths = [base * min(2**level, 8) for level in range(depth)]
        sources = [in_chans, *widths]
        self.down = nn.ModuleList(
            _down(sources[level], widths[level], norm=level > 0) for level in range(depth)
        )
        # from the smallest features upwards; all but the first read their joined skip as well
        self.up = nn.ModuleList(
            _up(
                widths[level] * (1 if level == depth - 1 else 2),
                widths[level - 1],
                dropout=dropout if depth - 1 - level < 3 else 0.0,
            )
            for level in range(depth - 1, 0, -1)
        )
        self.out = nn.ConvTranspose2d(2 * base, out_chans, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Encode, decode with skips, sigmoid.

        Raises ValueError for sides that are no multiple of 2**depth.
        """
        require_multiple(x, 2**self.depth, ", or build it with unet_depth(img_size)")
        skips: list[Tensor] = []
        for layer in self.down:
            x = layer(x)  # [B, base * min(2**level, 8), H / 2**(level + 1), ...]
            skips.append(x)
        skips.pop()
        for layer in self.up:
            x = torch.cat([layer(x), skips.pop()], dim=1)  # twice the channels, twice the sides
        return torch.sigmoid(self.out(x))  # [B, out_chans, H, W]


def _down(in_channels: int, out_channels: int, *, norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(in_channels, out_channels, 4, stride=2, padding=1)]
    if norm:
        layers.append(nn.BatchNorm2d(out_channels))
    return nn.Sequential(*layers, nn.LeakyReLU(0.2))


def _up(in_channels: int, out_channels: int, *, dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    ]
    if dropout > 0:
        layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers)
