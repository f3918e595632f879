"""What every method promises, whichever it is: a new method is one more line in the catalog."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from leanet.config import from_dict, to_dict, to_yaml
from leanet.data.folds import single_fold
from leanet.inference.engines import open_onnx
from leanet.inference.export_files import traced, write
from leanet.inference.export_graph import Graph, facts_of, outputs_of, vector_images
from leanet.inference.export_images import drawn_images
from leanet.inference.parity import check_vectors, compare
from leanet.methods.catalog import METHODS
from leanet.methods.map_catalog import READY_METHODS
from leanet.methods.memory import PEAK
from leanet.methods.recipe import DetectorModule, Material, Trained
from leanet.methods.store import load_detector, save_detector
from leanet.ops.working_point import WorkingPoint
from leanet.records import Prediction
from leanet.runtime import make_runtime

SIDE = 32
SLOW = {  # all defaults that are changed
    "epochs": 1,
    "min_steps": 1,
    "max_steps": 1,
    "map_model": {"epochs": 1},
    "backbone": "resnet18",
    "pretrained": False,
}


def one_epoch(name: str) -> Any:
    """The method's default configuration with a single epoch."""
    fields = METHODS[name].config.__dataclass_fields__
    return from_dict(METHODS[name].config, {k: v for k, v in SLOW.items() if k in fields})


def train(name: str, data: Material, folder: Path, seed: int = 0) -> Trained:
    """One toy epoch."""
    run = dataclasses.replace(data, run=folder)
    (folder / "cache").mkdir(parents=True)
    fold = single_fold(data.samples, seed=0, inner_splits=2)
    runtime = make_runtime("cpu", "32-true", seed)
    return METHODS[name].train(one_epoch(name), fold, run, folder / "final", runtime, None)


@pytest.fixture(scope="module")
def trained(
    material: Callable[..., Material], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Trained]:
    """trained("leanet") -> the method after one epoch; trained once."""
    data, known = material(), {}

    def get(name: str) -> Trained:
        if name not in known:
            known[name] = train(name, data, tmp_path_factory.mktemp(name))
        return known[name]

    return get


@pytest.fixture(params=[name for name in METHODS if name not in READY_METHODS])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def detector(name: str, trained: Callable[[str], Trained]) -> DetectorModule:
    return trained(name).detector


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(7))


@torch.inference_mode()
def answer(detector: DetectorModule, image: Tensor) -> dict[str, Tensor]:
    """All tensors of a prediction by name."""
    prediction: Prediction = detector(image)
    named = {"score": prediction.score, "map": prediction.map, **prediction.parts}
    return {key: value for key, value in named.items() if value is not None}


def test_the_default_configuration_builds_and_survives_yaml(name: str) -> None:
    config = METHODS[name].config()
    assert from_dict(METHODS[name].config, yaml.safe_load(to_yaml(config))) == config
    assert yaml.safe_load(to_yaml(config)) == to_dict(config)


def test_every_option_is_explained(name: str) -> None:
    lines = to_yaml(METHODS[name].config()).splitlines()
    explained = [line.strip() for line in lines if line.strip().startswith("#")]
    assert len(explained) * 2 == len(lines)
    assert all(len(line) > 10 for line in explained)


def test_presets_are_valid_and_change_something_but_default(name: str) -> None:
    method = METHODS[name]
    assert "paper" in method.presets
    for label, preset in method.presets.items():
        assert (from_dict(method.config, preset) == method.config()) == (label == "default")


def test_the_detector_gives_finite_scores_and_maps(detector: DetectorModule, image: Tensor) -> None:
    with torch.inference_mode():
        prediction = detector(image)
    assert prediction.score.shape == (3,)
    assert prediction.score.dtype == torch.float32
    assert (prediction.map is None) == (detector.map_unit is None)
    if prediction.map is not None:
        assert prediction.map.shape == (3, 1, SIDE, SIDE)
        assert prediction.map.min() >= 0
    assert all(part.shape == (3,) for part in prediction.parts.values())
    assert all(value.isfinite().all() for value in answer(detector, image).values())
    assert set(detector.logits) <= {"score", *prediction.parts}


def test_the_detector_is_ready_to_use(detector: DetectorModule) -> None:
    assert not any(module.training for module in detector.modules())
    assert detector.img_size == SIDE


