from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from leanet.data.images import read_image
from leanet.data.scan import scan
from leanet.data.thumbnails import CLOTHES, DIGITS, read_idx, unpack_cifar10, unpack_idx

RNG = np.random.default_rng(0)
IMAGES = {name: RNG.integers(0, 256, (20, 5, 4), dtype=np.uint8) for name in ("train", "t10k")}
LABELS = (np.arange(20) % 10).astype(np.uint8)


def idx(array: NDArray[np.uint8]) -> bytes:
    """As the page of MNIST describes it."""
    return (
        bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + bytes(array)
    )


def write_idx(folder: Path, name: str = "{}-{}-idx{}-ubyte", *, zipped: bool = False) -> Path:
    folder.mkdir(parents=True)
    for split, images in IMAGES.items():
        for what, array in {"images": images, "labels": LABELS}.items():
            file = folder / name.format(split, what, array.ndim)
            if zipped:
                file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(idx(array)))
            else:
                file.write_bytes(idx(array))
    return folder


@pytest.mark.parametrize(
    ("name", "zipped"),
    [("{}-{}-idx{}-ubyte", False), ("{}-{}-idx{}-ubyte", True), ("{}-{}.idx{}-ubyte", False)],
)
def test_every_image_lands_in_the_folder_of_its_class(
    name: str, zipped: bool, tmp_path: Path
) -> None:
    source = write_idx(tmp_path / "MNIST" / "raw", name, zipped=zipped)
    unpack_idx(source.parent, tmp_path / "out", DIGITS)
    files = sorted((tmp_path / "out").rglob("*.png"))
    assert len(files) == 40
    for number in (0, 13):
        for split, prefix in {"train": "train", "test": "t10k"}.items():
            pixels = read_image(tmp_path / "out" / split / str(number % 10) / f"{number:05d}.png")
            assert (pixels == IMAGES[prefix][number][..., None]).all()


def test_the_folder_is_one_of_classes(tmp_path: Path) -> None:
    unpack_idx(write_idx(tmp_path / "source"), tmp_path / "out", CLOTHES)
    found = scan(tmp_path / "out", normal="sandal")
    assert found.layout == "class-folders"
    normal = [sample for sample in found.samples if sample.label == 0]
    assert {sample.kind for sample in normal} == {"sandal"}
    assert [sample.split for sample in normal] == ["test"] * 2 + ["train"] * 2
    assert {sample.kind for sample in found.samples} == set(CLOTHES)


