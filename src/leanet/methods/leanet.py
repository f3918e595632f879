"""LEA-Net: a map of what looks unusual steers a classifier that learns what matters.

Layer-wise External Attention (Katafuchi & Tokunaga, arXiv 2109.05493). Phase 1: a colorizer,
trained on normal images, draws an anomaly map of every image. Phase 2: an attention network reads
the map and multiplies the features of a classifier by what it makes of it; both are trained with
the labels.

Different from the paper: training images get maps from models that have not seen them, the score is
a fusion of the classifier, the attention network and the map itself (`decide`), and the working
point comes from images that no part has been trained on. `--preset paper` goes back to the
paper's choices.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from leanet.config import nearest, option
from leanet.data.loader import Source
from leanet.methods import colorizer, supervised
from leanet.methods.colorizer import Colorizer
from leanet.methods.map_models import MapMode, TrainingMaps, training_maps
from leanet.methods.recipe import (
    INFERENCE_BATCH,
    DetectorModule,
    Experience,
    HeldOut,
    Material,
    Scores,
    Trained,
)
from leanet.methods.supervised import Normalize, Plan, binary_loss, one_logit, seed_names
from leanet.networks.aan import DirectAAN, MobileNetAAN, ResNetAAN
from leanet.networks.blocks import Staged
from leanet.networks.leanet import (
    IN_CHANS,
    AdnInput,
    AttentionMap,
    Fuse,
    LEANet,
    LEAOutput,
    Learned,
    Pool,
    adn_input,
)
from leanet.ops.fusion import Fusion, fit_fusion, fuse
from leanet.ops.maps import MapScale, map_score, to_network
from leanet.records import ANOMALOUS, Batch, Fold, Prediction
from leanet.runtime import Runtime

AANS: dict[str, Callable[..., Staged]] = {
    "resnet": ResNetAAN,
    "mobilenet": MobileNetAAN,
}
DARKEST = 1e-3  # dE00 added to map means before the logarithm
FLAT = 0.05  # spatial SD of an attention map below which a remark calls it flat


@dataclass(frozen=True, kw_only=True)
class Config(supervised.Config):
    """Options of LEA-Net, beside those of the plain classifier."""

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
    attention_points: tuple[int, ...] = option(
        (3,), "stages of the classifier to steer: 0 = A1 ... 4 = A5; [] = none"
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
    map_mode: MapMode = option(
        "out_of_fold",
        "training maps by models that have not seen the image, or in_sample as in the paper",
    )
    map_model: colorizer.Config = option(colorizer.Config, "options of the colorizer")


PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        **supervised.PAPER,
        "decide": "adn",
        "map_mode": "in_sample",
        "map_model": colorizer.PRESETS["paper"],
    }
}


class Reader(nn.Module):
    """Shows a LEA-Net image [B, 3, S, S] in [0, 1] and network map [B, 1, S, S] as it is meant to
    see them: the image is joined with the map first, and its colors are normalized then."""

    def __init__(self, normalize: Normalize, how: AdnInput) -> None:
        super().__init__()
        self.normalize, self.how = normalize, how

    def forward(self, network: nn.Module, image: Tensor, anomaly_map: Tensor) -> LEAOutput:
        """Run the network."""
        seen = adn_input(image, anomaly_map, self.how)
        if self.how == "4_channel":
            seen = torch.cat([self.normalize(seen[:, :3]), seen[:, 3:]], dim=1)
        elif self.how != "map":
            seen = self.normalize(seen)
        output: LEAOutput = network(seen, anomaly_map)
        return output


class LEADetector(DetectorModule):
    """Detector: score [B] is the fused score (or one head's logit); map [B, 1, S, S] is the
    colorizer's, in CIEDE2000 units; parts: adn and aan (logits), map (log of the map's mean)."""

    network: LEANet
    logits = ("adn", "aan")

    def __init__(
        self,
        network: LEANet,
        map_model: Colorizer,
        reader: Reader,
        *,
        scale: MapScale,
        fusion: Fusion,
        decide: str,
    ) -> None:
        super().__init__()
        self.network, self.map_model, self.reader = network, map_model, reader
        self.scale, self.fusion, self.decide = scale, fusion, decide
        self.img_size = map_model.img_size
        self.map_unit, self.map_top = map_model.map_unit, scale.divisor

    def forward(self, image: Tensor) -> Prediction:
        """Images [B, 3, S, S] in [0, 1] -> Prediction."""
        anomaly_map, output = self._run(image)
        parts = named_scores(output, to_network(anomaly_map, self.scale), self.scale)
        fused = fuse(self.fusion, parts)
        score = fused if self.decide == "fused" else parts[self.decide]
        return Prediction(score, anomaly_map, parts={"fused": fused, **parts})

    def explain(self, image: Tensor) -> dict[str, Tensor]:
        """The repainted image, and per point p the attention map and the channel means of the
        features before and after it, at the resolution of their stage."""
        _, output = self._run(image)
        pictures = self.map_model.explain(image)
        for k, point in enumerate(self.network.points):
            pictures[f"attention A{point + 1}"] = output.attention[k]
            pictures[f"before A{point + 1}"] = output.before[k].mean(dim=1, keepdim=True)
            pictures[f"after A{point + 1}"] = output.after[k].mean(dim=1, keepdim=True)
        return pictures

    def strengths(self) -> dict[str, float]:
        """w of every attention point."""
        return self.network.named_strengths()

    def extra(self) -> dict[str, Any]:
        """Scale of the map and fusion of the scores."""
        return {
            "scale": self.scale._asdict(),
            "fusion": self.fusion.to_dict(),
            "map_top": self.map_top,
        }

    def _run(self, image: Tensor) -> tuple[Tensor, LEAOutput]:
        anomaly_map = self.map_model(image).map
        return anomaly_map, self.reader(self.network, image, to_network(anomaly_map, self.scale))


def named_scores(output: LEAOutput, network_map: Tensor, scale: MapScale) -> dict[str, Tensor]:
    """The single scores [B]: logits of the heads, log of the mean map (dE00, clipped by scale)."""
    mean = map_score(network_map) * scale.divisor * scale.headroom
    scores = {"adn": one_logit(output.adn), "map": (mean + DARKEST).log()}
    if output.aan is not None:
        scores["aan"] = one_logit(output.aan)
    return scores


def build(config: Config, img_size: int, extra: dict[str, Any]) -> LEADetector:
    """The detector with random weights; `extra` as `LEADetector.extra` gives it."""
    return LEADetector(
        build_network(config, img_size),
        colorizer.build(config.map_model, img_size, {"map_top": extra["map_top"]}),
        Reader(Normalize(config.mean, config.std), config.adn_input),
        scale=MapScale(**extra["scale"]),
        fusion=Fusion.from_dict(extra["fusion"]),
        decide=config.decide,
    )


def build_network(config: Config, img_size: int) -> LEANet:
    """Classifier and attention network, joined."""
    attention = partial(
        AttentionMap,
        pool=config.attention_pool,
        standardize=config.attention_contrast,
        sigmoid=config.attention_sigmoid,
    )
    learned: Learned = "positive" if config.strength_nonneg else "free"
    return LEANet(
        supervised.build_classifier(config, IN_CHANS[config.adn_input], img_size),
        build_aan(config),
        config.attention_points if config.aan != "none" else (),
        attention=attention,
        fuse=config.attention_fuse,
        strength=config.attention_strength,
        learn_strength=learned if config.learn_strength else "fixed",
    )


def build_aan(config: Config) -> Staged | None:
    """The attention network, with random weights."""
    if config.aan == "none":
        return None
    if config.aan == "direct":
        return DirectAAN(1)
    if config.aan not in AANS:
        raise ValueError(
            f"aan {config.aan!r}{nearest(config.aan, AANS)}: allowed are {', '.join(AANS)}, "
            "direct, none"
        )
    return AANS[config.aan](1, config.num_outputs)


def train(
    config: Config,
    fold: Fold,
    data: Material,
    folder: Path,
    runtime: Runtime,
    experience: Experience | None = None,
) -> Trained:
    """Phase 1 (maps), then phase 2 (classifier and attention network together)."""
    _check(config)
    rest, held = supervised.parts_of(config, fold, data, runtime, experience)
    # the plain classifier starts from the same weights
    with runtime.seeded(*seed_names(config, fold.name), "adn"):
        network = build_network(config, data.img_size).to(runtime.device)
    supervised.start_from_weights(config, network.adn, data.img_size)
    maps = training_maps(config.map_model, config.map_mode, fold, data, folder, runtime)
    reader = Reader(Normalize(config.mean, config.std), config.adn_input).to(runtime.device)
    plan = Plan(
        name=f"{fold.name} classifier",
        network=network,
        loss=_loss(config, reader),
        rest=rest,
        held=held,
        maps=maps.maps,
        epochs=experience.epochs if experience else None,
        param_groups=_param_groups(config, network),
    )
    epochs = supervised.train_network(config, plan, data, folder, runtime)
    remarks = {**maps.remarks, **_gate(network, reader, data, maps, rest)}
    remarks["trained_on"] = supervised.counts(rest, data)
    if experience is None:
        unseen = held or rest
        scores = _training_scores(network, reader, data, maps, unseen)
        remarks["threshold_in_sample"] = not held
    else:
        unseen, scores = experience.held_out
    labels = [data.labels[i] for i in unseen]
    parts: Scores = {name: scores[name] for name in ("adn", "aan", "map") if name in scores}
    fusion = fit_fusion(parts, labels)
    detector = LEADetector(
        network, maps.model, reader, scale=maps.scale, fusion=fusion, decide=config.decide
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


def _loss(config: Config, reader: Reader) -> supervised.HeadsLoss:
    """Eq. 1: cross-entropy of both heads."""

    def loss(network: nn.Module, batch: Batch, positive_weight: Tensor | None) -> dict[str, Tensor]:
        assert batch.anomaly_map is not None
        output: LEAOutput = reader(network, batch.image, batch.anomaly_map)
        adn = binary_loss(output.adn, batch.label, positive_weight)
        if output.aan is None:
            return {"loss": adn, "adn_loss": adn}
        aan = binary_loss(output.aan, batch.label, positive_weight)
        return {"loss": adn + config.aan_weight * aan, "adn_loss": adn, "aan_loss": aan}

    return loss


def _param_groups(config: Config, network: LEANet) -> tuple[dict[str, Any], ...]:
    others = [p for name, p in network.named_parameters() if name != "strength"]
    groups: list[dict[str, Any]] = [{"params": others}]
    if config.learn_strength:
        groups.append({"params": [network.strength], "lr_mult": config.strength_lr_mult})
    return tuple(groups)


@torch.inference_mode()
def _training_scores(
    network: LEANet,
    reader: Reader,
    data: Material,
    maps: TrainingMaps,
    indices: tuple[int, ...],
) -> Scores:
    """Scores of training images with their training maps (out-of-fold ones, by default)."""
    network.eval()
    source = Source(images=data.images, labels=data.labels, indices=indices, maps=maps.maps)
    scores: Scores = {}
    for _, batch in source.ordered(INFERENCE_BATCH):
        assert batch.anomaly_map is not None
        output = reader(network, batch.image, batch.anomaly_map)
        for name, values in named_scores(output, batch.anomaly_map, maps.scale).items():
            scores.setdefault(name, []).extend(values.double().tolist())
    return scores


@torch.inference_mode()
def _gate(
    network: LEANet,
    reader: Reader,
    data: Material,
    maps: TrainingMaps,
    indices: tuple[int, ...],
) -> dict[str, Any]:
    """What the attention does to the anomalous training images, which it is there for: strength,
    mean and spatial SD of M at each point."""
    network.eval()
    indices = tuple(i for i in indices if data.labels[i] == ANOMALOUS)
    source = Source(images=data.images, labels=data.labels, indices=indices, maps=maps.maps)
    means: dict[int, list[float]] = {}
    spreads: dict[int, list[float]] = {}
    for _, batch in source.ordered(INFERENCE_BATCH):
        assert batch.anomaly_map is not None
        output = reader(network, batch.image, batch.anomaly_map)
        for point, attention in zip(network.points, output.attention, strict=True):
            flat = attention.flatten(1)
            means.setdefault(point, []).extend(flat.mean(dim=1).tolist())
            spreads.setdefault(point, []).extend(flat.std(dim=1, correction=0).tolist())
    strengths = network.named_strengths()
    gate = {
        f"A{point + 1}": {
            "strength": strengths[f"A{point + 1}"],
            "attention_mean": math.fsum(means[point]) / len(means[point]),
            "attention_spatial_sd": math.fsum(spreads[point]) / len(spreads[point]),
        }
        for k, point in enumerate(network.points)
    }
    flat_points = [name for name, g in gate.items() if g["attention_spatial_sd"] < FLAT]
    return {"gate": gate, "flat_attention": flat_points}
