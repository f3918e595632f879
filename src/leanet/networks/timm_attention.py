"""Self-attention modules of timm, for comparison, with timm's own weights at the start.

Those that keep the shape and stay small are on the list, with the share of weights that they add to
a ResNet 50; the others are refused, each with its reason. se, eca and cbam are in attention.py too,
where se has no biases by default, and cbam has biases.
"""

from __future__ import annotations

from typing import cast

import torch
from timm.layers.cbam import CbamModule
from timm.layers.create_attn import create_attn
from timm.layers.eca import CecaModule, EcaModule
from timm.layers.global_context import GlobalContext
from timm.layers.squeeze_excite import EffectiveSEModule, SEModule
from timm.models._efficientnet_blocks import SqueezeExcite
from torch import Tensor, nn

from leanet.config import nearest
from leanet.networks.blocks import SelfAttention

ALLOWED: dict[str, float] = {
    "se": 9.90,
    "eca": 0.00,
    "ceca": 0.00,
    "cbam": 9.85,
    "ese": 78.78,
    "scoord": 39.53,
    "gc": 19.82,
    "gca": 19.82,
    "coord": 9.89,
    "lcbam": 9.84,
    "ela": 1.06,
    "strip": 0.35,
}
"""Name -> percent that it adds to the weights of a ResNet 50 (25,557,032)."""

REFUSED: dict[str, str] = {
    "ge": "timm cannot build it with its own defaults",
    "sk": "it replaces a convolution: at the end of a block it would hold most of the weights",
    "splat": "it replaces a convolution: at the end of a block it would hold most of the weights",
    "bottleneck": "it replaces a convolution, for one size of the map",
    "halo": "it replaces a convolution, for maps of whole blocks",
    "lambda": "it replaces a convolution",
    "nl": "it replaces a convolution",
    "bat": "it replaces a convolution",
}
"""Name -> why it is not offered."""

BUILT_IN = (
    SEModule,
    SqueezeExcite,
    EffectiveSEModule,
    EcaModule,
    CecaModule,
    CbamModule,
    GlobalContext,
)


class TimmAttention(SelfAttention):
    """The module `name` of timm for a number of channels: [B, C, H, W] -> [B, C, H, W].

    Raises ValueError for a name that is not on the list.
    """

    def __init__(self, name: str, channels: int) -> None:
        super().__init__()
        check_timm(name)
        self.inner = cast(nn.Module, create_attn(name, channels))  # type: ignore[no-untyped-call]

    def gate(self, x: Tensor) -> Tensor:
        """What it multiplied by, output / input [B, C, H, W]; 1 where the input is 0. For gca,
        which adds, this is no gate."""
        return torch.where(x == 0, 1.0, self(x) / torch.where(x == 0, 1.0, x))

    def forward(self, x: Tensor) -> Tensor:
        """As timm has it."""
        out: Tensor = self.inner(x)
        return out


def built_in_attention(network: nn.Module) -> int:
    """The number of attention modules that a timm network has of its own (EfficientNet, MobileNetV3
    and RegNet-Y have SE): without any other, it is still not free of attention."""
    given = [module for module in network.modules() if isinstance(module, TimmAttention)]
    added = {part for module in given for part in module.modules()}
    return sum(isinstance(m, BUILT_IN) and m not in added for m in network.modules())


def check_timm(name: str) -> None:
    """Refuse a name that is not on the list (ValueError)."""
    if name in REFUSED:
        raise ValueError(
            f"attention timm:{name} is not offered: {REFUSED[name]}; choose one of "
            f"{', '.join(ALLOWED)}"
        )
    if name not in ALLOWED:
        raise ValueError(
            f"attention timm:{name} is not known: allowed are "
            f"{', '.join(ALLOWED)}{nearest(name, ALLOWED)}"
        )
