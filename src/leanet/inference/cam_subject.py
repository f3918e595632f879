"""Class activation maps as something to judge: from an `Explainer` to a `Subject`.

The class of every image is fixed before anything is changed: scores of changed images, maps of
harmless variants and maps of networks with weights drawn anew are all about that class.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from leanet.inference.aug_smooth import Smoothed
from leanet.inference.cam_methods import METHODS
from leanet.inference.cam_run import Explainable, Explainer
from leanet.inference.cam_targets import two_sided
from leanet.inference.subject import MapMaker, Subject, redrawn_networks
from leanet.ops.faithful import ScoreOf
from leanet.records import Prediction, Sample

ClassOf = Callable[[Sample], int]


def subject_of(
    explainers: Mapping[str, Explainer],
    *,
    calibration: Sequence[Tensor] = (),
    class_of: ClassOf | None = None,
    true_class: ClassOf | None = None,
    seed: int = 0,
) -> Subject:
    """The maps of one detector, judged together.

    `explainers` of that detector, by what stands behind the names of their maps: "" for nothing,
    ", aug_smooth", say. `calibration` are some batches of images [B, 3, S, S] from which networks
    with weights drawn anew take the statistics of their batch norms; without them there are no such
    networks. `class_of` a sample is the class to explain, without it that of the explainer;
    `true_class` says what is right.
    """
    first = next(iter(explainers.values()))
    network = first.detector.network
    redrawn: dict[str, MapMaker] = {}
    if calibration:
        with torch.no_grad():
            inputs = [first.detector.prepare(images.to(first.device)) for images in calibration]
        copies = redrawn_networks(network, default_parts(network), inputs, seed=seed)
        redrawn = {
            name: _Maps(_with_network(explainers, other), class_of, first)
            for name, other in copies.items()
        }

    def right(images: Tensor, samples: Sequence[Sample]) -> Tensor:
        assert true_class is not None
        true = torch.tensor([true_class(one) for one in samples], device=images.device)
        return _answers(first, images) == true

    return Subject(
        img_size=first.detector.img_size,
        maps=_Maps(explainers, class_of, first),
        scorer=_Scorer(first, class_of),
        comparable=frozenset(
            one.key + suffix
            for suffix, explainer in explainers.items()
            for one in explainer.wanted
            if METHODS[one.method].comparable
        ),
        redrawn=redrawn,
        right=None if true_class is None else right,
        removes="image",
    )


def default_parts(network: nn.Module) -> dict[str, list[str]]:
    """What to draw anew step by step, from the head downwards; the last step is everything.

    A part is a child of the network, or of its list of stages.
    """
    names = []
    for name, child in network.named_children():
        inner = [f"{name}.{key}" for key, _ in child.named_children()]
        names += inner if isinstance(child, nn.ModuleList) and inner else [name]
    weighty = [
        name for name in names if next(network.get_submodule(name).parameters(), None) is not None
    ]
    parts = {name: [name] for name in reversed(weighty[1:])}
    return parts | {"all": [""]}


@dataclass(frozen=True)
class _Maps:
    """A map maker: the maps of some explainers, for classes that `judge` fixes."""

    explainers: Mapping[str, Explainer]
    class_of: ClassOf | None
    judge: Explainer

    def __call__(self, images: Tensor, samples: Sequence[Sample]) -> dict[str, Tensor]:
        classes = _classes(self.judge, self.class_of, images, samples)
        maps = {}
        for suffix, explainer in self.explainers.items():
            fixed = copy.copy(explainer)
            fixed.which = "true"
            for name, found in fixed.explain(images, None, classes).items():
                maps[name + suffix] = (found.cam if isinstance(found, Smoothed) else found).map
        return maps


@dataclass(frozen=True)
class _Scorer:
    explainer: Explainer
    class_of: ClassOf | None

    def __call__(self, images: Tensor, samples: Sequence[Sample]) -> ScoreOf:
        classes = _classes(self.explainer, self.class_of, images, samples)

        @torch.no_grad()
        def score_of(changed: Tensor) -> Tensor:
            logits = _logits(self.explainer, changed)
            own = two_sided(logits).gather(1, classes[:, None])[:, 0]
            if logits.shape[1] == 1:
                probability = own.sigmoid()
            else:
                probability = logits.float().softmax(dim=1).gather(1, classes[:, None])[:, 0]
            kept = _decided(self.explainer, logits) == classes
            return torch.stack((probability, own, kept.to(own.dtype)), dim=1)

        return score_of


class _OtherNetwork:
    """A detector with another network: its maps are drawn, its verdicts are not asked for."""

    def __init__(self, detector: Explainable, network: nn.Module) -> None:
        self.detector, self.network = detector, network
        self.img_size, self.classes, self.normal = (
            detector.img_size,
            detector.classes,
            detector.normal,
        )

    def __call__(self, image: Tensor) -> Prediction:
        raise TypeError("a network with weights drawn anew gives no verdicts")

    def prepare(self, image: Tensor, *planes: Tensor) -> tuple[Tensor, ...]:
        return self.detector.prepare(image, *planes)

    def logits_of(self, output: Any, head: str = "") -> Tensor:
        return self.detector.logits_of(output, head)


def _with_network(explainers: Mapping[str, Explainer], network: nn.Module) -> dict[str, Explainer]:
    changed = {}
    for suffix, explainer in explainers.items():
        other = copy.copy(explainer)
        other.detector = _OtherNetwork(explainer.detector, network)
        changed[suffix] = other
    return changed


def _classes(
    explainer: Explainer, class_of: ClassOf | None, images: Tensor, samples: Sequence[Sample]
) -> Tensor:
    """The class to explain of every image [B]."""
    if class_of is not None:
        return torch.tensor([class_of(one) for one in samples], device=images.device)
    return _answers(explainer, images)


@torch.no_grad()
def _answers(explainer: Explainer, images: Tensor) -> Tensor:
    """The class [B] that the network names."""
    return _decided(explainer, _logits(explainer, images))


def _decided(explainer: Explainer, logits: Tensor) -> Tensor:
    """One logit is decided by the threshold of the score, as verdicts are; several by the
    highest."""
    if logits.shape[1] == 1 and explainer.threshold is not None:
        return (logits[:, 0] >= explainer.threshold).long()
    return two_sided(logits).argmax(dim=1)


def _logits(explainer: Explainer, images: Tensor) -> Tensor:
    detector = explainer.detector
    return explainer.logits_of(detector.network(*detector.prepare(images)))
