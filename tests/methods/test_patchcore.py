"""PatchCore against a version without any shortcut; what goes into its bank; its files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, uniform_filter
from scipy.spatial.distance import cdist
from torch import Tensor
from torch.nn import functional as F

from leanet.data.cache import images_in_unit_range
from leanet.data.folds import single_fold
from leanet.methods.map_models import map_model
from leanet.methods.memory import PEAK
from leanet.methods.patchcore import (
    Config,
    PatchCoreDetector,
    build,
    plan_of,
    require,
    train,
)
from leanet.methods.recipe import Material, Trained
from leanet.records import NORMAL
from leanet.runtime import Runtime

SIDE = 32
Make = Callable[..., Material]


def config(**options: Any) -> Config:
    return Config(backbone="mobilenetv3_small_050", pretrained=False, **options)


def detector(**options: Any) -> PatchCoreDetector:
    """Random features, and a bank of some of them."""
    torch.manual_seed(0)
    made = build(config(**options), SIDE, {"bank_rows": 40}).eval()
    with torch.inference_mode():
        described = patches(made, images(10, seed=1))
    made.bank = torch.from_numpy(described.reshape(-1, described.shape[-1])[::4]).float()
    return made


def images(num: int = 3, seed: int = 0) -> Tensor:
    return torch.rand(num, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def patches(of: PatchCoreDetector, image: Tensor) -> NDArray[np.float64]:
    """Descriptions [B, T, D]: 3x3 means with zeros beyond the border, on the first grid."""
    maps = of.features(image)
    pooled = [uniform_filter(m.numpy(), (1, 1, 3, 3), mode="constant") for m in maps]
    large = F.interpolate(torch.from_numpy(pooled[1]), pooled[0].shape[-2:], mode="bilinear")
    joined = np.concatenate([pooled[0], large.numpy()], axis=1)
    places: NDArray[np.float64] = joined.reshape(*joined.shape[:2], -1).swapaxes(1, 2)
    return places.astype(np.float64)


def plain_score(places: NDArray[np.float64], bank: NDArray[np.float64], neighbors: int) -> float:
    """Equations 6 and 7 of the paper, with all distances at once."""
    all_distances = cdist(places, bank)
    worst = all_distances.min(axis=1).argmax()
    star = all_distances[worst].argmin()
    around = cdist(bank[[star]], bank)[0].argsort()[:neighbors]
    share = np.exp(all_distances[worst, star]) / np.exp(all_distances[worst, around]).sum()
    return float((1 - share) * all_distances[worst, star])


def fit(make: Make, runtime: Runtime, **options: Any) -> tuple[Trained, Material, list[int]]:
    """Trained on the toy set; also its normal training images."""
    data = make()
    fold = single_fold(data.samples, seed=0, inner_splits=0)
    trained = train(config(**options), fold, data, data.run / "final", runtime)
    return trained, data, [i for i in fold.train if data.labels[i] == NORMAL]


def test_score_and_map_are_those_of_the_paper() -> None:
    made = detector()
    with torch.inference_mode():
        prediction = made(images())
    assert prediction.map is not None
    bank = made.bank.double().numpy()
    for image, places in enumerate(patches(made, images())):
        expected = plain_score(places, bank, 9)
        assert prediction.score[image].item() == pytest.approx(expected, rel=1e-4)
        grid = torch.from_numpy(cdist(places, bank).min(axis=1)).view(1, 1, 4, 4)
        large = F.interpolate(grid, (SIDE, SIDE), mode="bilinear")[0, 0].numpy()
        drawn = gaussian_filter(large, 4.0)
        np.testing.assert_allclose(prediction.map[image, 0], drawn, rtol=1e-4)


def test_with_one_neighbor_the_score_is_the_highest_distance() -> None:
    made = detector(neighbors=1)
    with torch.inference_mode():
        score = made(images()).score
    highest = [cdist(p, made.bank.double()).min(axis=1).max() for p in patches(made, images())]
    np.testing.assert_allclose(score, highest, rtol=1e-4)


def test_autocast_changes_nothing() -> None:
    made = detector()
    with torch.inference_mode():
        expected = made(images())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            prediction = made(images())
    assert torch.equal(prediction.score, expected.score)
    assert torch.equal(prediction.map, expected.map)


@pytest.mark.parametrize("eps", [0.0, 0.999])
def test_the_bank_consists_of_patches_of_normal_training_images(
    material: Make, runtime: Runtime, eps: float
) -> None:
    trained, data, normals = fit(material, runtime, coreset=12, projection_eps=eps)
    made = trained.detector
    assert isinstance(made, PatchCoreDetector)
    image = images_in_unit_range(data.images.take(normals))
    known = patches(made, image).reshape(-1, made.bank.shape[1])
    assert cdist(made.bank.double(), known).min(axis=1).max() < 1e-4
    assert len(made.bank.unique(dim=0)) == 12


def test_a_share_of_one_keeps_everything(material: Make, runtime: Runtime) -> None:
    trained, data, normals = fit(material, runtime, coreset=1.0)
    image = images_in_unit_range(data.images.take(normals))
    assert trained.remarks["bank_rows"] == len(normals) * 16
    with torch.inference_mode():
        assert trained.detector(image).score.max() < 1e-3


def test_the_candidates_leave_no_file_behind(material: Make, runtime: Runtime) -> None:
    _, data, _ = fit(material, runtime, projection_eps=0.999)
    assert list((data.run / "final").iterdir()) == []


def test_what_it_took_is_told(
    material: Make, runtime: Runtime, capsys: pytest.CaptureFixture[str]
) -> None:
    trained, _, normals = fit(material, runtime, max_candidates=100, coreset=0.2)
    remarks = trained.remarks
    assert remarks["places"] == len(normals) * 16
    assert (remarks["candidates"], remarks["bank_rows"]) == (100, 20)
    assert remarks[PEAK] > 0
    assert remarks["compared_dims"] <= 113  # 4 ln(100) / 0.162
    assert remarks["threshold_in_sample"]  # few normals: none is held out
    assert "a bank of 20 of" in capsys.readouterr().err


def test_it_draws_maps_for_others_and_is_trained_once(material: Make, runtime: Runtime) -> None:
    data = material()
    indices = [i for i, label in enumerate(data.labels) if label == NORMAL][:6]
    first = map_model(config(), indices, data, runtime)
    (file,) = (data.run / "map_models").glob("*/*")
    written = file.stat().st_mtime_ns
    again = map_model(config(), indices, data, runtime)
    assert file.stat().st_mtime_ns == written
    with torch.inference_mode():
        assert torch.equal(first(images()).map, again(images()).map)


@pytest.mark.parametrize(
    ("options", "candidates", "bank", "compared"),
    [
        ({}, 6400, 640, 216),  # 4 ln(6400) / 0.162
        ({"max_candidates": 1000}, 1000, 100, 170),
        ({"coreset": 50}, 6400, 50, 216),
        ({"coreset": 50_000}, 6400, 6400, 216),
        ({"coreset": 1e-9}, 6400, 1, 216),
        ({"projection_eps": 0}, 6400, 640, 512),
        ({"projection_eps": 0.2}, 6400, 640, 512),  # it would take more than there are
    ],
)
def test_the_sizes_follow_from_the_options(
    options: dict[str, Any], candidates: int, bank: int, compared: int
) -> None:
    plan = plan_of(config(**options), 25, 256, 512)
    assert (plan.candidates, plan.bank, plan.compared) == (candidates, bank, compared)


@pytest.mark.parametrize("candidates", [25 * 256, 1000, 30, 7])
def test_candidates_are_drawn_evenly_from_the_images(candidates: int) -> None:
    plan = plan_of(config(max_candidates=candidates), 25, 256, 8)
    quotas = [plan.quota(image) for image in range(25)]
    assert sum(quotas) == candidates
    assert max(quotas) - min(quotas) <= 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"coreset": 0.0}, "coreset 0.0: give a share"),
        ({"coreset": 2.5}, "coreset 2.5: give a share"),
        ({"projection_eps": 1.0}, "projection_eps 1.0: give 0"),
        ({"neighbors": 0}, "neighbors 0"),
        ({"max_candidates": -1}, "max_candidates -1"),
    ],
)
def test_impossible_numbers_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        require(config(**options))


def test_a_full_disk_is_an_error_that_leaves_nothing_behind(
    material: Make, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, num_bytes: int) -> None:
        raise OSError(28, f"No space left on device ({num_bytes} bytes)", str(path))

    monkeypatch.setattr("leanet.methods.row_file.reserve", full)
    data = material()
    fold = single_fold(data.samples, seed=0, inner_splits=0)
    with pytest.raises(OSError, match="No space left"):
        train(config(), fold, data, data.run / "final", runtime)
