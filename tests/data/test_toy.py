"""The generated data sets."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from leanet.data.defects import KINDS
from leanet.data.surfaces import SURFACES
from leanet.data.toy import make_toy


def make(out: Path, **options: Any) -> Path:
    return make_toy(out, **{"num_normal": 3, "num_anomalous": 6, "size": 32} | options)


def pixels(path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.asarray(Image.open(path))


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "severity.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_layout_is_positive_negative_and_mask(tmp_path: Path) -> None:
    out = make(tmp_path / "toy")
    names = {"spot/000.png", "spot/001.png", "stain/000.png", "stain/001.png"}
    names |= {"scratch/000.png", "fade/000.png"}
    expected = {f"Negative/good/{i:03d}.png" for i in range(3)} | {"severity.csv"}
    expected |= {f"{top}/{name}" for top in ("Positive", "Mask") for name in names}

    assert out == tmp_path / "toy"
    assert set(contents(out)) == expected
    assert {row["path"] for row in table(out)} == {f"Positive/{name}" for name in names}


@pytest.mark.parametrize("surface", SURFACES)
def test_the_table_states_severity_and_area(tmp_path: Path, surface: str) -> None:
    out = make(tmp_path / "toy", surface=surface, num_anomalous=12, severity=(6.0, 9.0))

    for row in table(out):
        mask = pixels(out / row["path"].replace("Positive", "Mask"))
        assert set(np.unique(mask)) == {0, 255}
        assert float(row["area"]) == pytest.approx((mask > 0).mean(), abs=1e-5)
        assert 0.9 * 6 <= float(row["severity"]) <= 1.1 * 9
        assert row["kind"] == Path(row["path"]).parent.name


@pytest.mark.parametrize("surface", SURFACES)
def test_the_picture_below_a_defect_does_not_depend_on_the_defect(
    tmp_path: Path, surface: str
) -> None:
    spots, fades = (
        make(tmp_path / kind, surface=surface, kinds=[kind])
        for kind in KINDS
        if kind in ("spot", "fade")
    )

    for index in range(6):
        spot, fade = (
            [pixels(out / top / out.name / f"{index:03d}.png") for top in ("Positive", "Mask")]
            for out in (spots, fades)
        )
        outside = (spot[1] == 0) & (fade[1] == 0)
        np.testing.assert_array_equal(spot[0][outside], fade[0][outside])
        assert (spot[0] != fade[0]).any()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    first, again, other = (
        contents(make(tmp_path / name, seed=seed)) for name, seed in (("a", 7), ("b", 7), ("c", 8))
    )

    assert first == again
    assert first.keys() == other.keys()
    assert all(first[name] != other[name] for name in first)


def test_a_larger_set_contains_the_smaller_one(tmp_path: Path) -> None:
    small = contents(make(tmp_path / "small"))
    large = contents(make(tmp_path / "large", num_normal=5, num_anomalous=9))
    del small["severity.csv"]

    assert small.items() <= large.items()


@pytest.mark.parametrize("surface", SURFACES)
def test_nothing_but_the_defect_tells_the_classes_apart(tmp_path: Path, surface: str) -> None:
    out = make(tmp_path / "toy", surface=surface, num_normal=100, num_anomalous=100)
    normal = sorted((out / "Negative").rglob("*.png"))
    anomalous = sorted((out / "Positive").rglob("*.png"))
    features = []
    for path in normal + anomalous:
        mask_path = Path(str(path).replace("Positive", "Mask"))
        clean = pixels(mask_path) == 0 if path in anomalous else np.ones((32, 32), dtype=bool)
        corners = np.zeros_like(clean)
        corners[np.ix_([0, 1, 2, -3, -2, -1], [0, 1, 2, -3, -2, -1])] = True
        sample = pixels(path)[clean & corners] / 255
        features.append([*sample.mean(axis=0), sample[:, 0].mean() - sample[:, 2].mean()])
    labels = np.arange(200) >= 100

    for feature in np.transpose(features):
        # Chance has a standard deviation of 0.04 here; photo sessions gave 0.90 on real leaves.
        assert 0.4 < roc_auc_score(labels, feature) < 0.6


def test_there_is_no_table_without_defects(tmp_path: Path) -> None:
    out = make(tmp_path / "toy", num_anomalous=0)

    assert set(contents(out)) == {f"Negative/good/{i:03d}.png" for i in range(3)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"surface": "wood"}, r"'wood'; allowed are leaf, textile"),
        ({"kinds": ["spot", "hole"]}, r"'hole'.*allowed are spot, stain, scratch, fade"),
        ({"kinds": ["spot", "spot"]}, r"name each once"),
        ({"kinds": []}, r"allowed are spot, stain, scratch, fade"),
        ({"severity": (9.0, 3.0)}, r"give 0 < lowest <= highest"),
        ({"num_normal": -1}, r"cannot draw -1 normal"),
        ({"size": 4}, r"size is 4"),
    ],
)
def test_errors_name_what_is_allowed(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(tmp_path / "toy", **options)
    assert not (tmp_path / "toy").exists()


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("keep")

    with pytest.raises(ValueError, match=r"not an empty folder; name a new one"):
        make(tmp_path)
    assert set(contents(tmp_path)) == {"notes.txt"}
