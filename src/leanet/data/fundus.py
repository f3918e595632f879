"""LAG: photographs of the fundus, suspected glaucoma or not, with maps of where doctors looked.

    non_glaucoma/{image, attention_map, label}/NAME.jpg
    suspicious_glaucoma/{image, attention_map, label}/NAME.jpg

Images with a map are taken, as in the published protocol. Neither the release nor the authors of
CAVGA say which normal ones test: here a seeded draw of 800 of 3,432, or that share of a partial
download, does, with all the suspicious ones. Maps become masks at half of their range.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from leanet.data.images import IMAGE_SUFFIXES, read_image, write_image
from leanet.files import link_or_copy
from leanet.progress import Progress

NORMAL_CLASS, ANOMALOUS_CLASS = "non_glaucoma", "suspicious_glaucoma"
IMAGES, MAPS = "image", "attention_map"
TEST_SHARE: Final = 800 / 3432  # of the normal images
MAX_COLOR: Final = 8  # mean distance of a grey picture's channels; compression adds some


def unpack_lag(source: Path, out: Path, tell: Callable[[str], None]) -> None:
    """`out/{train/good, test/good, test/suspicious_glaucoma, ground_truth/suspicious_glaucoma}`.

    Raises:
        ValueError: another tree, or a map that cannot be one.
    """
    normal, anomalous = (_mapped(source, name, tell) for name in (NORMAL_CLASS, ANOMALOUS_CLASS))
    order = np.random.default_rng(0).permutation(len(normal))
    tested = set(order[: round(TEST_SHARE * len(normal))].tolist())
    with Progress("unpacking", total=len(normal) + len(anomalous)) as bar:
        for number, (image, _) in enumerate(normal):
            split = "test" if number in tested else "train"
            link_or_copy(image, out / split / "good" / image.name)
            bar.advance()
        for image, attention in anomalous:
            link_or_copy(image, out / "test" / ANOMALOUS_CLASS / image.name)
            mask = attention_mask(attention)
            write_image(out / "ground_truth" / ANOMALOUS_CLASS / f"{image.stem}_mask.png", mask)
            bar.advance()


def attention_mask(path: Path) -> NDArray[np.uint8]:
    """[H, W], 255 where a grey attention map is above the middle of its own range.

    Raises:
        ValueError: a map in colors, or one that is the same everywhere.
    """
    rgb = read_image(path).astype(np.int16)
    if np.ptp(rgb, axis=-1).mean() > MAX_COLOR:
        raise ValueError(
            f"{path} is a picture in colors, and an attention map is grey (bright = looked at); "
            f"give the maps of the release in {MAPS}/"
        )
    grey = rgb.sum(axis=-1)
    low, high = int(grey.min()), int(grey.max())
    if low == high:
        raise ValueError(f"{path} is the same everywhere, so it marks nothing; leave it out")
    return np.where(2 * grey > low + high, 255, 0).astype(np.uint8)


def _mapped(source: Path, name: str, tell: Callable[[str], None]) -> list[tuple[Path, Path]]:
    """The images of a class with the attention map of each; those without one are left out."""
    folders = [one for one in sorted(source.glob("*")) if one.name.casefold() == name]
    folder = folders[0] if folders else source / name
    images, maps = _files(folder / IMAGES), {file.stem: file for file in _files(folder / MAPS)}
    found = [(image, maps[image.stem]) for image in images if image.stem in maps]
    if not found:
        raise ValueError(
            f"{folder} has {len(images)} files in {IMAGES}/ and {len(maps)} in {MAPS}/ and no "
            f"image with its map; give the folder of {NORMAL_CLASS}/ and {ANOMALOUS_CLASS}/"
        )
    if len(found) < len(images):
        tell(f"left out {len(images) - len(found)} images of {name} without an attention map")
    return found


def _files(folder: Path) -> list[Path]:
    return sorted(f for f in folder.glob("*") if f.suffix.lower() in IMAGE_SUFFIXES)
