"""leanet unpack: from the files of a published data set to a folder that the other verbs take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from leanet.cli import main
from leanet.data.images import write_image


@pytest.fixture
def campus(tmp_path: Path) -> Path:
    """A scene of ShanghaiTech Campus: ten frames to train, ten to test, the last five anomalous."""
    root, rng = tmp_path / "campus", np.random.default_rng(0)
    for part, clip in {"training": "03_001", "testing": "03_0031"}.items():
        for number in range(10):
            pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            write_image(root / part / "frames" / clip / f"{number:03d}.png", pixels)
    masks = np.zeros((10, 16, 16), dtype=np.uint8)
    masks[5:, 4:8, 4:8] = 1
    (root / "testing" / "test_pixel_mask").mkdir()
    np.save(root / "testing" / "test_pixel_mask" / "03_0031.npy", masks)
    return root


def test_what_is_unpacked_can_be_scanned(
    campus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scenes"
    assert main(["unpack", "shanghaitech", str(campus), "--out", str(out), "--every=2"]) == 0
    said = capsys.readouterr().out
    assert said.strip() == f"next: leanet scan {out / '03'}"
    assert main(["scan", str(out / "03")]) == 0
    described = capsys.readouterr().out
    assert "mvtec" in described
    assert len(list((out / "03" / "train" / "good").iterdir())) == 5
    assert len(list((out / "03" / "test" / "anomalous").iterdir())) == 2


def test_classes_are_scanned_with_one_of_them_as_normal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "cifar", tmp_path / "classes"
    source.mkdir()
    (source / "batches.meta.txt").write_text("airplane\nbird\n")
    for k, name in enumerate([f"data_batch_{n}" for n in range(1, 6)] + ["test_batch"]):
        records = np.random.default_rng(k).integers(0, 256, (2, 3073), dtype=np.uint8)
        records[:, 0] = (0, 1)
        (source / f"{name}.bin").write_bytes(records.tobytes())
    assert main(["unpack", "cifar10", str(source), "--out", str(out)]) == 0
    said = capsys.readouterr().out.strip().removeprefix("next: leanet ")
    assert said == f"scan {out} --normal_class airplane"
    assert main(said.split()) == 0
    assert "class-folders" in capsys.readouterr().out
    assert main(["scan", str(out), "--normal-class=bird"]) == 0


def test_a_medical_set_says_how_it_was_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng, out = np.random.default_rng(0), tmp_path / "out"
    for number in range(7):
        pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        write_image(tmp_path / "mri" / ("no" if number < 5 else "yes") / f"{number}.JPG", pixels)
    assert main(["unpack", "brain_mri", str(tmp_path / "mri"), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "7 images: 5 good, 2 tumor (7 .jpg)" in said
    assert "4 normal images train, the other 1 and all anomalous ones test" in said
    assert said.strip().endswith(f"next: leanet scan {out}")
    assert len(list((out / "train" / "good").iterdir())) == 4


def test_mistakes_end_in_a_line_or_two(
    campus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (campus / "testing" / "test_pixel_mask" / "03_0031.npy").unlink()
    out = str(tmp_path / "out")
    for words, message in {
        ("shanghaitech", str(campus)): "where to?",
        ("shanghaitech", str(campus), "--out", out): "has no mask",
        ("shanghaitech", str(campus), "--out", out, "--every", "x"): "every",
        ("shanghai", str(campus), "--out", out): "did you mean shanghaitech",
    }.items():
        assert main(["unpack", *words]) == 2
        said = capsys.readouterr().err
        assert message in said
        assert len(said.strip().splitlines()) <= 2


def test_a_folder_that_is_no_such_set_gets_its_error_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wrong").mkdir()
    assert main(["unpack", "brain_mri", str(tmp_path / "wrong"), "--out", str(tmp_path / "x")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "give the folder with" in err
