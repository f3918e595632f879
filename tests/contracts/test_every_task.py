"""What every task promises with every reconstruction network, at a size of toys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from leanet.methods.detector_file import read_detector, write_detector
from leanet.methods.map_catalog import find_map_method
from leanet.methods.recipe import Material
from leanet.methods.reconstruction import Config, Model, Reconstructor, train
from leanet.methods.tasks import Task, default_metric
from leanet.records import NORMAL, Fold
from leanet.runtime import make_runtime

SIDE = 32
TASKS: tuple[Task, ...] = get_args(Task)
MODELS: tuple[Model, ...] = get_args(Model)
DRAWING: tuple[Task, ...] = ("denoise", "inpaint")

Get = Callable[..., Reconstructor]


def config(task: Task, model: Model, **changes: Any) -> Config:
    """Two steps: 18 normals in batches of at most 9."""
    changes = {"epochs": 1, "base": 2, "batch_size": 9, "draws": 2} | changes
    return Config(task=task, model=model, **changes)


@pytest.fixture(scope="module")
def trained(material: Callable[..., Material], tmp_path_factory: pytest.TempPathFactory) -> Get:
    """trained("denoise", "ae") -> the detector after two steps; trained once."""
    data, known = material(), dict[str, Reconstructor]()
    normals = tuple(i for i, label in enumerate(data.labels) if label == NORMAL)

    def get(task: Task, model: Model, **changes: Any) -> Reconstructor:
        options = config(task, model, **changes)
        if str(options) not in known:
            runtime = make_runtime("cpu", "32-true")
            folder = tmp_path_factory.mktemp("run")
            fold = Fold(name="final", train=normals, test=())
            done = train(options, fold, replace(data, run=folder), folder / "final", runtime)
            assert isinstance(done.detector, Reconstructor)
            known[str(options)] = done.detector
        return known[str(options)]

    return get


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(7))


@pytest.fixture(params=product(TASKS, MODELS), ids=lambda pair: "-".join(pair))
def pair(request: pytest.FixtureRequest) -> tuple[Task, Model]:
    task, model = request.param
    return task, model


@pytest.fixture
def detector(pair: tuple[Task, Model], trained: Get) -> Reconstructor:
    return trained(*pair)


@torch.inference_mode()
def test_map_and_score_are_finite_and_of_the_right_shape(
    pair: tuple[Task, Model], detector: Reconstructor, image: Tensor
) -> None:
    prediction = detector(image)
    assert prediction.map is not None
    assert prediction.map.shape == (3, 1, SIDE, SIDE)
    assert prediction.score.shape == (3,)
    assert prediction.map.isfinite().all()
    assert 0 <= prediction.map.min() < prediction.map.max()
    torch.testing.assert_close(prediction.score, prediction.map.mean(dim=(1, 2, 3)))
    unit = {"ciede2000": "dE00", "l1": "L1"}[default_metric(pair[0])]
    assert detector.map_unit == unit
    assert detector.map_top > 0
    assert unit == "dE00" or prediction.map.max() <= 1


@torch.inference_mode()
def test_an_image_has_one_map_alone_in_a_batch_and_every_time(
    detector: Reconstructor, image: Tensor
) -> None:
    together = detector(image).map
    assert torch.equal(detector(image).map, together)
    alone = torch.cat([detector(one[None]).map for one in image])
    torch.testing.assert_close(alone, together, rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_saved_and_loaded_draws_the_same(
    pair: tuple[Task, Model], detector: Reconstructor, image: Tensor, tmp_path: Path
) -> None:
    write_detector(tmp_path, "reconstruction", config(*pair), detector)
    loaded = read_detector(tmp_path, find_map_method)
    assert torch.equal(loaded(image).map, detector(image).map)
    assert loaded.extra() == detector.extra()


@torch.inference_mode()
def test_the_explanation_is_a_picture_and_the_input_is_left_alone(
    detector: Reconstructor, image: Tensor
) -> None:
    before = image.clone()
    ((name, picture),) = detector.explain(image).items()
    assert name == "repainted"
    assert picture.shape == image.shape
    assert 0 <= picture.min() < picture.max() <= 1
    assert torch.equal(image, before)


@pytest.mark.parametrize("metric", ["ciede2000", "l1", "l2"])
@pytest.mark.parametrize("task", TASKS)
def test_every_distance_goes_with_every_task(
    task: Task, metric: Any, trained: Get, image: Tensor
) -> None:
    detector = trained(task, "ae", map_metric=metric)
    with torch.inference_mode():
        anomaly_map = detector(image).map
    assert anomaly_map.isfinite().all()
    assert anomaly_map.min() >= 0
    assert detector.map_unit == {"ciede2000": "dE00", "l1": "L1", "l2": "L2"}[metric]


@pytest.mark.parametrize("task", ["self-resolution", "rotation", "complementary", *DRAWING])
def test_what_does_not_draw_is_exported_and_what_draws_refuses(
    task: Any, trained: Get, image: Tensor
) -> None:
    masks = {"inpaint_masks": "complementary"} if task == "complementary" else {}
    detector = trained("inpaint" if masks else task, "ae", **masks)
    if task in DRAWING:
        with pytest.raises(Exception, match=r"cannot be exported.*--inpaint_masks complementary"):
            torch.export.export(detector, (image,))
        return
    with torch.no_grad():
        program = torch.export.export(detector, (image,)).module()
        torch.testing.assert_close(program(image).map, detector(image).map, rtol=1e-4, atol=1e-4)
