"""Running a detector over image files, the same way for every verb.

The detector computes in full float32 and in evaluation mode, so that an image gets the same score
alone, in a batch, and in another order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from leanet.data.images import UnreadableImageError
from leanet.data.loader import stream
from leanet.records import Detector, Prediction


class Outputs(NamedTuple):
    """What a detector gave for a batch: `scores` by name ("score", the parts, and p_CLASS), each
    [B], maps [B, h, w] or None, and the files' own sizes (height, width)."""

    paths: tuple[Path, ...]
    sizes: tuple[tuple[int, int], ...]
    scores: dict[str, list[float]]
    maps: NDArray[np.float32] | None


def judge(
    detector: Detector,
    paths: Sequence[Path],
    *,
    device: torch.device,
    batch_size: int,
    bad: list[UnreadableImageError],
) -> Iterator[Outputs]:
    """What a detector gives for image files, in order, batch by batch, in float32 and evaluation
    mode (a module is left in it). Unreadable files are left out and appended to `bad`.

    Raises:
        ValueError: a score or a map is not finite; names the images.
    """
    classes = getattr(detector, "classes", ())
    for loaded in stream(paths, detector.img_size, batch_size=batch_size, bad=bad):
        names = [str(path) for path in loaded.paths]
        scores, maps = judge_batch(detector, loaded.image.to(device), classes, names)
        yield Outputs(paths=loaded.paths, sizes=loaded.sizes, scores=scores, maps=maps)


def judge_batch(
    detector: Detector, image: Tensor, classes: tuple[str, ...] = (), names: Sequence[str] = ()
) -> tuple[dict[str, list[float]], NDArray[np.float32] | None]:
    """Scores by name, each [B], and maps [B, h, w] or None, of images [B, 3, S, S] in [0, 1], in
    float32 and evaluation mode (a module is left in it); `names` are for the error.

    Raises:
        ValueError: a score or a map is not finite; names the images.
    """
    if isinstance(detector, nn.Module):
        detector.eval()
    return _outputs(_run(detector, image), classes, names or [str(k) for k in range(len(image))])


@torch.inference_mode()
def _run(detector: Detector, image: Tensor) -> Prediction:
    with full_float32(image.device):
        return detector(image)


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """No autocast, and convolutions and matrix products of a GPU without TF32, whose 10-bit
    mantissa would let the score depend on the kernel, and so on the batch."""
    settings: tuple[Any, ...] = ()
    if device.type == "cuda":
        backends: Any = torch.backends
        settings = (backends.cudnn.conv, backends.cuda.matmul)
    before = [setting.fp32_precision for setting in settings]
    for setting in settings:
        setting.fp32_precision = "ieee"
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for setting, value in zip(settings, before, strict=True):
            setting.fp32_precision = value


def _outputs(
    prediction: Prediction, classes: tuple[str, ...], names: Sequence[str]
) -> tuple[dict[str, list[float]], NDArray[np.float32] | None]:
    named = prediction.named(classes)
    scores = {name: value.double().cpu() for name, value in named.items()}
    maps = None if prediction.map is None else prediction.map[:, 0].float().cpu()
    finite = torch.stack([value.isfinite() for value in scores.values()]).all(dim=0)
    if maps is not None:
        finite &= maps.isfinite().flatten(1).all(dim=1)
    if not finite.all():
        wrong = [name for name, good in zip(names, finite, strict=True) if not good]
        raise ValueError(
            f"the detector gave a score or a map that is not finite for {', '.join(wrong)}; "
            "its weights are damaged, or its training had failed: train it again"
        )
    as_lists = {name: value.tolist() for name, value in scores.items()}
    return as_lists, None if maps is None else maps.numpy()
