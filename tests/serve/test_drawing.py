from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import numpy as np

from leanet.data.images import decode_image, read_image
from leanet.inference.pictures import Pictures
from leanet.serve.drawing import draw, drawn_answer, raw_answer, scale_of
from leanet.serve.live import Model

MakeModel = Callable[..., Model]
RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (30, 40, 3), dtype=np.uint8)
MAP = RNG.uniform(0, 3, (16, 16)).astype(np.float32)


class Bordered:
    img_size, map_low, map_border, map_unit = 16, 0.5, 2, "dE00"


def test_the_picture_is_the_one_that_predict_writes(tmp_path: Path, make_model: MakeModel) -> None:
    from leanet.data.images import write_image

    write_image(tmp_path / "a.png", RGB)
    pictures = Pictures(
        out=tmp_path, top=2.0, low=0.5, contour=None, heatmaps=True, maps=False, border=2
    )
    pictures._draw(tmp_path / "a.png", Path("b.png"), MAP)
    drawn = decode_image(draw(make_model(Bordered(), map_top=2.0), MAP, RGB))
    np.testing.assert_array_equal(drawn, read_image(tmp_path / "heatmaps" / "b.png"))


def test_the_scale_is_that_of_the_card_and_the_detector(make_model: MakeModel) -> None:
    assert scale_of(make_model(Bordered(), map_top=None)) == (0.5, 30.0)
    assert scale_of(make_model(map_top=7.0)) == (0.0, 7.0)


def test_answers_name_sizes_scale_and_unit(make_model: MakeModel) -> None:
    model = make_model(Bordered(), map_top=2.0)
    drawn, raw = drawn_answer(model, MAP, RGB), raw_answer(model, MAP)
    assert (drawn.kind, drawn.width, drawn.height) == ("png", 40, 30)
    assert (raw.kind, raw.width, raw.height, raw.low, raw.top, raw.unit) == (
        "raw",
        16,
        16,
        0.5,
        2.0,
        "dE00",
    )
    values = np.frombuffer(base64.b64decode(raw.data), "<f4").reshape(16, 16)
    np.testing.assert_array_equal(values, MAP)
