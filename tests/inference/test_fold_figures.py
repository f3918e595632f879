from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from leanet.data.images import write_image
from leanet.inference.evaluate import evaluate
from leanet.inference.fold_figures import judge_fold
from leanet.methods.recipe import Material, score_images
from leanet.records import ANOMALOUS, NORMAL, Prediction, Sample

MakeMaterial = Callable[..., Material]


class Reds(nn.Module):
    """Score: mean red, and mean green as a part; map: red at the network's size."""

    img_size = 32
    map_thresholds = {"paper": 0.5, "honest": 0.62}  # noqa: RUF012
    map_grid = 4

    def forward(self, image: Tensor) -> Prediction:
        green = image[:, 1].mean(dim=(1, 2))
        return Prediction(image[:, 0].mean(dim=(1, 2)), image[:, :1], parts={"green": green})


class Scorer(Reds):
    """The same without a map."""

    def forward(self, image: Tensor) -> Prediction:
        return super().forward(image)._replace(map=None)


def drawn(root: Path, name: str, seed: int, *, defect: bool) -> Sample:
    """Noise of 40 x 32 px; anomalous ones with a square that is redder, and its mask."""
    rng = np.random.default_rng(seed)
    pixels, mask = rng.integers(0, 140, (40, 32, 3), np.uint8), np.zeros((40, 32), np.uint8)
    if defect:
        mask[8:20, 6:20] = 255
        pixels[..., 0] += (90 * (mask > 0)).astype(np.uint8)
        write_image(root / f"{name}_mask.png", mask)
    write_image(root / f"{name}.png", pixels)
    return Sample(
        path=root / f"{name}.png",
        label=ANOMALOUS if defect else NORMAL,
        mask=root / f"{name}_mask.png" if defect else None,
    )


@pytest.fixture
def data(tmp_path: Path, material: MakeMaterial) -> Material:
    """12 normal and 9 anomalous images with masks."""
    samples = [drawn(tmp_path, f"n{k}", k, defect=False) for k in range(12)]
    samples += [drawn(tmp_path, f"a{k}", 50 + k, defect=True) for k in range(9)]
    return material(samples=samples)


def judged(detector: Any, data: Material, **options: Any) -> tuple[dict[str, list[float]], Any]:
    indices = options.pop("indices", range(len(data.samples)))
    told = options.pop("told", [])
    return judge_fold(detector, data, tuple(indices), seed=0, tell=told.append, **options)


def test_the_scores_are_those_of_scoring_alone_to_the_last_bit(data: Material) -> None:
    chosen = (20, 3, 4, 0, 5, 6, 7, 19, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 1)
    scores, _ = judged(Reds(), data, indices=chosen)
    assert scores == score_images(Reds(), data.images, chosen)
    assert scores.keys() == {"score", "green"}


def test_the_pixel_figures_are_those_of_evaluating_the_files(
    data: Material, tmp_path: Path
) -> None:
    _, pixels = judged(Reds(), data)
    found = evaluate(
        Reds(), data.samples, threshold=0.3, out=tmp_path / "out", device=torch.device("cpu")
    )
    assert pixels == pytest.approx(found.pixel, abs=1e-9)
    assert 0 < pixels["iou_paper"] < pixels["oracle_iou"] < 1
    assert (pixels["num_images"], pixels["num_anomalous"], pixels["map_grid"]) == (21, 9, 4)


def test_without_masks_or_maps_there_are_scores_alone(data: Material) -> None:
    normal = range(12)
    assert judged(Reds(), data, indices=normal)[1] is None
    assert judged(Scorer(), data)[1] is None
    assert judged(Reds(), data, indices=()) == ({}, None)


def test_a_mask_that_does_not_fit_costs_the_figures_and_is_told(data: Material) -> None:
    told: list[str] = []
    mask = data.samples[14].mask
    assert mask is not None
    Image.new("L", (9, 7), 255).save(mask)
    scores, pixels = judged(Reds(), data, told=told)
    assert pixels is None
    assert len(scores["score"]) == 21
    assert len(told) == 1
    assert "no pixel figures: the mask" in told[0]
    assert "a2_mask.png is 9x7 pixels and its image 32x40" in told[0]


def test_an_unreadable_mask_costs_its_image_the_place_and_is_told(data: Material) -> None:
    told: list[str] = []
    mask = data.samples[14].mask
    assert mask is not None
    mask.write_bytes(b"no image")
    scores, pixels = judged(Reds(), data, told=told)
    assert (pixels["num_anomalous"], len(scores["score"])) == (8, 21)
    assert len(told) == 1
    assert "a2_mask.png" in told[0]


def test_the_detector_judges_in_evaluation_mode(data: Material) -> None:
    detector = Reds()
    detector.train()
    judged(detector, data)
    assert not detector.training


def test_the_border_of_a_map_is_left_out_and_defects_there_are_told(
    data: Material, tmp_path: Path
) -> None:
    class Cropped(Reds):
        map_border = 12  # of 32 px

    told: list[str] = []
    _, pixels = judged(Cropped(), data, told=told)
    found = evaluate(
        Cropped(), data.samples, threshold=0.3, out=tmp_path / "out", device=torch.device("cpu")
    )
    assert pixels == pytest.approx(found.pixel, abs=1e-9)
    assert (pixels["num_outside"], told) == (0, [])
    mask, corner = data.samples[14].mask, np.zeros((40, 32), np.uint8)
    assert mask is not None
    corner[:3, :3] = 255
    write_image(mask, corner)
    _, pixels = judged(Cropped(), data, told=told)
    assert (pixels["num_outside"], pixels["num_anomalous"], pixels["num_regions"]) == (1, 9, 8)
    assert told == ["all marks of 1 anomalous images lie where the map does not cover them"]
