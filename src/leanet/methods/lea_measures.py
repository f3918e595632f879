"""What a trained LEA-Net makes of its own training images: their scores, and what attention did."""

from __future__ import annotations

import math
from typing import Any

import torch

from leanet.data.loader import Source
from leanet.methods.lea_detector import Reader, named_scores
from leanet.methods.map_models import TrainingMaps
from leanet.methods.recipe import INFERENCE_BATCH, Material, Scores
from leanet.networks.guided import GuidedNet
from leanet.networks.leanet import LEANet
from leanet.records import ANOMALOUS

FLAT = 0.05  # spatial SD of an attention map below which a remark calls it flat


@torch.inference_mode()
def scores_on_maps(
    network: LEANet | GuidedNet,
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
def measure_attention(
    network: LEANet | GuidedNet,
    reader: Reader,
    data: Material,
    maps: TrainingMaps,
    indices: tuple[int, ...],
) -> dict[str, Any]:
    """What the attention does to the anomalous training images, which it is there for: strength
    (not of guided attention), mean and spatial SD of M at each point; {} if there are none."""
    network.eval()
    indices = tuple(i for i in indices if data.labels[i] == ANOMALOUS)
    if not indices:
        return {}
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
    gate: dict[str, dict[str, float]] = {}
    for point in network.points:
        name = f"A{point + 1}"
        gate[name] = {"strength": strengths[name]} if name in strengths else {}
        gate[name]["attention_mean"] = math.fsum(means[point]) / len(means[point])
        gate[name]["attention_spatial_sd"] = math.fsum(spreads[point]) / len(spreads[point])
    flat_points = [name for name, g in gate.items() if g["attention_spatial_sd"] < FLAT]
    return {"gate": gate, "flat_attention": flat_points}
