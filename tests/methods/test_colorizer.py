"""The colorizer knows the colors of normal images, and of these alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from skimage.color import lab2rgb
from torch import Tensor

from leanet.data.cache import Cache
from leanet.data.folds import single_fold
from leanet.methods import reconstruction
from leanet.methods.colorizer import PRESETS, Config
from leanet.methods.recipe import Experience, HeldOut, Material, Trained
from leanet.methods.reconstruction import Reconstructor, split_normals
from leanet.methods.tasks import Question
from leanet.networks.unet import UNet
from leanet.ops.color import rgb_to_lab
from leanet.records import ANOMALOUS, NORMAL, Sample
from leanet.runtime import Runtime

SIDE = 32
GREEN, BROWN = (-30.0, 35.0), (20.0, 30.0)  # a, b


class Watched(Cache):
    """Remembers which images were asked for."""

    def __init__(self, array: np.ndarray[Any, Any], device: torch.device) -> None:
        super().__init__(array, device)
        self.taken: set[int] = set()

    def take(self, indices: Sequence[int]) -> Tensor:
        self.taken |= set(indices)
        return super().take(indices)


def painted(seed: int, patch: bool) -> np.ndarray[Any, Any]:
    """A green picture of uneven lightness, with a brown patch of the same lightness if asked."""
    rng = np.random.default_rng(seed)
    lightness = 55 + 12 * rng.standard_normal((SIDE // 8, SIDE // 8)).repeat(8, 0).repeat(8, 1)
    lab = np.stack([lightness.clip(35, 75), *(np.full((SIDE, SIDE), v) for v in GREEN)], axis=-1)
    if patch:
        lab[8:24, 12:28, 1:] = BROWN
    pixels: np.ndarray[Any, Any] = np.rint(lab2rgb(lab) * 255).astype(np.uint8)
    return pixels.transpose(2, 0, 1)


def material(run: Path, labels: Sequence[int]) -> tuple[Material, Watched]:
    images = np.stack([painted(k, label == ANOMALOUS) for k, label in enumerate(labels)])
    cache = Watched(images, torch.device("cpu"))
    samples = tuple(Sample(path=Path(f"{k}.png"), label=label) for k, label in enumerate(labels))
    return Material(samples=samples, images=cache, img_size=SIDE, run=run), cache


def config(**changes: Any) -> Config:
    return Config(**({"epochs": 2, "base": 4, "batch_size": 8} | changes))


def train(data: Material, runtime: Runtime, config: Config, **more: Any) -> Trained:
    fold = single_fold(data.samples, seed=0, inner_splits=0)
    return reconstruction.train(config, fold, data, data.run / "final", runtime, **more)


def untrained() -> Reconstructor:
    torch.manual_seed(0)
    asked = Question(task="colorization", metric="ciede2000")
    return Reconstructor(UNet(1, 2, depth=5, base=4), asked, SIDE).eval()


def test_the_colorizer_is_the_reconstructor_of_the_paper() -> None:
    general = replace(reconstruction.Config(), task="colorization", model="unet")
    assert vars(Config()) == vars(general)
    assert PRESETS["paper"]["base"] == 64


def test_repainting_keeps_the_lightness() -> None:
    detector = untrained()
    lab = rgb_to_lab(torch.rand(1, 3, SIDE, SIDE))
    with torch.no_grad():
        repainted = detector.restore(lab)
    assert torch.equal(repainted[:, 0], lab[:, 0])
    assert not torch.equal(repainted[:, 1:], lab[:, 1:])


def test_a_perfect_repainter_gives_a_zero_map(monkeypatch: pytest.MonkeyPatch) -> None:
    image = torch.rand(2, 3, SIDE, SIDE)
    right = (rgb_to_lab(image)[:, 1:] + 128) / 255
    detector = untrained()
    monkeypatch.setattr(detector, "_outputs", lambda lab: [(right, 1.0)])
    prediction = detector(image)
    assert prediction.map.abs().max() < 1e-4
    assert prediction.score.max() < 1e-4


def test_a_brown_patch_on_green_stands_out_in_the_map(runtime: Runtime, tmp_path: Path) -> None:
    data, _ = material(tmp_path, [NORMAL] * 16)
    trained = train(data, runtime, config(epochs=40, base=8, lr=5e-3))
    image = torch.from_numpy(painted(99, patch=True))[None] / 255
    with torch.inference_mode():
        anomaly_map = trained.detector(image).map[0, 0]
    inside = anomaly_map[10:22, 14:26].mean()
    outside = torch.cat([anomaly_map[:, :8].flatten(), anomaly_map[:6].flatten()]).mean()
    assert inside > 3 * outside
    assert inside > 10  # dE00; the two colors are about 40 apart


def test_anomalous_images_are_never_looked_at(runtime: Runtime, tmp_path: Path) -> None:
    labels = [NORMAL, ANOMALOUS] * 12
    data, cache = material(tmp_path, labels)
    trained = train(data, runtime, config())
    normals = {k for k, label in enumerate(labels) if label == NORMAL}
    assert cache.taken == normals
    assert set(trained.held_out.indices) <= normals


@pytest.mark.parametrize(("count", "held"), [(19, 0), (20, 2), (40, 4)])
def test_normals_are_held_out_when_there_are_enough(
    count: int, held: int, runtime: Runtime, tmp_path: Path
) -> None:
    data, _ = material(tmp_path, [NORMAL] * count)
    rest, kept, _ = split_normals(config(), range(count), data, runtime)
    assert len(kept) == held
    assert sorted(rest + kept) == list(range(count))
    assert split_normals(config(val_fraction=0.0), range(count), data, runtime)[1] == ()


def test_the_threshold_comes_from_held_out_normals_or_says_that_it_does_not(
    runtime: Runtime, tmp_path: Path
) -> None:
    many, _ = material(tmp_path / "many", [NORMAL] * 20)
    few, _ = material(tmp_path / "few", [NORMAL] * 12)
    honest, flattered = train(many, runtime, config()), train(few, runtime, config())
    assert honest.remarks["threshold_in_sample"] is False
    assert len(honest.held_out.indices) == 2
    assert flattered.remarks["threshold_in_sample"] is True
    assert len(flattered.held_out.indices) == 12


def test_with_experience_all_normals_train_for_that_many_epochs(
    runtime: Runtime, tmp_path: Path
) -> None:
    data, _ = material(tmp_path, [NORMAL] * 24)
    learned = Experience(HeldOut((0, 1), {"score": [1.0, 2.0]}), epochs=1)
    trained = train(data, runtime, config(epochs=5), experience=learned)
    assert trained.epochs == 1
    assert trained.held_out == learned.held_out
    assert len((tmp_path / "final" / "journal.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("loss", ["mse", "bce", "l1"])
@pytest.mark.parametrize("form", ["variance", "std"])
def test_every_loss_and_color_shift_trains(
    loss: Any, form: Any, runtime: Runtime, tmp_path: Path
) -> None:
    data, _ = material(tmp_path, [NORMAL] * 8)
    trained = train(data, runtime, config(loss=loss, pca_form=form, dropout=0.5))
    assert trained.detector.map_top is not None
    assert trained.detector.map_top > 0


def test_the_score_is_the_reduction_asked_for(runtime: Runtime, tmp_path: Path) -> None:
    data, _ = material(tmp_path, [NORMAL] * 8)
    trained = train(data, runtime, replace(config(), map_score="max"))
    prediction = trained.detector(torch.rand(2, 3, SIDE, SIDE))
    assert torch.equal(prediction.score, prediction.map.amax(dim=(1, 2, 3)))


def test_the_explanation_is_a_picture() -> None:
    with torch.no_grad():
        picture = untrained().explain(torch.rand(2, 3, SIDE, SIDE))["repainted"]
    assert picture.shape == (2, 3, SIDE, SIDE)
    assert 0 <= picture.min() < picture.max() <= 1
