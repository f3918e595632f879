"""Which self-attention modules stand where in a classifier, and how they get there.

    network = ResNet(50, 3, 4)                              # plain, all weights drawn
    attach(network, Gates("se", placement="pre"), "resnet50")

The plain network comes first and the modules after it, drawn from a copy of the random state: one
seed gives the same shared weights with any modules or none. Weight files are loaded after that and
leave the modules as they are (weights.py), so that with start `identity` a loaded network computes
what the plain one computes, bit for bit, until it learns.

Stages 1 to 4 are those of stride 4, 8, 16 and 32: layer1 to layer4 of a ResNet. Our own ResNets
take modules inside their residual blocks, all other networks behind their stages.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import torch
from torch import nn

from leanet.config import nearest
from leanet.networks.attention import SELF_ATTENTION, SqueezeExcite, Start
from leanet.networks.blocks import Gate, Placement, ResidualBlock, SelfAttention, StagedClassifier
from leanet.networks.resnet import ResNet
from leanet.networks.timm_attention import TimmAttention, check_timm

Blocks = Literal["all", "identity"]
Attach = Literal["auto", "block", "stage"]
NAMES = ("none", "se", "pre_se", "cbam", "eca", "simam", "srm", "abn")
RESNETS = {"resnet18": 18, "resnet34": 34, "resnet50": 50}
"""The ResNets with a choice of stem and with abn: name -> depth."""
IN_BLOCKS = (*RESNETS, "resnet18_stem_conv")
"""The networks that take modules inside their residual blocks."""
TIMM_PREFIX = "timm:"
STAGES = (1, 2, 3, 4)


@dataclass(frozen=True)
class Gates:
    """Self-attention of a classifier, in plain values.

    Args:
        name: none, se, pre_se (se at placement pre), cbam, eca, simam, srm, abn (abn.py), or
            timm:NAME for a module of timm (timm_attention.py).
        placement: inside a residual block (blocks.ResidualBlock).
        blocks: all, or identity: those without a projection in the shortcut.
        stages: some of 1, 2, 3, 4.
        ratio, min_hidden: se and cbam have max(channels // ratio, min_hidden) hidden units.
        bias: whether the layers of se have biases (those of cbam always have).
        start: paper, or identity for networks with trained weights (attention.py).
        attach: block, stage (behind every stage), or auto: block where there are residual blocks.

    Raises:
        ValueError: an unknown value, or one that the named module does not take.
    """

    name: str = "none"
    placement: Placement = "standard"
    blocks: Blocks = "all"
    stages: tuple[int, ...] = STAGES
    ratio: int = 16
    min_hidden: int = 1
    bias: bool = False
    start: Start = "paper"
    attach: Attach = "auto"

    def __post_init__(self) -> None:
        object.__setattr__(self, "stages", tuple(self.stages))  # YAML gives a list
        _check_values(self)
        _check_name(self)
        _check_unused(self)

    @property
    def module(self) -> str:
        """The name of the module itself: pre_se is se."""
        return "se" if self.name == "pre_se" else self.name

    @property
    def place(self) -> Placement:
        """The placement that the name stands for: pre_se is se at pre."""
        return "pre" if self.name == "pre_se" else self.placement


def resolve(gates: Gates, adn: str) -> Gates:
    """The same with `attach` decided for the network `adn` (a name of choose.py): block or stage.

    `none` and `abn`, which are attached nowhere, keep auto.

    Raises ValueError for what that network does not take.
    """
    if gates.name == "none":
        return gates
    if gates.name == "abn":
        if adn not in RESNETS:
            raise ValueError(f"abn for {adn}: it needs a ResNet of ours ({', '.join(RESNETS)})")
        return gates
    inside = adn in IN_BLOCKS
    attach = ("block" if inside else "stage") if gates.attach == "auto" else gates.attach
    if attach == "block" and not inside:
        raise ValueError(
            f"attach 'block' for {adn}: only {', '.join(IN_BLOCKS)} take modules inside their "
            f"blocks; choose attach 'stage'"
        )
    if attach == "stage" and inside:
        raise ValueError(f"attach 'stage' for {adn}: it takes modules inside its blocks; leave out")
    if attach == "stage" and (gates.place != "standard" or gates.blocks != "all"):
        raise ValueError(
            f"{gates.name} with placement {gates.place!r} and blocks {gates.blocks!r} for {adn}: "
            f"behind whole stages there are only 'standard' and 'all'; use one of "
            f"{', '.join(IN_BLOCKS)}"
        )
    return dataclasses.replace(gates, attach=attach)


def describe(gates: Gates, adn: str) -> str:
    """One line for a report.

    >>> describe(Gates("pre_se", stages=(3, 4)), "resnet50")
    'se, ratio 16, pre in all blocks of stages 3, 4, start paper'
    >>> describe(Gates("eca", start="identity"), "timm/convnext_tiny")
    'eca, behind stages 1, 2, 3, 4, start identity'
    """
    gates = resolve(gates, adn)
    if gates.name == "none":
        return "none"
    if gates.name == "abn":
        return f"abn, between stages 3 and 4, start {gates.start}"
    ratio = f", ratio {gates.ratio}" if gates.module in ("se", "cbam") else ""
    biased = ", with biases" if gates.bias else ""
    stages = ", ".join(map(str, gates.stages))
    where = f"{gates.place} in {gates.blocks} blocks of" if gates.attach == "block" else "behind"
    return f"{gates.module}{ratio}{biased}, {where} stages {stages}, start {gates.start}"


def attach(network: StagedClassifier, gates: Gates, adn: str) -> None:
    """Put the modules into a network without any, in place; `adn` is its name.

    Raises ValueError for what that network does not take, and where there is no place for a single
    module.
    """
    gates = resolve(gates, adn)
    if gates.name in ("none", "abn"):
        return
    make = maker(gates)
    with torch.random.fork_rng(devices=[]):  # not in `make`: modules of one size shall differ
        count = (
            _into_blocks(network, gates, make)
            if isinstance(network, ResNet)
            else _behind_stages(network, gates, make)
        )
    if not count:
        raise ValueError(
            f"{adn} has no place for {gates.name} in stages {gates.stages}, blocks "
            f"{gates.blocks!r}: choose other stages"
        )


def maker(gates: Gates) -> Gate:
    """Makes one module for a number of channels.

    Raises ValueError for none and abn, which are no modules for any place.
    """
    if gates.name.startswith(TIMM_PREFIX):
        return partial(TimmAttention, gates.name.removeprefix(TIMM_PREFIX))
    if gates.module not in SELF_ATTENTION:
        raise ValueError(f"{gates.name} is no module for a block or a stage")
    kind: Callable[..., SelfAttention] = SELF_ATTENTION[gates.module]
    if kind is SqueezeExcite:
        kind = partial(kind, bias=gates.bias)
    if gates.module in ("se", "cbam"):
        kind = partial(kind, ratio=gates.ratio, min_hidden=gates.min_hidden)
    return partial(kind, start=gates.start)


def name_places(network: nn.Module) -> None:
    """Tell every self-attention module its name in the network, for messages."""
    for name, module in network.named_modules():
        if isinstance(module, SelfAttention):
            module.place = name


def places(network: nn.Module) -> dict[str, str]:
    """Name -> class of every self-attention module, without those inside another."""
    found = {n: m for n, m in network.named_modules() if isinstance(m, SelfAttention)}
    return {
        name: type(module).__name__
        for name, module in found.items()
        if not any(name.startswith(f"{other}.") for other in found)
    }


def attention_parameters(network: nn.Module) -> set[str]:
    """Names of all parameters inside self-attention modules: a group of their own to an optimizer
    (the head's step size, no weight decay)."""
    return {
        f"{prefix}.{name}"
        for prefix, module in network.named_modules()
        if isinstance(module, SelfAttention)
        for name, _ in module.named_parameters()
    }


def _into_blocks(network: ResNet, gates: Gates, make: Gate) -> int:
    layers = (network.layer1, network.layer2, network.layer3, network.layer4)
    count = 0
    for stage in gates.stages:
        for block in layers[stage - 1]:
            assert isinstance(block, ResidualBlock)
            if gates.blocks == "all" or not block.projects:
                block.gate = make(block.channels[0 if gates.place == "pre" else 1])
                block.placement = gates.place
                count += 1
    return count


def _behind_stages(network: StagedClassifier, gates: Gates, make: Gate) -> int:
    slots = network.gates
    assert isinstance(slots, nn.ModuleList)
    last = {stride: index for index, stride in enumerate(network.strides)}
    wanted = [last[2 ** (stage + 1)] for stage in gates.stages if 2 ** (stage + 1) in last]
    for index in wanted:
        slots[index] = make(network.channels[index])
    return len(wanted)


def _check_values(gates: Gates) -> None:
    allowed: dict[str, tuple[str, ...]] = {
        "placement": get_args(Placement),
        "blocks": get_args(Blocks),
        "start": get_args(Start),
        "attach": get_args(Attach),
    }
    for field, values in allowed.items():
        value = getattr(gates, field)
        if value not in values:
            raise ValueError(f"{field} {value!r} is not known: allowed are {', '.join(values)}")
    if not gates.stages or sorted(set(gates.stages) & set(STAGES)) != sorted(gates.stages):
        raise ValueError(f"stages {gates.stages}: give some of 1, 2, 3, 4, each once")
    for field in ("ratio", "min_hidden"):
        if getattr(gates, field) < 1:
            raise ValueError(f"{field} {getattr(gates, field)}: give a whole number from 1 up")


def _check_name(gates: Gates) -> None:
    if gates.name.startswith(TIMM_PREFIX):
        check_timm(gates.name.removeprefix(TIMM_PREFIX))
        if gates.start != "paper":
            raise ValueError(f"{gates.name} has no start 'identity': timm's modules start as given")
    elif gates.name not in NAMES:
        raise ValueError(
            f"attention {gates.name!r} is not known: allowed are {', '.join(NAMES)}, "
            f"{TIMM_PREFIX}NAME{nearest(gates.name, NAMES)}"
        )


def _check_unused(gates: Gates) -> None:
    """Refuse what the named module would ignore."""
    takes = {"start"}
    if gates.name not in ("none", "abn"):
        takes |= {"placement", "blocks", "stages", "attach"}
    if gates.module in ("se", "cbam"):
        takes |= {"ratio", "min_hidden"}
    if gates.module == "se":
        takes |= {"bias"}
    for field in dataclasses.fields(gates):
        given = getattr(gates, field.name)
        if field.name != "name" and field.name not in takes and given != field.default:
            raise ValueError(
                f"{field.name} {given!r} for {gates.name}: it takes no {field.name}; "
                f"leave it at {field.default!r}"
            )
    if gates.name == "pre_se" and gates.placement not in ("standard", "pre"):
        raise ValueError(f"pre_se is se at placement pre, not {gates.placement!r}: name it se")
