"""Whether an exported file gives the detector's own answers, in figures.

Scores, probabilities and class probabilities may differ by 1e-4 max(1, |value|), single scores, of
which none decides, by ten times that: in networks that amplify their rounding the detector itself
is no closer to what float64 would give. A pixel of a map counts as off beyond 1e-3 max(1, value);
one in a thousand may be: CIEDE2000 jumps between opposite hues, where the last bit of a color
decides on which side it lies. Verdicts may differ only where a score lies so close to the
threshold, and must follow from the file's own score.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

from leanet.inference.engines import Outputs, Session
from leanet.inference.export_graph import PART, TOLERANCE, outputs_of, summary, vector_images

PART_TOLERANCE = 10 * TOLERANCE
PIXEL_TOLERANCE = 1e-3  # relative to max(1, value)
PIXEL_SHARE = 1e-3  # of pixels that may be off
BATCHES = (1, 2, 5)


class Parity(NamedTuple):
    """Differences between a file and its detector over `images`: the largest of scores and
    probabilities, relative to max(1, |value|), and absolute; of single scores, relative; verdicts
    that differ although the score is not at the threshold; of maps the largest, the mean, and the
    share of pixels off."""

    images: int
    score: float
    score_absolute: float
    parts: float
    verdicts: int
    map_most: float | None = None
    map_mean: float | None = None
    map_off: float | None = None

    def holds(self) -> bool:
        """Whether the file may be used. A difference that is not a number is none."""
        maps = self.map_off is None or self.map_off <= PIXEL_SHARE
        scores = self.score <= TOLERANCE and self.parts <= PART_TOLERANCE
        return scores and self.verdicts == 0 and maps

    def to_dict(self) -> dict[str, Any]:
        """For card.json."""
        return {key: value for key, value in self._asdict().items() if value is not None}

    def __str__(self) -> str:
        text = f"scores differ by at most {self.score:.1e} over {self.images} images"
        if self.parts:
            text += f", single scores by {self.parts:.1e}"
        if self.map_most is not None:
            text += f", maps by {self.map_most:.1e} ({self.map_off:.2%} of pixels off)"
        return text + (f", {self.verdicts} other verdicts" if self.verdicts else "")


def compare(
    graph: nn.Module, session: Session, images: NDArray[np.float32], threshold: float | None
) -> Parity:
    """The graph in PyTorch against a file, over images [N, 3, S, S] in batches of several sizes;
    `threshold` is the graph's."""
    scores, absolutes, parts, pixels, wrong = [0.0], [0.0], [0.0], [], 0
    for batch in _batches(images):
        want, got = outputs_of(graph, batch), session.run(batch)
        for name in want.keys() - {"map", "verdict", "review"}:
            apart = _apart(got[name], want[name])
            relative = float((apart / np.maximum(1, np.abs(want[name]))).max())
            if name.startswith(PART):
                parts.append(relative)
            else:
                scores.append(relative)
                absolutes.append(float(apart.max()))
        if threshold is not None:
            wrong += _wrong_verdicts(want, got, threshold)
        if "map" in want:
            apart = _apart(got["map"], want["map"])
            off = ~(apart <= PIXEL_TOLERANCE * np.maximum(1, want["map"]))
            pixels.append((apart.max(), apart.mean() * len(batch), off.mean() * len(batch)))
    found = Parity(len(images), max(scores), max(absolutes), max(parts), wrong)
    if not pixels:
        return found
    most, mean, off = np.array(pixels).T
    num = len(images)
    return found._replace(
        map_most=float(most.max()), map_mean=float(mean.sum() / num), map_off=float(off.sum() / num)
    )


def check_vectors(session: Session, name: str) -> None:
    """Run the computed images of a file and compare with the answers that it holds.

    Raises:
        ValueError: this machine gets others, so the file is damaged or the runtime is at fault.
    """
    known = session.facts["test_vectors"]
    got = summary(session.run(vector_images(session.facts["img_size"])))
    for key, expected in known["expected"].items():
        want = np.array(expected, dtype=np.float64)
        apart = _apart(np.array(got.get(key, np.nan)), want) / np.maximum(1, np.abs(want))
        allowed = known["tolerance"] * (10 if key.startswith(PART) else 1)
        if key not in ("verdict", "review") and not (apart <= allowed).all():
            raise ValueError(
                f"{name} does not give the answers that it was written with: {key} differs by "
                f"{apart.max():.1e} on its own test images; write it again with `leanet export`"
            )


def _batches(images: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """All images in order, in batches of `BATCHES` in turn."""
    start, turn = 0, 0
    while start < len(images):
        size = BATCHES[turn % len(BATCHES)]
        yield images[start : start + size]
        start, turn = start + size, turn + 1


def _apart(got: NDArray[Any], want: NDArray[Any]) -> NDArray[np.float64]:
    """Distances; infinite where either is not a number."""
    apart = np.abs(got.astype(np.float64) - want.astype(np.float64))
    return np.where(np.isnan(apart), np.inf, apart)


def _wrong_verdicts(want: Outputs, got: Outputs, threshold: float) -> int:
    """Verdicts that do not follow from the file's own score, or differ from the detector's where
    its score is clear of the threshold."""
    broken = got["verdict"] != (got["score"] >= threshold)
    clear = np.abs(want["score"] - threshold) > TOLERANCE * np.maximum(1, np.abs(want["score"]))
    return int((broken | (clear & (got["verdict"] != want["verdict"]))).sum())
