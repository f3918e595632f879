"""PaDiM against NumPy and SciPy on the same features; its options and remarks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import mahalanobis
from torch import Tensor
from torch.nn import functional as F

from leanet.data.cache import images_in_unit_range
from leanet.data.folds import single_fold
from leanet.methods.map_models import map_model
from leanet.methods.memory import PEAK
from leanet.methods.padim import Config, PadimDetector, dims_of, train
from leanet.methods.recipe import Material, Trained
from leanet.records import NORMAL, Fold
from leanet.runtime import Runtime, make_runtime

SIDE, GRID = 32, 8
Make = Callable[..., Material]


def config(**options: Any) -> Config:
    return Config(backbone="mobilenetv3_small_050", pretrained=False, **options)


def images(num: int = 2) -> Tensor:
    return torch.rand(num, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def fit(make: Make, runtime: Runtime, **options: Any) -> tuple[Trained, Material, list[int]]:
    """Trained on the toy set; also its normal training images."""
    data = make()
    fold = single_fold(data.samples, seed=0, inner_splits=0)
    trained = train(config(**options), fold, data, data.run / "final", runtime)
    return trained, data, [i for i in fold.train if data.labels[i] == NORMAL]


@torch.inference_mode()
def described(of: PadimDetector, image: Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The drawn channels [B, d, h, w], every deeper map repeated to the grid of the first."""
    maps = [m.double().numpy() for m in of.features(image)]
    large = [m.repeat(GRID // m.shape[-1], -1).repeat(GRID // m.shape[-1], -2) for m in maps]
    return np.concatenate(large, axis=1)[:, of.channels.numpy()]


def test_score_and_map_are_those_of_numpy_and_scipy(material: Make, runtime: Runtime) -> None:
    trained, data, normals = fit(material, runtime, channels=12, ridge=0.1)
    made = trained.detector
    assert isinstance(made, PadimDetector)
    known = described(made, images_in_unit_range(data.images.take(normals)))
    new = described(made, images())
    distances = np.zeros((len(new), GRID, GRID))
    for row, column in np.ndindex(GRID, GRID):
        seen = known[:, :, row, column]
        inverse = np.linalg.inv(np.cov(seen.T) + 0.1 * np.eye(12))
        for image, one in enumerate(new[:, :, row, column]):
            distances[image, row, column] = mahalanobis(one, seen.mean(axis=0), inverse)
    with torch.inference_mode():
        prediction = made(images())
    assert prediction.map is not None
    large = F.interpolate(torch.from_numpy(distances)[:, None], (SIDE, SIDE), mode="bilinear")
    for image, one in enumerate(large[:, 0].numpy()):
        expected = gaussian_filter(one, 4.0)
        np.testing.assert_allclose(prediction.map[image, 0], expected, rtol=1e-3)
        assert prediction.score[image].item() == pytest.approx(expected.max(), rel=1e-3)


def test_the_channels_are_drawn_with_the_seed(material: Make, runtime: Runtime) -> None:
    first, again, other = (
        fit(material, seeded, channels=10)[0].detector.get_buffer("channels")
        for seeded in (runtime, runtime, make_runtime("cpu", "32-true", seed=1))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len(first.unique()) == 10


@pytest.mark.parametrize(
    ("channels", "known", "expected"),
    [(None, 448, 100), (None, 1792, 550), (None, 60, 60), (300, 448, 300), (300, 152, 152)],
)
def test_as_many_channels_as_in_the_paper_and_no_more_than_there_are(
    channels: int | None, known: int, expected: int
) -> None:
    assert dims_of(config(channels=channels), known) == expected


def test_no_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="channels 0: draw at least one of the 60"):
        dims_of(config(channels=0), 60)


def test_what_it_took_is_told(
    material: Make, runtime: Runtime, capsys: pytest.CaptureFixture[str]
) -> None:
    remarks = fit(material, runtime, channels=1000)[0].remarks
    dims = remarks["channels_known"]
    assert (remarks["places"], remarks["channels"]) == (GRID**2, dims)
    assert remarks["covariance_mb"] == pytest.approx(4e-6 * GRID**2 * dims**2, abs=0.05)
    assert remarks[PEAK] > 0
    assert f"1000 channels asked for; the backbone gives {dims}" in remarks["notices"]
    assert f"{dims} of {dims} channels at 64 places" in capsys.readouterr().err


def test_one_image_is_too_few(material: Make, runtime: Runtime) -> None:
    data = material()
    fold = Fold(name="one", train=(data.labels.index(NORMAL),), test=())
    with pytest.raises(ValueError, match="1 images and ridge"):
        train(config(), fold, data, data.run / "final", runtime)


def test_it_draws_maps_for_others_and_is_trained_once(material: Make, runtime: Runtime) -> None:
    data = material()
    indices = [i for i, label in enumerate(data.labels) if label == NORMAL][:6]
    first = map_model(config(channels=5), indices, data, runtime)
    (file,) = (data.run / "map_models").glob("*/*")
    written = file.stat().st_mtime_ns
    again = map_model(config(channels=5), indices, data, runtime)
    assert file.stat().st_mtime_ns == written
    with torch.inference_mode():
        assert torch.equal(first(images()).map, again(images()).map)
