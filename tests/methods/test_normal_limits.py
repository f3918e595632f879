"""Limits that come from normal images alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from leanet.data.cache import Cache
from leanet.methods.normal_limits import Normals, conclude, map_quantiles, split_normals
from leanet.methods.recipe import DetectorModule, Experience, HeldOut, Material
from leanet.records import ANOMALOUS, NORMAL, Fold, Prediction, Sample

SIDE, BORDER = 8, 2


class Gray(DetectorModule):
    """The map is the image; what it does not cover is far brighter."""

    img_size, map_unit, map_border = SIDE, "distance", BORDER

    def forward(self, image: Tensor) -> Prediction:
        inside = image[:, :1, BORDER:-BORDER, BORDER:-BORDER]
        padded = torch.nn.functional.pad(inside, (BORDER,) * 4, value=100.0)
        return Prediction(inside.amax(dim=(1, 2, 3)), padded)


def material(labels: Sequence[int]) -> Material:
    """Image k is of the gray k."""
    array = np.ones((len(labels), 3, SIDE, SIDE), np.uint8)
    array *= np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1, 1)
    samples = tuple(
        Sample(path=Path(f"{k:03d}.png"), label=label, kind="spot" if label else "good")
        for k, label in enumerate(labels)
    )
    cache = Cache(array, torch.device("cpu"))
    return Material(samples=samples, images=cache, img_size=SIDE, run=Path("unused"))


def fold(data: Material) -> Fold:
    return Fold(name="final", train=tuple(range(len(data.samples))), test=())


EXPERIENCE = Experience(HeldOut((0, 1), {"score": [0.1, 0.9]}), epochs=3)


@pytest.mark.parametrize(("count", "share", "held"), [(19, 0.1, 0), (20, 0.1, 5), (60, 0.1, 6)])
def test_a_share_of_the_normals_is_held_out_or_five_or_none_of_few(
    count: int, share: float, held: int
) -> None:
    data = material([NORMAL] * count + [ANOMALOUS] * 4)
    rest, kept = split_normals(fold(data), data, 0, None, share)
    assert len(kept) == held
    assert sorted(rest + kept) == list(range(count))


@pytest.mark.parametrize(("experience", "share"), [(EXPERIENCE, 0.1), (None, 0.0)])
def test_all_normals_train_after_cross_validation_or_if_asked_to(
    experience: Any, share: float
) -> None:
    data = material([NORMAL] * 30)
    assert split_normals(fold(data), data, 0, experience, share) == Normals(tuple(range(30)))


def test_without_normal_images_there_is_nothing_to_learn_from() -> None:
    data = material([ANOMALOUS] * 3)
    with pytest.raises(ValueError, match="has no normal images"):
        split_normals(fold(data), data, 0, None, 0.1)


def test_the_split_follows_the_seed() -> None:
    data = material([NORMAL] * 40)
    first, again, other = (split_normals(fold(data), data, seed, None, 0.2) for seed in (0, 0, 1))
    assert first == again != other


def test_the_limits_are_high_quantiles_of_those_held_out_without_the_border() -> None:
    data, detector = material([NORMAL] * 100), Gray()
    normals = Normals(tuple(range(50)), tuple(range(50, 100)))
    trained = conclude(detector, normals, data, None, epochs=7, remarks={"a": 1})
    grays = np.arange(50, 100) / 255
    pixels = np.repeat(grays, (SIDE - 2 * BORDER) ** 2)
    assert trained.thresholds is not None
    limit = trained.thresholds["score"]
    assert limit.value == pytest.approx(np.quantile(grays, 0.99), rel=1e-6)
    assert (limit.rule, limit.num_normal, limit.num_anomalous) == ("honest", 50, 0)
    honest = detector.map_thresholds["honest"]
    assert honest == pytest.approx(np.quantile(pixels, 0.999), rel=1e-3)
    assert detector.map_top == 2 * honest
    assert detector.map_low == pytest.approx(np.median(pixels), rel=1e-2)
    assert trained.held_out.indices == normals.held
    assert trained.held_out.scores["score"] == pytest.approx(grays.tolist())
    assert trained.remarks == {"a": 1, "threshold_in_sample": False}
    assert (trained.epochs, trained.detector) == (7, detector)


def test_limits_from_what_was_learned_from_are_told() -> None:
    data = material([NORMAL] * 10)
    trained = conclude(Gray(), Normals(tuple(range(10))), data, None, epochs=1, remarks={})
    assert trained.remarks == {"threshold_in_sample": True}
    assert trained.held_out.indices == tuple(range(10))


def test_after_cross_validation_its_scores_decide() -> None:
    data, detector = material([NORMAL] * 10), Gray()
    normals = Normals(tuple(range(10)))
    trained = conclude(detector, normals, data, EXPERIENCE, epochs=1, remarks={})
    assert trained.held_out == EXPERIENCE.held_out
    assert trained.thresholds is None
    assert trained.remarks == {"threshold_in_sample": False}
    assert 0 < detector.map_thresholds["honest"] < 1


def test_a_map_of_zeros_still_has_a_color_scale() -> None:
    data, detector = material([NORMAL]), Gray()
    conclude(detector, Normals((0,)), data, None, epochs=1, remarks={})
    assert map_quantiles(detector, data, (0,), (0.5, 0.999)) == [0, 0]
    assert detector.map_top == 1.0


def test_the_median_of_held_out_normal_pixels_is_kept_without_the_border() -> None:
    data, detector = material([NORMAL] * 30), Gray()
    normals = Normals(tuple(range(20)), tuple(range(20, 29)))
    conclude(detector, normals, data, None, epochs=1, remarks={})
    assert detector.map_low == pytest.approx(24 / 255, rel=1e-3)
