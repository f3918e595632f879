"""The options of LEA-Net, its presets, and what "auto" among them stands for.

There are two ways for the map to act (`--attention`), and the documentation of each option says to
which it belongs. *guided*: the classifier's trained weights stay as they are, features are pooled
where the map points, and the labels correct what the map expects (networks/guided.py). *layers*:
the published network, trained by gradient descent, here with the map's expectation as the start of
its log-odds; `--map_prior none` and `--preset paper` take that away.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from leanet.config import option
from leanet.methods import colorizer, map_options, supervised
from leanet.methods.patches import IMAGENET_MEAN, IMAGENET_STD
from leanet.networks.choose import TIMM
from leanet.networks.leanet import AdnInput, Fuse, Pool
from leanet.ops.correction import STRENGTH


@dataclass(frozen=True, kw_only=True)
class Config(map_options.Config):
    """Options of LEA-Net, beside those of the plain classifier and of its maps."""

    attention: Literal["auto", "guided", "layers"] = option(
        "auto",
        "how the map acts: guided = frozen features, pooled where the map points; layers = the "
        "published network; auto = guided where the classifier has trained weights",
    )
    correction: float = option(
        STRENGTH,
        "guided: how much evidence the labels need to correct the map, the ridge of the correction",
    )
    attention_temperature: float = option(
        0.5,
        "guided: so many SDs of the map, as it is on normal images, raise the attention by a "
        "factor e; the lower, the fewer places count",
    )
    tuned_from: int = option(
        10,
        "guided: from so many labelled defects on a fine-tuned copy of the classifier joins in; "
        "0 = never",
    )
    tuned_epochs: int = option(20, "guided: epochs of that copy's training")
    prior_pull: float = option(
        0.5,
        "layers: how firmly the classifier is held to what the map expects, over the number of "
        "labelled defects; 0 = not",
    )
    self_attention: Literal["none", "se", "cbam", "eca", "simam", "srm"] = option(
        "none", "attention module inside every block of the classifier, as in the LEA-Net program"
    )
    adn_input: AdnInput = option(
        "image",
        "what the classifier sees of image I and map x: image, map, 4_channel, "
        "attentioned (I + I x), multiplied (I x)",
    )
    aan: str = option(
        "resnet",
        "the attention network: resnet, mobilenet, timm/NAME; direct uses the map itself, without "
        "weights; none steers nothing",
    )
    attention_points: tuple[int | Literal["auto"], ...] = option(
        (3,),
        "where to steer the classifier: 0 = A1 (stride 2) ... 4 = A5 (stride 32); [] = nowhere; "
        "auto = held-out images choose one point",
    )
    attention_pool: Pool = option(
        "mean", "over the channels of the attention network: mean, max, or conv (learned)"
    )
    attention_contrast: bool = option(
        False, "standardize the attention over the image before the sigmoid, so that it is not flat"
    )
    attention_sigmoid: bool = option(True, "false: M = x; for aan direct only")
    attention_fuse: Fuse = option("steer", "f <- (1 + w M) f; for ablation add or multiply")
    attention_strength: float = option(1.0, "w in f <- (1 + w M) f")
    learn_strength: bool = option(False, "train one w per point, starting from attention_strength")
    strength_nonneg: bool = option(False, "a learned w below 0, which inverts, counts as 0")
    strength_lr_mult: float = option(100.0, "step size of w, in multiples of lr")
    aan_weight: float = option(1.0, "weight of the attention network's own loss; 0 = ADN only")
    decide: Literal["auto", "fused", "adn", "aan"] = option(
        "auto",
        "which output is the score; all of them are reported; auto = adn of guided attention, else "
        "the fusion of all",
    )


PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        **supervised.PAPER,
        "attention": "layers",
        "map_prior": "none",
        "decide": "adn",
        "map_mode": "in_sample",
        "map_model": colorizer.PRESETS["paper"],
    }
}


LAYERS_ONLY = (
    "self_attention",
    "adn_input",
    "aan",
    "attention_points",
    "attention_pool",
    "attention_contrast",
    "attention_sigmoid",
    "attention_fuse",
    "attention_strength",
    "learn_strength",
    "strength_nonneg",
    "strength_lr_mult",
    "aan_weight",
    "prior_pull",
    "num_outputs",
    "tries",
)  # options without a meaning for guided attention
GUIDED_ONLY = (
    "correction",
    "attention_temperature",
    "tuned_from",
    "tuned_epochs",
)  # and those without one for layers


FEWEST_TO_TUNE = 6  # labelled defects: two in each part


def resolve(config: Config) -> Config:
    """The same options with what "auto" stands for.

    With guided attention the maps are by default those of PatchCore on the classifier's own
    backbone and weights, and the colors are normalized as for ImageNet.

    Raises:
        ValueError: options that contradict each other.
    """
    guided = config.attention == "guided" or (
        config.attention == "auto" and supervised.has_weights(config)
    )
    changed: dict[str, Any] = {"attention": "guided" if guided else "layers"}
    if config.decide == "auto":
        changed["decide"] = "adn" if guided else "fused"
    if guided:
        _check_guided(config)
        changed |= _own_backbone(config)
    config = dataclasses.replace(config, **changed)
    if not guided:
        _check_layers(config)
    return config


def _own_backbone(config: Config) -> dict[str, Any]:
    """Normalization and map source of guided attention where none are given."""
    changed: dict[str, Any] = {}
    if (config.mean, config.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)):
        changed = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    if config.map_source is None and supervised.has_weights(config) and in_timm(config.adn):
        source = {
            "backbone": config.adn.removeprefix(TIMM),
            "backbone_args": config.adn_args,
            "weights": config.weights,
            "pretrained": config.pretrained,
            "mean": list(changed.get("mean", config.mean)),
            "std": list(changed.get("std", config.std)),
        }
        changed |= {"map_source": "patchcore", "map_options": {**source, **config.map_options}}
    return changed


def in_timm(adn: str) -> bool:
    """Whether timm has this classifier under the same name."""
    return adn.startswith(TIMM) or adn in ("resnet18", "resnet34", "resnet50", "vgg16", "vgg19")


def _check_guided(config: Config) -> None:
    wrong = given_of(config, LAYERS_ONLY)
    if config.decide in ("fused", "aan"):
        wrong.append("decide")
    if wrong:
        raise ValueError(
            f"{', '.join(wrong)}: guided attention, the default with trained weights, has no such "
            "choice; add --attention layers for the published network"
        )
    if config.map_prior == "none":
        raise ValueError(
            "map_prior none: guided attention begins with what the map expects; add --attention "
            "layers, or choose mean or top"
        )
    for name, usual in (("correction", 0.3), ("attention_temperature", 0.5)):
        if not getattr(config, name) > 0:
            raise ValueError(f"{name} {getattr(config, name)}: give a number > 0; {usual} is usual")
    if config.tuned_epochs < 1:
        raise ValueError(
            f"tuned_epochs {config.tuned_epochs}: give 1 or more; --tuned_from 0 does without it"
        )
    if 0 < config.tuned_from < FEWEST_TO_TUNE or config.tuned_from < 0:
        raise ValueError(
            f"tuned_from {config.tuned_from}: give at least {FEWEST_TO_TUNE}, as copies learn from "
            "two thirds of the defects and are judged by the others, or 0 for never"
        )


def _check_layers(config: Config) -> None:
    if wrong := given_of(config, GUIDED_ONLY):
        raise ValueError(
            f"{', '.join(wrong)}: attention in layers, the default without trained weights, has no "
            "such choice; give the weights with --weights FILE, or add --attention guided"
        )
    if config.aan in ("direct", "none") and config.decide == "aan":
        raise ValueError(f"aan {config.aan} has no head to decide; use --decide fused or adn")
    if not config.attention_sigmoid and config.aan != "direct":
        raise ValueError(
            f"--attention_sigmoid false is for aan direct, whose features are a map in [0, 1]; "
            f"those of aan {config.aan} have no bounds"
        )
    if config.prior_pull < 0:
        raise ValueError(f"prior_pull {config.prior_pull}: give a number >= 0")
    if config.strength_nonneg and not config.learn_strength:
        raise ValueError("--strength_nonneg is about a learned strength; add --learn_strength")


def given_of(config: Config, names: Sequence[str]) -> list[str]:
    """Those of the options that have another value than their default."""
    defaults = {field.name: field.default for field in dataclasses.fields(Config)}
    return [name for name in names if getattr(config, name) != defaults[name]]
