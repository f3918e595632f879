"""LEA-Net: a map of what looks unusual steers a classifier that learns what matters.

Layer-wise External Attention (Katafuchi & Tokunaga, arXiv 2109.05493). Phase 1: a colorizer, or
another model that knows normal images, draws an anomaly map of every image. Phase 2: an attention
network reads the map and multiplies the features of a classifier by what it makes of it; both are
trained with the labels.

Different from the paper: training images get maps from models that have not seen them, the working
point comes from images that no part has been trained on, and the classifier's log-odds begin with
what the map expects of the image, so that few labels correct instead of starting from nothing. With
trained weights the classifier is not trained at all: `guided.py` takes over. `--preset paper` goes
back to the paper's choices (lea_config.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from leanet.methods import guided, supervised
from leanet.methods.choice import train_best
from leanet.methods.extra import Extra
from leanet.methods.held_out import parts_of
from leanet.methods.lea_config import PRESETS, Config, resolve
from leanet.methods.lea_detector import LEADetector, Reader
from leanet.methods.lea_measures import measure_attention, scores_on_maps
from leanet.methods.map_models import TrainingMaps, chunks, training_maps
from leanet.methods.map_options import make_prior, steps_of
from leanet.methods.map_sources import describe, find_source, rebuild, refuse_extras
from leanet.methods.recipe import (
    Experience,
    HeldOut,
    Material,
    Scores,
    Trained,
)
from leanet.methods.supervised import Normalize, Plan, binary_loss, one_logit, seed_names
from leanet.networks.choose import build_aan
from leanet.networks.guided import GuidedNet
from leanet.networks.leanet import (
    IN_CHANS,
    AttentionMap,
    LEANet,
    LEAOutput,
    Learned,
    point_stride,
)
from leanet.networks.prior import MapPrior
from leanet.ops.fusion import Fusion, fit_fusion, fuse
from leanet.ops.map_steps import MapPreparation
from leanet.records import ANOMALOUS, NORMAL, Batch, Fold
from leanet.runtime import Runtime

__all__ = ["PRESETS", "Config", "build", "build_network", "train"]


def build(config: Config, img_size: int, extra: dict[str, Any]) -> LEADetector:
    """The detector with random weights; `extra` as `LEADetector.extra` gives it."""
    network: LEANet | GuidedNet
    config, side = resolve(config), extra.get("network_size", img_size)
    map_model = rebuild(extra["map_model"], img_size)
    prior = make_prior(config, map_model.map_unit)
    if config.attention == "guided":
        network = guided.build_network(config, side, prior, tuned=extra.get("tuned", False))
    else:
        network = build_network(config, side, prior)
    return LEADetector(
        network,
        map_model,
        Reader(Normalize(config.mean, config.std), config.adn_input),
        drawn_by=extra["map_model"],
        preparation=MapPreparation.from_dict(extra),
        fusion=Fusion.from_dict(extra["fusion"]) if extra["fusion"] else None,
        decide=config.decide,
        network_size=side,
        one_look=extra.get("one_look", False),
    )


def build_network(config: Config, img_size: int, prior: MapPrior | None = None) -> LEANet:
    """Classifier and attention network, joined, for attention in layers."""
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
        prior=prior,
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
    config = resolve(config)
    if config.attention == "guided":
        return guided.train(config, fold, data, folder, runtime, experience)
    chosen_from = variants(config, data.img_size)
    if len(chosen_from) > 1:
        return train_best(train, chosen_from, fold, data, folder, runtime, experience)
    (config,) = chosen_from.values()
    steps = steps_of(config)
    source = find_source(config.map_source, config.map_model, data, runtime, config.map_options)
    begun = begin(config, fold, data, runtime, experience)
    extras = supervised.extras_of(config, fold, begun.rest, data, folder, runtime)
    refuse_extras(source, config.map_source, extras)
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
            dataclasses.replace(config, attention_points=(point,), val_anomalous="always")
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
    rest, held = parts_of(config, fold, data, runtime, experience)
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
    config = resolve(config)
    (network, rest, held), maps = prepared.begun, prepared.maps
    network.prior = _prior(config, maps, [i for i in rest if data.labels[i] == NORMAL])
    reader = Reader(Normalize(config.mean, config.std), config.adn_input).to(runtime.device)
    plan = Plan(
        name=f"{fold.name} classifier",
        network=network,
        loss=_loss(config, reader, _pull(config, rest, data), detailed=prepared.detailed),
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
    fusion, parts = _fused(scores, [data.labels[i] for i in unseen])
    remarks["fusion_weights"] = dict(zip(fusion.names, fusion.weights, strict=True))
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
    held_out = HeldOut(tuple(unseen), {"score": parts[config.decide], **parts})
    return Trained(detector.eval(), held_out, epochs, remarks)


def _fused(scores: Scores, labels: Sequence[int]) -> tuple[Fusion, Scores]:
    """The fusion of what held-out images were given, and all of that with the fused score."""
    parts: Scores = {name: scores[name] for name in ("adn", "aan", "map") if name in scores}
    fusion = fit_fusion(parts, labels)
    fused = fuse(fusion, {name: torch.tensor(values) for name, values in parts.items()})
    return fusion, {"fused": fused.tolist(), **parts}


def _prior(config: Config, maps: TrainingMaps, normals: Sequence[int]) -> MapPrior | None:
    """What the maps say of images, in spreads of what they say of normal ones."""
    prior = make_prior(config, maps.model.map_unit)
    if prior is not None:
        prior.to(maps.maps.device)
        prior.fit(torch.cat([prior.score(maps.maps.take(c)) for c in chunks(normals)]))
    return prior


def _pull(config: Config, rest: Sequence[int], data: Material) -> float:
    """Of the squared distance to what the map expects, in the loss of an image: a Gaussian prior
    over functions, whose weight the labelled defects share."""
    labelled = sum(data.labels[i] == ANOMALOUS for i in rest)
    return 0.0 if config.map_prior == "none" else config.prior_pull / max(1, labelled)


def _loss(
    config: Config, reader: Reader, pull: float = 0.0, *, detailed: bool = False
) -> supervised.HeadsLoss:
    """Eq. 1: cross-entropy of both heads; detailed, with the accuracies and the strengths."""

    def loss(network: nn.Module, batch: Batch, positive_weight: Tensor | None) -> dict[str, Tensor]:
        assert batch.anomaly_map is not None
        output: LEAOutput = reader(network, batch.image, batch.anomaly_map)
        adn = binary_loss(output.adn, batch.label, positive_weight)
        told = _accuracies(output, batch) if detailed else {}
        if output.prior is not None:
            correction = one_logit(output.adn).float() - output.prior.float()
            told["prior_loss"] = pull / 2 * correction.square().mean()
        if detailed or config.learn_strength:
            told |= _strengths(network)
        total = adn + told.get("prior_loss", 0.0)
        if output.aan is None:
            return {"loss": total, "adn_loss": adn, **told}
        aan = binary_loss(output.aan, batch.label, positive_weight)
        return {"loss": total + config.aan_weight * aan, "adn_loss": adn, "aan_loss": aan, **told}

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