def replace(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes())) and None


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated": (replace("train-images-idx3-ubyte", lambda b: b[:-1]), "has 399: it is damaged"),
    "too long": (replace("train-images-idx3-ubyte", lambda b: b + b"x"), "has more: it is damaged"),
    "no header": (replace("t10k-labels-idx1-ubyte", lambda b: b[:3]), "begins with 00 00 08, but"),
    "empty": (replace("t10k-labels-idx1-ubyte", lambda b: b""), "begins with nothing, but"),
    "other magic": (
        replace("train-labels-idx1-ubyte", lambda b: b"\0\0\x0d" + b[3:]),
        "begins with 00 00 0d 01, but an IDX file of bytes in 1",
    ),
    "images for labels": (
        replace("train-labels-idx1-ubyte", lambda b: idx(IMAGES["train"])),
        "begins with 00 00 08 03, but",
    ),
    "fewer labels": (
        replace("train-labels-idx1-ubyte", lambda b: idx(LABELS[:-1])),
        "has 20 images and train-labels-idx1-ubyte 19 labels",
    ),
    "unknown label": (
        replace("t10k-labels-idx1-ubyte", lambda b: idx(LABELS + 1)),
        "has the label 10, but the classes are 0 to 9",
    ),
    "absurd size": (
        replace("train-images-idx3-ubyte", lambda b: b[:4] + b"\xff" * 12 + b[16:]),
        "are not read",
    ),
    "missing": (
        lambda folder: (folder / "t10k-labels-idx1-ubyte").unlink(),
        "one t10k-labels-idx.*has none",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_damaged_idx_files_are_refused(name: str, tmp_path: Path) -> None:
    source = write_idx(tmp_path / "source")
    spoil, message = BROKEN[name]
    spoil(source)
    with pytest.raises(ValueError, match=message):
        unpack_idx(source, tmp_path / "out", DIGITS)
    assert not (tmp_path / "out").exists(), "all files are checked before any image is written"


def test_a_gzipped_file_that_is_cut_or_swells_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.gz"
    file.write_bytes(gzip.compress(idx(IMAGES["train"]))[:200])
    with pytest.raises(ValueError, match="it is damaged"):
        read_idx(file, 3)
    file.write_bytes(gzip.compress(idx(LABELS) + bytes(10**7)))
    with pytest.raises(ValueError, match="has more: it is damaged"):
        read_idx(file, 1)
    file.write_bytes(b"\x1f\x8b" + bytes(50))
    with pytest.raises(ValueError, match="is damaged"):
        read_idx(file, 1)


def test_two_data_sets_in_one_folder_are_refused(tmp_path: Path) -> None:
    write_idx(tmp_path / "MNIST")
    write_idx(tmp_path / "FashionMNIST")
    with pytest.raises(ValueError, match="has 2 of them"):
        unpack_idx(tmp_path, tmp_path / "out", DIGITS)


NAMES = ("airplane", "automobile", "bird")
PER_BATCH = 4


def write_cifar10(folder: Path) -> NDArray[np.uint8]:
    """The binary version with four images in a batch; the pixels [24, 3, 32, 32]."""
    folder.mkdir(parents=True)
    (folder / "batches.meta.txt").write_text("\n".join(NAMES) + "\n\n")
    pixels = RNG.integers(0, 256, (6 * PER_BATCH, 3, 32, 32), dtype=np.uint8)
    files = [f"data_batch_{k}.bin" for k in range(1, 6)] + ["test_batch.bin"]
    for k, file in enumerate(files):
        own = range(k * PER_BATCH, (k + 1) * PER_BATCH)
        (folder / file).write_bytes(b"".join(bytes([i % 3]) + bytes(pixels[i]) for i in own))
    return pixels


def test_cifar10_comes_out_in_color(tmp_path: Path) -> None:
    pixels = write_cifar10(tmp_path / "source" / "cifar-10-batches-bin")
    unpack_cifar10(tmp_path / "source", tmp_path / "out")
    assert len(list((tmp_path / "out").rglob("*.png"))) == 24
    for number in (0, 7, 19):
        image = read_image(tmp_path / "out" / "train" / NAMES[number % 3] / f"{number:05d}.png")
        for channel in range(3):
            assert (image[..., channel] == pixels[number, channel]).all()
    tested = read_image(tmp_path / "out" / "test" / NAMES[21 % 3] / "00001.png")
    assert (tested.transpose(2, 0, 1) == pixels[21]).all()


def test_the_pickled_version_is_refused_with_the_right_download(tmp_path: Path) -> None:
    (tmp_path / "batches.meta").write_bytes(b"\x80\x02")
    (tmp_path / "data_batch_1").write_bytes(b"\x80\x02")
    with pytest.raises(ValueError, match=r"cifar-10-binary\.tar\.gz"):
        unpack_cifar10(tmp_path, tmp_path / "out")


def test_damaged_batches_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no batches\.meta\.txt"):
        unpack_cifar10(tmp_path, tmp_path / "out")
    source = tmp_path / "source"
    write_cifar10(source)
    batch = source / "data_batch_3.bin"
    content = batch.read_bytes()
    for wrong, message in {
        content[:-1]: "multiple of 3073",
        b"\x09" + content[1:]: "label 9",
    }.items():
        batch.write_bytes(wrong)
        with pytest.raises(ValueError, match=message):
            unpack_cifar10(source, tmp_path / "out")
    batch.unlink()
    with pytest.raises(ValueError, match=r"lacks data_batch_3\.bin"):
        unpack_cifar10(source, tmp_path / "out")
    (source / "data_batch_3.bin").write_bytes(content)
    for names in ("../up\ncar\n", "..\ncar", "car\ncar"):
        (source / "batches.meta.txt").write_text(names)
        with pytest.raises(ValueError, match="names of classes"):
            unpack_cifar10(source, tmp_path / "out")
