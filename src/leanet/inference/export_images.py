"""The images that an exported file is compared by: the run's own, and others that are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray

from leanet.data.images import UnreadableImageError, read_image, resize_image
from leanet.data.scan import read_samples_csv
from leanet.inference.run_images import CONFIG, SAMPLES, run_images
from leanet.records import Sample

NUM_REAL = 24


class Shown(NamedTuple):
    """Images [N, 3, S, S] in [0, 1], and in words where they come from."""

    image: NDArray[np.float32]
    source: str


def shown_images(run: Path, side: int, seed: int = 0) -> Shown:
    """Images of a run, evenly chosen, from its data set as far as that is still there, else from
    its gallery, and others: noise, clouds of color, black, grey and white."""
    real, source = own_images(run, side), "of the data set"
    if not len(real):
        kept = run_images(run, NUM_REAL)
        fits = kept is not None and kept.image.shape[-1] == side
        real = kept.image.numpy() if kept is not None and fits else real
        source = "of the gallery"
    drawn = drawn_images(side, seed)
    words = f"{len(real)} {source}, " if len(real) else ""
    return Shown(np.concatenate([real, drawn]), f"{words}{len(drawn)} drawn")


def own_images(run: Path, side: int) -> NDArray[np.float32]:
    """Images of the data set of a run, [N, 3, side, side], those that can still be read."""
    config = yaml.safe_load((run / CONFIG).read_text(encoding="utf-8"))
    place = Path(str(config["data"])).expanduser()
    root = place if place.is_dir() else place.parent
    samples = read_samples_csv(run / SAMPLES, root) if (run / SAMPLES).exists() else ()
    places = np.linspace(0, len(samples) - 1, min(NUM_REAL, len(samples))).round().astype(int)
    found = [np.empty((0, 3, side, side), dtype=np.float32)]
    for place in places:
        with suppress(UnreadableImageError):
            found.append(decoded([samples[place]], side))
    return np.concatenate(found)


def decoded(samples: Sequence[Sample], side: int) -> NDArray[np.float32]:
    """Images [N, 3, side, side] in [0, 1] as `predict` shows them.

    Raises:
        UnreadableImageError: one of them cannot be read.
    """
    pixels = np.stack([resize_image(read_image(sample.path), side) for sample in samples])
    return pixels.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)


def drawn_images(side: int, seed: int = 0) -> NDArray[np.float32]:
    """Eleven images [11, 3, side, side] in [0, 1] that no data set has."""
    draw = np.random.default_rng(seed)
    noise = draw.random((4, 3, side, side), dtype=np.float32)
    corners = draw.random((4, 3, 2, 2), dtype=np.float32)
    along = np.linspace(0, 1, side, dtype=np.float32)
    ends = np.stack([1 - along, along])  # [2, side]
    clouds = np.einsum("ncij,iy,jx->ncyx", corners, ends, ends)
    plain = np.array([0.0, 0.5, 1.0], dtype=np.float32)[:, None, None, None]
    plain = np.broadcast_to(plain, (3, 3, side, side))
    return np.concatenate([noise, clouds, plain]).astype(np.float32)
