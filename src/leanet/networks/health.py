"""Is every layer connected, and does the attention do anything?

After three optimizer steps every parameter of a sound network has had a gradient. Before that a
zero can be legal: behind a layer that starts at zero nothing moves in the first step. A gate that
is 1 everywhere is attention in name only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from leanet.networks.blocks import SelfAttention

IDLE = 0.02  # a gate that is nowhere so far from 1 does nothing


class GateActivity(NamedTuple):
    """Mean, SD (population), least and greatest factor of one gate over images and places."""

    name: str
    mean: float
    sd: float
    low: float
    high: float


def dead_parameters(network: nn.Module) -> list[str]:
    """Names of the trainable parameters whose gradient is absent or zero throughout.

    Call it after the `backward` of the third step or a later one, before the gradients are cleared.
    """
    return [
        name
        for name, parameter in network.named_parameters()
        if parameter.requires_grad
        and (parameter.grad is None or not bool(parameter.grad.any().item()))
    ]


@torch.no_grad()
def gate_activity(network: nn.Module, *inputs: Tensor) -> list[GateActivity]:
    """Run `network(*inputs)` once in evaluation mode and look at every gate, in network order.

    The factors are computed anew from the input that each module got; the modules keep nothing.
    Of a module made of several (cbam) every part is named alone.
    """
    seen: dict[str, GateActivity] = {}
    hooks = [
        module.register_forward_pre_hook(_watch(seen, name))
        for name, module in network.named_modules()
        if isinstance(module, SelfAttention) and not _has_parts(module)
    ]
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        network(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
    return list(seen.values())


def inactive(activity: Sequence[GateActivity]) -> list[str]:
    """Names of the gates that stay within 0.02 of 1 everywhere."""
    return [one.name for one in activity if one.low > 1 - IDLE and one.high < 1 + IDLE]


def _has_parts(module: SelfAttention) -> bool:
    return any(part is not module and isinstance(part, SelfAttention) for part in module.modules())


def _watch(seen: dict[str, GateActivity], name: str) -> Callable[[SelfAttention, Any], None]:
    def hook(module: SelfAttention, inputs: tuple[Tensor, ...]) -> None:
        gate = module.gate(inputs[0]).double()
        sd, mean = torch.std_mean(gate, correction=0)
        values = [v.item() for v in (mean, sd, gate.min(), gate.max())]
        seen[name] = GateActivity(name, *values)

    return hook
