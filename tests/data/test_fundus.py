from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from leanet.data.fundus import attention_mask, unpack_lag
from leanet.data.images import read_mask, write_image
from leanet.data.scan import scan

NORMAL, ANOMALOUS = 30, 5


def quiet(text: str) -> None:
    """Print nothing."""


def attention(height: int = 12) -> np.ndarray:
    """Rises from 50 to 200 from the left to the right."""
    return np.repeat(np.linspace(50, 200, 16).round().astype(np.uint8)[None], height, axis=0)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "LAG"
    for name, count in {"non_glaucoma": NORMAL, "suspicious_glaucoma": ANOMALOUS}.items():
        for number in range(count):
            picture = np.full((12, 16, 3), 40 + number, dtype=np.uint8)
            write_image(root / name / "image" / f"{number}.png", picture)
            write_image(root / name / "attention_map" / f"{number}.png", attention())
    return root


def test_suspicious_images_test_and_normal_ones_do_both(source: Path, tmp_path: Path) -> None:
    unpack_lag(source, tmp_path / "out", quiet)
    found = scan(tmp_path / "out")
    assert found.layout == "mvtec"
    normal = [sample.split for sample in found.samples if sample.label == 0]
    assert (normal.count("train"), normal.count("test")) == (23, 7), "800 of 3,432 test"
    anomalous = [sample for sample in found.samples if sample.label == 1]
    assert [sample.split for sample in anomalous] == ["test"] * ANOMALOUS
    assert found.ignored == ()
    for sample in anomalous:
        assert sample.mask is not None
        mask = read_mask(sample.mask)
        assert mask[:, 8:].all()
        assert not mask[:, :8].any()


def test_the_same_images_test_every_time(source: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        unpack_lag(source, tmp_path / name, quiet)
    files = [
        sorted(f.relative_to(tmp_path / name) for f in (tmp_path / name).rglob("*.png"))
        for name in ("a", "b")
    ]
    assert files[0] == files[1]


def test_images_without_a_map_are_left_out_and_counted(source: Path, tmp_path: Path) -> None:
    (source / "suspicious_glaucoma" / "attention_map" / "3.png").unlink()
    said: list[str] = []
    unpack_lag(source, tmp_path / "out", said.append)
    assert said == ["left out 1 images of suspicious_glaucoma without an attention map"]
    tested = sorted((tmp_path / "out" / "test" / "suspicious_glaucoma").glob("*"))
    assert [file.stem for file in tested] == ["0", "1", "2", "4"]


def test_another_tree_is_refused(source: Path, tmp_path: Path) -> None:
    (source / "non_glaucoma").rename(source / "healthy")
    with pytest.raises(ValueError, match="non_glaucoma has 0 files in image/"):
        unpack_lag(source, tmp_path / "out", quiet)


def test_a_map_that_marks_nothing_or_is_colored_is_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "flat.png", np.full((4, 4), 7, dtype=np.uint8))
    with pytest.raises(ValueError, match="is the same everywhere"):
        attention_mask(tmp_path / "flat.png")
    colored = np.zeros((4, 4, 3), dtype=np.uint8)
    colored[:2, :, 0], colored[2:, :, 2] = 255, 255
    write_image(tmp_path / "jet.png", colored)
    with pytest.raises(ValueError, match="is a picture in colors"):
        attention_mask(tmp_path / "jet.png")
