"""Maps come from a method, from another run or from files; never from a model that has cheated."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from leanet import api
from leanet.data.map_folder import find_maps, open_map_folder
from leanet.data.toy import make_toy
from leanet.files import read_json
from leanet.methods import padim, patchcore
from leanet.methods.colorizer import Config
from leanet.methods.detector_file import read_detector
from leanet.methods.given_maps import GivenMaps
from leanet.methods.map_catalog import find_map_method
from leanet.methods.map_models import MapSource
from leanet.methods.map_sources import describe, find_source, own_config, rebuild
from leanet.methods.recipe import Material
from leanet.methods.reconstruction import Reconstructor
from leanet.methods.store import load_detector
from leanet.runtime import Runtime

CONFIG = Config(epochs=1, base=2, map_quantile=0.9, map_headroom=3.0)
Fit = Callable[..., Path]
MAP_FILES = sorted((Path(__file__).parents[2] / "configs" / "maps").glob("*.yaml"))
FROZEN = {"backbone": "mobilenetv3_small_050", "pretrained": False}


@pytest.fixture
def data(material: Callable[..., Material], toy: Path) -> Material:
    return replace(material(), root=toy)


@pytest.fixture(scope="module")
def own_run(quick_fit: Fit, toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the very images that the tests use."""
    out = tmp_path_factory.mktemp("own") / "run"
    return quick_fit("reconstruction", toy, out, base=4, task="inpaint", lr=0.01)


@pytest.fixture(scope="module")
def other_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("other") / "data"
    return make_toy(folder, num_normal=8, num_anomalous=2, size=48, seed=9)


