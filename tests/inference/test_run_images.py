from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from leanet.data.scan import write_samples_csv
from leanet.files import write_csv
from leanet.inference.run_images import run_images, true_classes, unlearned
from leanet.records import ANOMALOUS, NORMAL, Sample


def fold(run: Path, name: str, labels: list[int | str], **columns: list[str]) -> None:
    """A fold with a gallery of as many images, each as bright as its number."""
    folder = run / name
    folder.mkdir(parents=True)
    paths = [f"data/{name}/{k}.png" for k in range(len(labels))]
    image = torch.arange(len(labels), dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 2, 2)
    save_file({"image": image.contiguous()}, folder / "gallery.safetensors",
              {"json": json.dumps({"paths": paths})})  # fmt: skip
    rows = [
        {"path": path, "label": label, **{key: values[k] for key, values in columns.items()}}
        for k, (path, label) in enumerate(zip(paths, labels, strict=True))
    ]
    write_csv(folder / "predictions.csv", rows)


def test_the_galleries_of_all_folds_are_put_together(tmp_path: Path) -> None:
    fold(tmp_path, "fold-0", [0, 1, 0])
    fold(tmp_path, "fold-1", [1, 0])
    found = run_images(tmp_path)
    assert found is not None
    assert (found.image[:, 0, 0, 0] * 255).tolist() == pytest.approx([0, 1, 2, 0, 1])
    assert found.normal.tolist() == [True, False, True, False, True]


def test_many_images_are_thinned_evenly(tmp_path: Path) -> None:
    fold(tmp_path, "fold-0", [0] * 9)
    found = run_images(tmp_path, most=3)
    assert found is not None
    assert (found.image[:, 0, 0, 0] * 255).tolist() == pytest.approx([0, 4, 8])


def test_a_run_without_pictures_has_none(tmp_path: Path) -> None:
    assert run_images(tmp_path) is None


def test_the_true_class_is_the_nearest_folder_that_is_called_so(tmp_path: Path) -> None:
    names = ("rust", "good")
    paths = [tmp_path / "rust" / "more" / "1.png", tmp_path / "rust" / "good" / "1.png"]
    assert true_classes(paths, names, tmp_path) == {paths[0]: 0, paths[1]: 1}


def test_else_it_is_that_of_the_run(tmp_path: Path) -> None:
    fold(tmp_path / "run", "fold-0", ["", ""], true=["good", "rust"])
    paths = [tmp_path / "data" / "fold-0" / f"{k}.png" for k in range(2)]
    assert list(true_classes(paths, ("rust", "good"), tmp_path / "run").values()) == [1, 0]
    fold(tmp_path / "two", "fold-0", [1, 0])
    found = true_classes(paths, ("normal", "anomalous"), tmp_path / "two")
    assert list(found.values()) == [1, 0]


def test_an_image_of_unknown_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"true class of .*x\.png is not known.*rust, good"):
        true_classes([tmp_path / "x.png"], ("rust", "good"), tmp_path)


def own_data(tmp_path: Path) -> tuple[Path, Path, list[Sample]]:
    """(run, data, samples): the run has learned from one of three test images."""
    run, data = tmp_path / "run", tmp_path / "screws"
    samples = [
        Sample(path=data / "train" / "good" / "0.png", label=NORMAL, kind="good", split="train")
    ]
    samples += [
        Sample(path=data / "test" / "bent" / f"{k}.png", label=ANOMALOUS, kind="bent", split="test")
        for k in range(3)
    ]
    moved = dataclasses.replace(samples[2], split="train")
    data.mkdir()
    write_samples_csv(run / "samples.csv", data, [samples[0], moved, samples[1], samples[3]])
    (run / "config.yaml").write_text(f"method: cavga\ndata: {data}\n")
    return run, data, samples


def test_a_run_is_not_tested_on_what_it_has_learned_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, data, samples = own_data(tmp_path)
    expected = [samples[0], samples[1], samples[3]]
    assert unlearned(run, data, samples) == expected
    monkeypatch.chdir(data)
    here = [dataclasses.replace(s, path=s.path.relative_to(data)) for s in samples]
    assert unlearned(run, Path(), here) == [here[0], here[1], here[3]]


def test_nor_on_others_of_their_groups(tmp_path: Path) -> None:
    run, data, samples = own_data(tmp_path)
    grouped = [
        dataclasses.replace(sample, group=group)
        for sample, group in zip(samples, ("a", "b", "c", "c"), strict=True)
    ]
    assert unlearned(run, data, grouped) == grouped[:2]


def test_other_data_with_the_same_names_are_other_images(tmp_path: Path) -> None:
    run, _, samples = own_data(tmp_path)
    assert unlearned(run, tmp_path / "nuts", samples) == samples


def test_data_that_have_moved_are_still_known_by_their_name(tmp_path: Path) -> None:
    run, data, samples = own_data(tmp_path)
    new = tmp_path / "disk" / "screws"
    new.mkdir(parents=True)
    moved = [dataclasses.replace(s, path=new / s.path.relative_to(data)) for s in samples]
    assert unlearned(run, new, moved) == moved, "a second data set of that name"
    data.rmdir()
    assert unlearned(run, new, moved) == [moved[0], moved[1], moved[3]]


def test_a_relative_path_holds_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, data, samples = own_data(tmp_path)
    (run / "config.yaml").write_text("method: cavga\ndata: screws\n")
    monkeypatch.chdir(data)
    here = [dataclasses.replace(s, path=s.path.relative_to(data)) for s in samples]
    assert unlearned(run, Path(), here) == [here[0], here[1], here[3]]
