"""A network whose truth is known, for tests of what judges maps: it sees one quadrant only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from leanet.data.images import write_image
from leanet.inference.subject import Subject
from leanet.ops.faithful import ScoreOf
from leanet.records import ANOMALOUS, NORMAL, Sample

SIDE = 16


def logit(images: Tensor) -> Tensor:
    """Brightness of the upper left quadrant."""
    return 20 * (images[..., : SIDE // 2, : SIDE // 2].mean(dim=(1, 2, 3)) - 0.2)


def quadrant(row: int, column: int, num: int) -> Tensor:
    """A map [num, 1, 8, 8] that is 1 in one quadrant."""
    heat = torch.zeros(num, 1, 8, 8)
    heat[..., 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 1
    return heat


def patch(num: int) -> Tensor:
    """A map [num, 1, 8, 8] that is 1 where the patch is."""
    heat = torch.zeros(num, 1, 8, 8)
    heat[..., 1:3, 1:3] = 1
    return heat


def maps(images: Tensor, samples: Sequence[Sample]) -> Mapping[str, Tensor]:
    return {"truth": patch(len(images)), "lie": quadrant(1, 1, len(images))}


def flipped_maps(images: Tensor, samples: Sequence[Sample]) -> Mapping[str, Tensor]:
    """What a network without knowledge shows: the wrong end."""
    return {"truth": quadrant(0, 1, len(images)), "lie": quadrant(0, 1, len(images))}


def scorer(images: Tensor, samples: Sequence[Sample]) -> ScoreOf:
    bright = logit(images) > 0
    sign = torch.where(bright, 1.0, -1.0)

    def score_of(changed: Tensor) -> Tensor:
        own = sign * logit(changed)
        return torch.stack((own.sigmoid(), own, (own > 0).float()), dim=1)

    return score_of


def right(images: Tensor, samples: Sequence[Sample]) -> Tensor:
    labels = torch.tensor([one.label for one in samples])
    return (logit(images) > 0) == (labels == ANOMALOUS)


def looker(**more: object) -> Subject:
    """The network, its maps (one true, one false), and those of a network without knowledge."""
    given = {
        "img_size": SIDE,
        "maps": maps,
        "scorer": scorer,
        "right": right,
        "comparable": frozenset({"truth"}),
        "redrawn": {"head": maps, "all": flipped_maps},
        **more,
    }
    return Subject(**given)  # type: ignore[arg-type]


def write_samples(folder: Path, num: int = 12, *, missed: int = 0) -> list[Sample]:
    """Bright patches in the upper left of dark noise, with their masks, the last `missed` of them
    too dark to be found; and as many normal images."""
    rng, made = np.random.default_rng(0), list[Sample]()
    for k in range(2 * num):
        image = rng.integers(0, 40, (SIDE, SIDE, 3), dtype=np.uint8)
        mask = None
        if k < num:
            image[2:6, 2:6] += 10 if k >= num - missed else 180
            mask = folder / f"mask{k}.png"
            truth = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
            truth[2:6, 2:6] = 255
            write_image(mask, truth)
        path = folder / f"image{k}.png"
        write_image(path, image)
        made.append(
            Sample(
                path=path,
                label=ANOMALOUS if k < num else NORMAL,
                kind=("patch" if k % 2 else "spot") if k < num else "good",
                mask=mask,
                group=f"tile{k // 2}",
            )
        )
    return made


@pytest.fixture
def make_looker() -> Callable[..., Subject]:
    return looker


@pytest.fixture
def make_patches(tmp_path: Path) -> Callable[..., list[Sample]]:
    return lambda **more: write_samples(tmp_path / "data", **more)
