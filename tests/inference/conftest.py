"""A network whose truth is known, for tests of what judges maps: it sees one quadrant only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from leanet.data.images import write_image
from leanet.data.scan import write_samples_csv
from leanet.inference.subject import Subject
from leanet.ops.faithful import ScoreOf
from leanet.records import ANOMALOUS, NORMAL, Prediction, Sample

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


class Tiny(nn.Module):
    """A detector: one convolution; the map is its square, the score the largest pixel."""

    img_size, map_unit, map_top, map_low, map_border = SIDE, "L2", 2.0, 0.5, 0
    map_thresholds: ClassVar[dict[str, float]] = {"honest": 1.0}
    classes = ("a", "b")

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, image: Tensor) -> Prediction:
        planes = self.layer(image)
        anomaly_map = planes[:, :1].square()
        probs = planes.mean(dim=(2, 3))[:, :2].softmax(dim=1)
        score = anomaly_map.flatten(1).amax(dim=1)
        return Prediction(score, anomaly_map, probs, {"mean": planes.mean(dim=(1, 2, 3))})


@pytest.fixture
def tiny() -> nn.Module:
    return Tiny().eval()


CARD = {
    "method": "tiny",
    "img_size": SIDE,
    "classes": ["a", "b"],
    "normal": "a",
    "threshold": {"value": 0.1},
    "review": {"low": 0.05, "high": 0.2},
    "calibration": {"kind": "platt", "slope": 2.0, "intercept": -1.0},
}


@pytest.fixture
def card() -> dict[str, Any]:
    """Of a run with `tiny` in it."""
    return dict(CARD)


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[[], Path]:
    """A run folder as far as an export looks at it: its images and a file of weights."""

    def make() -> Path:
        samples = write_samples(tmp_path / "data", 6)
        write_samples_csv(tmp_path / "run" / "samples.csv", tmp_path / "data", samples)
        config = f"data: {tmp_path / 'data'}\n"
        (tmp_path / "run" / "config.yaml").write_text(config, encoding="utf-8")
        (tmp_path / "run" / "weights").write_bytes(b"weights")
        return tmp_path / "run"

    return make
