"""Generated images on disk, and the two ways in which they must not leak into a test.

A folder of generated images holds `generated.csv` (file, class, ...) and `generator.json`, which
lists the images that the generator has learned from (`trained_on`: file -> SHA-256 of its bytes);
where there is a generator for every fold, each has such a folder of its own, named after the fold.

A generated image is no measurement, so it must never be judged as a test image. And a generator
that has learned from an image of the test passes on what it has seen, so its images must not train
what that test judges.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from leanet.files import read_csv, read_json
from leanet.records import Sample

GENERATED_CSV, GENERATOR_JSON = "generated.csv", "generator.json"


class Generated(NamedTuple):
    """Generated images, the class of each, and what their generator has learned from: the SHA-256
    of its bytes -> the file's name."""

    paths: tuple[Path, ...]
    kinds: tuple[str, ...]
    trained_on: dict[str, str]


def read_generated(folder: Path, part: str = "final") -> Generated:
    """The generated images for one part of a run ("fold-0", ..., "final"): those in `folder/part`
    or, where one generator serves all, in `folder`.

    Raises:
        ValueError: no generated images here, or none for this part.
    """
    place = folder / part if (folder / part / GENERATED_CSV).exists() else folder
    if not (place / GENERATED_CSV).exists():
        raise ValueError(
            f"{folder} holds no generated images (no {part}/{GENERATED_CSV} and no "
            f"{GENERATED_CSV}); give a folder that `leanet generate` has written"
        )
    rows = read_csv(place / GENERATED_CSV)
    if not rows:
        raise ValueError(f"{place / GENERATED_CSV} lists no images; generate them anew")
    known = read_json(place / GENERATOR_JSON)["trained_on"]
    return Generated(
        paths=tuple(place / row["file"] for row in rows),
        kinds=tuple(row["class"] for row in rows),
        trained_on={digest: name for name, digest in known.items()},
    )


def refuse_leak(generated: Generated, samples: Sequence[Sample], unseen: Iterable[int]) -> None:
    """Check that the generator has learned from none of the samples that validate or test.

    Images are told by their bytes, so a copied or renamed file is found as well.

    Raises:
        ValueError: names the file.
    """
    refuse_generated([samples[index] for index in unseen])
    for index in unseen:
        path = samples[index].path
        if sha256_of(path) in generated.trained_on:
            raise ValueError(
                f"the generator has learned from {path}, which is in the validation or test part "
                "here: its images would carry the answer into the training.\nTrain the generator "
                "with the same split, --folds, --seed and --val_fraction."
            )


def refuse_generated(samples: Iterable[Sample]) -> None:
    """Check that no sample lies in a folder of generated images.

    Raises:
        ValueError: names the file.
    """
    places: dict[Path, Path | None] = {}
    for sample in samples:
        folder = sample.path.parent
        if folder not in places:
            places[folder] = generated_folder(folder)
        if place := places[folder]:
            raise ValueError(
                f"{sample.path} is a generated image ({place / GENERATED_CSV}); generated images "
                "may train, and never validate or test. Give real ones."
            )


def generated_folder(folder: Path) -> Path | None:
    """The folder of generated images that holds this folder, if there is one."""
    for place in (folder, *folder.parents):
        if (place / GENERATED_CSV).is_file():
            return place
    return None


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
