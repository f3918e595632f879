"""What an exported file computes, and what it says about itself.

One graph takes pixels in [0, 1] to everything that follows from them: score, verdict, map. It is
made of the detector itself and of `leanet.ops.working_point.decide`, so it cannot judge otherwise
than `leanet predict`. Its facts, JSON inside the file, hold what a user needs without the run, with
answers to a few computed images: any runtime can check itself by them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from leanet.inference.judge import full_float32
from leanet.ops.calibration import Calibration
from leanet.ops.working_point import WorkingPoint, decide
from leanet.records import Detector, Prediction
from leanet.version import __version__

Format = Literal["onnx", "openvino", "torch"]
FACTS = "leanet"  # the key in the file's own metadata
PART = "part_"  # before the name of a single score
INPUT = "image"
NUM_VECTORS = 3
TOLERANCE = 1e-4  # of scores, relative to max(1, |score|)
VECTOR_FORMULA = "((7*x*(k+1) + 5*y*(c+1) + 31*k*c) % 256) / 255"
_CARD = ("method", "img_size", "classes", "normal")
_MAP = ("map_unit", "map_top", "map_low", "map_border", "map_thresholds")


class Graph(nn.Module):
    """Images [B, 3, S, S] in [0, 1] -> outputs by name: score [B]; verdict [B], 0 normal and 1
    anomalous, and review [B], 1 where a person should look, int64; probability [B] of a defect;
    map [B, 1, S, S]; probs [B, K] of classes; part_NAME [B], the single scores. What the detector
    does not give is left out."""

    def __init__(self, detector: nn.Module, point: WorkingPoint) -> None:
        super().__init__()
        self.detector, self.point = detector.eval(), in_single_precision(point)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Judge a batch."""
        prediction: Prediction = self.detector(image)
        outputs: dict[str, Tensor] = {}
        if self.point.threshold is not None:
            decision = decide(self.point, prediction.score)
            outputs["score"] = prediction.score
            outputs["verdict"] = decision.anomalous.long()
            outputs["review"] = decision.review.long()
            if decision.probability is not None:
                outputs["probability"] = decision.probability
        for name in ("map", "probs"):
            value = getattr(prediction, name)
            if value is not None:
                outputs[name] = value
        return outputs | {f"{PART}{name}": part for name, part in prediction.parts.items()}


def in_single_precision(point: WorkingPoint) -> WorkingPoint:
    """A point that decides about float32 scores as `point` does about the same numbers in float64:
    with the smallest float32 at or above every limit, as score >= limit asks for no more."""
    review = point.review
    return WorkingPoint(
        threshold=None if point.threshold is None else at_least(point.threshold),
        review=None if review is None else (at_least(review[0]), at_least(review[1])),
        calibration=None if point.calibration is None else _distinct(point.calibration),
    )


def at_least(limit: float) -> float:
    """The smallest float32 that is not below a number.

    >>> float(np.float32(0.3)) >= 0.3, at_least(0.3) == float(np.float32(0.3))
    (True, True)
    >>> float(np.float32(0.7)) >= 0.7, at_least(0.7) > float(np.float32(0.7))
    (False, True)
    """
    nearest = np.float32(limit)
    if float(nearest) < limit:
        nearest = np.nextafter(nearest, np.float32(np.inf))
    return float(nearest)


def _distinct(calibration: Calibration) -> Calibration:
    """The same map with knots that float32 can tell apart: of those that coincide the last."""
    if calibration.kind != "isotonic":
        return calibration
    pairs = zip(calibration.knots, calibration.values, strict=True)
    kept = {float(np.float32(knot)): value for knot, value in pairs}
    return Calibration(kind="isotonic", knots=tuple(kept), values=tuple(kept.values()))


def vector_images(side: int) -> NDArray[np.float32]:
    """Images [3, 3, side, side] in [0, 1] that anyone can compute: pixel (row y, column x) of
    channel c of image k by `VECTOR_FORMULA`."""
    k, c, y, x = np.ogrid[:NUM_VECTORS, :3, :side, :side]
    levels: NDArray[np.int64] = (7 * x * (k + 1) + 5 * y * (c + 1) + 31 * k * c) % 256
    return (levels / 255).astype(np.float32)


@torch.inference_mode()
def outputs_of(graph: nn.Module, image: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """What the graph gives in PyTorch, as arrays."""
    with full_float32(torch.device("cpu")):
        return {name: value.numpy() for name, value in graph(torch.from_numpy(image)).items()}


def facts_of(
    detector: Detector,
    card: Mapping[str, Any],
    point: WorkingPoint,
    weights: str,
    outputs: Mapping[str, NDArray[Any]],
) -> dict[str, Any]:
    """What a file says about itself (JSON): facts of the card and the detector, the working point,
    the SHA-256 of the weights, and `outputs`, what the graph gives for the computed images."""
    return {
        "leanet": __version__,
        **{name: card.get(name) for name in _CARD},
        "input": f"{INPUT}: float32 [B, 3, S, S], RGB in [0, 1], resized bilinearly as Pillow does",
        "outputs": list(outputs),
        **point_facts(point),
        **{name: getattr(detector, name, None) for name in _MAP},
        "weights_sha256": weights,
        "test_vectors": {
            "pixel": VECTOR_FORMULA,
            "images": NUM_VECTORS,
            "tolerance": TOLERANCE,
            "expected": summary(outputs),
        },
    }


def point_facts(point: WorkingPoint) -> dict[str, Any]:
    """A working point as JSON, of a calibration only whether there is one."""
    return {
        "threshold": point.threshold,
        "review": None if point.review is None else list(point.review),
        "calibrated": point.calibration is not None,
    }


def summary(outputs: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Outputs as lists; of a map only its mean per image."""
    listed = {name: value.tolist() for name, value in outputs.items() if name != "map"}
    if "map" in outputs:
        listed["map_mean"] = outputs["map"].mean(axis=(1, 2, 3), dtype=np.float64).tolist()
    return listed


def prediction_of(outputs: Mapping[str, NDArray[Any]]) -> Prediction:
    """The prediction that a graph's outputs hold; without a normal class the score is 0."""
    tensors = {name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in outputs.items()}
    parts = {name.removeprefix(PART): v for name, v in tensors.items() if name.startswith(PART)}
    score = tensors.get("score")
    if score is None:
        score = torch.zeros(len(next(iter(tensors.values()))))
    return Prediction(score, tensors.get("map"), tensors.get("probs"), parts)
