"""Class activation maps of image files: raw maps as files, and panels to look at.

    cams/METHOD-LAYER/NAME.npz   map [h, w] float32, raw; class, class_name, score, layer, method,
                                 stride (input pixels per cell, down and across), target; with
                                 aug_smooth also sd [h, w], variants, variant_scores; with
                                 eigen_smooth also energy
    panels/NAME.png              image, raw map and overlay of every method
    cams.json                    what was asked, and the numbers of every image

The files are raw; only pictures are scaled (`scale`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from leanet.config import option
from leanet.data.images import UnreadableImageError
from leanet.data.loader import Loaded, stream
from leanet.files import replacing
from leanet.inference.aug_smooth import Smoothed, aug_smooth
from leanet.inference.cam import CAM
from leanet.inference.cam_layers import list_layers
from leanet.inference.cam_methods import INPUTS, METHODS, Wanted, maps_of, plan
from leanet.inference.cam_targets import TWO_CLASSES, Asked, Target, class_index
from leanet.inference.judge import full_float32
from leanet.inference.perturbation import ablation_cam, score_cam
from leanet.records import Prediction

AUTO, NONE = "auto", "none"
DEFAULT = "grad_cam"
LITTLE_ENERGY = 0.5
Tell = Callable[[str], None]


class Explainable(Protocol):
    """A detector whose network has logits."""

    img_size: int
    network: nn.Module
    classes: tuple[str, ...]
    normal: int | None

    def __call__(self, image: Tensor) -> Prediction:
        """Judge a batch."""
        ...

    @property
    def prepare(self) -> Callable[..., tuple[Tensor, ...]]:
        """Images [B, 3, S, S] in [0, 1] -> what `network` is given; where that is an image and a
        map, a network map behind the images takes the place of the map model's."""
        ...

    def logits_of(self, output: Any, head: str = "") -> Tensor:
        """What the network gave -> logits [B, K]."""
        ...


@dataclass(frozen=True, kw_only=True)
class CamOptions:
    """What to explain, and how."""

    methods: str = option(
        AUTO, f"maps, with commas: {', '.join(METHODS)}; none; auto = {DEFAULT} of classifiers"
    )
    layer: str = option("", "layer or layers, with commas; default: the last with 2 x 2 cells")
    target: Literal["logit", "margin", "log_prob", "score"] = option(
        "logit", "what the map explains: the logit of the class, its margin over the others, ..."
    )
    head: str = option("", "adn or aan, of networks with two heads; default: the one that decides")
    aug_smooth: bool = option(False, "mean over six variants: mirrored, darker, brighter")
    eigen_smooth: bool = option(False, "keep only the strongest pattern that the channels share")
    map_source: Literal["stored", "recompute"] = option(
        "stored", "the anomaly map of a changed image: moved along, or drawn anew"
    )
    batch_size: int = option(16, "images at a time")


class Found(NamedTuple):
    """One map [h, w] of one image: `cam` is that of its batch, `row` its place there."""

    wanted: Wanted
    cam: CAM
    row: int
    smoothed: Smoothed | None = None

    @property
    def heat(self) -> NDArray[np.float32]:
        """The raw map."""
        array: NDArray[np.float32] = self.cam.map[self.row, 0].cpu().numpy()
        return array

    @property
    def explained(self) -> int:
        """The explained class."""
        return -1 if self.cam.classes is None else int(self.cam.classes[self.row])

    @property
    def energy(self) -> float | None:
        """What eigen_smooth has kept."""
        return None if self.cam.energy is None else float(self.cam.energy[self.row])


class Explained(NamedTuple):
    """A batch of files with the detector's predictions and all maps, per image by their names."""

    loaded: Loaded
    prediction: Prediction
    image: Tensor  # on the device
    maps: list[dict[str, Found]]


