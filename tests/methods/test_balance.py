from __future__ import annotations

import numpy as np
import pytest
import torch

from leanet.data.cache import Cache
from leanet.data.loader import Part, Source
from leanet.methods.balance import of_several, of_two


def source(labels: tuple[int, ...], real: int, share: float = 0.0) -> Source:
    """The first `real` samples, and the others as extra images."""
    images = Cache(np.zeros((len(labels), 3, 2, 2), np.uint8), torch.device("cpu"))
    extra = (Part(tuple(range(real, len(labels))), share),) if share else ()
    return Source(images=images, labels=labels, indices=tuple(range(real)), extra=extra)


def test_batches_are_filled_where_defects_are_rare() -> None:
    assert of_two("auto", source((0,) * 9 + (1,), 10)) == ("batches", None)
    assert of_two("auto", source((0,) * 3 + (1,), 4)) == ("none", None)
    assert of_two("none", source((0, 1), 2)) == ("none", None)


def test_the_loss_weighs_a_defect_by_how_often_it_is_seen() -> None:
    _, alone = of_two("loss", source((0,) * 9 + (1,), 10))
    assert alone == pytest.approx(9.0)
    # half of every batch is extra, half of that anomalous: 10 real images stand for 10 extra ones
    _, beside = of_two("loss", source((0,) * 9 + (1,) + (0, 1), 10, share=0.5))
    assert beside == pytest.approx((9 + 5) / (1 + 5))


def test_synthetic_defects_alone_can_be_weighed() -> None:
    _, weight = of_two("loss", source((0,) * 4 + (1,), 4, share=0.2))
    assert weight == pytest.approx(4.0)  # 4 normal images stand beside 1 anomalous


def test_classes_are_weighed_by_what_is_drawn_of_them() -> None:
    _, alone = of_several("loss", source((0, 0, 0, 1), 4))
    assert alone is not None
    assert alone.tolist() == pytest.approx([4 / 6, 2.0])
    _, beside = of_several("loss", source((0, 0, 0, 1) + (1,), 4, share=0.5))
    assert beside is not None
    assert beside.tolist() == pytest.approx([8 / 6, 8 / 10])
    assert of_several("auto", source((0, 0, 0, 1), 4)) == ("none", None)
    assert of_several("auto", source((0, 0, 0, 0, 1), 5))[1] is not None


def test_several_classes_do_not_fill_batches() -> None:
    with pytest.raises(ValueError, match="use loss, or none"):
        of_several("batches", source((0, 1), 2))
