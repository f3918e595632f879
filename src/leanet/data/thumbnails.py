"""Published sets of thumbnails: MNIST and Fashion-MNIST (28 px, grey) and CIFAR-10 (32 px, RGB).

IDX, the format of the first two: two zero bytes, the type (8 = bytes), the number of dimensions,
each dimension as a big-endian 32-bit number, then the values; often compressed with gzip. The
binary version of CIFAR-10 is a chain of records: a byte for the class and 3 x 32 x 32 bytes, the
red, green and blue plane. Both become a PNG per image in a folder per class, below `train/` and
`test/`.
"""

from __future__ import annotations

import math
import re
import struct
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from leanet.data.images import write_image
from leanet.progress import Progress

DIGITS: Final = tuple("0123456789")
CLOTHES: Final = (
    "t-shirt_top", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle_boot",
)  # fmt: skip
BATCHES: Final = {
    "train": tuple(f"data_batch_{k}.bin" for k in range(1, 6)),
    "test": ("test_batch.bin",),
}
NAMES_FILE: Final = "batches.meta.txt"
SIDE: Final = 32  # of CIFAR-10
MAX_BYTES: Final = 2**30  # in an IDX file; MNIST has 47 million
_BYTES: Final = 8  # the type of IDX files that hold images and labels
_GZIP: Final = b"\x1f\x8b"
_NAME: Final = re.compile(r"[\w-]+").fullmatch  # of a class: it becomes the name of a folder
_PREFIX: Final = {"train": "train", "test": "t10k"}


class Labeled(NamedTuple):
    """Images [N, H, W] or [N, H, W, 3] in 0..255 and the number of each one's class [N]."""

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]


def unpack_idx(source: Path, out: Path, classes: Sequence[str]) -> None:
    """The four IDX files below `source`, plain or gzipped, as a PNG per image.

    Raises:
        ValueError: a missing or damaged file, or images and labels that do not belong together.
    """
    read: dict[str, Labeled] = {}
    for split, prefix in _PREFIX.items():
        files = [_find_idx(source, f"{prefix}-{what}") for what in ("images", "labels")]
        images, labels = read_idx(files[0], 3), read_idx(files[1], 1)
        if len(images) != len(labels):
            raise ValueError(
                f"{files[0]} has {len(images)} images and {files[1].name} {len(labels)} labels; "
                "the two files do not belong together, download both again"
            )
        read[split] = Labeled(images, _within(labels, classes, files[1]))
    _write(read, out, classes)


def read_idx(path: Path, num_dims: int) -> NDArray[np.uint8]:
    """The array of bytes in an IDX file, gzipped or not.

    Raises:
        ValueError: a file of another kind, or one with too few or too many bytes.
    """
    size_of_head = 4 + 4 * num_dims
    content = path.read_bytes()
    unzip = zlib.decompressobj(zlib.MAX_WBITS | 16) if content[:2] == _GZIP else None
    head = content[:size_of_head] if unzip is None else _more(unzip, content, size_of_head, path)
    magic = bytes([0, 0, _BYTES, num_dims])
    if head[:4] != magic or len(head) < size_of_head:
        raise ValueError(
            f"{path} begins with {head[:4].hex(' ') or 'nothing'}, but an IDX file of bytes in "
            f"{num_dims} dimension(s) with {magic.hex(' ')} and sizes; it is another file, or cut"
        )
    shape = struct.unpack(f">{num_dims}I", head[4:])
    size = math.prod(shape)
    if size > MAX_BYTES:
        raise ValueError(f"{path} announces {size} bytes; more than {MAX_BYTES} are not read")
    rest = content[size_of_head:]
    if unzip is not None:  # one byte more shows a file that is too long
        rest = _more(unzip, unzip.unconsumed_tail, size + 1, path)
    if len(rest) != size:
        raise ValueError(
            f"{path} announces {' x '.join(map(str, shape))} bytes after its header and has "
            f"{'more' if len(rest) > size else len(rest)}: it is damaged, download it again"
        )
    return np.frombuffer(rest, dtype=np.uint8).reshape(shape)


