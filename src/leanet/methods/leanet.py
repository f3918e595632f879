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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from leanet.config import option
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
from leanet.methods.supervised import Normalize, Plan, binary_loss
from leanet.networks.aan import DirectAAN, MobileNetAAN, ResNetAAN
from leanet.networks.blocks import Staged
from leanet.networks.leanet import LEANet, LEAOutput
from leanet.ops.fusion import Fusion, fit_fusion, fuse
from leanet.ops.maps import MapScale, map_score, to_network
from leanet.records import ANOMALOUS, Batch, Fold, Prediction
from leanet.runtime import Runtime

AANS: dict[str, type[Staged]] = {
    "resnet": ResNetAAN,
    "mobilenet": MobileNetAAN,
    "direct": DirectAAN,
}
DARKEST = 1e-3  # dE00 added to map means before the logarithm
FLAT = 0.05  # spatial SD of an attention map below which a remark calls it flat


@dataclass(frozen=True, kw_only=True)
class Config(supervised.Config):
    """Options of LEA-Net, beside those of the plain classifier."""

    aan: Literal["resnet", "mobilenet", "direct"] = option(
        "resnet", "the attention network; direct uses the map itself, without weights"
    )
    attention_points: tuple[int, ...] = option(
        (3,), "stages of the classifier to steer: 0 = A1 ... 4 = A5; [] = none"
    )
    attention_strength: float = option(1.0, "w in f <- (1 + w M) f")
    learn_strength: bool = option(False, "train one w per point, starting from attention_strength")
    strength_lr_mult: float = option(100.0, "step size of w, in multiples of lr")
    aan_weight: float = option(1.0, "weight of the attention network's own loss")
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


class LEADetector(DetectorModule):
    """Detector: score [B] is the fused score (or one head's logit); map [B, 1, S, S] is the
    colorizer's, in CIEDE2000 units; parts: adn and aan (logits), map (log of the map's mean)."""

    logits = ("adn", "aan")

    def __init__(
        self,
        network: LEANet,
        map_model: Colorizer,
        normalize: Normalize,
        *,
        scale: MapScale,
        fusion: Fusion,
        decide: str,
    ) -> None:
        super().__init__()
        self.network, self.map_model, self.normalize = network, map_model, normalize
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

    def extra(self) -> dict[str, Any]:
        """Scale of the map and fusion of the scores."""
        return {
            "scale": self.scale._asdict(),
            "fusion": self.fusion.to_dict(),
            "map_top": self.map_top,
        }

    def _run(self, image: Tensor) -> tuple[Tensor, LEAOutput]:
        anomaly_map = self.map_model(image).map
        output = self.network(self.normalize(image), to_network(anomaly_map, self.scale))
        return anomaly_map, output


def named_scores(output: LEAOutput, network_map: Tensor, scale: MapScale) -> dict[str, Tensor]:
    """The single scores [B]: logits of the heads, log of the mean map (dE00, clipped by scale)."""
    mean = map_score(network_map) * scale.divisor * scale.headroom
    scores = {"adn": output.adn[:, 0], "map": (mean + DARKEST).log()}
    if output.aan is not None:
        scores["aan"] = output.aan[:, 0]
    return scores


def build(config: Config, img_size: int, extra: dict[str, Any]) -> LEADetector:
    """The detector with random weights; `extra` as `LEADetector.extra` gives it."""
    return LEADetector(
        build_network(config, img_size),
        colorizer.build(config.map_model, img_size, {"map_top": extra["map_top"]}),
        Normalize(config.mean, config.std),
        scale=MapScale(**extra["scale"]),
        fusion=Fusion.from_dict(extra["fusion"]),
        decide=config.decide,
    )


def build_network(config: Config, img_size: int) -> LEANet:
    """Classifier and attention network, joined."""
    return LEANet(
        supervised.build_classifier(config, 3, img_size),
        AANS[config.aan](1),
        config.attention_points,
        strength=config.attention_strength,
        learn_strength=config.learn_strength,
    )


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
    with runtime.seeded(fold.name, "adn"):  # the plain classifier starts from the same weights
        network = build_network(config, data.img_size).to(runtime.device)
    supervised.start_from_weights(config, network.adn, data.img_size)
    maps = training_maps(config.map_model, config.map_mode, fold, data, runtime)
    normalize = Normalize(config.mean, config.std).to(runtime.device)
    plan = Plan(
        name=f"{fold.name} classifier",
        network=network,
        loss=_loss(config, normalize),
        rest=rest,
        held=held,
        maps=maps.maps,
        epochs=experience.epochs if experience else None,
        param_groups=_param_groups(config, network),
    )
    epochs = supervised.train_network(config, plan, data, folder, runtime)
    remarks = {**maps.remarks, **_gate(network, normalize, data, maps, rest)}
    if experience is None:
        unseen = held or rest
        scores = _training_scores(network, normalize, data, maps, unseen)
        remarks["threshold_in_sample"] = not held
    else:
        unseen, scores = experience.held_out
    labels = [data.labels[i] for i in unseen]
    parts: Scores = {name: scores[name] for name in ("adn", "aan", "map") if name in scores}
    fusion = fit_fusion(parts, labels)
    detector = LEADetector(
        network, maps.model, normalize, scale=maps.scale, fusion=fusion, decide=config.decide
    )
    remarks["fusion_weights"] = dict(zip(fusion.names, fusion.weights, strict=True))
    fused = fuse(fusion, {name: torch.tensor(values) for name, values in parts.items()}).tolist()
    parts = {"fused": fused, **parts}
    held_out = HeldOut(tuple(unseen), {"score": parts[config.decide], **parts})
    return Trained(detector.eval(), held_out, epochs, remarks)


def _check(config: Config) -> None:
    if config.aan == "direct" and config.decide == "aan":
        raise ValueError("aan direct has no head to decide; use --decide fused or adn")


def _loss(config: Config, normalize: Normalize) -> supervised.HeadsLoss:
    """Eq. 1: cross-entropy of both heads."""

    def loss(network: nn.Module, batch: Batch, positive_weight: Tensor | None) -> dict[str, Tensor]:
        output: LEAOutput = network(normalize(batch.image), batch.anomaly_map)
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
    normalize: Normalize,
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
        output = network(normalize(batch.image), batch.anomaly_map)
        for name, values in named_scores(output, batch.anomaly_map, maps.scale).items():
            scores.setdefault(name, []).extend(values.double().tolist())
    return scores


@torch.inference_mode()
def _gate(
    network: LEANet,
    normalize: Normalize,
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
        output = network(normalize(batch.image), batch.anomaly_map)
        for point, attention in zip(network.points, output.attention, strict=True):
            flat = attention.flatten(1)
            means.setdefault(point, []).extend(flat.mean(dim=1).tolist())
            spreads.setdefault(point, []).extend(flat.std(dim=1, correction=0).tolist())
    gate = {
        f"A{point + 1}": {
            "strength": float(network.strength[k]),
            "attention_mean": math.fsum(means[point]) / len(means[point]),
            "attention_spatial_sd": math.fsum(spreads[point]) / len(spreads[point]),
        }
        for k, point in enumerate(network.points)
    }
    flat_points = [name for name, g in gate.items() if g["attention_spatial_sd"] < FLAT]
    return {"gate": gate, "flat_attention": flat_points}
