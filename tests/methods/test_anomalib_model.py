"""A checkpoint becomes a detector like any other: raw scores, honest limits, maps that steer."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from leanet import api
from leanet.data.folds import single_fold
from leanet.data.scan import scan
from leanet.data.toy import make_toy
from leanet.files import read_json, read_json_lines
from leanet.fit import fit
from leanet.methods.anomalib_model import AnomalibModel, Config, train
from leanet.methods.colorizer import Config as Colorizer
from leanet.methods.map_catalog import find_map_method
from leanet.methods.map_sources import find_source
from leanet.methods.recipe import Material, Trained
from leanet.methods.store import load_detector, save_detector
from leanet.prepare import Options
from leanet.records import Fold
from leanet.runtime import Runtime

fake = pytest.mark.usefixtures("fake_anomalib")
Write, Fit = Callable[..., Path], Callable[..., Path]
Make = Callable[..., Trained]


@pytest.fixture
def taken(
    write_checkpoint: Write, material: Callable[..., Material], runtime: Runtime, tmp_path: Path
) -> Make:
    """taken(kind="low", trained_on=...) -> the checkpoint after `train` on the toy set."""

    def make(trained_on: Path | None = None, **checkpoint: Any) -> Trained:
        data, file = material(), write_checkpoint(**checkpoint)
        fold = single_fold(data.samples, seed=0, inner_splits=0)
        place = None if trained_on is None else str(trained_on)
        config = Config(checkpoint=str(file), model="Nearcolor", trained_on=place)
        return train(config, fold, data, tmp_path, runtime, None)

    return make


@pytest.fixture
def image() -> Tensor:
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def some(folder: Path, images: Sequence[Path]) -> Path:
    """Copies of some images in a folder."""
    folder.mkdir()
    for path in images:
        shutil.copy(path, folder)
    return folder


def normals(data: Path) -> list[Path]:
    return sorted((data / "Negative").rglob("*.png"))


@fake
def test_scores_and_maps_are_the_raw_ones_of_the_model(taken: Make, image: Tensor) -> None:
    detector = taken().detector
    seen = (image - 0.5) / 0.5
    expected = detector.network(seen)
    with torch.inference_mode():
        prediction = detector(image)
    assert torch.equal(prediction.score, expected.pred_score[:, 0])
    assert torch.equal(prediction.map, expected.anomaly_map)
    assert prediction.map.max() > 1  # nobody has clamped it
    assert detector.map_unit == "raw Nearcolor"


@fake
def test_negative_maps_are_lifted_and_scores_are_not(taken: Make, image: Tensor) -> None:
    outcome = taken(kind="low")
    with torch.inference_mode():
        prediction = outcome.detector(image)
        raw = outcome.detector.network((image - 0.5) / 0.5).anomaly_map
    assert -5 < outcome.detector.floor < -4.5
    assert prediction.map.min() >= 0
    torch.testing.assert_close(prediction.map, (raw - outcome.detector.floor).clamp_min(0))
    assert torch.equal(prediction.score, raw.flatten(1).amax(dim=1))


@fake
def test_a_crop_leaves_a_border_that_the_map_does_not_cover(taken: Make, image: Tensor) -> None:
    detector = taken(crop=24).detector
    with torch.inference_mode():
        prediction = detector(image)
    expected = detector.network((image[..., 4:28, 4:28] - 0.5) / 0.5).anomaly_map
    assert detector.map_border == 4
    assert torch.equal(prediction.map[..., 4:28, 4:28], expected)
    assert prediction.map.sum() == expected.sum()


@fake
@pytest.mark.parametrize("checkpoint", [{"kind": "low"}, {"crop": 24}, {"kind": "none"}])
def test_stored_and_loaded_it_gives_the_same(
    checkpoint: dict[str, Any], taken: Make, image: Tensor, tmp_path: Path
) -> None:
    detector = taken(**checkpoint).detector
    save_detector(tmp_path / "run", "anomalib", Config(model="Nearcolor"), detector)
    again = load_detector(tmp_path / "run")
    with torch.inference_mode():
        first, second = detector(image), again(image)
    assert torch.equal(first.score, second.score)
    assert (first.map is None) == (second.map is None) == (again.map_unit is None)
    assert first.map is None or torch.equal(first.map, second.map)
    assert again.extra() == detector.extra()


@fake
def test_the_threshold_comes_from_normal_images_that_it_has_not_seen(
    taken: Make, toy: Path, tmp_path: Path
) -> None:
    seen = some(tmp_path / "seen", normals(toy)[:12])
    outcome = taken(trained_on=seen)
    assert len(outcome.held_out.indices) == 6
    assert outcome.remarks["threshold_in_sample"] is False
    assert outcome.remarks["notices"] == []
    assert outcome.thresholds is not None
    assert outcome.thresholds["score"].num_normal == 6


@fake
@pytest.mark.parametrize("count", [14, 18, None])
def test_with_fewer_than_five_of_them_it_says_that_the_threshold_is_in_sample(
    count: int | None, taken: Make, toy: Path, tmp_path: Path
) -> None:
    seen = None if count is None else some(tmp_path / "seen", normals(toy)[:count])
    outcome = taken(trained_on=seen)
    assert len(outcome.held_out.indices) == 18
    assert outcome.remarks["threshold_in_sample"] is True
    assert "raises false alarms" in outcome.remarks["notices"][0]


@fake
def test_a_model_without_maps_has_scores_and_a_threshold(taken: Make, image: Tensor) -> None:
    outcome = taken(kind="none")
    with torch.inference_mode():
        assert outcome.detector(image).map is None
    assert outcome.thresholds is not None
    assert max(outcome.held_out.scores["score"]) >= outcome.thresholds["score"].value > 0
    assert "only scores images" in outcome.detector.why_not([])


@pytest.mark.parametrize("config", [Config(), Config(checkpoint="a.ckpt"), Config(model="Padim")])
def test_checkpoint_and_model_are_needed(
    config: Config, material: Callable[..., Material], runtime: Runtime, tmp_path: Path
) -> None:
    fold = Fold(name="final", train=(0,), test=())
    with pytest.raises(ValueError, match=r"give --checkpoint FILE\.ckpt and --model CLASS"):
        train(config, fold, material(), tmp_path, runtime, None)


@fake
def test_a_folder_without_images_says_nothing_of_what_it_has_seen(
    taken: Make, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"--trained_on .*empty has no images"):
        taken(trained_on=tmp_path / "empty")


# --- whole runs ---------------------------------------------------------------------------------


def fit_run(data: Path, out: Path, config: Config, **options: Any) -> Path:
    quiet = Options(img_size=32, device="cpu", precision="32-true", **options)
    return fit("anomalib", data, out, quiet, config, tell=lambda text: None)


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A data set that shares no image with the toy set."""
    return make_toy(tmp_path / "other", num_normal=14, num_anomalous=3, size=48, seed=9)


