"""Test images of a fold in one pass: their scores, and pixel figures where there are masks.

The images are those that were decoded for the training, the masks come from disk at their own
size: the same figures as of `leanet evaluate`, for little more than the time of the scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

from leanet.data.cache import images_in_unit_range
from leanet.data.images import read_size
from leanet.inference.gallery import BATCH, Pictures
from leanet.inference.ground_truth import PixelTally, map_points, start_tally
from leanet.inference.judge import Outputs
from leanet.records import Detector, Sample

Scores = dict[str, list[float]]  # output -> one score per image
Tell = Callable[[str], None]


def judge_fold(
    detector: Detector, data: Pictures, indices: Sequence[int], *, seed: int, tell: Tell
) -> tuple[Scores, dict[str, float] | None]:
    """Every output for these images, in float32 and evaluation mode, and the figures of
    `PixelTally`; None without masks or maps. `seed` draws pixels for the thresholds of the curves.

    A training is worth more than its masks: one that cannot be read costs its image the place in
    the pixel figures, one that does not fit its image costs the figures; both are told.
    """
    if isinstance(detector, nn.Module):
        detector.eval()
    samples = [data.samples[index] for index in indices]
    place = {sample.path: index for sample, index in zip(samples, indices, strict=True)}
    tally = start_tally(
        samples,
        lambda few: _judged(detector, data, [place[sample.path] for sample in few]),
        map_points(detector),
        seed,
    )
    scores: Scores = {}
    for outputs in _judged(detector, data, indices):
        own = samples[len(scores.get("score", ())) :][: len(outputs.paths)]
        tally = _added(tally, own, outputs, tell)
        for name, values in outputs.scores.items():
            scores.setdefault(name, []).extend(values)
    if tally is None:
        return scores, None
    if tally.bad_masks:
        tell(f"left out of the pixel figures: {'; '.join(map(str, tally.bad_masks))}")
    figures = tally.figures()
    if outside := int(figures.get("num_outside", 0)):
        tell(f"all marks of {outside} anomalous images lie where the map does not cover them")
    return scores, figures


def _judged(detector: Detector, data: Pictures, indices: Sequence[int]) -> Iterator[Outputs]:
    """What a detector gives for decoded images, batch by batch; the files' sizes are left out."""
    for start in range(0, len(indices), BATCH):
        chosen = indices[start : start + BATCH]
        with torch.inference_mode():
            prediction = detector(images_in_unit_range(data.images.take(chosen)))
        named = prediction.named(getattr(detector, "classes", ()))
        maps = prediction.map
        yield Outputs(
            paths=tuple(data.samples[index].path for index in chosen),
            sizes=(),
            scores={name: value.double().cpu().tolist() for name, value in named.items()},
            maps=None if maps is None else maps[:, 0].float().cpu().numpy(),
        )


def _added(
    tally: PixelTally | None, samples: Sequence[Sample], outputs: Outputs, tell: Tell
) -> PixelTally | None:
    """The tally with these images; None where there was none, or a mask does not fit."""
    if tally is None or outputs.maps is None:
        return tally
    try:
        for sample, plane in zip(samples, outputs.maps, strict=True):
            tally.add(sample, read_size(sample.path), plane)
    except ValueError as error:
        tell(f"no pixel figures: {error}")
        return None
    return tally
