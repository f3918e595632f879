"""The networks that draw an image again, by name: their error is the anomaly map.

unet      Table 9 of the LEA-Net paper; skips, but none of full size      28.3 M weights
ae        auto-encoder, no skips: cannot simply copy                      29.2 M
segnet    VGG16 and its mirror, joined by the places of the maxima        53.1 M
unetres   the auto-encoder with skips at every size                       29.9 M
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from leanet.config import nearest
from leanet.networks.autoencoder import AutoEncoder, UNetRes
from leanet.networks.segnet import SegNet
from leanet.networks.unet import UNet, unet_depth

RECONSTRUCTORS: dict[str, Callable[..., nn.Module]] = {
    "unet": UNet,
    "ae": AutoEncoder,
    "segnet": SegNet,
    "unetres": UNetRes,
}
"""Name -> network, called with in_chans, out_chans and `base`; unet with depth and dropout too."""


def build_reconstructor(
    model: str,
    in_chans: int,
    out_chans: int,
    *,
    img_size: int,
    base: int = 64,
    dropout: float = 0.0,
) -> nn.Module:
    """A network [B, in_chans, img_size, img_size] -> [B, out_chans, ...] in (0, 1).

    `base` is the number of channels at half size (segnet: at full size), an even number; 64 is
    that of the paper and its program. `dropout` is in the decoder of unet, which alone has it.

    Raises ValueError for an unknown name, a side that is no multiple of 32 px, an odd `base`, or
    dropout for another network.
    """
    if model not in RECONSTRUCTORS:
        raise ValueError(
            f"reconstruction network {model!r} is not known: "
            f"allowed are {', '.join(RECONSTRUCTORS)}{nearest(model, RECONSTRUCTORS)}"
        )
    depth = unet_depth(img_size)
    if base < 2 or base % 2:
        raise ValueError(f"base {base} channels: choose an even number from 2 up, for example 64")
    if model == "unet":
        return UNet(in_chans, out_chans, depth=depth, base=base, dropout=dropout)
    if dropout:
        raise ValueError(f"dropout {dropout} for {model}: only unet has dropout, leave it at 0")
    return RECONSTRUCTORS[model](in_chans, out_chans, base=base)
