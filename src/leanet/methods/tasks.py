"""The six questions that a reconstructor can be asked about an image (phase 1 of LEA-Net).

| task | the network sees | and is to give |
|---|---|---|
| colorization | the lightness L of CIE Lab | the colors a, b |
| reconstruction | the image | the image |
| denoise | the image with Gaussian noise | the image |
| self-resolution | the image at a tenth of its sides | the image |
| rotation | the image, turned by quarters | the upright image |
| inpaint | the image with 32 black holes | the image |

Images appear here in the space of the task: CIE Lab for colorization, else RGB in [0, 1]; always
[B, 3, S, S].

In training the corruption is drawn anew each time, from torch's global stream. While maps are made
it must not change from call to call: denoise and inpaint take the mean over a few draws whose
seed is made of the detector's seed and of what the image shows (its fingerprint, which stands for
its path: a detector sees pixels only); rotation takes the mean over the four angles; inpaint with
complementary holes looks at each pixel once, under a hole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from leanet.ops.color import delta_e_2000, lab_to_rgb, rgb_to_lab
from leanet.ops.corruption import (
    add_noise,
    coarsen,
    complementary_holes,
    cut_out,
    draw_holes,
    draw_quarters,
    turn,
)
from leanet.ops.fingerprint import fingerprints
from leanet.runtime import derived_seed

Task = Literal[
    "colorization", "reconstruction", "denoise", "self-resolution", "rotation", "inpaint"
]
Metric = Literal["ciede2000", "l1", "l2"]
InpaintMasks = Literal["random", "complementary"]

MAP_UNITS: dict[Metric, str] = {"ciede2000": "dE00", "l1": "L1", "l2": "L2"}


@dataclass(frozen=True, kw_only=True)
class Question:
    """A task, and how its map is made: the distance of original and answer, and the draws."""

    task: Task
    metric: Metric
    draws: int = 4  # of denoise and inpaint with random holes
    inpaint_masks: InpaintMasks = "random"
    seed: int = 0  # of the draws

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise ValueError(f"draws is {self.draws}; a map needs at least 1")


class View(NamedTuple):
    """What the network sees of an image, and how much its error counts: a share of 1, or a mask
    [1, 1, S, S] of 0 and 1. The weights of all views of an image add up to 1 everywhere."""

    seen: Tensor
    weight: float | Tensor


def default_metric(task: Task) -> Metric:
    """The map distance of a task, unless another is asked for."""
    return "ciede2000" if task == "colorization" else "l1"


def num_channels(task: Task) -> tuple[int, int]:
    """Of the network's input and output."""
    return (1, 2) if task == "colorization" else (3, 3)


def in_task_space(task: Task, rgb: Tensor) -> Tensor:
    """RGB [B, 3, S, S] in [0, 1] as the task looks at it: CIE Lab for colorization, else RGB."""
    return rgb_to_lab(rgb) if task == "colorization" else rgb


def in_rgb(task: Task, image: Tensor) -> Tensor:
    """The inverse of `in_task_space`."""
    return lab_to_rgb(image) if task == "colorization" else image


def network_input(task: Task, seen: Tensor) -> Tensor:
    """What the network gets, [B, 1 or 3, S, S]."""
    return seen[:, :1] / 100 if task == "colorization" else seen


def target(task: Task, image: Tensor) -> Tensor:
    """What the network is to give, [B, 2 or 3, S, S] in [0, 1]."""
    return encode_colors(image) if task == "colorization" else image


def answer(task: Task, image: Tensor, output: Tensor) -> Tensor:
    """The image as the network would have it, in the space of the task; colorization keeps the
    lightness of the original."""
    if task != "colorization":
        return output
    return torch.cat([image[:, :1], decode_colors(output)], dim=1)


def encode_colors(lab: Tensor) -> Tensor:
    """a, b of Lab [B, 3, H, W] as network targets in [0, 1], [B, 2, H, W]."""
    return (lab[:, 1:] + 128) / 255


def decode_colors(output: Tensor) -> Tensor:
    """Network output in [0, 1] -> a, b."""
    return output * 255 - 128


def spoil(task: Task, image: Tensor) -> Tensor:
    """A corrupted copy to train on, drawn from torch's global stream."""
    if task == "denoise":
        return add_noise(image)
    if task == "self-resolution":
        return coarsen(image)
    if task == "rotation":
        return turn(image, draw_quarters(len(image)))
    if task == "inpaint":
        return cut_out(image, draw_holes(len(image), image.shape[-1]))
    return image


def views(question: Question, image: Tensor) -> Iterator[View]:
    """What is looked at to make the maps of some images; the same again for the same images.

    Raises:
        ValueError: a task that draws is to be compiled or exported.
    """
    task = question.task
    if task == "rotation":
        for quarter in range(4):
            yield View(torch.rot90(image, quarter, (-2, -1)), 1 / 4)
    elif task == "inpaint" and question.inpaint_masks == "complementary":
        for holes in complementary_holes(image.shape[-1]).to(image.device):
            yield View(cut_out(image, holes[None]), holes[None].to(image.dtype))
    elif task in ("denoise", "inpaint"):
        generators = _generators(question, image)
        for _ in range(question.draws):
            yield View(_drawn(task, image, generators), 1 / question.draws)
    else:
        yield View(spoil(task, image), 1.0)


def error_map(question: Question, image: Tensor, output: Tensor) -> Tensor:
    """Distance of images and network outputs, [B, 1, S, S] >= 0.

    ciede2000 compares colors; l1 and l2 are the mean, and the root of the mean square, of the
    differences in the channels of the target, in [0, 1].
    """
    task = question.task
    if question.metric == "ciede2000":
        other = answer(task, image, output)
        if task != "colorization":
            image, other = rgb_to_lab(image), rgb_to_lab(other)
        return delta_e_2000(image, other)
    difference = output - target(task, image)
    if question.metric == "l1":
        return difference.abs().mean(dim=1, keepdim=True)
    return difference.square().mean(dim=1, keepdim=True).sqrt()


def _generators(question: Question, image: Tensor) -> list[torch.Generator]:
    """One per image: its stream depends on the seed, the task and the image, on nothing else."""
    if torch.compiler.is_compiling():
        raise ValueError(
            f"a {question.task} detector draws a corruption for each image and cannot be exported; "
            "train inpaint with --inpaint_masks complementary, or a task that does not draw"
        )
    names = fingerprints(image)
    seeds = (derived_seed(question.seed, question.task, name) for name in names)
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def _drawn(task: Task, image: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    if task == "denoise":
        ones = zip(image, generators, strict=True)
        return torch.stack([add_noise(one, generator) for one, generator in ones])
    side = image.shape[-1]
    return cut_out(image, torch.cat([draw_holes(1, side, one) for one in generators]))
