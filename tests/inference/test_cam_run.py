from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from leanet.data.images import write_image
from leanet.inference.aug_smooth import Smoothed
from leanet.inference.cam import CAM, cam
from leanet.inference.cam_run import CamOptions, Explainer, facts_of, save_map
from leanet.inference.cam_targets import Target
from leanet.methods.classes import ClassDetector
from leanet.methods.classifier import Classifier
from leanet.methods.store import load_detector
from leanet.methods.supervised import Normalize
from leanet.networks.cnn import CNN

SIDE, NAMES = 64, ("blotch", "good", "stripe")


def several() -> ClassDetector:
    torch.manual_seed(0)
    normalize = Normalize((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    return ClassDetector(normalize, CNN(3, 3), SIDE, NAMES, 1).eval()


def two() -> Classifier:
    torch.manual_seed(0)
    return Classifier(Normalize((0, 0, 0), (1, 1, 1)), CNN(3, 1), SIDE).eval()


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    for k in range(3):
        picture = rng.integers(0, 256, (40, 36, 3), dtype=np.uint8)
        write_image(tmp_path / NAMES[k] / f"{k}.png", picture)
    return [tmp_path / NAMES[k] / f"{k}.png" for k in range(3)]


def images(count: int = 3) -> Tensor:
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def explain(
    detector: Any, image: Tensor, score: Tensor | None = None, **options: Any
) -> dict[str, Any]:
    which, threshold = options.pop("which", "predicted"), options.pop("threshold", None)
    explainer = Explainer(detector, CamOptions(**options), which=which, threshold=threshold)
    return explainer.explain(image, score)


def plain(found: dict[str, CAM | Smoothed]) -> CAM:
    one = next(iter(found.values()))
    assert isinstance(one, CAM)
    return one


def test_the_maps_are_those_of_the_network_behind_the_detector() -> None:
    detector, x = several(), images()
    found = plain(explain(detector, x))
    expected = cam(detector.network, detector.prepare(x), layer="stage4")
    torch.testing.assert_close(found.map, expected.map)
    assert found.classes is not None
    assert found.classes.tolist() == detector(x).probs.argmax(dim=1).tolist()


def test_two_classes_are_predicted_by_the_threshold_as_verdicts_are() -> None:
    detector, x = two(), images()
    score = detector(x).score
    limit = float(score.detach().sort().values[1])  # one normal, two anomalous
    found = plain(explain(detector, x, score, threshold=limit))
    assert found.classes is not None
    assert found.classes.tolist() == (score >= limit).long().tolist()
    assert sorted(found.classes.tolist()) == [0, 1, 1]


@pytest.mark.parametrize(("which", "index"), [("stripe", 2), ("1", 1)])
def test_a_class_by_name_or_index(which: str, index: int) -> None:
    found = plain(explain(several(), images(), which=which))
    assert found.classes is not None
    assert found.classes.tolist() == [index] * 3


def test_unknown_classes_heads_and_methods_are_refused_before_any_image_is_read() -> None:
    with pytest.raises(ValueError, match="did you mean stripe"):
        Explainer(several(), CamOptions(), which="strip")
    with pytest.raises(ValueError, match="did you mean grad_cam"):
        Explainer(several(), CamOptions(methods="grad_kam"))
    with pytest.raises(ValueError, match="aan"):
        explain(several(), images(), head="aan")


def test_the_anomaly_score_can_be_explained() -> None:
    found = plain(explain(several(), images(), target="score"))
    torch.testing.assert_close(found.score, several()(images()).score.detach())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"methods": "score_cam", "aug_smooth": True}, "score_cam under --aug_smooth"),
        ({"methods": "input_x_grad", "eigen_smooth": True}, "--eigen_smooth"),
        ({"batch_size": 0}, "batch_size 0"),
    ],
)
def test_what_does_not_go_together_is_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Explainer(several(), CamOptions(**options))


