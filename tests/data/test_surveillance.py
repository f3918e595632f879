from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from leanet.data.images import read_mask, write_image
from leanet.data.scan import scan
from leanet.data.surveillance import unpack_shanghaitech

CLIPS = {
    "training": {"01_001": 11, "02_001": 4, "13_001": 3},
    "testing": {"01_0014": 12, "02_0128": 6},
}


def quiet(text: str) -> None:
    """Print nothing."""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two scenes to test, three to train; frames are as bright as their number. Of clip 01_0014
    the frames 5 to 8 are anomalous, of 02_0128, which has labels only, the last three."""
    root = tmp_path / "shanghaitech"
    for part, clips in CLIPS.items():
        for clip, length in clips.items():
            for number in range(length):
                pixels = np.full((6, 8, 3), number, dtype=np.uint8)
                write_image(root / part / "frames" / clip / f"{number:03d}.png", pixels)
    testing = root / "testing"
    masks = np.zeros((12, 6, 8), dtype=np.uint8)
    masks[5:9, 1:3, 2:7] = 1
    for name in ("test_pixel_mask", "test_frame_mask"):
        (testing / name).mkdir()
    np.save(testing / "test_pixel_mask" / "01_0014.npy", masks)
    np.save(testing / "test_frame_mask" / "02_0128.npy", np.array([0, 0, 0, 1, 1, 1]))
    return root


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.glob("*"))


def test_every_fifth_frame_of_a_scene_is_a_data_set(source: Path, tmp_path: Path) -> None:
    said: list[str] = []
    unpack_shanghaitech(source, tmp_path / "out", 5, said.append)
    one = tmp_path / "out" / "01"
    assert names(one / "train" / "good") == [f"01_001_{k:03d}.png" for k in (0, 5, 10)]
    assert names(one / "test" / "good") == [f"01_0014_{k:03d}.png" for k in (0, 10)]
    assert names(one / "test" / "anomalous") == ["01_0014_005.png"]
    assert names(one / "ground_truth" / "anomalous") == ["01_0014_005_mask.png"]
    assert names(tmp_path / "out") == ["01", "02"]
    assert said == ["left out scene(s) without training or test clips: 13"]


def test_frames_and_their_masks_belong_together(source: Path, tmp_path: Path) -> None:
    unpack_shanghaitech(source, tmp_path / "out", 1, quiet)
    found = scan(tmp_path / "out" / "01")
    assert found.layout == "mvtec"
    anomalous = [sample for sample in found.samples if sample.label == 1]
    assert [sample.path.stem for sample in anomalous] == [f"01_0014_{k:03d}" for k in range(5, 9)]
    for sample in anomalous:
        assert sample.mask is not None
        mask = read_mask(sample.mask)
        assert mask.shape == (6, 8)
        assert mask[1:3, 2:7].all()
        assert mask.sum() == 10
    assert [s.split for s in found.samples if s.label == 0].count("train") == 11


def test_clips_without_pixel_masks_go_by_their_labels(source: Path, tmp_path: Path) -> None:
    unpack_shanghaitech(source, tmp_path / "out", 2, quiet)
    two = tmp_path / "out" / "02"
    assert names(two / "test" / "anomalous") == ["02_0128_004.png"]
    assert names(two / "test" / "good") == ["02_0128_000.png", "02_0128_002.png"]
    assert not (two / "ground_truth").exists()


def test_frames_take_no_space_twice(source: Path, tmp_path: Path) -> None:
    unpack_shanghaitech(source, tmp_path / "out", 5, quiet)
    frame = source / "training" / "frames" / "01_001" / "005.png"
    assert (tmp_path / "out" / "01" / "train" / "good" / "01_001_005.png").samefile(frame)


def test_frames_are_ordered_as_numbers(source: Path, tmp_path: Path) -> None:
    folder = source / "training" / "frames" / "02_001"
    for old, new in {"000": "8", "001": "9", "002": "10", "003": "11"}.items():
        (folder / f"{old}.png").rename(folder / f"{new}.png")
    unpack_shanghaitech(source, tmp_path / "out", 2, quiet)
    assert names(tmp_path / "out" / "02" / "train" / "good") == ["02_001_10.png", "02_001_8.png"]


def test_videos_have_to_be_decoded_first(source: Path, tmp_path: Path) -> None:
    (source / "training" / "videos").mkdir()
    for name in ("01_001", "01_002"):
        (source / "training" / "videos" / f"{name}.avi").touch()
    with pytest.raises(ValueError, match=r"1 of 2 training videos .*\(01_002\)") as caught:
        unpack_shanghaitech(source, tmp_path / "out", 5, quiet)
    assert "ffmpeg -i" in str(caught.value)
    assert str(caught.value).count("\n") == 1


def test_a_clip_without_any_mask_is_refused(source: Path, tmp_path: Path) -> None:
    (source / "testing" / "test_frame_mask" / "02_0128.npy").unlink()
    with pytest.raises(ValueError, match="test clip 02_0128 has no mask"):
        unpack_shanghaitech(source, tmp_path / "out", 5, quiet)
    assert not (tmp_path / "out").exists()


WRONG = {
    "other length": (np.zeros((11, 6, 8)), r"shape \[11, 6, 8\], but its clip has 12 frames"),
    "other dimensions": (np.zeros(12), r"needs \[12, H, W\]"),
    "objects": (np.array([{"frame": 0}] * 12), "is no array of numbers"),
}


@pytest.mark.parametrize("name", WRONG)
def test_masks_that_do_not_fit_are_refused(name: str, source: Path, tmp_path: Path) -> None:
    array, message = WRONG[name]
    np.save(source / "testing" / "test_pixel_mask" / "01_0014.npy", array, allow_pickle=True)
    with pytest.raises(ValueError, match=message):
        unpack_shanghaitech(source, tmp_path / "out", 5, quiet)


def test_a_folder_of_something_else_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no testing/frames"):
        unpack_shanghaitech(tmp_path, tmp_path / "out", 5, quiet)
    (source / "training").rename(source / "trained")
    with pytest.raises(ValueError, match="neither training/frames"):
        unpack_shanghaitech(source, tmp_path / "out", 5, quiet)
    with pytest.raises(ValueError, match="--every 0"):
        unpack_shanghaitech(source, tmp_path / "out", 0, quiet)
