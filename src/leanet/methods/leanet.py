"""LEA-Net: a map of what looks unusual steers a classifier that learns what matters.

Layer-wise External Attention (Katafuchi & Tokunaga, arXiv 2109.05493). Phase 1: a colorizer, or
another model that knows normal images, draws an anomaly map of every image. Phase 2: an attention
network reads the map and multiplies the features of a classifier by what it makes of it; both are
trained with the labels.

Different from the paper: training images get maps from models that have not seen them, the score is
a fusion of the classifier, the attention network and the map itself (`decide`), and the working
point comes from images that no part has been trained on. `--preset paper` goes back to the
paper's choices.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from leanet.config import option
from leanet.methods import colorizer, map_options, supervised
from leanet.methods.choice import train_best
from leanet.methods.extra import Extra
from leanet.methods.given_maps import GivenMaps
from leanet.methods.lea_detector import LEADetector, Reader
from leanet.methods.lea_measures import measure_attention, scores_on_maps
from leanet.methods.map_models import TrainingMaps, training_maps
from leanet.methods.map_options import steps_of
from leanet.methods.map_sources import describe, find_source, rebuild
from leanet.methods.recipe import (
    Experience,
    HeldOut,
    Material,
    Scores,
    Trained,
)
from leanet.methods.supervised import Normalize, Plan, binary_loss, one_logit, seed_names
from leanet.networks.choose import build_aan
from leanet.networks.leanet import (
    IN_CHANS,
    AdnInput,
    AttentionMap,
    Fuse,
    LEANet,
    LEAOutput,
    Learned,
    Pool,
    point_stride,
)
from leanet.ops.fusion import Fusion, fit_fusion, fuse
from leanet.ops.map_steps import MapPreparation
from leanet.records import Batch, Fold
from leanet.runtime import Runtime


@dataclass(frozen=True, kw_only=True)
class Config(map_options.Config):
    """Options of LEA-Net, beside those of the plain classifier and of its maps."""

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
    decide: Literal["fused", "adn", "aan"] = option(
        "fused", "which output is the score; all of them are reported"
    )


PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        **supervised.PAPER,
        "decide": "adn",
        "map_mode": "in_sample",
        "map_model": colorizer.PRESETS["paper"],
    }
}


def build(config: Config, img_size: int, extra: dict[str, Any]) -> LEADetector:
    """The detector with random weights; `extra` as `LEADetector.extra` gives it."""
    side = extra.get("network_size", img_size)
    return LEADetector(
        build_network(config, side),
        rebuild(extra["map_model"], img_size),
        Reader(Normalize(config.mean, config.std), config.adn_input),
        drawn_by=extra["map_model"],
        preparation=MapPreparation.from_dict(extra),
        fusion=Fusion.from_dict(extra["fusion"]),
        decide=config.decide,
        network_size=side,
    )


def build_network(config: Config, img_size: int) -> LEANet:
    """Classifier and attention network, joined."""
    attention = partial(
        AttentionMap,
        pool=config.attention_pool,
        standardize=config.attention_contrast,
        sigmoid=config.attention_sigmoid,
    )
    outputs = config.num_outputs
    learned: Learned = "positive" if config.strength_nonneg else "free"
    return LEANet(
        supervised.build_classifier(
            config,
            IN_CHANS[config.adn_input],
            outputs,
            img_size,
            self_attention=config.self_attention,
            identity_start=supervised.has_weights(config),
        ),
        None if config.aan == "none" else build_aan(config.aan, 1, outputs, img_size=img_size),
        _points(config),
        attention=attention,
        fuse=config.attention_fuse,
        strength=config.attention_strength,
        learn_strength=learned if config.learn_strength else "fixed",
    )


def train(
    config: Config,
    fold: Fold,
    data: Material,
    folder: Path,
    runtime: Runtime,
    experience: Experience | None = None,
) -> Trained:
    """Phase 1 (maps), then phase 2 (classifier and attention network together); where there is
    something to choose (`attention_points auto`, `tries`), by `choice.train_best`."""
    supervised.require_weights(config)
    chosen_from = variants(config, data.img_size)
    if len(chosen_from) > 1:
        return train_best(train, chosen_from, fold, data, folder, runtime, experience)
    (config,) = chosen_from.values()
    steps = steps_of(config)
    source = find_source(config.map_source, config.map_model, data, runtime, config.map_options)
    begun = begin(config, fold, data, runtime, experience)
    extras = supervised.extras_of(config, fold, begun.rest, data, folder, runtime)
    if extras and isinstance(source.fixed, GivenMaps):
        raise ValueError(
            f"--map_source {config.map_source} has no maps of synthetic or generated images; leave "
            "one of them out, or let a map model draw the maps"
        )
    source = dataclasses.replace(source, steps=steps)
    maps = training_maps(source, config.map_mode, fold, data, folder, runtime, extras)
    prepared = Prepared(begun, maps, describe(source, maps.model), extras=extras)
    return train_prepared(config, prepared, fold, data, folder, runtime, experience)


def variants(config: Config, img_size: int) -> dict[str, Config]:
    """The configurations that held-out images may choose from, by name; a single one without
    `attention_points auto` and with one try.

    Raises:
        ValueError: auto beside other points, or no attention network whose points to choose.
    """
    if "auto" not in config.attention_points:
        return supervised.draws(config)
    if len(config.attention_points) > 1 or config.aan == "none":
        raise ValueError(
            f"attention_points {', '.join(map(str, config.attention_points))} with aan "
            f"{config.aan}: auto stands alone, and needs an attention network"
        )
    network = build_network(dataclasses.replace(config, attention_points=()), img_size)
    assert network.aan is not None
    common = set(network.adn.strides) & set(network.aan.strides)
    return {
        " ".join(filter(None, (f"A{point + 1}", name if config.tries > 1 else ""))): one
        for point in range(max(common).bit_length() - 1)
        if point_stride(point) in common
        for name, one in supervised.draws(
            dataclasses.replace(config, attention_points=(point,))
        ).items()
    }


def _points(config: Config) -> tuple[int, ...]:
    return tuple(p for p in config.attention_points if p != "auto" and config.aan != "none")


class Begun(NamedTuple):
    """The networks before their training, and the samples to train on and to hold out."""

    network: LEANet
    rest: tuple[int, ...]
    held: tuple[int, ...]


class Prepared(NamedTuple):
    """What phase 2 starts from: network maps of all samples that are looked at, and what drew them
    (as `map_sources.describe` says it). detailed: the journal tells accuracies and strengths.
    extras: more images to train on, whose maps stand behind those of the samples."""

    begun: Begun
    maps: TrainingMaps
    drawn_by: dict[str, Any]
    detailed: bool = False
    extras: tuple[Extra, ...] = ()


def begin(
    config: Config, fold: Fold, data: Material, runtime: Runtime, experience: Experience | None
) -> Begun:
    """Build the networks; the plain classifier of the same name starts from the same weights.

    Raises:
        ValueError: options that contradict each other, one class only, weights that do not fit.
    """
    _check(config)
    rest, held = supervised.parts_of(config, fold, data, runtime, experience)
    with runtime.seeded(*seed_names(config, fold.name), "adn"):
        network = build_network(config, data.img_size).to(runtime.device)
    in_chans = IN_CHANS[config.adn_input]
    supervised.start_from_weights(config, network.adn, data.img_size, in_chans)
    return Begun(network, rest, held)


def train_prepared(
    config: Config,
    prepared: Prepared,
    fold: Fold,
    data: Material,
    folder: Path,
    runtime: Runtime,
    experience: Experience | None,
) -> Trained:
    """Phase 2: train classifier and attention network on images and their maps."""
    (network, rest, held), maps = prepared.begun, prepared.maps
    reader = Reader(Normalize(config.mean, config.std), config.adn_input).to(runtime.device)
    plan = Plan(
        name=f"{fold.name} classifier",
        network=network,
        loss=_loss(config, reader, detailed=prepared.detailed),
        rest=rest,
        held=held,
        maps=maps.maps,
        epochs=experience.epochs if experience else None,
        param_groups=_param_groups(config, network),
        extras=prepared.extras,
    )
    epochs = supervised.train_network(config, plan, data, folder, runtime)
    remarks = {**maps.remarks, **measure_attention(network, reader, data, maps, rest)}
    remarks |= {"trained_on": supervised.counts(rest, data), **supervised.told_of(prepared.extras)}
    if experience is None:
        unseen = held or rest
        scores = scores_on_maps(network, reader, data, maps, unseen)
        remarks["threshold_in_sample"] = not held
    else:
        unseen, scores = experience.held_out
    labels = [data.labels[i] for i in unseen]
    parts: Scores = {name: scores[name] for name in ("adn", "aan", "map") if name in scores}
    fusion = fit_fusion(parts, labels)
    detector = LEADetector(
        network,
        maps.model,
        reader,
        drawn_by=prepared.drawn_by,
        preparation=maps.preparation,
        fusion=fusion,
        decide=config.decide,
        network_size=data.img_size,
    )
    remarks["fusion_weights"] = dict(zip(fusion.names, fusion.weights, strict=True))
    fused = fuse(fusion, {name: torch.tensor(values) for name, values in parts.items()}).tolist()
    parts = {"fused": fused, **parts}
    held_out = HeldOut(tuple(unseen), {"score": parts[config.decide], **parts})
    return Trained(detector.eval(), held_out, epochs, remarks)


def _check(config: Config) -> None:
    if config.aan in ("direct", "none") and config.decide == "aan":
        raise ValueError(f"aan {config.aan} has no head to decide; use --decide fused or adn")
    if not config.attention_sigmoid and config.aan != "direct":
        raise ValueError(
            f"--attention_sigmoid false is for aan direct, whose features are a map in [0, 1]; "
            f"those of aan {config.aan} have no bounds"
        )
    if config.strength_nonneg and not config.learn_strength:
        raise ValueError("--strength_nonneg is about a learned strength; add --learn_strength")


def _loss(config: Config, reader: Reader, *, detailed: bool = False) -> supervised.HeadsLoss:
    """Eq. 1: cross-entropy of both heads; detailed, with the accuracies and the strengths."""

    def loss(network: nn.Module, batch: Batch, positive_weight: Tensor | None) -> dict[str, Tensor]:
        assert batch.anomaly_map is not None
        output: LEAOutput = reader(network, batch.image, batch.anomaly_map)
        adn = binary_loss(output.adn, batch.label, positive_weight)
        told = _accuracies(output, batch) if detailed else {}
        if detailed or config.learn_strength:
            told |= _strengths(network)
        if output.aan is None:
            return {"loss": adn, "adn_loss": adn, **told}
        aan = binary_loss(output.aan, batch.label, positive_weight)
        return {"loss": adn + config.aan_weight * aan, "adn_loss": adn, "aan_loss": aan, **told}

    return loss


def _accuracies(output: LEAOutput, batch: Batch) -> dict[str, Tensor]:
    """Of each head at p = 0.5."""
    return {
        f"{name}_accuracy": ((one_logit(logits) > 0) == (batch.label > 0)).float().mean()
        for name, logits in (("adn", output.adn), ("aan", output.aan))
        if logits is not None
    }


def _strengths(network: nn.Module) -> dict[str, Tensor]:
    """w of each point; copies, since the optimizer changes the parameter in place."""
    weights = network.weights().detach().clone()  # type: ignore[operator]
    points: tuple[int, ...] = network.points  # type: ignore[assignment]
    return {f"w_A{p + 1}": w for p, w in zip(points, weights, strict=True)}


def _param_groups(config: Config, network: LEANet) -> tuple[dict[str, Any], ...]:
    others = [p for name, p in network.named_parameters() if name != "strength"]
    groups: list[dict[str, Any]] = [{"params": others}]
    if config.learn_strength:
        groups.append({"params": [network.strength], "lr_mult": config.strength_lr_mult})
    return tuple(groups)