@pytest.fixture
def run(write_checkpoint: Write, other: Path, tmp_path: Path) -> Path:
    """A run on other images, eight of which the checkpoint was trained on."""
    seen = some(tmp_path / "seen", normals(other)[:8])
    config = Config(checkpoint=str(write_checkpoint()), model="Nearcolor", trained_on=str(seen))
    return fit_run(other, tmp_path / "run", config)


@fake
def test_nothing_is_cross_validated(write_checkpoint: Write, toy: Path, tmp_path: Path) -> None:
    config = Config(checkpoint=str(write_checkpoint()), model="Nearcolor")
    with pytest.raises(ValueError, match="leave out --folds"):
        fit_run(toy, tmp_path / "run", config, folds=2)


@fake
def test_a_run_predicts_evaluates_and_reports(run: Path, toy: Path, tmp_path: Path) -> None:
    quiet: dict[str, Any] = {"device": "cpu", "tell": lambda text: None}
    judged = api.predict(run, [toy / "Positive"], tmp_path / "predictions", **quiet)
    assert len(judged) == 6
    assert len(list((tmp_path / "predictions" / "heatmaps").rglob("*.png"))) == 6
    outcome = api.evaluate(run, toy, tmp_path / "evaluation", **quiet)
    assert outcome.pixel is not None
    assert 0 <= outcome.pixel["auroc"] <= 1
    assert api.report(run).is_file()
    assert read_json(run / "card.json")["map_unit"] == "raw Nearcolor"


