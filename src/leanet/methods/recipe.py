"""What every recipe gets and gives.

A recipe is a module with a `Config`, a `train` and a `build`:

    train(config, fold, data, folder, runtime, experience) -> Trained
    build(config, img_size, extra) -> detector without its weights

`experience` is what cross-validation taught: with it, the final detector trains on everything and
takes its working point from the cross-validation scores; without it, a part of the training images
is held out for that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from leanet.data.cache import Cache, images_in_unit_range
from leanet.ops.embedding import lab_thumbnail
from leanet.ops.metrics import Threshold
from leanet.records import Fold, Prediction, Sample
from leanet.runtime import Runtime

INFERENCE_BATCH = 16
Scores = dict[str, list[float]]  # output -> one score per image; "score" is the verdict's


@dataclass(frozen=True, kw_only=True)
class Material:
    """The data set of a run: samples, their decoded images, and the run folder.

    Files that belong to the images lie below other folders as the images do below `root`.
    """

    samples: tuple[Sample, ...]
    images: Cache
    img_size: int
    run: Path
    root: Path = Path()
    classes: tuple[str, ...] = ()  # to tell apart; () = normal and anomalous
    normal: str | None = None  # the normal one of `classes`, if one is
    weak_moved: bool = False  # its anomalous training images are weak labels from the test part
    labels: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(sample.label for sample in self.samples))


class HeldOut(NamedTuple):
    """Images that the detector has not been trained on, with their scores."""

    indices: tuple[int, ...]
    scores: Scores


class Experience(NamedTuple):
    """From cross-validation: the scores of the test folds, and the best number of epochs."""

    held_out: HeldOut
    epochs: int


class DetectorModule(nn.Module):
    """A detector as a module; `extra` holds what `build` needs beside the configuration."""

    img_size: int
    network: nn.Module  # what was trained, without the models that draw its maps
    logits: tuple[str, ...] = ()  # outputs that are logits: 0 = probability 0.5
    map_unit: str | None = None  # unit of the map; None = there is no map
    map_top: float | None = None  # where the color scale of heat maps ends, in that unit
    map_low: float | None = None  # the median of held-out normal pixels, where it is known
    map_thresholds: dict[str, float] = {}  # named working points of the map  # noqa: RUF012
    map_grid: int | None = None  # side of the grid that the map was enlarged from
    map_border: int = 0  # px at each side of the image that the map does not cover; it is 0 there
    classes: tuple[str, ...] = ()  # that it tells apart; () = normal and anomalous
    not_exportable: str = ""  # why no exported file can hold it
    normal: int | None = None  # the normal one of `classes`; without it the score is always 0

    def forward(self, image: Tensor) -> Prediction:
        """Images [B, 3, S, S] in [0, 1] -> Prediction."""
        raise TypeError(f"{type(self).__name__} is no complete detector: it lacks forward")

    def prepare(self, image: Tensor) -> tuple[Tensor, ...]:
        """Images [B, 3, S, S] in [0, 1] -> what `network` is given.

        Raises ValueError if there is no network with logits, so that class activation maps and
        the like cannot be drawn.
        """
        raise ValueError(
            f"{type(self).__name__} has no classifier, so there is nothing to draw a class "
            "activation map of; explain a classifier or a LEA-Net run"
        )

    def logits_of(self, output: Any, head: str = "") -> Tensor:
        """What `network(*prepare(image))` gave -> logits [B, K]; K = 1: the logit of "anomalous".

        `head` is one of several heads; "" the one that decides.

        Raises ValueError for an unknown head, or where `prepare` does.
        """
        raise ValueError(f"{type(self).__name__} has no classifier with logits")

    def extra(self) -> dict[str, Any]:
        """JSON values that the weights do not hold."""
        return {}

    def explain(self, image: Tensor) -> dict[str, Tensor]:
        """Named pictures [B, 1 or 3, h, w] of how the score came about; {} if there are none."""
        return {}

    def embed(self, image: Tensor) -> Tensor:
        """Images [B, 3, S, S] in [0, 1] -> vectors [B, D] in which alike pictures lie close; made
        of colors where the detector has no features of its own."""
        return lab_thumbnail(image)


class Trained(NamedTuple):
    """A trained detector, its held-out scores, its best number of epochs, remarks (JSON), and the
    thresholds where the method has a rule of its own (None = chosen from the held-out scores)."""

    detector: DetectorModule
    held_out: HeldOut
    epochs: int
    remarks: dict[str, Any]
    thresholds: dict[str, Threshold] | None = None


class Train(Protocol):
    """The signature of every recipe's `train`."""

    def __call__(
        self,
        config: Any,
        fold: Fold,
        data: Material,
        folder: Path,
        runtime: Runtime,
        experience: Experience | None,
    ) -> Trained:
        """Train on `fold.train`; checkpoints and journals go into `folder`."""
        ...


class Method(NamedTuple):
    """A recipe: its options, their presets, its two functions, and the options of a run that have
    another default for it (such as img_size)."""

    config: type[Any]
    presets: dict[str, dict[str, Any]]
    train: Train
    build: Callable[[Any, int, dict[str, Any]], DetectorModule]
    needs_anomalous: bool
    run_defaults: Mapping[str, Any] = {}


def score_images(detector: nn.Module, images: Cache, indices: Sequence[int]) -> Scores:
    """Every output of a detector for some cached images, in float32, in evaluation mode."""
    return {name: values.tolist() for name, values in _outputs(detector, images, indices).items()}


@torch.inference_mode()
def _outputs(detector: nn.Module, images: Cache, indices: Sequence[int]) -> dict[str, Tensor]:
    detector.eval()
    collected: dict[str, list[Tensor]] = {}
    for start in range(0, len(indices), INFERENCE_BATCH):
        chosen = indices[start : start + INFERENCE_BATCH]
        prediction = detector(images_in_unit_range(images.take(chosen)))
        for name, value in prediction.named(getattr(detector, "classes", ())).items():
            collected.setdefault(name, []).append(value.double().cpu())
    return {name: torch.cat(values) for name, values in collected.items()}
