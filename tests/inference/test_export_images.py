from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from leanet.data.images import read_image
from leanet.inference.export_images import drawn_images, own_images, shown_images


def test_the_images_of_a_run_are_shown_as_predict_shows_them(make_run: Callable[[], Path]) -> None:
    run = make_run()
    images = own_images(run, 16)
    assert images.shape == (12, 3, 16, 16)
    first = read_image(run.parent / "data" / "image0.png").transpose(2, 0, 1)
    assert np.array_equal(images[0], first.astype(np.float32) / np.float32(255))


def test_images_that_cannot_be_read_are_left_out(make_run: Callable[[], Path]) -> None:
    run = make_run()
    (run.parent / "data" / "image3.png").write_bytes(b"no image")
    assert len(own_images(run, 16)) == 11


def test_without_the_data_set_the_gallery_serves(make_run: Callable[[], Path]) -> None:
    run = make_run()
    shutil.rmtree(run.parent / "data")
    (run / "fold-0").mkdir()
    pictures = {"image": torch.full((2, 3, 16, 16), 51, dtype=torch.uint8)}
    save_file(pictures, run / "fold-0" / "gallery.safetensors", {"json": '{"paths": ["a", "b"]}'})
    shown = shown_images(run, 16)
    assert shown.source == "2 of the gallery, 11 drawn"
    assert np.allclose(shown.image[:2], 0.2)


def test_without_any_image_those_that_are_drawn_remain(make_run: Callable[[], Path]) -> None:
    run = make_run()
    shutil.rmtree(run.parent / "data")
    assert shown_images(run, 16).source == "11 drawn"


def test_drawn_images_are_pixels_and_the_same_every_time() -> None:
    first, again = drawn_images(20), drawn_images(20)
    assert np.array_equal(first, again)
    assert first.shape == (11, 3, 20, 20)
    assert first.min() == 0
    assert first.max() == 1
    assert not np.array_equal(first, drawn_images(20, seed=1))
