"""A trained detector on disk: one safetensors file that rebuilds it completely.

The metadata beside the weights names the method, its whole configuration, the image size and what
the weights do not hold (map scale, fusion), so that nothing else of the run folder is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from leanet.config import from_dict, to_dict
from leanet.methods.recipe import DetectorModule, Method
from leanet.training import checkpoint
from leanet.training.checkpoint import WEIGHTS
from leanet.version import __version__


def write_detector(
    folder: Path,
    method: str,
    config: Any,
    detector: DetectorModule,
    *,
    file: str = WEIGHTS,
    **more: Any,
) -> None:
    """Write `folder/file`; `more` (JSON) joins its metadata."""
    metadata = {
        "leanet": __version__,
        "method": method,
        "config": to_dict(config),
        "img_size": detector.img_size,
        "extra": detector.extra(),
        **more,
    }
    checkpoint.save(folder / file, detector.state_dict(), metadata)


def read_detector(
    folder: Path,
    find: Callable[[str], Method],
    device: torch.device | str = "cpu",
    *,
    file: str = WEIGHTS,
) -> DetectorModule:
    """The detector of a folder, ready to use; `find` knows the methods by name.

    Raises:
        ValueError: there is none, or the file does not fit this version.
    """
    path = folder / file
    if not path.exists():
        raise ValueError(
            f"no trained detector in {folder} ({file} is missing); "
            "finish the run with `leanet fit ... --resume`"
        )
    tensors, metadata = checkpoint.load(path)
    try:
        method = find(metadata["method"])
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
