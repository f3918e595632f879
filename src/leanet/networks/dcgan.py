"""DC-GAN layers (Radford et al. 2016, arXiv:1511.06434), fully convolutional.

CAVGA's D variants put them together anew (Venkataramanan et al. 2020, arXiv:1911.08616): the body
of the discriminator is the encoder, the body of the generator the decoder, and every variant has a
discriminator of its own. Nothing here depends on the side of the images, so that what was trained
at 64 px runs at 256 px.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS = (64, 128, 256, 512)
NOISE = 100
SIDE = 64  # of the images that a DC-GAN draws, and the least that the discriminator looks at
STRIDE = 16  # of the encoder
SLOPE = 0.2
LAST_BLOCK = 3  # layers of the encoder's last block: convolution, BatchNorm, LeakyReLU

DiscHead = Literal["mean_logit", "resize64"]


class Encoder(nn.Sequential):
    """Images [B, 3, S, S] in [-1, 1] -> features [B, 512, S/16, S/16].

    Four 4x4 convolutions of stride 2, BatchNorm but on the first, LeakyReLU.
    """

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        for index, (a, b) in enumerate(zip((3, *CHANNELS), CHANNELS, strict=False)):
            layers.append(nn.Conv2d(a, b, 4, stride=2, padding=1, bias=False))
            layers += [nn.BatchNorm2d(b)] if index else []
            layers.append(nn.LeakyReLU(SLOPE))
        super().__init__(*layers)
        init_(self)

    def early(self, image: Tensor) -> Tensor:
        """All blocks but the last: [B, 3, S, S] -> [B, 256, S/8, S/8]."""
        for layer in list(self)[:-LAST_BLOCK]:
            image = layer(image)
        return image

    def late(self, x: Tensor) -> Tensor:
        """The last block: [B, 256, S/8, S/8] -> [B, 512, S/16, S/16]."""
        for layer in list(self)[-LAST_BLOCK:]:
            x = layer(x)
        return x


class Decoder(nn.Sequential):
    """Features [B, 512, s, s] -> [B, 3, 16 s, 16 s], to be put through a tanh: three transposed
    4x4 convolutions with BatchNorm and ReLU, and a last one."""

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        down = CHANNELS[::-1]
        for a, b in pairwise(down):
            layers += [_up(a, b), nn.BatchNorm2d(b), nn.ReLU()]
        super().__init__(*layers, _up(down[-1], 3))
        init_(self)


class Generator(nn.Module):
    """Noise [B, 100, 1, 1] -> images [B, 3, 64, 64] in [-1, 1]; all layers but the first are those
    of `Decoder`."""

    def __init__(self) -> None:
        super().__init__()
        first = nn.ConvTranspose2d(NOISE, CHANNELS[-1], 4, bias=False)
        self.first = nn.Sequential(first, nn.BatchNorm2d(CHANNELS[-1]), nn.ReLU())
        self.body = Decoder()
        init_(self.first)

    def forward(self, noise: Tensor) -> Tensor:
        """Draw one image per row."""
        image: Tensor = self.body(self.first(noise)).tanh()
        return image


class Discriminator(nn.Module):
    """Images [B, 3, S, S] in [-1, 1] -> logits [B] of being real.

    The last convolution gives one logit at 64 px and a map of logits above, of which the mean is
    taken (`mean_logit`). `resize64` looks at the image reduced to 64 px instead. Smaller images are
    enlarged to 64 px in either case.
    """

    def __init__(self, head: DiscHead = "mean_logit") -> None:
        super().__init__()
        if head not in ("mean_logit", "resize64"):
            raise ValueError(f"disc_head {head!r}: allowed are mean_logit, resize64")
        self.resized = head == "resize64"
        self.body = Encoder()
        self.last = nn.Conv2d(CHANNELS[-1], 1, 4, bias=False)
        init_(self.last)

    def forward(self, image: Tensor) -> Tensor:
        """Judge a batch."""
        if image.shape[-1] < SIDE or (self.resized and image.shape[-1] > SIDE):
            shrinks = image.shape[-1] > SIDE
            image = F.interpolate(image, (SIDE, SIDE), mode="bilinear", antialias=shrinks)
        logit: Tensor = self.last(self.body(image)).mean(dim=(1, 2, 3))
        return logit


def init_(module: nn.Module) -> None:
    """Set all weights below `module` as DC-GAN does: convolutions N(0, 0.02), biases 0, BatchNorm
    weights N(1, 0.02)."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(layer.weight, 0.0, 0.02)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.02)
        else:
            continue
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def _up(in_channels: int, out_channels: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(in_channels, out_channels, 4, stride=2, padding=1, bias=False)
