"""Exported files as detectors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from leanet.data.generated import sha256_of
from leanet.inference.engines import OPEN, Session
from leanet.inference.export_graph import prediction_of
from leanet.inference.parity import check_vectors
from leanet.records import Prediction


class ExportedDetector:
    """A file that was exported from a detector, in its place: images [B, 3, S, S] in [0, 1] ->
    Prediction, on the CPU whatever device they come from. Facts about maps and classes are
    attributes, as the detector has them."""

    def __init__(self, session: Session) -> None:
        self._run, self.facts = session
        self.img_size: int = self.facts["img_size"]
        self.classes: tuple[str, ...] = tuple(self.facts["classes"] or ())
        self.map_unit: str | None = self.facts["map_unit"]
        self.map_top: float | None = self.facts["map_top"]
        self.map_low: float | None = self.facts["map_low"]
        self.map_border: int = self.facts["map_border"]
        self.map_thresholds: dict[str, float] = self.facts["map_thresholds"]

    def __call__(self, image: Tensor) -> Prediction:
        """Judge a batch."""
        pixels = np.ascontiguousarray(image.detach().cpu().numpy(), dtype=np.float32)
        return prediction_of(self._run(pixels))


def open_exported(
    run: Path, engine: str, card: Mapping[str, Any], weights: Path
) -> ExportedDetector:
    """The detector that was exported from a run for an engine (onnx, onnx_int8, openvino), if it
    holds what is in the file `weights` and gives the answers that it was written with.

    Raises:
        ValueError: nothing was exported, it was exported from other weights, or the engine is not
            installed.
    """
    again = f"`leanet export {run} {_options(engine)}`"
    record = (card.get("exports") or {}).get(engine)
    if record is None:
        raise ValueError(f"{run} has no export for {engine}; write it with {again}")
    file = run / record["file"]
    if not file.exists():
        raise ValueError(f"{file} has gone; write it again with {again}")
    session = OPEN[engine](file)
    if session.facts["weights_sha256"] != sha256_of(weights):
        raise ValueError(
            f"{file} was exported from other weights than the run has now; write it again with "
            f"{again} --overwrite"
        )
    check_vectors(session, str(file))
    return ExportedDetector(session)


def _options(engine: str) -> str:
    return "--format onnx --int8 --data DATA" if engine == "onnx_int8" else f"--format {engine}"
