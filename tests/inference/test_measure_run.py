from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leanet.data.scan import scan
from leanet.files import read_csv
from leanet.inference.cam_run import CamOptions, Explainer
from leanet.inference.measure_run import Measures, measure_run
from leanet.records import ANOMALOUS, Prediction, Sample


class Net(nn.Module):
    """One convolution with stride 8."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 8, 8), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        logit: Tensor = self.fc(torch.relu(self.conv(x)).mean(dim=(2, 3)))
        return logit


class Judge(nn.Module):
    """A detector of two classes."""

    img_size, classes, normal = 32, (), None

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = Net()

    def prepare(self, image: Tensor) -> tuple[Tensor, ...]:
        return (image,)

    def logits_of(self, output: Any, head: str = "") -> Tensor:
        logits: Tensor = output
        return logits

    def forward(self, image: Tensor) -> Prediction:
        return Prediction(self.network(image)[:, 0])


def explainer(which: str = "predicted", **options: Any) -> Explainer:
    return Explainer(Judge(), CamOptions(layer="conv", **options), which=which, threshold=0.0)


@pytest.fixture(scope="module")
def samples(toy: Path) -> list[Sample]:
    found = [one for one in scan(toy).samples if one.label == ANOMALOUS]
    return found[:2]


def test_location_and_faithfulness_are_measured_for_the_same_maps(
    samples: list[Sample], tmp_path: Path
) -> None:
    text = measure_run(explainer(), samples, Measures(True, True, 2), run=tmp_path, out=tmp_path)
    assert text.count("grad_cam-conv") >= 2
    for table in ("faithfulness.csv", "localization.csv"):
        methods = {row["method"] for row in read_csv(tmp_path / table)}
        assert {"grad_cam-conv", "random map"} <= methods


@pytest.mark.parametrize(("which", "index"), [("true", 1), ("normal", 0)])
def test_the_asked_class_is_what_is_measured(
    which: str, index: int, samples: list[Sample], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[Any] = []

    def subject_of(explainers: Any, **options: Any) -> Any:
        asked.append(options["class_of"])
        assert [options["true_class"](one) for one in samples] == [1, 1]
        raise KeyboardInterrupt

    monkeypatch.setattr("leanet.inference.measure_run.subject_of", subject_of)
    with pytest.raises(KeyboardInterrupt):
        measure_run(explainer(which), samples, Measures(True, False), run=tmp_path, out=tmp_path)
    assert [asked[0](one) for one in samples] == [index] * 2


def test_cells_larger_than_the_defects_are_told(samples: list[Sample], tmp_path: Path) -> None:
    told: list[str] = []
    measure_run(
        explainer(methods="grad_cam,layer_cam"),
        samples,
        Measures(False, True),
        run=tmp_path,
        out=tmp_path,
        tell=told.append,
    )
    assert any("smaller than" in line and "finer --layer" in line for line in told)
