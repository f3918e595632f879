"""Which files of a folder are pictures to judge."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from leanet.data.images import write_image
from leanet.data.scan import scan
from leanet.serve.judging import masks_of


def test_the_masks_of_a_data_set_are_no_pictures(toy: Path) -> None:
    masks = masks_of(toy)
    assert masks == {s.mask.absolute() for s in scan(toy).samples if s.mask is not None}
    assert masks


def test_a_folder_that_is_no_data_set_has_none(tmp_path: Path) -> None:
    write_image(tmp_path / "masks" / "1.png", np.zeros((8, 8, 3), np.uint8))
    assert masks_of(tmp_path) == set()
    assert masks_of(tmp_path / "masks" / "1.png") == set()
