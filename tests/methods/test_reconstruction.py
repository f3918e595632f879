"""A reconstructor repairs what it knows from normal images; the recipe around it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from leanet.data.cache import Cache
from leanet.methods import reconstruction
from leanet.methods.detector_file import read_detector, write_detector
from leanet.methods.map_catalog import find_map_method
from leanet.methods.recipe import Experience, HeldOut, Material, Trained
from leanet.methods.reconstruction import Config, Reconstructor, build, split_normals
from leanet.methods.tasks import Question
from leanet.ops.maps import fit_scale
from leanet.progress import say_once
from leanet.records import ANOMALOUS, NORMAL, Fold, Sample
from leanet.runtime import Runtime, make_runtime

SIDE = 32


def striped(seed: int, patch: bool) -> np.ndarray[Any, Any]:
    """Dark and light stripes of 4 pixels, with a little noise; a flat red patch if asked."""
    rng = np.random.default_rng(seed)
    stripes = np.where(np.arange(SIDE) // 4 % 2, 190, 70)[None, None].repeat(3, 0).repeat(SIDE, 1)
    image = (stripes + rng.normal(0, 4, stripes.shape)).clip(0, 255)
    if patch:
        image[:, 8:24, 8:24] = np.array([220, 30, 30])[:, None, None]
    return image.astype(np.uint8)


def material(run: Path, labels: Sequence[int]) -> Material:
    images = np.stack([striped(k, label == ANOMALOUS) for k, label in enumerate(labels)])
    samples = tuple(Sample(path=Path(f"{k}.png"), label=label) for k, label in enumerate(labels))
    cache = Cache(images, torch.device("cpu"))
    return Material(samples=samples, images=cache, img_size=SIDE, run=run)


def config(**changes: Any) -> Config:
    return Config(**({"epochs": 2, "base": 4, "batch_size": 8} | changes))


def train(data: Material, runtime: Runtime, config: Config, **more: Any) -> Trained:
    fold = Fold(name="final", train=tuple(range(len(data.samples))), test=())
    return reconstruction.train(config, fold, data, data.run / "final", runtime, **more)


def journal(data: Material) -> list[dict[str, float]]:
    text = (data.run / "final" / "journal.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


class Fixed(torch.nn.Module):
    """Gives every image the same answer, and remembers what it was shown."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output, self.shown = output, list[Tensor]()

    def forward(self, image: Tensor) -> Tensor:
        self.shown.append(image)
        return self.output.expand(len(image), -1, -1, -1)


@pytest.mark.parametrize("task", ["reconstruction", "denoise", "self-resolution", "inpaint"])
def test_a_patch_that_no_normal_image_has_stands_out(
    task: Any, runtime: Runtime, tmp_path: Path
) -> None:
    data = material(tmp_path, [NORMAL] * 16)
    trained = train(data, runtime, config(task=task, epochs=25, base=8, lr=5e-3))
    image = torch.from_numpy(striped(99, patch=True))[None] / 255
    with torch.inference_mode():
        anomaly_map = trained.detector(image).map[0, 0]
    inside, outside = anomaly_map[8:24, 8:24].mean(), anomaly_map[:, 26:].mean()
    assert inside > 2 * outside


def test_the_map_of_several_views_is_their_mean() -> None:
    network = Fixed(torch.full((1, 3, 1, 1), 0.25))
    asked = Question(task="rotation", metric="l1")
    image = torch.rand(2, 3, SIDE, SIDE)
    prediction = Reconstructor(network, asked, SIDE)(image)
    assert len(network.shown) == 4
    expected = (image - 0.25).abs().mean(dim=1, keepdim=True)
    torch.testing.assert_close(prediction.map, expected)
    torch.testing.assert_close(prediction.score, expected.mean(dim=(1, 2, 3)))


