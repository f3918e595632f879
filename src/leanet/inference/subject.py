"""What is judged when the maps of a network are judged, and what they have to beat.

`faithfulness` and `localization` know no network. They are given functions of images: one that
draws maps, one that scores changed images, and the maps of the same network with weights drawn
anew (`redrawn_networks` makes such networks). Four baselines stand beside every method: noise, a
centered Gaussian, the edges of the image, and the method itself on random weights. A map that does
not beat them shows nothing of what the network has learned.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from leanet.ops.faithful import ScoreOf
from leanet.ops.localize import centered_gaussian, edge_strength, informative, random_map
from leanet.ops.stats import Interval
from leanet.records import Sample
from leanet.runtime import derived_seed

MapMaker = Callable[[Tensor, Sequence[Sample]], Mapping[str, Tensor]]
"""Images [B, 3, S, S] in [0, 1], and which they are -> method -> raw maps [B, 1, h, w]."""
Scorer = Callable[[Tensor, Sequence[Sample]], ScoreOf]
"""Unchanged images -> the score of the explained class for changed ones: images [B, 3, S, S] ->
[B, 3]: its probability, its logit, and 1 where it is the network's answer, else 0."""

RANDOM, GAUSSIAN, EDGES = "random map", "centered Gaussian", "image edges"
SHARED_BASELINES: Final = (RANDOM, GAUSSIAN, EDGES)
RESAMPLES: Final = 1000  # of the bootstrap
LEVEL: Final = 0.95
FEWEST_GROUPS: Final = 5  # with fewer, it has next to nothing to draw from
INFORMATIVE, NOT_INFORMATIVE = "informative", "not shown to be informative"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Maps and scores of one network.

    `comparable` methods are those whose raw values mean the same in every image. `redrawn` are the
    map makers of copies whose weights were drawn anew, by what was drawn, from the head downwards;
    the last has nothing left of what was learned, and is the fourth baseline. `right` says which
    images [B] the network judges rightly. `removes` says what scoring a changed image takes away,
    for networks with two inputs: "image", "map" or "both".
    """

    img_size: int
    maps: MapMaker
    scorer: Scorer
    comparable: frozenset[str] = frozenset()
    redrawn: Mapping[str, MapMaker] = field(default_factory=dict)
    right: Callable[[Tensor, Sequence[Sample]], Tensor] | None = None
    removes: str = "image"


class Figure(NamedTuple):
    """A mean over images with its bootstrap interval; the images that have a value."""

    mean: float
    interval: Interval
    images: int


def random_weights(method: str) -> str:
    """The name of the fourth baseline of a method."""
    return f"{method}, random weights"


def is_baseline(name: str) -> bool:
    """Whether these are the maps of a baseline."""
    return name in SHARED_BASELINES or name.endswith(random_weights(""))


def all_maps(
    subject: Subject, images: Tensor, samples: Sequence[Sample], *, seed: int
) -> dict[str, Tensor]:
    """The maps [B, 1, h, w] of all methods, then of their baselines.

    Noise is as coarse as the maps of the first method, and depends on the seed and the image only.
    """
    maps = dict(subject.maps(images, samples))
    first = next(iter(maps.values()))
    noise = [random_map(first[:1], _generator(seed, one)) for one in samples]
    size = (images.shape[-2], images.shape[-1])
    maps[RANDOM] = torch.cat(noise)
    maps[GAUSSIAN] = centered_gaussian(size).to(images).expand(len(images), -1, -1, -1)
    maps[EDGES] = edge_strength(images)
    if subject.redrawn:
        *_, untrained = subject.redrawn.values()
        drawn = untrained(images, samples)
        maps |= {random_weights(name): heat for name, heat in drawn.items()}
    return maps


def verdict(method: str, figures: Mapping[str, Figure], *, higher_is_better: bool = True) -> str:
    """`INFORMATIVE` if the interval of a method lies wholly on the better side of those of its four
    baselines, "" for a baseline or where one of the four is missing."""
    rivals = [*SHARED_BASELINES, random_weights(method)]
    if is_baseline(method) or any(name not in figures for name in rivals):
        return ""
    found = informative(
        figures[method].interval,
        [figures[name].interval for name in rivals],
        higher_is_better=higher_is_better,
    )
    return INFORMATIVE if found else NOT_INFORMATIVE


def mean_figure(
    values: ArrayLike, groups: Sequence[str], *, seed: int, resamples: int = RESAMPLES
) -> Figure:
    """The mean of values [N] without nan. Groups [N] (the same part, leaf or patient) are drawn
    together: pictures of one part are no independent witnesses. With fewer than `FEWEST_GROUPS`
    there is no interval (nan)."""
    array = np.asarray(values, dtype=np.float64)
    known = ~np.isnan(array)
    if not known.any():
        return Figure(math.nan, Interval(math.nan, math.nan), 0)
    sums, counts = (
        by_group(part, groups) for part in (np.where(known, array, 0.0), known.astype(np.float64))
    )
    interval = Interval(math.nan, math.nan)
    if np.count_nonzero(counts) >= FEWEST_GROUPS:
        interval = _interval(sums, counts, np.random.default_rng(seed), resamples)
    return Figure(float(array[known].mean()), interval, int(known.sum()))


def by_group(rows: NDArray[Any], groups: Sequence[str]) -> NDArray[np.float64]:
    """Rows [N, ...] summed over each group, [G, ...]."""
    names, place = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.zeros((len(names), *rows.shape[1:]))
    np.add.at(sums, place, rows)
    return sums


def group_names(samples: Sequence[Sample]) -> list[str]:
    """The group of every sample; one without a group is its own."""
    return [one.group or f"path {one.path.as_posix()}" for one in samples]


def redrawn_networks(
    network: nn.Module,
    parts: Mapping[str, Sequence[str]],
    inputs: Iterable[tuple[Tensor, ...]],
    *,
    seed: int,
) -> dict[str, nn.Module]:
    """Copies of a network, each with one part more of its weights drawn anew, in evaluation mode.

    `parts` names submodules ("" is the whole network), from the head downwards. A tensor is drawn
    from the normal distribution with its own mean and SD, so that signals keep their size; then the
    batch norms among what was drawn take their statistics anew from `inputs`, some batches of the
    network's inputs.
    Raises ValueError for an unknown submodule.
    """
    batches, copies, current = list(inputs), dict[str, nn.Module](), copy.deepcopy(network)
    drawn = list[nn.Module]()
    known = dict(current.named_modules())
    for name, modules in parts.items():
        for module in modules:
            if module not in known:
                raise ValueError(
                    f"the network has no part {module!r} to draw anew; its own parts are "
                    f"{', '.join(key for key, _ in current.named_children())}"
                )
            drawn.append(known[module])
            _draw_anew(known[module], torch.Generator().manual_seed(derived_seed(seed, module)))
        _take_statistics(current, drawn, batches)
        copies[name] = copy.deepcopy(current).eval()
    return copies


@torch.no_grad()
def _draw_anew(module: nn.Module, generator: torch.Generator) -> None:
    for tensor in module.parameters():
        if tensor.numel() > 1:
            drawn = torch.randn(tensor.shape, generator=generator).to(tensor)
            tensor.copy_(tensor.mean() + tensor.std() * drawn)


@torch.no_grad()
def _take_statistics(
    network: nn.Module, parts: Sequence[nn.Module], batches: Sequence[tuple[Tensor, ...]]
) -> None:
    """Mean and variance, over these batches, of every batch norm of these parts."""
    network.eval()
    inside = {one for part in parts for one in part.modules()}
    norms = [one for one in network.modules() if isinstance(one, _BatchNorm) and one in inside]
    momenta = [norm.momentum for norm in norms]
    for norm in norms if batches else ():
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
        norm.train()
    for inputs in batches if norms else ():
        network(*inputs)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()


def _interval(
    sums: NDArray[np.float64], counts: NDArray[np.float64], rng: np.random.Generator, num: int
) -> Interval:
    """What `ops.stats.bootstrap_interval` gives for sum(sums) / sum(counts) over groups [G], all
    resamples at once: a report has thousands of these."""
    drawn = rng.integers(len(sums), size=(num, len(sums)))
    totals, known = sums[drawn].sum(axis=1), counts[drawn].sum(axis=1)
    means = totals[known > 0] / known[known > 0]
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))


def _generator(seed: int, sample: Sample) -> torch.Generator:
    """Random numbers of one image, by its place in its folder: a data set may be moved."""
    name = "/".join(sample.path.parts[-3:])
    return torch.Generator().manual_seed(derived_seed(seed, name))
