"""Training maps come from models that have not seen the image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch

from leanet.data.folds import make_folds, single_fold
from leanet.files import read_csv, read_json
from leanet.methods import map_models, reconstruction
from leanet.methods.colorizer import Config
from leanet.methods.map_models import MapSource, map_model, training_maps, trainings
from leanet.methods.recipe import DetectorModule, Material
from leanet.ops.map_steps import MapSteps, prepare_map
from leanet.records import NORMAL, Fold
from leanet.runtime import Runtime, make_runtime
from leanet.training import checkpoint

CONFIG = Config(epochs=1, base=2, val_fraction=0.0)
SOURCE = MapSource(config=CONFIG, told="trained here")


def trained_on(folder: Path) -> frozenset[str]:
    """What the metadata of a map model say."""
    _, metadata = checkpoint.load(folder / "weights.safetensors")
    return frozenset(metadata["trained_on"])


def list_of(model: DetectorModule, run: Path) -> frozenset[str]:
    """The training list of the stored model that has these very weights."""
    for folder in (run / "map_models").iterdir():
        tensors, _ = checkpoint.load(folder / "weights.safetensors")
        own = model.state_dict()
        if all(torch.equal(own[name], tensor) for name, tensor in tensors.items()):
            return trained_on(folder)
    raise AssertionError("the model is not in the run folder")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[DetectorModule, tuple[int, ...]]]:
    """Who drew which images."""
    calls: list[tuple[DetectorModule, tuple[int, ...]]] = []
    draw = map_models.draw

    def watched(model: DetectorModule, images: Any, indices: Sequence[int], target: Any) -> None:
        calls.append((model, tuple(indices)))
        draw(model, images, indices, target)

    monkeypatch.setattr(map_models, "draw", watched)
    return calls


def fold_of(data: Material, kind: str) -> Fold:
    if kind == "cross-validation":
        return make_folds(data.samples, 3, seed=0)[0]
    return single_fold(data.samples, seed=0, inner_splits=3)


@pytest.mark.parametrize("kind", ["cross-validation", "single"])
def test_no_image_is_drawn_by_a_model_that_was_trained_on_it(
    kind: str,
    material: Callable[..., Material],
    runtime: Runtime,
    drawn: list[tuple[DetectorModule, tuple[int, ...]]],
) -> None:
    data = material()
    fold = fold_of(data, kind)
    maps = training_maps(SOURCE, "out_of_fold", fold, data, data.run, runtime)
    assert sorted(i for _, indices in drawn for i in indices) == sorted(fold.train)
    tests = {str(data.samples[i].path) for i in fold.test}
    for model, indices in drawn:
        seen = list_of(model, data.run)
        assert seen
        assert not seen & {str(data.samples[i].path) for i in indices}
        assert not seen & tests
    anomalous = {str(s.path) for s in data.samples if s.label != NORMAL}
    normals = {str(data.samples[i].path) for i in fold.train} - anomalous
    assert list_of(maps.model, data.run) == normals
    assert maps.remarks["map_mode"] == "out_of_fold"


def test_in_sample_maps_take_one_model(
    material: Callable[..., Material],
    runtime: Runtime,
    drawn: list[tuple[DetectorModule, tuple[int, ...]]],
) -> None:
    data = material()
    fold = fold_of(data, "cross-validation")
    maps = training_maps(SOURCE, "in_sample", fold, data, data.run, runtime)
    assert len(list((data.run / "map_models").iterdir())) == 1
    assert [(model, indices) for model, indices in drawn] == [(maps.model, fold.train)]
    assert maps.remarks["map_mode"] == "in_sample"


def test_without_parts_the_maps_are_in_sample_and_say_so(
    material: Callable[..., Material], runtime: Runtime
) -> None:
    data = material()
    fold = single_fold(data.samples, seed=0, inner_splits=0)
    maps = training_maps(SOURCE, "out_of_fold", fold, data, data.run, runtime)
    assert maps.remarks["map_mode"] == "in_sample"


def test_network_maps_lie_between_zero_and_one_and_are_scaled_by_training_normals(
    material: Callable[..., Material], runtime: Runtime
) -> None:
    data = material()
    fold = fold_of(data, "cross-validation")
    maps = training_maps(SOURCE, "out_of_fold", fold, data, data.run, runtime)
    array = torch.from_numpy(maps.maps.array)
    assert array.shape == (24, 1, 32, 32)
    train, test = array[list(fold.train)], array[list(fold.test)]
    assert 0 <= train.min() < train.max() <= 1
    assert test.abs().max() == 0  # nothing is known of test images
    normals = array[[i for i in fold.train if data.labels[i] == NORMAL]]
    quantile = normals.flatten().sort().values[round(0.999 * (normals.numel() - 1))]
    assert float(quantile) == pytest.approx(0.25, rel=1e-3)  # 1 / headroom
    unit = maps.scale.divisor * maps.scale.headroom
    expected = float(normals.mean() * unit)
    assert maps.remarks["map_mean_training_normals"] == pytest.approx(expected, rel=0.01)


def test_a_model_is_trained_once_and_read_again(
    material: Callable[..., Material], runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = material()
    first = map_model(CONFIG, range(24), data, runtime)
    monkeypatch.setattr(reconstruction, "train_on", lambda *a, **k: pytest.fail("again"))
    again = map_model(CONFIG, range(23, -1, -1)[::-1], data, runtime)
    image = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(first(image).map, again(image).map)
    assert not again.training


def test_other_images_options_or_methods_are_other_models(
    material: Callable[..., Material], runtime: Runtime
) -> None:
    data = material()
    other = reconstruction.Config(epochs=1, base=2, val_fraction=0.0)
    for config in (CONFIG, replace(CONFIG, lr=0.5), other):
        map_model(config, range(24), data, runtime)
    map_model(CONFIG, range(23), data, runtime)
    map_model(CONFIG, range(17), data, runtime)
    map_model(CONFIG, range(24), data, make_runtime("cpu", "32-true", seed=1))
    normals = {tuple(i for i in range(n) if data.labels[i] == NORMAL) for n in (24, 23, 17)}
    assert len(list((data.run / "map_models").iterdir())) == 3 + len(normals)


def test_the_random_numbers_of_a_model_depend_on_its_images_and_not_on_its_options(
    material: Callable[..., Material], runtime: Runtime
) -> None:
    """So that two options are compared on the same draws."""
    data = material()
    one, other = (
        map_model(replace(CONFIG, map_score=how), range(24), data, runtime)
        for how in ("mean", "max")
    )
    image = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(one(image).map, other(image).map)


def test_any_method_of_the_map_catalog_draws(
    material: Callable[..., Material], runtime: Runtime
) -> None:
    data = material()
    fold = fold_of(data, "cross-validation")
    config = reconstruction.Config(task="denoise", epochs=1, base=2, val_fraction=0.0)
    source = MapSource(config=config, told="denoise")
    maps = training_maps(source, "out_of_fold", fold, data, data.run, runtime)
    assert maps.model.map_unit == "L1"
    assert maps.remarks["map_source"] == "denoise"
    assert 0 < maps.maps.array[list(fold.train)].mean() < 1


def test_quantile_and_headroom_make_the_scale(
    material: Callable[..., Material], runtime: Runtime
) -> None:
    data = material()
    fold = fold_of(data, "cross-validation")
    source = replace(SOURCE, quantile=0.5, headroom=2.0)
    maps = training_maps(source, "in_sample", fold, data, data.run, runtime)
    normals = [i for i in fold.train if data.labels[i] == NORMAL]
    pixels = torch.from_numpy(maps.maps.array[normals])
    assert maps.scale.headroom == 2.0
    assert float(pixels.median()) == pytest.approx(0.5, rel=0.01)


def test_the_steps_are_those_of_a_map_that_the_detector_draws(
    material: Callable[..., Material], runtime: Runtime
) -> None:
    data = material()
    fold = fold_of(data, "cross-validation")
    steps = MapSteps(blur=1.0, threshold=0.6, top_fraction=0.1, binarize=True)
    maps = training_maps(replace(SOURCE, steps=steps), "in_sample", fold, data, data.run, runtime)
    images = torch.from_numpy(data.images.array[list(fold.train)]).float() / 255
    with torch.inference_mode():
        expected = prepare_map(maps.model(images).map, maps.preparation)
    network_maps = torch.from_numpy(maps.maps.array[list(fold.train)])
    assert torch.equal(network_maps, expected)
    assert set(network_maps.unique().tolist()) == {0.0, 1.0}
    facts = read_json(data.run / "maps.json")
    assert facts["map_steps"] == steps._asdict()
    assert facts["map_level"] == maps.preparation.level > 0
    assert (facts["unit"], facts["map_mode"], facts["seed"]) == ("dE00", "in_sample", 0)


@pytest.mark.parametrize("mode", ["in_sample", "out_of_fold"])
def test_the_shift_compares_unseen_normals_with_those_trained_on(
    mode: Any, material: Callable[..., Material], runtime: Runtime
) -> None:
    data = material()
    fold = fold_of(data, "cross-validation")
    maps = training_maps(SOURCE, mode, fold, data, data.run, runtime)
    unseen = [i for i in fold.test if data.labels[i] == NORMAL]
    with torch.inference_mode():
        drawn = maps.model(torch.from_numpy(data.images.array[unseen]).float() / 255).map
    expected = float(drawn.flatten().sort().values[round(0.999 * (drawn.numel() - 1))])
    assert maps.remarks["map_shift"] == pytest.approx(expected / maps.scale.divisor, rel=1e-2)
    alone = single_fold(data.samples, seed=0, inner_splits=3)
    assert training_maps(SOURCE, mode, alone, data, data.run, runtime).remarks["map_shift"] is None


def test_a_fixed_detector_draws_everything_and_nothing_is_trained(
    material: Callable[..., Material],
    runtime: Runtime,
    drawn: list[tuple[DetectorModule, tuple[int, ...]]],
) -> None:
    data = material()
    fold = fold_of(data, "cross-validation")
    fixed = reconstruction.build(CONFIG, 32, {"map_top": 0.0}).eval()
    source = replace(SOURCE, fixed=fixed)
    maps = training_maps(source, "out_of_fold", fold, data, data.run, runtime)
    assert maps.model is fixed
    assert drawn == [(fixed, fold.train)]
    assert maps.remarks["map_mode"] == "fixed"
    assert not (data.run / "map_models").exists()


def test_the_trainings_of_a_fold_are_all_that_is_trained(
    material: Callable[..., Material], runtime: Runtime
) -> None:
    data = material()
    fold = fold_of(data, "cross-validation")
    for indices in trainings("out_of_fold", fold):
        map_model(CONFIG, indices, data, runtime)
    before = set((data.run / "map_models").iterdir())
    training_maps(SOURCE, "out_of_fold", fold, data, data.run, runtime)
    assert set((data.run / "map_models").iterdir()) == before
    assert trainings("in_sample", fold) == [fold.train]


# --- a whole run --------------------------------------------------------------------------------


def test_the_folds_of_a_run_share_their_models(lea_run: Path) -> None:
    folds = 3
    models = list((lea_run / "map_models").iterdir())
    assert len(models) == folds * (folds - 1) // 2 + folds + 1


def test_the_models_of_a_run_leave_out_one_fold_two_folds_or_none(lea_run: Path, toy: Path) -> None:
    test_part: dict[str, set[str]] = {}
    for row in read_csv(lea_run / "folds.csv"):
        if row["role"] == "test":
            test_part.setdefault(row["fold"], set()).add(str(toy / row["path"]))
    normals = {path for part in test_part.values() for path in part if "Negative" in path}
    left_out = [(), *((k,) for k in test_part), *combinations(test_part, 2)]
    expected = {frozenset(normals.difference(*(test_part[k] for k in ks))) for ks in left_out}
    got = {trained_on(folder) for folder in (lea_run / "map_models").iterdir()}
    assert got == expected
