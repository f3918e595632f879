from __future__ import annotations

import numpy as np
import torch

from leanet.ops.fingerprint import fingerprints


def images(count: int = 4) -> torch.Tensor:
    raw = np.random.default_rng(0).integers(0, 256, (count, 3, 8, 8), dtype=np.uint8)
    return torch.from_numpy(raw).float() / 255


def test_an_image_has_the_same_name_alone_and_in_any_batch() -> None:
    batch = images()
    names = fingerprints(batch)
    assert len(set(names)) == 4
    assert [fingerprints(one[None])[0] for one in batch] == names
    assert fingerprints(batch.flip(0)) == names[::-1]


def test_memory_format_and_rounding_errors_do_not_matter() -> None:
    batch = images()
    assert fingerprints(batch.contiguous(memory_format=torch.channels_last)) == fingerprints(batch)
    assert fingerprints(batch + 1e-4) == fingerprints(batch)
    assert fingerprints(batch.double()) == fingerprints(batch)


def test_one_grey_level_in_one_pixel_makes_another_name() -> None:
    batch = images(1)
    changed = batch.clone()
    changed[0, 2, 7, 7] += 1 / 255 if changed[0, 2, 7, 7] < 0.5 else -1 / 255
    assert fingerprints(changed) != fingerprints(batch)


def test_the_shape_belongs_to_the_name() -> None:
    assert fingerprints(torch.zeros(1, 3, 4, 8)) != fingerprints(torch.zeros(1, 3, 8, 4))