@fake
def test_a_run_steers_lea_net_on_images_that_its_model_has_not_seen(
    run: Path, quick_fit: Fit, toy: Path, tmp_path: Path
) -> None:
    steered = quick_fit("leanet", toy, tmp_path / "lea", map_source=str(run))
    remarks = read_json(steered / "final" / "metrics.json")["remarks"]
    assert remarks["map_mode"] == "fixed"
    image = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        expected = load_detector(run / "final")(image).map
        assert torch.equal(load_detector(steered / "final")(image).map, expected)


@fake
def test_the_maps_of_a_run_teach_a_classifier(
    run: Path, quick_fit: Fit, toy: Path, tmp_path: Path
) -> None:
    taught = quick_fit("classifier", toy, tmp_path / "taught", transfer_from=str(run))
    journal = read_json_lines(taught / "final" / "journal.jsonl")
    assert all(record["train_transfer_loss"] > 0 for record in journal)


@fake
def test_it_draws_no_maps_of_images_that_its_model_has_seen(
    run: Path, other: Path, material: Callable[..., Material], runtime: Runtime
) -> None:
    data = material(samples=scan(other).samples)
    with pytest.raises(ValueError, match=r"learned from 8 of these images and cannot be trained"):
        find_source(str(run), Colorizer(), data, runtime)
    kept = [s for s in data.samples if s.path not in normals(other)[:8]]
    source = find_source(str(run), Colorizer(), material(samples=kept), runtime)
    assert isinstance(source.fixed, AnomalibModel)


@fake
def test_it_draws_no_maps_where_nobody_has_said_what_it_has_seen(
    write_checkpoint: Write,
    other: Path,
    material: Callable[..., Material],
    runtime: Runtime,
    tmp_path: Path,
) -> None:
    config = Config(checkpoint=str(write_checkpoint()), model="Nearcolor")
    run = fit_run(other, tmp_path / "run", config)
    with pytest.raises(ValueError, match=r"cannot give these maps: .*--trained_on FOLDER"):
        find_source(str(run), Colorizer(), material(), runtime)


def test_it_cannot_be_a_map_model_that_is_trained_anew() -> None:
    with pytest.raises(ValueError, match="'anomalib' is none that draws maps"):
        find_map_method("anomalib")


# --- with anomalib itself -----------------------------------------------------------------------


@pytest.mark.skipif(
    importlib.util.find_spec("anomalib") is None,
    reason="anomalib is not installed: pip install 'leanet[anomalib]'",
)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "options"),
    [("Patchcore", {"coreset_sampling_ratio": 0.05}), ("Padim", {"n_features": 12})],
)
def test_a_real_checkpoint_gives_what_anomalib_gives(
    name: str, options: dict[str, Any], toy: Path, tmp_path: Path
) -> None:
    models = importlib.import_module("anomalib.models")
    made = getattr(models, name)
    module = made(
        backbone="resnet18",
        layers=["layer1", "layer2"],
        pre_trained=False,
        pre_processor=made.configure_pre_processor(image_size=(32, 32)),
        **options,
    )
    image = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    module.model.train()
    module.model(module.pre_processor.transform(image))
    module.fit()
    module._is_fitted.fill_(True)
    trainer = importlib.import_module("lightning.pytorch").Trainer(
        logger=False, accelerator="cpu", enable_progress_bar=False, default_root_dir=tmp_path
    )
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    with torch.inference_mode():
        expected = module.model.eval()(module.pre_processor.transform(image[:2]))
    run = fit_run(
        toy, tmp_path / "run", Config(checkpoint=str(tmp_path / "model.ckpt"), model=name)
    )
    with torch.inference_mode():
        prediction = load_detector(run / "final")(image[:2])
    torch.testing.assert_close(prediction.score, expected.pred_score.flatten())
    torch.testing.assert_close(prediction.map, expected.anomaly_map)