def test_an_image_gets_the_same_answer_alone_or_in_a_batch(
    detector: DetectorModule, image: Tensor
) -> None:
    together = answer(detector, image)
    alone = [answer(detector, one[None]) for one in image]
    for key, expected in together.items():
        got = torch.cat([one[key] for one in alone])
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_evaluation_is_deterministic(detector: DetectorModule, image: Tensor) -> None:
    first, second = answer(detector, image), answer(detector, image)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_the_input_is_not_changed(detector: DetectorModule, image: Tensor) -> None:
    before = image.clone()
    answer(detector, image)
    detector.explain(image)
    assert torch.equal(image, before)


def test_saved_and_loaded_gives_the_same(
    name: str, detector: DetectorModule, image: Tensor, tmp_path: Path
) -> None:
    save_detector(tmp_path, name, one_epoch(name), detector)
    assert [file.name for file in tmp_path.iterdir()] == ["weights.safetensors"]
    loaded = load_detector(tmp_path)
    first, second = answer(detector, image), answer(loaded, image)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert loaded.extra() == detector.extra()
    assert (loaded.map_unit, loaded.map_top) == (detector.map_unit, detector.map_top)


def test_held_out_scores_are_there_for_every_output(
    name: str, trained: Callable[[str], Trained], image: Tensor
) -> None:
    outcome = trained(name)
    outputs = answer(outcome.detector, image).keys() - {"map"}
    assert outputs <= set(outcome.held_out.scores)
    lengths = {len(scores) for scores in outcome.held_out.scores.values()}
    assert lengths == {len(outcome.held_out.indices)}
    assert outcome.epochs == 1


def test_pictures_that_explain_are_images_in_a_batch(
    detector: DetectorModule, image: Tensor
) -> None:
    with torch.inference_mode():
        pictures = detector.explain(image)
    for value in pictures.values():
        assert value.shape[0] == 3
        assert value.shape[1] in (1, 3)
        assert value.isfinite().all()


@torch.inference_mode()
def test_alike_pictures_lie_close(detector: DetectorModule, image: Tensor) -> None:
    together = detector.embed(image)
    assert together.ndim == 2
    assert together.dtype == torch.float32
    assert together.isfinite().all()
    alone = torch.cat([detector.embed(one[None]) for one in image])
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-4)
    copies = detector.embed((0.995 * image).clamp(0, 1))
    assert torch.cdist(copies, together).argmin(dim=1).tolist() == [0, 1, 2]


def test_one_seed_gives_one_detector_and_another_seed_another(
    name: str,
    trained: Callable[[str], Trained],
    material: Callable[..., Material],
    tmp_path: Path,
) -> None:
    first = trained(name)
    again = train(name, material(), tmp_path / "again")
    weights, same = first.detector.state_dict(), again.detector.state_dict()
    assert all(torch.equal(weights[key], same[key]) for key in weights)
    assert again.held_out == first.held_out
    measured = {PEAK: 0}  # not repeatable
    assert again.remarks | measured == first.remarks | measured
    other = train(name, material(), tmp_path / "other", seed=1).detector.state_dict()
    assert not all(torch.equal(weights[key], other[key]) for key in weights)


@torch.no_grad()
def test_the_exported_program_gives_the_same_for_any_batch(
    detector: DetectorModule, image: Tensor
) -> None:
    graph = Graph(detector, WorkingPoint(0.5))
    program = traced(graph, SIDE).module()
    for other in (image[:1], image.flip(0, 3) ** 2, torch.cat([image, image]).sqrt()):
        got, expected = program(other), graph(other)
        assert got.keys() == expected.keys()
        for key in expected.keys() - {"verdict", "review"}:
            torch.testing.assert_close(got[key], expected[key], rtol=1e-4, atol=1e-4)


QUICK_AS_ONNX = {"patchcore"}


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(name, marks=() if name in QUICK_AS_ONNX else pytest.mark.slow)
        for name in METHODS
        if name not in READY_METHODS
    ],
)
def test_the_onnx_file_gives_the_same_for_any_batch(
    method: str, trained: Callable[[str], Trained], tmp_path: Path
) -> None:
    detector = trained(method).detector
    graph = Graph(detector, WorkingPoint(0.5))
    known = outputs_of(graph, vector_images(SIDE))
    facts = facts_of(detector, {"img_size": SIDE}, graph.point, "", known)
    file = write(traced(graph, SIDE), "onnx", tmp_path, facts)
    session = open_onnx(file)
    check_vectors(session, method)
    parity = compare(graph, session, drawn_images(SIDE), graph.point.threshold)
    assert parity.holds(), str(parity)