def test_files_are_explained_batch_by_batch(files: list[Path]) -> None:
    explainer = Explainer(several(), CamOptions(methods="grad_cam,input_x_grad", batch_size=2))
    batches = list(explainer.batches(files, []))
    assert [len(batch.image) for batch in batches] == [2, 1]
    for batch in batches:
        for row, maps in enumerate(batch.maps):
            assert list(maps) == ["grad_cam-stage4", "input_x_grad-image"]
            alone = explainer.explain(batch.image[row : row + 1])["grad_cam-stage4"]
            assert isinstance(alone, CAM)
            heat = maps["grad_cam-stage4"].heat
            np.testing.assert_allclose(heat, alone.map[0, 0], rtol=1e-3, atol=1e-6)


def test_true_classes_are_explained(files: list[Path]) -> None:
    explainer = Explainer(several(), CamOptions(), which="true")
    explainer.true = {path: k for k, path in enumerate(files)}
    (batch,) = explainer.batches(files, [])
    assert [maps["grad_cam-stage4"].explained for maps in batch.maps] == [0, 1, 2]


def test_a_map_on_disk_is_raw_and_says_what_it_is(files: list[Path], tmp_path: Path) -> None:
    options = CamOptions(aug_smooth=True, eigen_smooth=True)
    (batch,) = Explainer(several(), options).batches(files, [])
    found = batch.maps[1]["grad_cam-stage4"]
    save_map(tmp_path / "a.npz", found, "good", "logit")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        assert set(arrays.files) == {
            "map", "class", "class_name", "score", "layer", "method", "stride", "target", "energy",
            "sd", "variants", "variant_scores", "clipped"}  # fmt: skip
        assert arrays["map"].dtype == np.float32
        assert arrays["map"].shape == arrays["sd"].shape == (2, 2)
        assert (str(arrays["layer"]), str(arrays["method"])) == ("stage4", "grad_cam")
        assert arrays["stride"].tolist() == [32, 32]
        assert len(arrays["variants"]) == len(arrays["variant_scores"]) == 6
        np.testing.assert_array_equal(arrays["map"], found.heat)
    facts = facts_of(found, "good")
    assert facts["sd_of_score"] > 0
    assert (facts["class"], facts["layer"]) == ("good", "stage4")


def test_stored_and_recomputed_maps_differ_for_lea_net(lea_run: Path) -> None:
    detector = load_detector(lea_run / "final")
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    found = {}
    for source in ("stored", "recompute"):
        options = {"layer": "point3", "aug_smooth": True, "map_source": source}
        found[source] = explain(detector, x, **options)["grad_cam-point3"]
    assert not torch.allclose(found["stored"].scores, found["recompute"].scores, rtol=1e-6)
    torch.testing.assert_close(found["stored"].scores[0], found["recompute"].scores[0])


def test_a_stored_map_of_lea_net_moves_with_the_image(lea_run: Path) -> None:
    """Flipped together, image and map give flipped inputs: nothing is drawn anew."""
    detector = load_detector(lea_run / "final")
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    inputs = detector.prepare(x)
    flipped = detector.prepare(x.flip(-1), inputs[1].flip(-1))  # type: ignore[call-arg]
    for one, other in zip(inputs, flipped, strict=True):
        torch.testing.assert_close(one.flip(-1), other)


def test_the_strides_are_in_pixels_of_the_images() -> None:
    explainer = Explainer(several(), CamOptions(methods="layer_cam,input_x_grad"))
    assert explainer.strides() == {"layer_cam-stage4": (32, 32), "layer_cam-stage3": (16, 16)}


@pytest.mark.parametrize("method", ["score_cam", "ablation_cam"])
def test_slow_methods_are_part_of_it(method: str) -> None:
    found = plain(explain(several(), images(1), methods=method, layer="stage0"))
    assert found.map.shape == (1, 1, 32, 32)
    assert found.map.abs().max() > 0


def test_the_verdict_s_class_is_the_target_s() -> None:
    target = Explainer(two(), CamOptions(), threshold=0.0).target(torch.tensor([-1.0, 1.0]))
    assert isinstance(target, Target)
    assert target.classes(torch.tensor([[5.0], [-5.0]])).tolist() == [0, 1]
    assert target.name(1) == "anomalous"
