"""Exported files as detectors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leanet.records import Detector


def open_exported(run: Path, engine: str, card: Mapping[str, Any]) -> Detector:
    """The detector that was exported from a run for an engine (onnx, openvino).

    Raises:
        ValueError: nothing was exported, or it is not of this run's weights.
    """
    raise ValueError(f"{run} has no export for {engine}; write it with `leanet export`")
