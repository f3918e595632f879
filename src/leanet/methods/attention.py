"""The classifier's network: which attention modules stand in it, how it is optimized, and who
teaches it.

Shared by the two-class and the multi-class recipe. Attention transfer (Zagoruyko & Komodakis 2017,
arXiv:1612.03928) adds a term to the loss that pulls the student's attention, the mean square of its
features over the channels, towards that of a teacher: another run on the same folds, or the anomaly
map. It costs nothing at inference, and so is the map-free alternative to LEA-Net.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from leanet.config import option
from leanet.data.cache import images_in_unit_range
from leanet.data.class_list import Classes
from leanet.methods import supervised
from leanet.methods.recipe import DetectorModule, Material
from leanet.networks.abn import ABN, start_branch
from leanet.networks.attention import Start
from leanet.networks.blocks import StagedClassifier
from leanet.networks.gates import TIMM_PREFIX, Gates, attention_parameters, describe
from leanet.networks.health import gate_activity, inactive
from leanet.progress import say_once

MEASURED = 64  # images whose gates are looked at
HEAD = "fc"  # the last layer of every network
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm)


@dataclass(frozen=True, kw_only=True)
class Config(supervised.Config):
    """Options of the classifier."""

    classes: Classes = option(
        "auto",
        "what to tell apart: two = normal and anomalous; kinds = the classes that the folders "
        "name; auto = kinds where there is a folder per class and more than two of them",
    )
    attention: str = option(
        "none", "self-attention: none, se, pre_se, cbam, eca, simam, srm, abn, timm:NAME"
    )
    placement: Literal["standard", "pre", "identity", "post"] = option(
        "standard", "place of the module in a residual block; pre_se is se with pre"
    )
    blocks: Literal["all", "identity"] = option(
        "all", "which blocks get one; identity = those without a projection"
    )
    stages: tuple[int, ...] = option((1, 2, 3, 4), "which stages get them")
    ratio: int = option(16, "channels per hidden unit of se and cbam")
    min_hidden: int = option(1, "hidden units of se and cbam at least; 8 for timm's weights")
    bias: bool = option(False, "biases in se, as timm's weights have them")
    start: Literal["auto", "paper", "identity"] = option(
        "auto", "gates at the start; auto = identity (exactly 1) with trained weights, else paper"
    )
    attach: Literal["auto", "block", "stage"] = option(
        "auto", "inside every block (own ResNets) or after every stage (any backbone)"
    )
    stem: Literal["normal", "small"] = option(
        "normal", "small = 3x3, stride 1, no max-pool, for images up to 64 px (4 to 16 x slower)"
    )
    dropout: float = option(0.0, "share of the pooled features that is dropped before the head")
    backbone_lr_mult: float = option(
        1.0, "step size of the backbone in multiples of lr; 0.1 suits trained weights"
    )
    transfer_from: str | None = option(
        None,
        "attention transfer from: RUN of a classifier on the same folds, RUN whose method draws "
        "maps, or map (a colorizer trained here)",
    )
    transfer_weight: float = option(1000.0, "weight beta of the attention transfer")


def build_network(config: Config, num_outputs: int, img_size: int) -> StagedClassifier:
    """The network with random weights.

    Raises:
        ValueError: options of attention modules that do not go together, or with this backbone.
    """
    return supervised.build_classifier(
        config,
        3,
        num_outputs,
        img_size,
        gates=gates_of(config),
        stem=config.stem,
        dropout=config.dropout,
    )


def gates_of(config: Config) -> Gates:
    """The attention modules that the options ask for."""
    return Gates(
        name=config.attention,
        placement=config.placement,
        blocks=config.blocks,
        stages=config.stages,
        ratio=config.ratio,
        min_hidden=config.min_hidden,
        bias=config.bias,
        start=_start(config),
        attach=config.attach,
    )


def _start(config: Config) -> Start:
    if config.start != "auto":
        return config.start
    loaded = supervised.has_weights(config) and not config.attention.startswith(TIMM_PREFIX)
    return "identity" if loaded else "paper"


def start_from_weights(config: Config, network: StagedClassifier, img_size: int) -> None:
    """As `supervised.start_from_weights`; ABN's branch starts from the weights of stage 4."""
    supervised.start_from_weights(config, network, img_size)
    if isinstance(network, ABN) and supervised.has_weights(config):
        start_branch(network)


def measure(
    config: Config, detector: DetectorModule, data: Material, indices: Sequence[int]
) -> dict[str, Any]:
    """Which attention modules stand where, and what their gates do on some of these images."""
    raw = data.images.take(indices[:: max(1, len(indices) // MEASURED)])
    inputs = detector.prepare(images_in_unit_range(raw))
    activity = gate_activity(detector.network, *inputs)
    idle = inactive(activity)
    if idle:
        say_once(f"inactive attention (gates within 0.02 of 1): {', '.join(idle)}")
    gates = [one._asdict() for one in activity]
    return {"attention": describe(gates_of(config), config.adn), "gates": gates, "inactive": idle}


class Heads(NamedTuple):
    """Logits [B, K]; those of ABN's attention branch, or None; features of all stages."""

    logits: Tensor
    branch: Tensor | None
    features: tuple[Tensor, ...]


def run(config: Config, network: Any, image: Tensor) -> Heads:
    """Run the network on normalized images [B, 3, S, S], with what the loss needs."""
    if config.attention == "abn":
        attended = network.attend(image)
        return Heads(attended.logits, attended.branch_logits, ())
    if config.transfer_from is None:
        return Heads(network(image), None, ())
    features = tuple(network.features(image))
    return Heads(network.head(features[-1]), None, features)


def called(config: Config) -> tuple[str, ...]:
    """Methods of the network that `run` calls beside forward."""
    if config.attention == "abn":
        return ("attend",)
    return () if config.transfer_from is None else ("features", "head")


def param_groups(config: Config, network: nn.Module) -> tuple[dict[str, Any], ...]:
    """Head and attention at the full step size, the backbone at its share of it; weight decay on
    the weights of layers alone, not on norms, biases and attention."""
    attention = attention_parameters(network)
    norms = {
        f"{prefix}.{own}"
        for prefix, module in network.named_modules()
        if isinstance(module, NORMS)
        for own, _ in module.named_parameters(recurse=False)
    }
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in network.named_parameters():
        fresh = name in attention or name.startswith(f"{HEAD}.")
        rate = 1.0 if fresh else config.backbone_lr_mult
        bare = name in attention or name in norms or name.endswith("bias")
        decay = 0.0 if bare else config.weight_decay
        groups.setdefault((rate, decay), []).append(parameter)
    return tuple(
        {"params": members, "lr_mult": rate, "weight_decay": decay}
        for (rate, decay), members in groups.items()
    )
