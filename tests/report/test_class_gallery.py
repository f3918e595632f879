from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from leanet.report.class_gallery import (
    MOST_CARDS,
    class_cards,
    data_folder,
    misclassified,
    most_probable,
    thumbnail,
)
from leanet.report.pictures import MOST_PIXELS
from leanet.report.run import Named, read_run

WriteRun = Callable[..., Path]


def picture(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def save(file: Path, size: tuple[int, int] = (40, 30), **options: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.arange(size[0] * size[1] * 3).reshape(size[1], size[0], 3) % 256
    Image.fromarray(pixels.astype(np.uint8)).save(file, **options)


def test_the_surest_mistakes_come_first(write_classes: WriteRun) -> None:
    run = read_run(write_classes("run", skill=0.0))
    found = misclassified(run.named)
    assert len(found) == sum(image.wrong for image in run.named)
    confidence = [image.confidence for image in found]
    assert confidence == sorted(confidence, reverse=True)
    assert len(class_cards(run)) == MOST_CARDS


def test_pictures_come_from_the_data_folder_of_the_run(
    write_classes: WriteRun, tmp_path: Path
) -> None:
    run = read_run(write_classes("run", skill=0.0, data=str(tmp_path / "leaves")))
    first, second, *_ = misclassified(run.named)
    save(tmp_path / "leaves" / first.path)
    cards = class_cards(run)
    assert picture(cards[0].uri).size == (40, 30)
    assert cards[1].image == second
    assert cards[1].uri == ""


def test_the_paths_of_a_table_are_relative_to_its_folder(
    write_classes: WriteRun, tmp_path: Path
) -> None:
    table = tmp_path / "sets" / "leaves.csv"
    table.parent.mkdir()
    table.write_text("path,label\n")
    assert data_folder(read_run(write_classes("run", data=str(table)))) == tmp_path / "sets"


def test_large_pictures_are_reduced_and_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    save(tmp_path / "large.jpg", (1200, 600), exif=exif)
    assert picture(thumbnail(tmp_path / "large.jpg")).size == (MOST_PIXELS // 2, MOST_PIXELS)


def test_gray_and_transparent_pictures_are_shown(tmp_path: Path) -> None:
    for mode in ("L", "RGBA", "P", "1"):
        Image.new(mode, (20, 10)).save(tmp_path / "any.png")
        assert picture(thumbnail(tmp_path / "any.png")).size == (20, 10)


def test_what_is_no_picture_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (tmp_path / "text.jpg").write_text("words")
    for name in ("broken.png", "text.jpg", "absent.png", "."):
        assert thumbnail(tmp_path / name) == ""


def test_the_true_class_is_always_among_those_named() -> None:
    probs = {"a": 0.4, "b": 0.3, "c": 0.2, "d": 0.06, "e": 0.04}
    image = Named(path="x", fold="final", true="e", predicted="a", probs=probs)
    assert [name for name, _ in most_probable(image)] == ["a", "b", "c", "e"]
    near = Named(path="x", fold="final", true="b", predicted="a", probs=probs)
    assert [name for name, _ in most_probable(near)] == ["a", "b", "c"]
