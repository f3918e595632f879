from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from leanet.data.images import write_image
from leanet.data.published import unpack
from leanet.files import read_json
from leanet.prepare import Options, find_samples, folds_of


def quiet(text: str) -> None:
    """Print nothing."""


@pytest.fixture
def lag(tmp_path: Path) -> Path:
    """Pictures that are maps as well will do."""
    ramp = np.repeat(np.arange(0, 250, 10, dtype=np.uint8)[None], 8, axis=0)
    for name, count in {"non_glaucoma": 9, "suspicious_glaucoma": 3}.items():
        for number in range(count):
            for place in ("image", "attention_map"):
                write_image(tmp_path / "lag" / name / place / f"{number}.png", ramp)
    return tmp_path / "lag"


def write_digits(folder: Path) -> Path:
    """Three images of every digit to train on, two to test."""
    folder.mkdir()
    for split, count in {"train": 30, "t10k": 20}.items():
        head = [bytes([0, 0, 8, dims]) + count.to_bytes(4, "big") for dims in (1, 3)]
        size = (28).to_bytes(4, "big")
        pixels = np.random.default_rng(0).integers(0, 256, count * 28 * 28, dtype=np.uint8)
        images = head[1] + size + size + pixels.tobytes()
        (folder / f"{split}-images-idx3-ubyte").write_bytes(images)
        labels = head[0] + bytes(number % 10 for number in range(count))
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(labels)
    return folder


def test_a_digit_can_be_learned_and_told_from_the_others(tmp_path: Path) -> None:
    source = write_digits(tmp_path / "source")
    out = unpack("mnist", source, tmp_path / "mnist", every=None, overwrite=False, tell=quiet)
    found = find_samples(out, Options(normal="3", img_size=64), needs_anomalous=False)
    (fold,) = folds_of(found.samples, Options())
    trained, tested = ([found.samples[i] for i in side] for side in (fold.train, fold.test))
    assert sum(sample.label == 0 for sample in trained) == 3
    assert {sample.kind for sample in trained if sample.label == 0} == {"3"}
    assert len(tested) == 20
    assert [sample.label for sample in tested].count(0) == 2
    assert {sample.split for sample in tested} == {"test"}


def test_the_folder_says_what_it_was_made_from(lag: Path, tmp_path: Path) -> None:
    out = unpack("lag", lag, tmp_path / "out", every=None, overwrite=False, tell=quiet)
    assert read_json(out / "unpacked.json") == {"set": "lag", "source": str(lag), "every": None}
    assert sorted(one.name for one in tmp_path.iterdir()) == ["lag", "out"], "nothing is left over"


def test_nothing_appears_before_it_is_complete(lag: Path, tmp_path: Path) -> None:
    flat = np.full((8, 8), 9, dtype=np.uint8)
    write_image(lag / "suspicious_glaucoma" / "attention_map" / "2.png", flat)
    with pytest.raises(ValueError, match="is the same everywhere"):
        unpack("lag", lag, tmp_path / "out", every=None, overwrite=False, tell=quiet)
    assert [one.name for one in tmp_path.iterdir()] == ["lag"]


def test_an_earlier_folder_is_replaced_on_request_only(lag: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    unpack("lag", lag, out, every=None, overwrite=False, tell=quiet)
    (out / "old").touch()
    with pytest.raises(ValueError, match="use --overwrite"):
        unpack("lag", lag, out, every=None, overwrite=False, tell=quiet)
    unpack("lag", lag, out, every=None, overwrite=True, tell=quiet)
    assert not (out / "old").exists()


def test_a_failed_replacement_leaves_the_earlier_folder(lag: Path, tmp_path: Path) -> None:
    out = unpack("lag", lag, tmp_path / "out", every=None, overwrite=False, tell=quiet)
    (lag / "non_glaucoma").rename(lag / "gone")
    with pytest.raises(ValueError, match="no image with its map"):
        unpack("lag", lag, out, every=None, overwrite=True, tell=quiet)
    assert (out / "unpacked.json").exists()


def test_a_folder_of_someone_else_is_never_replaced(lag: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    unpack("lag", lag, tmp_path / "out", every=None, overwrite=False, tell=quiet)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(ValueError, match="holds other files"):
        unpack("lag", lag, tmp_path / "mine", every=None, overwrite=True, tell=quiet)


@pytest.mark.parametrize(
    ("what", "source", "every", "message"),
    [
        ("mnst", "lag", None, r"unknown data set 'mnst' \(did you mean mnist"),
        ("lag", "lag", 5, "lag has none, leave it out"),
        ("lag", "leg", None, "does not exist; give the folder"),
        ("lag", "lag.zip", None, "is a file; give the folder with the extracted files"),
    ],
)
def test_a_mistake_is_named(
    what: str, source: str, every: int | None, message: str, lag: Path, tmp_path: Path
) -> None:
    (tmp_path / "lag.zip").touch()
    with pytest.raises(ValueError, match=message):
        unpack(what, lag.with_name(source), tmp_path / "out", every=every, overwrite=False,
               tell=quiet)  # fmt: skip
    assert not (tmp_path / "out").exists()
