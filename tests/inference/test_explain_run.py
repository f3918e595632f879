from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from leanet.data.images import write_image
from leanet.inference.cam_panels import Look
from leanet.inference.cam_run import CamOptions
from leanet.inference.explain import Explained
from leanet.inference.explain_run import Asked, explain_run, has_classifier
from leanet.methods.classifier import Classifier
from leanet.methods.store import load_detector
from leanet.methods.supervised import Normalize
from leanet.networks.abn import ABN
from leanet.networks.cnn import CNN

CPU = torch.device("cpu")


def two(**options: Any) -> Classifier:
    torch.manual_seed(0)
    network = options.get("network") or CNN(3, 1)
    return Classifier(Normalize((0, 0, 0), (1, 1, 1)), network, 64).eval()


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = [tmp_path / "normal" / "a.png", tmp_path / "anomalous" / "b.png"]
    for path in paths:
        path.parent.mkdir()
        write_image(path, rng.integers(0, 256, (24, 20, 3), dtype=np.uint8))
    return paths


def run(
    detector: Any, files: list[Path], which: str = "predicted", **options: Any
) -> list[Explained]:
    out = files[0].parents[1] / "out"
    ways: dict[str, Any] = {"run": out, "out": out, "threshold": 0.0, "device": CPU}
    asked = Asked(which, CamOptions(**options), Look())
    return explain_run(detector, files, asked, **ways, tell=lambda text: None)


def test_a_plain_classifier_gets_maps_and_no_feature_view(files: list[Path]) -> None:
    explained = run(two(), files)
    for one, path in zip(explained, files, strict=True):
        assert one.path == path
        assert one.figure is None
        assert one.cams is not None
        assert one.cams.panel.exists()
        assert one.verdict == one.cams.verdict
    assert not (files[0].parents[1] / "out" / "explain.json").exists()


def test_a_classifier_with_a_map_of_its_own_gets_both(files: list[Path]) -> None:
    explained = run(two(network=ABN(18, 3, 1)), files)
    for one in explained:
        assert one.cams is not None
        assert one.figure is not None
        assert one.figure.exists()
    assert (files[0].parents[1] / "out" / "gates").is_dir()


def test_lea_net_gets_both(lea_run: Path, files: list[Path]) -> None:
    (one, _) = run(load_detector(lea_run / "final"), files, layer="point3")
    assert one.points
    assert one.cams is not None
    assert list(one.cams.maps) == ["grad_cam-point3"]


def test_maps_can_be_left_out(lea_run: Path, files: list[Path]) -> None:
    (one, _) = run(load_detector(lea_run / "final"), files, methods="none")
    assert one.figure is not None
    assert one.cams is None


class Painter:
    """No classifier, as a colorizer."""

    img_size = 16
    map_unit, map_top, classes, normal = "dE00", 1.0, (), None

    def __call__(self, image: torch.Tensor) -> Any:
        from leanet.records import Prediction

        return Prediction(image.mean(dim=(1, 2, 3)), image[:, :1])

    def prepare(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        raise ValueError("Painter has no classifier")

    def explain(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        return {}


def test_a_detector_without_classifier_shows_what_it_has(files: list[Path]) -> None:
    assert not has_classifier(Painter(), CPU)
    (one, _) = run(Painter(), files)
    assert one.figure is not None
    assert one.cams is None
    with pytest.raises(ValueError, match="Painter has no classifier"):
        run(Painter(), files, methods="grad_cam")


def test_true_classes_come_from_the_folders(files: list[Path]) -> None:
    explained = run(two(), files, which="true")
    names = [one.cams.facts["maps"]["grad_cam-stage4"]["class"] for one in explained if one.cams]
    assert names == ["normal", "anomalous"]


def test_runs_without_a_threshold_have_no_verdict(files: list[Path], tmp_path: Path) -> None:
    asked = Asked("predicted", CamOptions(), Look())
    (one, _) = explain_run(
        two(), files, asked, run=tmp_path, out=tmp_path / "o", threshold=None, device=CPU
    )
    assert one.verdict == ""
