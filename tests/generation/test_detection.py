from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from leanet.data.images import write_image
from leanet.files import read_csv, read_json, write_csv
from leanet.generation import detection
from leanet.generation.detection import DetectionOptions, detection_curve
from leanet.inference import detection_curve as detecting
from leanet.methods.recipe import DetectorModule
from leanet.ops.color import rgb_to_lab
from leanet.records import Prediction

OPTIONS = DetectionOptions(per_point=3, device="cpu")


class Spread(DetectorModule):
    """Sees local color: how much more the strongest part of Lab differs than the image as a
    whole."""

    img_size = 32

    def forward(self, image: Tensor) -> Prediction:
        chroma = rgb_to_lab(image)[:, 1:].flatten(2)
        far = (chroma - chroma.median(dim=2, keepdim=True).values).norm(dim=1)
        return Prediction(far.quantile(0.99, dim=1))


@pytest.fixture(scope="module")
def cloth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight green pictures with a little noise."""
    root, rng = tmp_path_factory.mktemp("cloth"), np.random.default_rng(0)
    for number in range(8):
        pixels = np.array([90, 140, 80]) + rng.normal(0, 2, (32, 32, 3))
        write_image(root / "Negative" / "good" / f"{number}.png", pixels.round().astype(np.uint8))
    return root


def trained_on(run: Path, numbers: range) -> None:
    names = [f"Negative/good/{number}.png" for number in numbers]
    rows = [{"path": name, "fold": "final", "role": "train"} for name in names]
    write_csv(run / "folds.csv", rows)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(detection, "load_detector", lambda folder, device: Spread())
    monkeypatch.setattr(detection, "SEVERITIES", (2.0, 20.0))
    monkeypatch.setattr(detecting, "RESAMPLES", 20)
    trained_on(tmp_path / "run", range(5))
    return tmp_path / "run"


def test_the_curve_of_a_detector_that_sees_color_rises(
    run: Path, cloth: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    curves = detection_curve(run, cloth, tmp_path / "out", OPTIONS, tell=said.append)
    assert [curve.direction for curve in curves] == [
        "all", "chroma", "hue", "lightness", "random",
    ]  # fmt: skip
    everything = curves[0].points
    assert [point.severity for point in everything] == [2, 20]
    assert everything[0].recall < everything[-1].recall
    told = read_json(tmp_path / "out" / "detection_curve.json")
    assert told["normal_images"] == 3  # those that the run has not learned from
    assert told["nuisances"] == 4 * 2 * 3
    assert set(told["reached"]["hue"]) == {"50%", "90%"}
    rows = read_csv(tmp_path / "out" / "detection_curve.csv")
    assert len(rows) == sum(len(curve.points) for curve in curves)
    assert (tmp_path / "out" / "detection_curve.png").read_bytes()[1:4] == b"PNG"
    assert "dE00" in said[-1]
    assert len(said) == 1


def test_images_that_were_learned_from_are_told_to_flatter(
    run: Path, cloth: Path, tmp_path: Path
) -> None:
    trained_on(run, range(8))
    said: list[str] = []
    detection_curve(run, cloth, tmp_path / "out", DetectionOptions(per_point=1), tell=said.append)
    assert "flatters" in said[0]


def test_a_run_without_a_normal_class_has_no_curve(
    run: Path, cloth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = Spread()
    detector.classes = ("a", "b")
    monkeypatch.setattr(detection, "load_detector", lambda folder, device: detector)
    with pytest.raises(ValueError, match="knows no normal class"):
        detection_curve(run, cloth, tmp_path, OPTIONS)
    with pytest.raises(ValueError, match="at least 1 anomaly"):
        detection_curve(run, cloth, tmp_path, DetectionOptions(per_point=0))
    assert torch.is_grad_enabled()