class Explainer:
    """A detector, and what is asked of it.

    Args:
        which: the explained class: predicted, true, a name or an index. Two classes are predicted
            by the threshold, as verdicts are; more by the highest logit.
        threshold: of the score, if there is one.
        true: the true class of every file, for `which` "true".

    Raises:
        ValueError: an unknown name, or a detector without classifier.
    """

    def __init__(
        self,
        detector: Explainable,
        options: CamOptions,
        *,
        which: str = "predicted",
        threshold: float | None = None,
        true: dict[Path, int] | None = None,
        device: torch.device | None = None,
        tell: Tell = print,
    ) -> None:
        self.detector, self.options, self.tell = detector, options, tell
        self.which, self.threshold, self.true = which, threshold, true or {}
        self.device = device or torch.device("cpu")
        self.names = detector.classes or TWO_CLASSES
        if isinstance(detector, nn.Module):
            detector.eval()
        if which not in ("predicted", "true"):
            class_index(which, self.names)
        methods = words_of(options.methods) if options.methods != AUTO else [DEFAULT]
        self.inputs = self.prepared(torch.zeros(1, 3, *2 * [detector.img_size]).to(self.device))
        self.wanted = plan(detector.network, self.inputs, methods, words_of(options.layer))
        _refuse_together(options, self.wanted)

    def batches(
        self, paths: Sequence[Path], bad: list[UnreadableImageError]
    ) -> Iterator[Explained]:
        """The maps of image files, batch by batch; unreadable ones are appended to `bad`."""
        size = self.options.batch_size
        for loaded in stream(paths, self.detector.img_size, batch_size=size, bad=bad):
            image = loaded.image.to(self.device)
            with torch.no_grad(), full_float32(self.device):
                prediction = self.detector(image)
            true = [self.true.get(path, -1) for path in loaded.paths]
            found = self.explain(image, prediction.score, torch.tensor(true, device=self.device))
            maps = [_of_row(found, self.wanted, row) for row in range(len(image))]
            yield Explained(loaded, prediction, image, maps)

    def explain(
        self, image: Tensor, score: Tensor | None = None, true: Tensor | None = None
    ) -> dict[str, CAM | Smoothed]:
        """All maps of images [B, 3, S, S] on the device, by name; `score` [B] is the detector's,
        for the verdict, `true` [B] the true classes."""
        target: Asked = self.target(score, true)
        network, options = self.detector.network, self.options
        with full_float32(self.device):
            inputs = self.prepared(image)
            planes = inputs[1:] if options.map_source == "stored" else ()
            found: dict[str, CAM | Smoothed] = {}
            if any(METHODS[one.method].kind != "perturbation" for one in self.wanted):
                found |= self._maps(image, inputs, planes, target)
            for one in self.wanted:
                kept: dict[str, Any] = {"layer": one.layer, "target": target, "tell": self.tell}
                if one.method == "score_cam":
                    found[one.key] = score_cam(network, image, self.prepared, planes=planes, **kept)
                elif one.method == "ablation_cam":
                    found[one.key] = ablation_cam(network, inputs, **kept)
        return found

    def target(self, score: Tensor | None = None, true: Tensor | None = None) -> Target:
        """The question about a batch."""
        which: Any = self.which
        verdict = self.which == "predicted" and not self.detector.classes
        if verdict and score is not None and self.threshold is not None:
            which = (score >= self.threshold).long()
        return Target(
            kind=self.options.target,
            which=which,
            names=self.names,
            true=true,
            normal=self.detector.normal,
            logits_of=self.logits_of,
        )

    def strides(self) -> dict[str, tuple[float, float]]:
        """Pixels of the detector's images per cell, of every map on a layer."""
        layers = list_layers(self.detector.network, self.inputs)
        sizes = {layer.name: layer.stride for layer in layers}
        side = self.detector.img_size / self.inputs[0].shape[-1]  # networks may see a smaller image
        return {
            one.key: (side * sizes[one.layer][0], side * sizes[one.layer][1])
            for one in self.wanted
            if one.layer in sizes
        }

    def logits_of(self, output: Any) -> Tensor:
        """The logits of the head that is asked about."""
        return self.detector.logits_of(output, self.options.head)

    def _maps(
        self, image: Tensor, inputs: tuple[Tensor, ...], planes: tuple[Tensor, ...], target: Asked
    ) -> dict[str, CAM] | dict[str, Smoothed]:
        def several(inputs: tuple[Tensor, ...], target: Asked) -> dict[str, CAM]:
            smooth = self.options.eigen_smooth
            return maps_of(self.detector.network, inputs, target, self.wanted, eigen_smooth=smooth)

        if not self.options.aug_smooth:
            return several(inputs, target)
        size = self.options.batch_size
        return aug_smooth(
            several, image, self.prepared, target=target, planes=planes, batch_size=size
        )

    @torch.no_grad()
    def prepared(self, image: Tensor, *planes: Tensor) -> tuple[Tensor, ...]:
        """The inputs of the network."""
        return self.detector.prepare(image, *planes)


