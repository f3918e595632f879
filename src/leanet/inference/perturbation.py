"""Maps without gradients: change something, look at the score, once per channel of a layer.

    score_cam      the image, blurred where channel c of the layer is low;    Wang et al.,
                   weight = score - score of the blurred image                arXiv:1910.01279
    ablation_cam   the layer without channel c;                               Ramaswamy et al.,
                   weight = score - score without the channel                 WACV 2020

    map = sum_c weight_c A_c

They follow the score, so raw values can be compared; we neither divide by the score nor take a
softmax of the weights, as the papers do. They cost a forward pass per channel and image (512 for
the last layer of a ResNet-18, 2048 for that of a ResNet-50): minutes instead of a second.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from leanet.inference.cam import CAM, Captured, capture, scored
from leanet.inference.cam_layers import attach, evaluating, find_tap
from leanet.inference.cam_targets import Asked, fix, rows_of
from leanet.ops.maps import blur, resize
from leanet.progress import Progress

BATCH = 32
BLUR_SHARE = 0.05  # SD of the blur, as a share of the side
SECONDS_WORTH_A_WORD = 10.0

Prepare = Callable[..., tuple[Tensor, ...]]
"""(images [N, 3, H, W], *planes [N, ...]) -> inputs of the network. The planes are stored spatial
inputs (an anomaly map) that belong to the images; without them they are made from the images."""


def score_cam(  # noqa: PLR0913 - what can be asked, by name
    network: nn.Module,
    image: Tensor,
    prepare: Prepare,
    *,
    layer: str,
    target: Asked = "logit",
    planes: tuple[Tensor, ...] = (),
    batch_size: int = BATCH,
    tell: Callable[[str], None] | None = None,
) -> CAM:
    """Score-CAM of images [B, 3, H, W] in [0, 1] on a layer.

    `planes` stay as they are while the image is blurred; without them they are made anew from
    every changed image. The cost is told first if it is more than a moment.

    Raises:
        ValueError: as `leanet.inference.cam.cam`.
    """
    captured = capture(network, prepare(image, *planes), [layer], target)
    activations = captured.activations[layer]
    fixed = fix(target, captured.classes)
    blurred = blur(image, BLUR_SHARE * image.shape[-1])
    weights = torch.zeros(activations.shape[:2], device=image.device)

    def run(index: int, images: Tensor) -> Tensor:
        rows = torch.full((len(images),), index)
        given = prepare(images, *(plane[rows] for plane in planes))
        return _scores(network, given, rows_of(fixed, rows))

    with _frozen(network), _bar(activations, "score_cam", batch_size, tell) as count:
        for index, activation in enumerate(activations):
            base = run(index, blurred[index : index + 1])
            for chosen in _chunks(len(activation), batch_size):
                mask = _masks(activation[chosen], image.shape[-2:])
                weights[index, chosen] = run(index, blurred[index].lerp(image[index], mask)) - base
                count(len(mask))
    return _cam(captured, layer, weights)


def ablation_cam(
    network: nn.Module,
    inputs: tuple[Tensor, ...],
    *,
    layer: str,
    target: Asked = "logit",
    batch_size: int = BATCH,
    tell: Callable[[str], None] | None = None,
) -> CAM:
    """Ablation-CAM of inputs [B, ...] on a layer that gives [B, C, h, w].

    Raises:
        ValueError: as `leanet.inference.cam.cam`.
    """
    captured = capture(network, inputs, [layer], target)
    activations = captured.activations[layer]
    fixed = fix(target, captured.classes)
    weights = torch.zeros(activations.shape[:2], device=activations.device)
    with _frozen(network), _bar(activations, "ablation_cam", batch_size, tell) as count:
        for index in range(len(activations)):
            for chosen in _chunks(activations.shape[1], batch_size):
                rows = torch.full((chosen.stop - chosen.start,), index)
                given = tuple(value[rows] for value in inputs)
                with _without(network, layer, chosen.start):
                    score = _scores(network, given, rows_of(fixed, rows))
                weights[index, chosen] = captured.score[index] - score
                count(len(rows))
    return _cam(captured, layer, weights)


def _scores(network: nn.Module, inputs: tuple[Tensor, ...], target: Asked) -> Tensor:
    return scored(target, network(*inputs), len(inputs[0]))[0].float()


@contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(evaluating(network))
        yield


@contextmanager
def _without(network: nn.Module, layer: str, first: int) -> Iterator[None]:
    """Row k of the batch runs without channel `first` + k of the layer."""

    def change(output: Any) -> Any:
        rows = torch.arange(len(output), device=output.device)
        changed = output.clone()
        changed[rows, first + rows] = 0
        return changed

    remove = attach(find_tap(network, layer), change)
    try:
        yield
    finally:
        remove()


def _masks(activation: Tensor, size: torch.Size) -> Tensor:
    """Channels [K, h, w] at the size of the image, each from 0 to 1: [K, 1, H, W]; 0 where a
    channel is the same everywhere."""
    planes = resize(activation[:, None].float(), (size[0], size[1]))
    low, high = planes.amin(dim=(2, 3), keepdim=True), planes.amax(dim=(2, 3), keepdim=True)
    return (planes - low) / (high - low).clamp(min=torch.finfo(torch.float32).tiny)


def _chunks(length: int, size: int) -> Iterator[slice]:
    if size < 1:
        raise ValueError(f"batch_size {size}: give 1 or more")
    return (slice(start, min(start + size, length)) for start in range(0, length, size))


def _cam(captured: Captured, layer: str, weights: Tensor) -> CAM:
    weighted = weights[:, :, None, None] * captured.activations[layer]
    plane = weighted.sum(dim=1, keepdim=True).float()
    return CAM(plane, captured.score, layer, captured.strides[layer], captured.classes)


@contextmanager
def _bar(
    activations: Tensor, name: str, batch_size: int, tell: Callable[[str], None] | None
) -> Iterator[Callable[[int], None]]:
    """Counts forward passes on a progress bar, and tells how long all of them will take once the
    first few have shown it."""
    total, started, told = activations.shape[0] * activations.shape[1], time.monotonic(), False
    with Progress(name, total=total) as bar:

        def count(steps: int) -> None:
            nonlocal told
            bar.advance(steps=steps)
            left = (time.monotonic() - started) / bar.done * (total - bar.done)
            if tell is not None and not told and left > SECONDS_WORTH_A_WORD:
                tell(f"{name}: {total} forward passes, about {left:.0f} s")
            told = True

        yield count
