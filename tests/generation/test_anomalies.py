"""Synthetic anomalies on disk, measured with scikit-image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from skimage import color

from leanet.data.images import read_image, read_mask
from leanet.data.scan import scan
from leanet.files import read_csv
from leanet.generation.anomalies import AnomalyOptions, generate_anomalies, parse_severities
from leanet.records import ANOMALOUS, NORMAL

OPTIONS = AnomalyOptions(anomalies="color,cutpaste,perlin", severity="4,10", img_size=32)


@pytest.fixture(scope="module")
def normals(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four of the toy set's normal images."""
    root = tmp_path_factory.mktemp("normals")
    (root / "Negative").mkdir()
    for file in sorted((toy / "Negative").rglob("*.png"))[:4]:
        (root / "Negative" / file.name).write_bytes(file.read_bytes())
    return root


@pytest.fixture(scope="module")
def written(normals: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("anomalies") / "out"
    return generate_anomalies(normals, out, OPTIONS, tell=lambda text: None)


def test_the_folder_is_a_data_set_with_masks(written: Path) -> None:
    found = scan(written)
    assert found.layout == "mvtec"
    anomalous = [sample for sample in found.samples if sample.label == ANOMALOUS]
    kinds = {sample.kind for sample in anomalous}
    assert kinds <= {"color-4", "color-10", "cutpaste", "perlin"}
    assert {"cutpaste", "perlin"} < kinds
    assert all(sample.mask is not None for sample in anomalous)
    assert len(anomalous) == sum(sample.label == NORMAL for sample in found.samples) == 12
    assert {sample.split for sample in found.samples} == {"test"}


def test_the_table_says_what_can_be_measured(written: Path, normals: Path) -> None:
    rows = read_csv(written / "anomalies.csv")
    assert len(rows) == 12
    for row in rows:
        from PIL import Image

        source = np.asarray(
            Image.fromarray(read_image(normals / row["source"])).resize((32, 32), 2)
        )
        image, mask = read_image(written / row["file"]), read_mask(written / row["mask"])
        assert np.array_equal((image != source).any(axis=2) & ~mask, np.zeros_like(mask))
        assert float(row["area"]) == pytest.approx(mask.mean(), abs=1e-4)
        difference = color.deltaE_ciede2000(color.rgb2lab(source), color.rgb2lab(image))
        assert difference[mask].max() >= 0.9 * float(row["achieved"])
        if row["kind"].startswith("color"):
            assert row["kind"] == f"color-{float(row['target']):g}"
            assert row["direction"].strip("+-") in ("hue", "chroma", "lightness", "random")
            assert float(row["low"]) <= float(row["achieved"]) <= float(row["high"])
            missed = abs(float(row["achieved"]) - float(row["target"])) > 0.2
            assert row["gamut_limited"] == str(int(missed))
        else:
            assert row["target"] == row["direction"] == row["gamut_limited"] == ""
            assert np.median(difference[mask]) == pytest.approx(float(row["achieved"]), abs=0.1)


def test_an_image_depends_on_its_source_and_the_seed_alone(
    written: Path, normals: Path, tmp_path: Path
) -> None:
    again = generate_anomalies(normals, tmp_path / "again", OPTIONS, tell=lambda text: None)
    for name in ("anomalies.csv", "sheet.png", read_csv(written / "anomalies.csv")[0]["file"]):
        assert (again / name).read_bytes() == (written / name).read_bytes()
    fewer = AnomalyOptions(anomalies="cutpaste", img_size=32)
    alone = generate_anomalies(normals, tmp_path / "alone", fewer, tell=lambda text: None)
    both = [row for row in read_csv(written / "anomalies.csv") if row["kind"] == "cutpaste"]
    for one, other in zip(read_csv(alone / "anomalies.csv"), both, strict=True):
        assert one["seed"] == other["seed"]
        first, second = read_image(alone / one["file"]), read_image(written / other["file"])
        assert np.array_equal(first, second)


def test_counterparts_are_normal_images_without_the_anomaly(written: Path, normals: Path) -> None:
    for row in read_csv(written / "anomalies.csv"):
        counterpart = read_image(written / "test" / "good" / Path(row["file"]).name)
        image = read_image(written / row["file"])
        mask = read_mask(written / row["mask"])
        same = bool((counterpart == image)[~mask].all())
        assert same is not row["kind"].startswith("color")  # under changed light, or untouched


def test_earlier_work_is_kept(written: Path, normals: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="use --overwrite"):
        generate_anomalies(normals, written, OPTIONS)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds other files"):
        generate_anomalies(normals, tmp_path, OPTIONS, overwrite=True)


def test_jpeg_sources_and_small_severities_are_told(normals: Path, tmp_path: Path) -> None:
    from PIL import Image

    data, said = tmp_path / "data" / "Negative", []
    data.mkdir(parents=True)
    first = next((normals / "Negative").iterdir())
    Image.open(first).save(data / "a.jpg")
    options = AnomalyOptions(severity="2", img_size=32)
    generate_anomalies(data.parent, tmp_path / "out", options, tell=said.append)
    assert "1 of 1 normal images are JPEG" in said[0]
    said.clear()
    options = AnomalyOptions(severity="5", img_size=32)
    generate_anomalies(data.parent, tmp_path / "more", options, tell=said.append)
    assert "JPEG" not in " ".join(said)


def test_wrong_options_are_refused(normals: Path, tmp_path: Path) -> None:
    for options, message in (
        (AnomalyOptions(anomalies="colour"), "did you mean color"),
        (AnomalyOptions(anomalies=""), "name kinds"),
        (AnomalyOptions(per_image=0), "at least 1 per image"),
        (AnomalyOptions(severity="0,3"), "different numbers above 0"),
        (AnomalyOptions(textures="x"), "are for --anomalies perlin"),
    ):
        with pytest.raises(ValueError, match=message):
            generate_anomalies(normals, tmp_path / "out", options)
    for text in ("", "a", "3,3", "-1"):
        with pytest.raises(ValueError, match="such as 2,5,12"):
            parse_severities(text)


def test_the_verb_writes_them(
    normals: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from leanet.cli import main

    out = tmp_path / "out"
    words = ["generate", "--anomalies", "cutpaste", str(normals), "--out", str(out)]
    assert main([*words, "--img_size", "32"]) == 0
    assert f"see {out}" in capsys.readouterr().out
    assert (out / "anomalies.csv").exists()
    assert main([*words, "--severity", "none"]) == 2
    assert "such as 2,5,12" in capsys.readouterr().err
