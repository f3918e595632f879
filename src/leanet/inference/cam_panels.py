"""The panels of class activation maps: how they look, on which scale, and what stands beside them.

Pictures of one run share a scale for each method, so that an image without evidence stays dark.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from leanet.config import option
from leanet.data.images import read_image
from leanet.inference import panels
from leanet.inference.cam_layers import cell
from leanet.inference.cam_methods import METHODS
from leanet.inference.overlay import (
    ALPHA,
    RUN_QUANTILE,
    Blend,
    PictureScale,
    parse_scale,
    picture_scale,
)
from leanet.ops.colormap import NAMES as TABLES
from leanet.ops.maps import PixelHistogram

LARGEST_SIDE = 512  # of the image in a panel, in pixels


@dataclass(frozen=True, kw_only=True)
class Look:
    """How the pictures look; the files stay raw."""

    scale: str = option(
        "run", "the last color: run (99.5 % of |map| over the run's images), fixed:V, or image"
    )
    cmap: str = option("", f"color table: {', '.join(TABLES)}; default: by the sign of the method")
    alpha: float = option(ALPHA, "opacity of the overlay at the last color, in [0, 1]")
    blend: Blend = option("value", "opacity: grows with the value, or flat")


class Shown(NamedTuple):
    """One image: the detector's score, the verdict ("" where no class is known as normal), the
    predicted class, its panel, its raw maps by name, and what cams.json says about it."""

    path: Path
    score: float
    verdict: str
    predicted: str
    panel: Path
    maps: dict[str, Path]
    facts: dict[str, Any]


def checked(look: Look) -> tuple[Literal["run", "fixed", "image"], float | None]:
    """Where the scale comes from, and its value if that is given.

    Raises:
        ValueError: an impossible look.
    """
    mode, value = parse_scale(look.scale)
    if mode == "pair":
        raise ValueError("scale pair is for two runs side by side; give run, image or fixed:V")
    if look.cmap not in ("", *TABLES) or not 0 <= look.alpha <= 1:
        raise ValueError(
            f"cmap {look.cmap!r} and alpha {look.alpha}: allowed are the tables "
            f"{', '.join(TABLES)} and an alpha in [0, 1]"
        )
    return mode, value


class Scales:
    """The last color of every method's pictures."""

    def __init__(self, mode: Literal["run", "fixed", "image"], value: float | None) -> None:
        self.mode, self.value = mode, value
        self.words, self._pixels = "", dict[str, PixelHistogram]()

    def take(self, heats: Iterator[tuple[str, Tensor]], words: str) -> None:
        """Take the scale from other images."""
        for key, heat in heats:
            self._pixels.setdefault(key, PixelHistogram()).add(heat.detach().abs())
        self.words = words

    def see(self, key: str, heat: NDArray[np.float32]) -> None:
        """An explained image; it counts if there are no others."""
        if self.mode == "run" and not self.words:
            pixels = self._pixels.setdefault(key, PixelHistogram())
            pixels.add(torch.from_numpy(np.abs(heat)))

    def of(self, key: str, heat: NDArray[np.float32]) -> PictureScale:
        """That of one picture."""
        if self.mode != "run":
            return picture_scale(self.mode, self.value, [heat])
        pixels = self._pixels[key]
        top = pixels.quantile(RUN_QUANTILE) or pixels.quantile(1.0) or 1.0
        return PictureScale(top, f"{100 * RUN_QUANTILE:g} % of |map| on {self.words or 'these'}")


def draw(one: Shown, look: Look, scales: Scales, *, target: str, threshold: float | None) -> None:
    """Write the panel of one image; the maps are read from their files."""
    rows = []
    for key, file in one.maps.items():
        with np.load(file, allow_pickle=False) as arrays:
            heat, method = arrays["map"], str(arrays["method"])
        facts = one.facts["maps"][key]
        rows.append(
            panels.Row(
                name=key.replace("-", ", "),
                heat=heat,
                scale=scales.of(key, heat),
                unit=f"{target} of {facts['class']}",
                signed=METHODS[method].signed and look.cmap in ("", "signed"),
                details=_details(facts, heat, target),
                cmap=look.cmap or None,
            )
        )
    predicted = one.facts["probability"]
    sure = "" if predicted is None else f"{one.predicted}, probability {predicted:.3f}"
    limit = "" if threshold is None else f",  threshold {threshold:.4g}"
    parts = [f"{one.verdict}:  score {one.score:.4g}{limit}"] if one.verdict else []
    panel = panels.Panel(
        title=f"{one.path.absolute().parent.name}/{one.path.name}",
        image=_small(read_image(one.path)),
        rows=rows,
        verdict=",  ".join([sure, *parts] if sure else parts),
        alarm=one.verdict == "anomalous",
        notes=[*_effect_notes(one.facts), panels.FACT],
        alpha=look.alpha,
        blend=look.blend,
    )
    panels.save(panel, one.panel)


def _details(facts: dict[str, Any], heat: NDArray[np.float32], target: str) -> list[str]:
    lines = [
        f"{heat.shape[0]} x {heat.shape[1]} cells, {cell(tuple(facts['stride']))}",
        f"{target} of {facts['class']}: {facts['score']:.3g}",
        f"values {facts['min']:.3g} to {facts['max']:.3g}",
    ]
    if "energy" in facts:
        lines.append(f"strongest pattern: {100 * facts['energy']:.0f} % of the energy")
    if "sd_of_score" in facts:
        lines.append(f"mean of variants; SD of the score {facts['sd_of_score']:.2g}")
    return lines


def _effect_notes(facts: dict[str, Any]) -> list[str]:
    if "map_effect" not in facts:
        return []
    text = (
        f"The anomaly map adds {facts['map_effect']:+.3g} to the logit of anomalous, against "
        f"{facts['map_reference']}"
    )
    exchanged = facts["map_exchanged"]
    more = "" if exchanged is None else f"; {exchanged:+.3g} against another image's map"
    return [f"{text}{more}."]


def _small(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A large image with only every n-th pixel, for the picture."""
    step = -(-max(image.shape[:2]) // LARGEST_SIDE)
    return np.ascontiguousarray(image[::step, ::step])