@pytest.fixture(scope="module")
def other_run(quick_fit: Fit, other_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quick_fit("colorizer", other_data, tmp_path_factory.mktemp("runs") / "run", base=4)


def test_without_a_place_the_map_model_is_trained_here(data: Material, runtime: Runtime) -> None:
    source = find_source(None, CONFIG, data, runtime)
    assert source.fixed is None
    assert source.config == CONFIG
    assert "colorization (unet)" in source.told


def test_a_run_that_knows_none_of_the_images_draws_as_it_is(
    data: Material, runtime: Runtime, other_run: Path
) -> None:
    source = find_source(str(other_run), CONFIG, data, runtime)
    image = torch.rand(2, 3, 32, 32)
    assert source.fixed is not None
    with torch.inference_mode():
        expected = load_detector(other_run / "final")(image).map
        assert torch.equal(source.fixed(image).map, expected)
    assert source.model(range(3), data, runtime) is source.fixed
    assert "none of its training images" in source.told


def test_a_run_that_has_seen_the_images_gives_its_options_only(
    data: Material, runtime: Runtime, own_run: Path
) -> None:
    source = find_source(str(own_run), CONFIG, data, runtime)
    assert source.fixed is None
    assert (source.config.task, source.config.model, source.config.lr) == ("inpaint", "ae", 0.01)
    assert "trained anew here: it has seen 18 of these images" in source.told


def test_images_are_known_by_their_content_wherever_they_lie(
    data: Material, runtime: Runtime, other_run: Path, other_data: Path, tmp_path: Path
) -> None:
    copied = tmp_path / "renamed.png"
    shutil.copy(next((other_data / "Negative").rglob("*.png")), copied)
    samples = (*data.samples[1:], replace(data.samples[0], path=copied))
    source = find_source(str(other_run), CONFIG, replace(data, samples=samples), runtime)
    assert "it has seen 1 of these images" in source.told


def test_what_a_run_has_not_learned_from_does_not_count(
    data: Material, runtime: Runtime, other_run: Path, other_data: Path
) -> None:
    bad = next((other_data / "Positive").rglob("*.png"))
    samples = (*data.samples[1:], replace(data.samples[0], path=bad))
    assert find_source(str(other_run), CONFIG, replace(data, samples=samples), runtime).fixed


def test_a_run_whose_images_are_gone_may_have_seen_these(
    data: Material, runtime: Runtime, quick_fit: Fit, tmp_path: Path
) -> None:
    place = make_toy(tmp_path / "gone", num_normal=8, num_anomalous=2, size=48, seed=9)
    run = quick_fit("colorizer", place, tmp_path / "run", base=2)
    shutil.rmtree(place)
    source = find_source(str(run), CONFIG, data, runtime)
    assert source.fixed is None
    assert "8 of its 8 training images are gone" in source.told


def test_a_method_is_named_with_its_options(data: Material, runtime: Runtime) -> None:
    options = {"backbone": "resnet18", "coreset": 0.5}
    source = find_source("patchcore", CONFIG, data, runtime, options)
    assert source.fixed is None
    assert source.config == patchcore.Config(backbone="resnet18", coreset=0.5)
    assert source.told == "patchcore, trained in this run"


def test_the_colorizer_by_its_name_has_the_options_of_the_map_model() -> None:
    assert own_config("colorizer", CONFIG) == own_config(None, CONFIG) == CONFIG
    assert own_config("colorizer", CONFIG, {"lr": 0.5}) == replace(CONFIG, lr=0.5)


def test_a_file_names_a_method_with_its_options(
    data: Material, runtime: Runtime, tmp_path: Path
) -> None:
    file = tmp_path / "maps.yaml"
    file.write_text("method: padim\npreset: small\nridge: 0.5\nmean: [0, 0, 0]\nchannels: 7\n")
    source = find_source(str(file), CONFIG, data, runtime, {"channels": 5})
    expected = padim.Config(backbone="resnet18.tv_in1k", ridge=0.5, mean=(0, 0, 0), channels=5)
    assert source.config == expected
    assert source.told == f"padim, trained in this run as {file} says"


def test_weights_may_lie_beside_the_file_that_names_them(tmp_path: Path) -> None:
    file = tmp_path / "maps.yaml"
    file.write_text("method: padim\nweights: net.safetensors\n")
    assert own_config(str(file), CONFIG).weights == "net.safetensors"
    (tmp_path / "net.safetensors").touch()
    assert own_config(str(file), CONFIG).weights == str(tmp_path / "net.safetensors")


def test_what_is_there_wins_over_a_method_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert isinstance(own_config("padim", CONFIG), padim.Config)
    (tmp_path / "padim").mkdir()
    assert own_config("padim", CONFIG) is None


@pytest.mark.parametrize(("text", "message"), [
    ("method: padim\nrigde: 1\n", r"maps.yaml \(padim\): unknown option 'rigde'.*mean ridge"),
    ("method: padmi\n", "'padmi' is none that draws maps from normal images alone"),
    ("method: padim\npreset: smalle\n", r"padim has no preset 'smalle' \(did you mean small\?\)"),
    ("ridge: 1\n", "is no YAML file with `method:`"),
])  # fmt: skip
def test_a_file_with_mistakes_is_refused(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "maps.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        own_config(str(file), CONFIG)


@pytest.mark.parametrize(("place", "options", "message"), [
    ("patchcor", {}, r"no method \(did you mean patchcore\?\)"),
    ("patchcore", {"corset": 1}, r"unknown option 'corset' \(did you mean coreset\?\)"),
    (None, {"lr": 1}, "map_options .lr. are those of a method.*use map_model"),
    (".", {"lr": 1}, "map_source ., a folder: use --map_source METHOD"),
])  # fmt: skip
def test_what_cannot_be_meant_is_refused(
    place: str | None, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        own_config(place, CONFIG, options)


@pytest.mark.parametrize("file", MAP_FILES, ids=[file.stem for file in MAP_FILES])
def test_every_file_of_ours_is_accepted_and_says_how_to_use_it(file: Path) -> None:
    assert own_config(str(file), CONFIG) is not None
    assert f"--map_source configs/maps/{file.name}" in file.read_text(encoding="utf-8")


@pytest.mark.parametrize("place", ["own_run", "other_run", None])
def test_quantile_and_headroom_are_always_those_of_the_map_model(
    place: str | None, data: Material, runtime: Runtime, request: pytest.FixtureRequest
) -> None:
    given = None if place is None else str(request.getfixturevalue(place))
    source = find_source(given, CONFIG, data, runtime)
    assert (source.quantile, source.headroom) == (0.9, 3.0)


def test_a_run_that_needed_anomalous_images_is_refused(
    data: Material, runtime: Runtime, lea_run: Path
) -> None:
    with pytest.raises(ValueError, match=r"cannot give maps.*'leanet'.*or a folder of maps"):
        find_source(str(lea_run), CONFIG, data, runtime)


def test_a_run_of_another_size_is_refused(
    data: Material, runtime: Runtime, other_run: Path
) -> None:
    with pytest.raises(ValueError, match=r"maps of 32 px.*at 64; use --img_size 32"):
        find_source(str(other_run), CONFIG, replace(data, img_size=64), runtime)


def test_an_unfinished_run_is_refused(
    data: Material, runtime: Runtime, other_run: Path, tmp_path: Path
) -> None:
    shutil.copytree(other_run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "final")
    with pytest.raises(ValueError, match="--resume"):
        find_source(str(tmp_path / "run"), CONFIG, data, runtime)


def test_a_folder_of_maps_is_a_fixed_source(
    data: Material, runtime: Runtime, other_run: Path, toy: Path, tmp_path: Path
) -> None:
    api.predict(other_run, [toy], tmp_path, maps=True, tell=lambda text: None, device="cpu")
    source = find_source(str(tmp_path / "maps"), CONFIG, data, runtime)
    assert isinstance(source.fixed, GivenMaps)
    image = torch.from_numpy(data.images.array[[3, 20]]).float() / 255
    with torch.inference_mode():
        drawn = load_detector(other_run / "final")(image).map
    step = read_json(tmp_path / "maps" / "maps.json")["full_scale"] / 65535
    torch.testing.assert_close(source.fixed(image).map, drawn, rtol=0, atol=1.01 * step)


@pytest.mark.parametrize("place", ["own_run", "other_run"])
def test_a_described_model_can_be_built_again(
    place: str, data: Material, runtime: Runtime, request: pytest.FixtureRequest
) -> None:
    source = find_source(str(request.getfixturevalue(place)), CONFIG, data, runtime)
    model = source.fixed or load_detector(request.getfixturevalue(place) / "final")
    again = rebuild(describe(source, model), 32)
    assert isinstance(again, Reconstructor)
    assert again.question == model.question
    again.load_state_dict(model.state_dict())
    assert again.extra() == model.extra()


def test_described_files_are_forgotten_but_their_scale_is_not() -> None:
    model = GivenMaps(32, "dE00", 150.0)
    source = MapSource(config=None, told="files", fixed=model)
    again = rebuild(describe(source, model), 32)
    assert isinstance(again, GivenMaps)
    assert (again.map_unit, again.full_scale) == ("dE00", 150.0)


# --- whole runs ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def steered_by_files(
    quick_fit: Fit, toy: Path, other_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A LEA-Net run with maps from files, and the folder of the maps."""
    place = tmp_path_factory.mktemp("given")
    api.predict(other_run, [toy], place, maps=True, tell=lambda text: None, device="cpu")
    maps = place / "maps"
    return quick_fit("leanet", toy, place / "run", folds=2, map_source=str(maps)), maps


def test_a_run_on_given_maps_tests_its_folds_with_them(
    steered_by_files: tuple[Path, Path], toy: Path
) -> None:
    run, maps = steered_by_files
    remarks = read_json(run / "fold-0" / "metrics.json")["remarks"]
    assert remarks["map_mode"] == "fixed"
    assert remarks["map_source"] == f"files in {maps}"
    assert not (run / "map_models").exists()
    kept = read_json(run / "fold-0" / "maps" / "maps.json")
    assert len(kept["maps"]) == 12


def test_new_images_need_their_maps(
    steered_by_files: tuple[Path, Path], toy: Path, tmp_path: Path
) -> None:
    run, maps = steered_by_files
    quiet = {"tell": lambda text: None, "device": "cpu"}
    with pytest.raises(ValueError, match=r"no map.*--maps_from FOLDER"):
        api.predict(run, [toy], tmp_path / "a", **quiet)
    with pytest.raises(ValueError, match=r"no map.*--maps_from FOLDER"):
        api.evaluate(run, toy, tmp_path / "b", **quiet)
    judged = api.predict(
        run, [toy / "Negative"], tmp_path / "c", maps_from=maps / "Negative", **quiet
    )
    assert len(judged) == 18
    assert np.isfinite([one.score for one in judged]).all()


def test_maps_of_a_part_of_the_images_lie_below_the_part_of_the_folder(
    steered_by_files: tuple[Path, Path], toy: Path, tmp_path: Path
) -> None:
    run, maps = steered_by_files
    quiet = {"tell": lambda text: None, "device": "cpu"}
    files = sorted((toy / "Positive").rglob("*.png"))
    folder = maps / "Positive"  # without the maps.json, whose full scale the run knows
    assert len(find_maps(open_map_folder(folder), files, toy / "Positive")) == 6
    whole = api.predict(run, [toy], tmp_path / "a", maps_from=maps, **quiet)
    part = api.predict(run, files, tmp_path / "b", maps_from=folder, **quiet)
    scores = {one.path: one.score for one in whole}
    assert [scores[one.path] for one in part] == pytest.approx([one.score for one in part])


def test_a_run_steered_by_another_run_needs_nothing_but_itself(
    quick_fit: Fit, toy: Path, other_run: Path, tmp_path: Path
) -> None:
    source = shutil.copytree(other_run, tmp_path / "source")
    run = quick_fit("leanet", toy, tmp_path / "run", map_source=str(source))
    image = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        expected = load_detector(source / "final")(image).map
        shutil.rmtree(source)
        assert torch.equal(load_detector(run / "final")(image).map, expected)


def test_frozen_features_steer_out_of_fold(quick_fit: Fit, toy: Path, tmp_path: Path) -> None:
    options = {**FROZEN, "feature_indices": [1, 2], "crop": "center"}
    run = quick_fit("leanet", toy, tmp_path / "run", map_source="padim", map_options=options,
                    inner_splits=2)  # fmt: skip
    remarks = read_json(run / "final" / "metrics.json")["remarks"]
    assert remarks["map_mode"] == "out_of_fold"
    assert remarks["map_source"] == "padim, trained in this run"
    assert "the maps are 0 in 2 px at each side" in remarks["notices"][0]
    models = [read_detector(m, find_map_method) for m in (run / "map_models").iterdir()]
    assert len(models) == 3  # without either part, and of all
    detector, image = load_detector(run / "final"), torch.rand(2, 3, 32, 32)
    assert (detector.map_unit, detector.map_border) == ("distance", 2)
    with torch.inference_mode():
        drawn = detector(image).map
        assert any(torch.equal(model(image).map, drawn) for model in models)


def test_any_task_can_steer(quick_fit: Fit, toy: Path, tmp_path: Path) -> None:
    map_model = {"task": "denoise", "model": "ae", "epochs": 1, "base": 4, "draws": 2}
    run = quick_fit("leanet", toy, tmp_path / "run", map_model=map_model)
    assert read_json(run / "card.json")["map_unit"] == "L1"
    detector = load_detector(run / "final").double()  # a network of two epochs amplifies rounding
    image = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)).double()
    with torch.inference_mode():
        together, alone = detector(image), detector(image[1:2])
    torch.testing.assert_close(alone.map, together.map[1:2], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(alone.score, together.score[1:2], rtol=1e-9, atol=1e-9)
