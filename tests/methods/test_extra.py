"""Extra training images: where they come from, and that they go nowhere else."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from leanet.data import synthetic
from leanet.data.cache import Cache
from leanet.data.folds import single_fold
from leanet.files import read_csv, read_json, read_json_lines, write_csv, write_json
from leanet.methods import classifier
from leanet.methods.extra import (
    GENERATED_FOLDER,
    REPEATED_FILE,
    SYNTHETIC_FILE,
    Beside,
    Extra,
    Options,
    extra_labels,
    extra_sources,
    joined,
    make_extras,
    parts,
    synthetic_share,
)
from leanet.methods.map_models import MapSource, training_maps
from leanet.methods.recipe import DetectorModule, Material, Trained
from leanet.records import ANOMALOUS, NORMAL
from leanet.runtime import Runtime

REST = tuple(range(4, 22))


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "FEWEST", 4)
    monkeypatch.setattr(synthetic, "MOST", 6)


def beside(data: Material, anomalous_share: float = 0.25, **changes: Any) -> Beside:
    made = Beside(
        rest=REST,
        part="fold-0",
        anomalous_share=anomalous_share,
        names=("fold-0",),
        folder=data.run / "fold-0",
    )
    return replace(made, **changes)


def generated_folder(
    place: Path, data: Material, kinds: tuple[str, ...], trained_on: tuple[int, ...]
) -> Path:
    """As `leanet generate` leaves it, for the part fold-0."""
    rows = []
    for k, kind in enumerate(kinds):
        file = place / "fold-0" / kind / f"{k}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), (10 * k, 0, 0)).save(file)
        rows.append({"file": f"{kind}/{k}.png", "class": kind})
    write_csv(place / "fold-0" / "generated.csv", rows)
    seen = {
        data.samples[i].path.name: hashlib.sha256(data.samples[i].path.read_bytes()).hexdigest()
        for i in trained_on
    }
    write_json(place / "fold-0" / "generator.json", {"trained_on": seen})
    return place


# --- synthetic ---------------------------------------------------------------------------------


def test_synthetic_images_come_from_the_normal_images_of_the_rest_alone(
    material: Callable[..., Material], runtime: Runtime
) -> None:
    data = material()
    (extra,) = make_extras(Options(synthetic="color"), beside(data), data, runtime)
    normals = {i for i in REST if data.labels[i] == NORMAL}
    assert set(extra.sources) <= normals
    assert Counter(extra.labels) == {ANOMALOUS: 6, NORMAL: 6}
    assert extra.share == 0.25
    assert len(extra.images) == 12
    assert extra.images.array.shape == (12, 3, 32, 32)
    assert extra.images.array.dtype == np.uint8
    assert (data.run / "fold-0" / SYNTHETIC_FILE).exists()


def test_they_are_made_again_to_the_byte_and_differ_by_fold_and_draw(
    material: Callable[..., Material], runtime: Runtime
) -> None:
    data, options = material(), Options(synthetic="cutpaste")
    arrays = [
        make_extras(options, beside(data, names=names), data, runtime)[0].images.array.copy()
        for names in (("fold-0",), ("fold-0",), ("fold-1",), ("fold-0", "draw 1"))
    ]
    assert np.array_equal(arrays[0], arrays[1])
    assert not np.array_equal(arrays[0], arrays[2])
    assert not np.array_equal(arrays[0], arrays[3])


def test_at_most_half_of_the_defects_are_synthetic() -> None:
    for real in (0.02, 0.1, 0.25, 0.6):
        share = synthetic_share(None, real)
        assert share * 0.5 <= (1 - share) * real + 1e-9
        assert share <= 0.25
    assert synthetic_share(0.3, 0.25) == 0.3
    with pytest.raises(ValueError, match=r"synthetic_share 0\.4: .* at most 0\.33, so that half"):
        synthetic_share(0.4, 0.25)
    for wrong in (0.0, 1.0, -0.1):
        with pytest.raises(ValueError, match="above 0 and below 1"):
            synthetic_share(wrong, 0.0)
    assert synthetic_share(0.9, 0.0) == 0.9  # without real defects there is no such limit


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"synthetic": "colour"}, "did you mean color"),
        ({"synthetic_share": 0.2}, "add --synthetic color"),
        ({"textures": "dtd"}, "add --synthetic color"),
        ({"textures": "dtd", "synthetic": "color"}, "textures are for --synthetic perlin"),
        ({"generated_share": 0.2}, "add --generated FOLDER"),
        ({"generated": "repeat", "generated_share": 1.0}, "give a share of every batch"),
    ],
)
def test_options_that_would_be_ignored_are_refused(
    options: dict[str, Any], message: str, material: Callable[..., Material], runtime: Runtime
) -> None:
    data = material()
    with pytest.raises(ValueError, match=message):
        make_extras(Options(**options), beside(data), data, runtime)


def test_without_options_there_are_no_extra_images(
    material: Callable[..., Material], runtime: Runtime
) -> None:
    data = material()
    assert make_extras(Options(), beside(data), data, runtime) == ()
    assert joined(data, ()) is data.images


# --- generated ---------------------------------------------------------------------------------


def test_generated_images_take_the_labels_of_their_classes(
    material: Callable[..., Material], runtime: Runtime, tmp_path: Path
) -> None:
    data = material()
    defect = next(s.kind for s in data.samples if s.label == ANOMALOUS)
    folder = generated_folder(tmp_path / "g", data, ("good", defect, "good"), REST)
    (extra,) = make_extras(Options(generated=str(folder)), beside(data), data, runtime)
    assert extra.labels == (NORMAL, ANOMALOUS, NORMAL)
    assert extra.sources == (-1, -1, -1)
    assert extra.share == 0.5
    assert extra.images.array[:, 0, 0, 0].tolist() == [0, 10, 20]
    assert (data.run / "fold-0" / GENERATED_FOLDER).is_dir()


def test_where_classes_are_told_apart_labels_are_their_numbers(
    material: Callable[..., Material], runtime: Runtime, tmp_path: Path
) -> None:
    data = replace(material(), classes=("good", "scratch", "spot"), normal="good")
    folder = generated_folder(tmp_path / "g", data, ("spot", "good"), REST)
    (extra,) = make_extras(Options(generated=str(folder)), beside(data), data, runtime)
    assert extra.labels == (2, 0)


def test_a_generator_that_has_seen_a_test_image_is_refused(
    material: Callable[..., Material], runtime: Runtime, tmp_path: Path
) -> None:
    data = material()
    folder = generated_folder(tmp_path / "g", data, ("good",), (*REST, 23))
    with pytest.raises(ValueError, match=data.samples[23].path.name):
        make_extras(Options(generated=str(folder)), beside(data), data, runtime)


def test_an_unknown_class_is_refused(
    material: Callable[..., Material], runtime: Runtime, tmp_path: Path
) -> None:
    data = material()
    folder = generated_folder(tmp_path / "g", data, ("goood",), REST)
    with pytest.raises(ValueError, match=r"'goood', .*did you mean good"):
        make_extras(Options(generated=str(folder)), beside(data), data, runtime)


def test_repeated_images_are_the_real_ones_every_class_equally_often(
    material: Callable[..., Material], runtime: Runtime
) -> None:
    data = material()
    (extra,) = make_extras(Options(generated="repeat"), beside(data), data, runtime)
    assert set(extra.sources) == set(REST)
    assert len(set(Counter(extra.kinds).values())) == 1
    for k, source in enumerate(extra.sources):
        assert np.array_equal(extra.images.array[k], data.images.array[source])
        assert extra.labels[k] == data.labels[source]
    assert (data.run / "fold-0" / REPEATED_FILE).exists()


def test_both_together_leave_room_for_real_images(
    material: Callable[..., Material], runtime: Runtime
) -> None:
    data = material()
    options = Options(generated="repeat", synthetic="cutpaste")
    extras = make_extras(options, beside(data), data, runtime)
    first, second = parts(data, extras)
    assert (first.share, second.share) == pytest.approx((0.5, 1 / 6))
    assert first.indices[0] == len(data.samples)
    assert second.indices[0] == first.indices[-1] + 1
    assert second.indices[-1] == len(joined(data, extras)) - 1
    assert len(extra_labels(extras)) == len(extra_sources(extras)) == len(joined(data, extras)) - 24
    greedy = tuple(replace(extra, share=0.6) for extra in extras)
    with pytest.raises(ValueError, match="120% of every batch"):
        parts(data, greedy)


def test_a_set_needs_one_of_each_per_image() -> None:
    images = Cache(np.zeros((2, 3, 4, 4), np.uint8), torch.device("cpu"))
    with pytest.raises(ValueError, match="2 images, 1 labels"):
        Extra(images=images, labels=(0,), kinds=("a", "b"), sources=(0, 1), share=0.5)


# --- in a training -----------------------------------------------------------------------------


def train(data: Material, runtime: Runtime, **options: Any) -> Trained:
    config = classifier.Config(adn="timm/mobilenetv3_small_050", epochs=2, **options)
    fold = single_fold(data.samples, seed=0, inner_splits=0)
    return classifier.train(config, fold, data, data.run / "final", runtime, None)


def test_the_remarks_tell_what_was_added_and_held_out_images_stay_real(
    material: Callable[..., Material], runtime: Runtime
) -> None:
    data = material()
    trained = train(data, runtime, synthetic="color,cutpaste")
    assert max(trained.held_out.indices) < len(data.samples)
    (told,) = trained.remarks["extra"]
    assert told["images"]["synthetic-color"] == 3
    assert 0 < told["share"] <= 0.25
    num_real = sum(trained.remarks["trained_on"].values())
    assert num_real == 20  # four good ones are held out


def test_normal_images_alone_are_enough_and_give_a_threshold(
    toy: Path, tmp_path: Path, quick_fit: Callable[..., Path]
) -> None:
    normals = tmp_path / "normals"
    (normals / "Negative").mkdir(parents=True)
    for file in sorted((toy / "Negative").rglob("*.png")):
        (normals / "Negative" / file.name).write_bytes(file.read_bytes())
    run = quick_fit("classifier", normals, tmp_path / "run", synthetic="color")
    threshold = read_json(run / "card.json")["threshold"]
    assert (threshold["rule"], threshold["num_anomalous"]) == ("quantile", 0)
    rows = read_csv(run / "final" / "predictions.csv")
    assert {row["role"] for row in rows} == {"held_out"}
    left = {path.name for path in (run / "final").iterdir()}
    assert not left & {SYNTHETIC_FILE, "maps.f32"}
    told = read_json(run / "final" / "metrics.json")["remarks"]["extra"][0]
    assert told["share"] == 0.5
    with pytest.raises(ValueError, match="--synthetic color"):
        quick_fit("classifier", normals, tmp_path / "other")


def test_images_repeated_beside_several_classes_train_as_their_classes(
    toy: Path, tmp_path: Path, quick_fit: Callable[..., Path]
) -> None:
    options = {"classes": "kinds", "val_fraction": 0.0, "test_fraction": 0.0}
    run = quick_fit("classifier", toy, tmp_path / "run", generated="repeat", **options)
    told = read_json(run / "final" / "metrics.json")["remarks"]["extra"][0]
    assert len(set(told["images"].values())) == 1
    assert set(told["images"]) == set(read_json(run / "classes.json")["classes"])
    assert not (run / "final" / REPEATED_FILE).exists()
    with pytest.raises(ValueError, match="synthetic is about normal and anomalous images"):
        quick_fit("classifier", toy, tmp_path / "other", synthetic="color", **options)


def test_maps_from_files_and_synthetic_images_do_not_go_together(
    toy: Path, tmp_path: Path, quick_fit: Callable[..., Path]
) -> None:
    maps = tmp_path / "maps"
    for image in sorted(toy.rglob("*.png")):
        if "Mask" not in image.parts:
            place = maps / image.relative_to(toy)
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (48, 48), 20).save(place)
    options = {"map_source": str(maps), "synthetic": "cutpaste"}
    with pytest.raises(ValueError, match="has no maps of synthetic"):
        quick_fit("leanet", toy, tmp_path / "run", **options)


def test_lea_net_learns_from_synthetic_images_and_their_maps(
    toy: Path, tmp_path: Path, quick_fit: Callable[..., Path]
) -> None:
    run = quick_fit("leanet", toy, tmp_path / "run", synthetic="cutpaste", inner_splits=2)
    remarks = read_json(run / "final" / "metrics.json")["remarks"]
    assert remarks["map_mode"] == "out_of_fold"
    assert remarks["extra"][0]["images"] == {"synthetic-cutpaste": 6, "clean": 6}
    assert not (run / "final" / "maps.f32").exists()


def test_a_killed_run_goes_on_to_the_same_weights(
    material: Callable[..., Material], runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    from leanet.training import loop

    whole = train(material(), runtime, synthetic="cutpaste")
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    data, record = material(), loop.journal.append

    def killed(path: Path, line: Any) -> None:
        record(path, line)
        if line["epoch"] == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(loop.journal, "append", killed)
        with pytest.raises(KeyboardInterrupt):
            train(data, runtime, synthetic="cutpaste")
    resumed = train(data, runtime, synthetic="cutpaste")
    pairs = zip(
        whole.detector.state_dict().values(), resumed.detector.state_dict().values(), strict=True
    )
    assert all(torch.equal(one, two) for one, two in pairs)
    assert [line["epoch"] for line in read_json_lines(data.run / "final/journal.jsonl")] == [0, 1]


def test_the_map_of_a_synthetic_image_comes_from_a_model_that_has_not_seen_its_source(
    material: Callable[..., Material], runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    from leanet.methods import map_models
    from leanet.methods.colorizer import Config

    data = material()
    fold = single_fold(data.samples, seed=0, inner_splits=3)
    around = beside(data, rest=fold.train)
    extras = make_extras(Options(synthetic="cutpaste"), around, data, runtime)
    seen_by: dict[int, frozenset[int]] = {}
    drawn: dict[int, int] = {}

    def model(config: Any, indices: Any, data: Any, runtime: Any) -> Any:
        made: Any = DetectorModule()
        seen_by[id(made)] = frozenset(indices)
        kept.append(made)
        return made

    kept: list[Any] = []

    def draw(model: Any, images: Any, indices: Any, target: Any) -> None:
        drawn.update(dict.fromkeys(indices, id(model)))
        target[list(indices)] = 1.0

    monkeypatch.setattr(map_models, "map_model", model)
    monkeypatch.setattr(map_models, "draw", draw)
    source = MapSource(config=Config(), told="none")
    maps = training_maps(source, "out_of_fold", fold, data, data.run, runtime, extras)
    assert len(maps.maps) == 24 + len(extras[0].labels)
    for number, origin in enumerate(extras[0].sources, start=24):
        assert drawn[number] == drawn[origin]
        assert origin not in seen_by[drawn[number]]
    np.testing.assert_allclose(maps.maps.array[24:], 0.25, rtol=1e-3)  # scaled as the samples'
