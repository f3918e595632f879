from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from leanet.files import write_csv
from leanet.inference.run_images import run_images, true_classes


def fold(run: Path, name: str, labels: list[int | str], **columns: list[str]) -> None:
    """A fold with a gallery of as many images, each as bright as its number."""
    folder = run / name
    folder.mkdir(parents=True)
    paths = [f"data/{name}/{k}.png" for k in range(len(labels))]
    image = torch.arange(len(labels), dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 2, 2)
    save_file({"image": image.contiguous()}, folder / "gallery.safetensors",
              {"paths": json.dumps(paths)})  # fmt: skip
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
