"""The classes of a data set: one list, in one order, that every table and tick label reads.

The class of an image is its `kind`, the folder it lies in. Names are compared in Unicode's composed
form (NFC) and sorted naturally (class2 before class10), so that neither the machine nor the order
in which folders were made can swap two of them.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import PurePath
from typing import Literal

from leanet.config import nearest
from leanet.data.scan import natural_key
from leanet.records import NORMAL, Sample

Classes = Literal["auto", "two", "kinds"]
LAYOUT = "class-folders"  # in which a folder is a class, not a type of defect
UNNAMED = {True: "normal", False: "anomalous"}  # images of no kind, by whether they are normal


def class_of(sample: Sample) -> str:
    """The class of an image: its kind, or, without one, its label in words."""
    return unicodedata.normalize("NFC", sample.kind or UNNAMED[sample.label == NORMAL])


def class_names(samples: Sequence[Sample]) -> tuple[str, ...]:
    """The classes of the training images (`split` is not "test"), in natural order.

    Raises:
        ValueError: fewer than two, or a test image of another class.
    """
    trained = {class_of(sample) for sample in samples if sample.split != "test"}
    names = tuple(sorted(trained, key=lambda name: natural_key(PurePath(name))))
    if len(names) < 2:
        raise ValueError(
            f"a classifier needs images of two classes, and there is only {', '.join(names)}; "
            "give a folder for each class"
        )
    for sample in samples:
        if class_of(sample) not in trained:
            name = class_of(sample)
            raise ValueError(
                f"{sample.path} is of the class {name!r}, which has no training image"
                f"{nearest(name, names)}; the classes are {', '.join(names)}"
            )
    return names


def normal_class(samples: Sequence[Sample], names: Sequence[str]) -> str | None:
    """The class that holds the normal images; None unless exactly one does.

    Raises:
        ValueError: a class that holds normal and anomalous images.
    """
    labels = {name: {s.label for s in samples if class_of(s) == name} for name in names}
    mixed = [name for name in names if len(labels[name]) > 1]
    if mixed:
        raise ValueError(
            f"the class {mixed[0]!r} has normal and anomalous images; give it two names"
        )
    normal = [name for name in names if labels[name] == {NORMAL}]
    return normal[0] if len(normal) == 1 else None


def class_numbers(samples: Sequence[Sample], names: Sequence[str]) -> tuple[int, ...]:
    """The place in `names` of every image's class."""
    place = {name: k for k, name in enumerate(names)}
    return tuple(place[class_of(sample)] for sample in samples)