def test_under_complementary_holes_every_pixel_is_judged_by_the_network_that_did_not_see_it() -> (
    None
):
    class Copies(torch.nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return image

    asked = Question(task="inpaint", metric="l1", inpaint_masks="complementary")
    image = torch.rand(2, 3, SIDE, SIDE)
    detector = Reconstructor(Copies(), asked, SIDE)
    torch.testing.assert_close(detector(image).map, image.mean(dim=1, keepdim=True))  # from black
    assert detector.explain(image)["repainted"].abs().max() == 0


@pytest.mark.parametrize(
    ("task", "metric", "unit"),
    [("colorization", "auto", "dE00"), ("denoise", "auto", "L1"), ("inpaint", "l2", "L2")],
)
def test_the_unit_is_that_of_the_distance(task: Any, metric: Any, unit: str) -> None:
    detector = build(config(task=task, map_metric=metric), SIDE, {"map_top": 1.0})
    assert detector.map_unit == unit


def test_the_seed_of_the_draws_is_that_of_the_run_and_is_kept(tmp_path: Path) -> None:
    data = material(tmp_path, [NORMAL] * 8)
    options = config(task="denoise")
    detector = train(data, make_runtime("cpu", "32-true", seed=7), options).detector
    assert detector.extra()["seed"] == 7
    image = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    write_detector(tmp_path, "reconstruction", options, detector)
    again = read_detector(tmp_path, find_map_method)
    other = build(options, SIDE, {"map_top": 0.0, "seed": 8})
    other.load_state_dict(detector.state_dict())
    with torch.inference_mode():
        first = detector(image).map
        assert torch.equal(again(image).map, first)
        assert not torch.equal(other.eval()(image).map, first)


@pytest.mark.parametrize("task", ["denoise", "inpaint"])
def test_a_detector_that_draws_is_not_exported_and_says_why(task: Any) -> None:
    detector = build(config(task=task, base=2), SIDE, {"map_top": 0.0}).eval()
    with pytest.raises(Exception, match="cannot be exported"):
        torch.export.export(detector, (torch.rand(2, 3, SIDE, SIDE),))


@pytest.mark.parametrize(("quantile", "draws"), [(0.5, 4), (1.0, 1)])
def test_the_display_ends_at_the_quantile_of_held_out_normals(
    quantile: float, draws: int, runtime: Runtime, tmp_path: Path
) -> None:
    data = material(tmp_path, [NORMAL] * 24)
    trained = train(data, runtime, config(map_quantile=quantile, draws=draws))
    with torch.inference_mode():
        maps = [
            trained.detector(torch.from_numpy(data.images.array[i])[None] / 255).map
            for i in trained.held_out.indices
        ]
    assert trained.detector.map_top == pytest.approx(fit_scale(maps, quantile).divisor, rel=1e-3)


@pytest.mark.parametrize(
    ("monitor", "count", "stops_on"),
    [("val", 24, "val_loss"), ("train", 24, "train_loss"), ("val", 12, "train_loss")],
)
def test_the_monitor_decides_which_epoch_is_kept(
    monitor: Any, count: int, stops_on: str, runtime: Runtime, tmp_path: Path
) -> None:
    data = material(tmp_path, [NORMAL] * count)
    trained = train(data, runtime, config(monitor=monitor, epochs=4, lr=0.05))
    losses = [record[stops_on] for record in journal(data)]
    assert trained.epochs == losses.index(min(losses)) + 1
    assert ("val_loss" in journal(data)[0]) == (count >= 20)


def test_the_held_out_loss_is_measured_with_the_corruption_of_maps(
    runtime: Runtime, tmp_path: Path
) -> None:
    """The best weights are those kept; their held-out loss can be computed again from maps."""
    data = material(tmp_path, [NORMAL] * 24)
    trained = train(data, runtime, config(task="denoise", loss="l1", epochs=2))
    with torch.inference_mode():
        held = torch.from_numpy(data.images.array[list(trained.held_out.indices)]) / 255
        expected = float(trained.detector(held).map.mean())
    best = min(record["val_loss"] for record in journal(data))
    assert best == pytest.approx(expected, rel=1e-4)


def test_with_experience_all_normals_train_for_that_many_epochs(
    runtime: Runtime, tmp_path: Path
) -> None:
    data = material(tmp_path, [NORMAL] * 24)
    learned = Experience(HeldOut((0, 1), {"score": [1.0, 2.0]}), epochs=1)
    trained = train(data, runtime, config(task="inpaint"), experience=learned)
    assert trained.epochs == 1
    assert trained.held_out == learned.held_out
    assert len(journal(data)) == 1


def test_only_normal_images_are_split(runtime: Runtime, tmp_path: Path) -> None:
    data = material(tmp_path, [NORMAL, ANOMALOUS] * 20)
    normals = range(0, 40, 2)
    rest, held, _ = split_normals(config(), normals, data, runtime)
    assert sorted(rest + held) == list(normals)
    assert len(held) == 2


@pytest.mark.parametrize(("sigma", "says"), [(0.1, False), (1e-4, True), (0.0, False)])
def test_a_color_shift_that_does_little_is_told(
    sigma: float,
    says: bool,
    runtime: Runtime,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    say_once.cache_clear()
    data = material(tmp_path, [NORMAL] * 8)
    trained = train(data, runtime, config(task="colorization", pca_sigma=sigma, pca_form="std"))
    told = capsys.readouterr().err
    assert ("grey levels (SD)" in told) == (sigma > 0)
    assert ("color_shift" in trained.remarks) == (sigma > 0)
    notices = trained.remarks.get("notices", [])
    assert [("--pca_sigma" in notice) for notice in notices] == [True] * says
    assert all(notice in told for notice in notices)


def test_the_color_shift_is_that_of_the_training_pixels(runtime: Runtime, tmp_path: Path) -> None:
    """The stripes are grey: one principal component, with the variance of all three channels."""
    data = material(tmp_path, [NORMAL] * 8)
    options = config(task="colorization", pca_sigma=0.5)
    trained = train(data, runtime, options)
    levels, stored = trained.remarks["color_shift"], trained.detector.extra()["pca"]
    pixels = data.images.array.transpose(1, 0, 2, 3).reshape(3, -1) / 255
    values = np.linalg.eigvalsh(np.cov(pixels))
    assert stored["eigenvalues"] == pytest.approx(values[::-1], rel=1e-3, abs=1e-9)
    assert levels == pytest.approx(255 * 0.5 * np.sqrt((values**2).sum()), rel=1e-3)


@pytest.mark.parametrize(
    ("task", "model", "warned"),
    [
        ("reconstruction", "unet", True),
        ("reconstruction", "unetres", True),
        ("reconstruction", "ae", False),
        ("reconstruction", "segnet", False),
        ("denoise", "unet", False),
    ],
)
def test_skips_that_make_reconstruction_easy_are_told(
    task: Any, model: Any, warned: bool, runtime: Runtime, tmp_path: Path
) -> None:
    data = material(tmp_path, [NORMAL] * 8)
    trained = train(data, runtime, config(task=task, model=model, base=2, epochs=1))
    notices = trained.remarks.get("notices", [])
    assert any("bottleneck" in notice for notice in notices) == warned
    assert len(notices) == warned


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draws": 0}, "draws is 0"),
        ({"map_quantile": 0.0}, "map_quantile 0.0"),
        ({"map_headroom": -1.0}, "map_headroom -1.0"),
    ],
)
def test_impossible_options_are_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**options)


@pytest.mark.parametrize("task", ["colorization", "denoise", "rotation", "inpaint"])
def test_an_interrupted_training_ends_the_same(
    task: Any,
    material_at: Callable[[str], Material],
    runtime: Runtime,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from leanet.training import loop

    monkeypatch.setattr(loop, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    options = config(task=task, epochs=4, patience=0)
    whole, broken = material_at("whole"), material_at("broken")
    expected = train(whole, runtime, options).detector.state_dict()
    train_epoch, calls = loop._train_epoch, list[int]()

    def stops(*args: Any, **named: Any) -> dict[str, float]:
        calls.append(named["epoch"])
        if named["epoch"] == 2:
            raise KeyboardInterrupt
        return train_epoch(*args, **named)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "_train_epoch", stops)
        with pytest.raises(KeyboardInterrupt):
            train(broken, runtime, options)
    assert calls == [0, 1, 2]
    got = train(broken, runtime, replace(options)).detector.state_dict()
    assert all(torch.equal(got[name], expected[name]) for name in expected)


@pytest.fixture
def material_at(tmp_path: Path) -> Callable[[str], Material]:
    return lambda name: material(tmp_path / name, [NORMAL] * 12)