def words_of(text: str) -> list[str]:
    """Words between commas.

    >>> words_of("grad_cam, layer_cam,")
    ['grad_cam', 'layer_cam']
    """
    return [word.strip() for word in text.split(",") if word.strip()]


def save_map(path: Path, found: Found, name: str, target: str) -> None:
    """Write one map as npz; `name` is that of its class."""
    arrays: dict[str, Any] = {
        "map": found.heat,
        "class": found.explained,
        "class_name": name,
        "score": float(found.cam.score[found.row]),
        "layer": found.cam.layer,
        "method": found.wanted.method,
        "stride": np.array(found.cam.stride, dtype=np.float32),
        "target": target,
    }
    if found.energy is not None:
        arrays["energy"] = found.energy
    if found.smoothed is not None:
        arrays["sd"] = found.smoothed.sd[found.row, 0].cpu().numpy()
        arrays["variants"] = np.array(found.smoothed.variants)
        arrays["variant_scores"] = found.smoothed.scores[:, found.row].cpu().numpy()
        arrays["clipped"] = found.smoothed.clipped.numpy()
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def facts_of(found: Found, name: str) -> dict[str, Any]:
    """What cams.json says about one map."""
    heat = found.heat
    facts: dict[str, Any] = {
        "class": name,
        "score": float(found.cam.score[found.row]),
        "layer": found.cam.layer,
        "stride": list(found.cam.stride),
        "min": float(heat.min()),
        "max": float(heat.max()),
    }
    if found.energy is not None:
        facts["energy"] = found.energy
    if found.smoothed is not None:
        scores = found.smoothed.scores[:, found.row]
        facts["sd_of_map"] = float(found.smoothed.sd[found.row].mean())
        facts["sd_of_score"] = float(scores.std(correction=0))
        facts["clipped"] = float(found.smoothed.clipped.max())
    return facts


def _of_row(
    found: dict[str, CAM | Smoothed], wanted: Sequence[Wanted], row: int
) -> dict[str, Found]:
    """All maps of one image."""
    by_key = {one.key: one for one in wanted}
    by_key |= {f"{one.key}-{name}": one for one in wanted if not one.layer for name in INPUTS}
    return {
        key: Found(by_key[key], one.cam, row, one)
        if isinstance(one, Smoothed)
        else Found(by_key[key], one, row)
        for key, one in found.items()
    }


def _refuse_together(options: CamOptions, wanted: Sequence[Wanted]) -> None:
    kinds = {one.method: METHODS[one.method].kind for one in wanted}
    slow = [method for method, kind in kinds.items() if kind == "perturbation"]
    other = [method for method, kind in kinds.items() if kind != "layer"]
    if options.aug_smooth and slow:
        raise ValueError(f"{slow[0]} under --aug_smooth would take hours; give one of the two")
    if options.eigen_smooth and other:
        raise ValueError(f"--eigen_smooth is about the channels of a layer, which {other[0]} sums")
    if options.batch_size < 1:
        raise ValueError(f"batch_size {options.batch_size}: give 1 or more")


def finite_or_none(value: float) -> float | None:
    """For JSON, which has no NaN."""
    return value if math.isfinite(value) else None
