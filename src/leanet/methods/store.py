"""The detectors of the whole catalog on disk (`leanet.methods.detector_file` says how)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from leanet.methods import catalog
from leanet.methods.detector_file import read_detector, write_detector
from leanet.methods.recipe import DetectorModule


def save_detector(folder: Path, method: str, config: Any, detector: DetectorModule) -> None:
    """Write `folder/weights.safetensors`."""
    write_detector(folder, method, config, detector)


def load_detector(folder: Path, device: torch.device | str = "cpu") -> DetectorModule:
    """The detector of a fold folder, ready to use.

    Raises:
        ValueError: there is none, or the file does not fit this version.
    """
    return read_detector(folder, catalog.find, device)
