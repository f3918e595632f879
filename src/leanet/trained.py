"""A finished run: its card, how it decides, and its detector with any engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import torch

from leanet.files import read_json, write_json
from leanet.inference.export_files import NAMES
from leanet.inference.exported import open_exported
from leanet.methods.store import load_detector
from leanet.prepare import FINAL
from leanet.records import Detector
from leanet.training.checkpoint import WEIGHTS

Engine = Literal["torch", "onnx", "onnx_int8", "openvino"]
CARD = "card.json"


def read_card(run: Path) -> dict[str, Any]:
    """The card of a finished run.

    Raises:
        ValueError: no run folder, or one that is not finished.
    """
    if not (run / "config.yaml").exists():
        raise ValueError(f"{run} is no run folder (it has no config.yaml); {_instead(run)}")
    if not (run / CARD).exists():
        raise ValueError(f"{run} is not finished; complete it with `leanet fit ... --resume`")
    return dict(read_json(run / CARD))


def _instead(path: Path) -> str:
    """What to give instead of a path that is no run."""
    names = {name for own in NAMES.values() for name in own}
    if path.name in names or any((path / name).exists() for name in names):
        return "an exported file is used through its run, `leanet predict RUN PATHS --engine onnx`"
    return "`leanet fit` makes one"


def update_card(run: Path, **changes: Any) -> dict[str, Any]:
    """Replace some values of the card, atomically, and return it; errors as `read_card`."""
    card = {**read_card(run), **changes}
    write_json(run / CARD, card)
    return card


def open_detector(
    run: Path, engine: Engine = "torch", device: torch.device | str = "cpu"
) -> Detector:
    """The final detector of a run, or the file that was exported from it, ready to use.

    Raises:
        ValueError: an unknown engine, no finished run, nothing exported for this engine, or a file
            that was exported from other weights.
    """
    card = read_card(run)
    if engine == "torch":
        return load_detector(run / FINAL, device)
    if engine not in get_args(Engine):
        raise ValueError(f"unknown engine {engine!r}; allowed: {', '.join(get_args(Engine))}")
    return open_exported(run, engine, card, run / FINAL / WEIGHTS)
