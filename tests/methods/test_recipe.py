from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from leanet.methods.recipe import DetectorModule, Material, score_images
from leanet.records import Prediction


class Brightness(DetectorModule):
    """Scores the mean of an image, in training mode something else."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.9)

    def forward(self, image: Tensor) -> Prediction:
        mean = self.dropout(image).mean(dim=(1, 2, 3))
        return Prediction(mean, parts={"twice": 2 * mean})


def test_labels_are_those_of_the_samples(material: Callable[..., Material]) -> None:
    data = material()
    assert data.labels == tuple(sample.label for sample in data.samples)
    assert len(data.images) == len(data.samples) == 24


def test_scores_come_in_the_order_asked_for_in_evaluation_mode(
    material: Callable[..., Material],
) -> None:
    data, detector = material(), Brightness()
    detector.train()
    indices = [5, *range(23, 3, -1)]  # more than one batch
    scores = score_images(detector, data.images, indices)
    expected = [float(data.images.array[i].mean()) / 255 for i in indices]
    assert scores["score"] == pytest.approx(expected, rel=1e-5)
    assert scores["twice"] == pytest.approx([2 * value for value in expected], rel=1e-5)
    assert list(scores) == ["score", "twice"]


def test_no_images_give_no_scores(material: Callable[..., Material]) -> None:
    assert score_images(Brightness(), material().images, ()) == {}


def test_an_incomplete_detector_says_what_it_lacks() -> None:
    with pytest.raises(TypeError, match=r"DetectorModule.*lacks forward"):
        DetectorModule()(torch.zeros(1, 3, 8, 8))


def test_a_detector_has_no_map_and_explains_nothing_unless_it_says_so() -> None:
    detector = Brightness()
    assert (detector.map_unit, detector.map_top) == (None, None)
    assert (detector.logits, detector.extra()) == ((), {})
    assert detector.explain(torch.zeros(1, 3, 8, 8)) == {}
