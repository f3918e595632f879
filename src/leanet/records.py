"""The nouns that every part of the package shares: frozen records without logic.

A *sample* is one image file with its label, a *fold* says which samples train and which test,
a *batch* is what a network sees, a *prediction* is what a detector gives, and a *detector* is the
narrow waist of the package: whatever was trained becomes `image -> Prediction`, and everything
after it (predict, evaluate, report, ...) sees only that.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from torch import Tensor

NORMAL: Final = 0
ANOMALOUS: Final = 1
PROBABILITY: Final = "p_"  # before the name of a class: the column of its probabilities


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One image file and what is known about it."""

    path: Path
    label: int  # NORMAL or ANOMALOUS
    kind: str = ""  # class or defect type, e.g. "good", "scratch", "early_blight"; "" if unknown
    mask: Path | None = None  # ground truth, nonzero = anomalous; None = no mask on disk
    group: str | None = None  # same leaf, patient or part: groups never straddle folds
    split: str | None = None  # "train" or "test" where the data set says so


@dataclass(frozen=True, kw_only=True, slots=True)
class Fold:
    """Indices into the list of samples.

    `parts` divides `train` for out-of-fold anomaly maps: the map model that draws the maps of one
    part is trained without it. An empty `parts` means that there is no such division.
    """

    name: str  # "fold-0", "fold-1", ..., or "final"
    train: tuple[int, ...]
    test: tuple[int, ...]
    parts: tuple[tuple[int, ...], ...] = ()


class Batch(NamedTuple):
    """Images [B, 3, H, W] in [0, 1], labels [B] as float 0/1, network maps [B, 1, H, W] in [0, 1]
    (None for methods without a map)."""

    image: Tensor
    label: Tensor
    anomaly_map: Tensor | None = None


class Prediction(NamedTuple):
    """Raw outputs of a detector: higher = more anomalous.

    score [B]; map [B, 1, H, W] in the detector's own unit or None; probs [B, K] class probabilities
    of a multi-class classifier or None; parts: the named single scores [B] that a combined score
    was made of (for LEA-Net: adn, aan, map).
    """

    score: Tensor
    map: Tensor | None = None
    probs: Tensor | None = None
    parts: dict[str, Tensor] = {}  # noqa: RUF012 - never mutated, a NamedTuple default

    def named(self, classes: tuple[str, ...] = ()) -> dict[str, Tensor]:
        """All values [B] by name: score, its parts, and p_CLASS of every class."""
        probs = () if self.probs is None else self.probs.unbind(dim=1)
        named = {f"{PROBABILITY}{name}": p for name, p in zip(classes, probs, strict=True)}
        return {"score": self.score, **self.parts, **named}


class Detector(Protocol):
    """Anything trained: images [B, 3, H, W] in [0, 1] at `img_size` -> Prediction."""

    img_size: int

    def __call__(self, image: Tensor) -> Prediction:
        """Judge a batch."""
        ...
