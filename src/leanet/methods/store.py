"""A trained detector on disk: one safetensors file that rebuilds it completely.

The metadata beside the weights names the method, its whole configuration, the image size and what
the weights do not hold (map scale, fusion), so that nothing else of the run folder is needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from leanet.config import from_dict, to_dict
from leanet.methods import catalog
from leanet.methods.recipe import DetectorModule
from leanet.training import checkpoint
from leanet.training.checkpoint import WEIGHTS
from leanet.version import __version__


def save_detector(folder: Path, method: str, config: Any, detector: DetectorModule) -> None:
    """Write `folder/weights.safetensors`."""
    metadata = {
        "leanet": __version__,
        "method": method,
        "config": to_dict(config),
        "img_size": detector.img_size,
        "extra": detector.extra(),
    }
    checkpoint.save(folder / WEIGHTS, detector.state_dict(), metadata)


def load_detector(folder: Path, device: torch.device | str = "cpu") -> DetectorModule:
    """The detector of a fold folder, ready to use.

    Raises:
        ValueError: there is none, or the file does not fit this version.
    """
    path = folder / WEIGHTS
    if not path.exists():
        raise ValueError(
            f"no trained detector in {folder} ({WEIGHTS} is missing); "
            "finish the run with `leanet fit ... --resume`"
        )
    tensors, metadata = checkpoint.load(path)
    try:
        method = catalog.find(metadata["method"])
        config = from_dict(method.config, metadata["config"])
        detector = method.build(config, metadata["img_size"], metadata["extra"])
        detector.load_state_dict(tensors)
    except (KeyError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{path} holds no detector that leanet {__version__} can rebuild (written by version "
            f"{metadata.get('leanet', 'unknown')}): {reason}"
        ) from error
    detector.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # as trained
    return detector.eval()