def unpack_cifar10(source: Path, out: Path) -> None:
    """The binary version of CIFAR-10 below `source` as a PNG per image.

    Raises:
        ValueError: a missing or damaged file, or the Python version, which is a pickle.
    """
    folder = _find_cifar10(source)
    names = (folder / NAMES_FILE).read_text(encoding="utf-8").split()
    if len(set(names)) != len(names) or not all(map(_NAME, names)):
        raise ValueError(f"{folder / NAMES_FILE} does not hold the names of classes, one per line")
    read = {}
    for split, files in BATCHES.items():
        parts = [_read_batch(folder / file, names) for file in files]
        read[split] = Labeled(*(np.concatenate(side) for side in zip(*parts, strict=True)))
    _write(read, out, names)


def _write(read: dict[str, Labeled], out: Path, classes: Sequence[str]) -> None:
    """`out/<split>/<class>/<number>.png`, numbered as in the files."""
    with Progress("unpacking", total=sum(len(part.labels) for part in read.values())) as bar:
        for split, (images, labels) in read.items():
            for number, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
                write_image(out / split / classes[label] / f"{number:05d}.png", image)
                bar.advance()


def _find_idx(source: Path, name: str) -> Path:
    """The file called as `train-images-idx3-ubyte`, also with a dot instead of the second dash."""
    found = sorted(file for file in source.rglob(f"{name}[-.]idx*") if file.is_file())
    folders = Counter(file.parent for file in found)
    if len(folders) != 1:
        some = f"{len(folders)} of them" if folders else "none"
        raise ValueError(
            f"{source} should hold one {name}-idx*-ubyte (or .gz) and has {some}; give the folder "
            "with the four files of one data set"
        )
    return found[0]  # the plain one comes before the gzipped one


def _more(unzip: Any, content: bytes, limit: int, path: Path) -> bytes:
    """At most `limit` bytes more of what was compressed; a small file can unpack to gigabytes."""
    try:
        return bytes(unzip.decompress(content, limit))
    except zlib.error as error:
        raise ValueError(f"{path} is damaged ({error}); download it again") from error


def _find_cifar10(source: Path) -> Path:
    found = sorted(file.parent for file in source.rglob(NAMES_FILE))
    if len(found) != 1:
        pickled = any(source.rglob("batches.meta"))
        raise ValueError(
            f"{source} holds the Python version of CIFAR-10, which is made of pickles that are "
            "never loaded.\nDownload the binary version (cifar-10-binary.tar.gz) instead."
            if pickled
            else f"{source} has {len(found) or 'no'} {NAMES_FILE}; give the folder of the binary "
            "version of CIFAR-10 (cifar-10-batches-bin)"
        )
    missing = [n for names in BATCHES.values() for n in names if not (found[0] / n).is_file()]
    if missing:
        raise ValueError(f"{found[0]} lacks {', '.join(missing)}; extract the archive again")
    return found[0]


def _read_batch(path: Path, names: Sequence[str]) -> Labeled:
    content = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    record = 1 + 3 * SIDE * SIDE
    if not len(content) or len(content) % record:
        raise ValueError(
            f"{path} has {len(content)} bytes, which is no multiple of {record}, the size of an "
            "image with its label: it is damaged, extract the archive again"
        )
    records = content.reshape(-1, record)
    images = records[:, 1:].reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    return Labeled(np.ascontiguousarray(images), _within(records[:, 0], names, path))


def _within(labels: NDArray[np.uint8], classes: Sequence[str], path: Path) -> NDArray[np.uint8]:
    if len(labels) and labels.max() >= len(classes):
        raise ValueError(
            f"{path} has the label {labels.max()}, but the classes are 0 to {len(classes) - 1}: it "
            "is another file, or damaged"
        )
    return labels
