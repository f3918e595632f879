"""The misclassified test images of a run of several classes, those it was surest of first.

The pictures are read from the data set where the run found it (`data` in config.yaml). A data set
that has moved leaves cards without a picture: the page is about the run, and the run is all there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from leanet.report import pictures
from leanet.report.run import Named, Run

MOST_CARDS = 24
MOST_LISTED = 500
MOST_PROBS = 3  # classes named on a card
DRAFT = 4 * pictures.MOST_PIXELS  # side to which large JPEG files are decoded


class ClassCard(NamedTuple):
    """A misclassified image: its picture ("" if the file is not there), and its most probable
    classes, the true one always among them."""

    image: Named
    uri: str
    probs: tuple[tuple[str, float], ...]


def misclassified(images: Sequence[Named]) -> list[Named]:
    """The wrong ones, by falling probability of the class that they were given."""
    return sorted((image for image in images if image.wrong), key=lambda image: -image.confidence)


def class_cards(run: Run, most: int = MOST_CARDS) -> list[ClassCard]:
    """The surest errors, each with its picture."""
    root = data_folder(run)
    return [
        ClassCard(image, thumbnail(root / image.path), most_probable(image))
        for image in misclassified(run.named)[:most]
    ]


def data_folder(run: Run) -> Path:
    """The folder that the paths of the images are relative to: the data, or that of its table."""
    data = Path(str(run.config["data"]))
    return data.parent if data.is_file() else data


def thumbnail(file: Path) -> str:
    """A data URI of an image file, upright and small; "" where there is no readable file."""
    try:
        with Image.open(file) as opened:
            opened.draft("RGB", (DRAFT, DRAFT))
            upright = ImageOps.exif_transpose(opened)
            upright.thumbnail((DRAFT, DRAFT))
            return pictures.photo_uri(np.asarray(upright.convert("RGB")))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return ""


def most_probable(image: Named) -> tuple[tuple[str, float], ...]:
    """The classes with the highest probabilities, and the true one, by falling probability."""
    ranked = sorted(image.probs.items(), key=lambda item: -item[1])
    true = [item for item in ranked[MOST_PROBS:] if item[0] == image.true]
    return (*ranked[:MOST_PROBS], *true)
