from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import nn

from leanet.inference.engines import Outputs, Session
from leanet.inference.export_graph import Graph, facts_of, outputs_of, vector_images
from leanet.inference.parity import Parity, check_vectors, compare
from leanet.ops.working_point import point_of

IMAGES = np.random.default_rng(0).random((11, 3, 16, 16), dtype=np.float32)
Change = Callable[[Outputs], Any]


@pytest.fixture
def graph(tiny: nn.Module, card: dict[str, Any]) -> Graph:
    return Graph(tiny, point_of(card))


@pytest.fixture
def facts(graph: Graph, card: dict[str, Any]) -> dict[str, Any]:
    known = outputs_of(graph, vector_images(16))
    return facts_of(graph.detector, card, point_of(card), "abc", known)  # type: ignore[arg-type]


@pytest.fixture
def compared(graph: Graph) -> Callable[[Change], Parity]:
    """The parity of a file whose outputs are changed in some way."""

    def found(change: Change) -> Parity:
        def run(image: NDArray[np.float32]) -> Outputs:
            outputs = {name: value.copy() for name, value in outputs_of(graph, image).items()}
            change(outputs)
            return outputs

        return compare(graph, Session(run, {}), IMAGES, graph.point.threshold)

    return found


def shift(name: str, by: float) -> Change:
    def change(outputs: Outputs) -> None:
        outputs[name] = outputs[name] + np.float32(by)

    return change


def test_the_same_answers_hold(compared: Callable[[Change], Parity]) -> None:
    parity = compared(lambda outputs: None)
    assert parity == Parity(11, 0.0, 0.0, 0.0, 0, 0.0, 0.0, 0.0)
    assert parity.holds()


@pytest.mark.parametrize("name", ["score", "probability", "probs"])
def test_what_decides_may_differ_by_a_ten_thousandth(
    name: str, compared: Callable[[Change], Parity]
) -> None:
    assert compared(shift(name, 5e-5)).holds()
    parity = compared(shift(name, 2e-4))
    assert not parity.holds()
    assert parity.score_absolute == pytest.approx(2e-4, rel=1e-2)


def test_single_scores_may_differ_by_ten_times_that(compared: Callable[[Change], Parity]) -> None:
    assert compared(shift("part_mean", 5e-4)).holds()
    assert not compared(shift("part_mean", 2e-3)).holds()


def test_nothing_that_is_not_a_number_passes(compared: Callable[[Change], Parity]) -> None:
    for name in ("score", "map", "part_mean"):
        assert not compared(shift(name, np.nan)).holds()


def test_a_verdict_must_follow_from_the_files_own_score(
    compared: Callable[[Change], Parity],
) -> None:
    def turn(outputs: Outputs) -> None:
        outputs["verdict"] = 1 - outputs["verdict"]

    parity = compared(turn)
    assert parity.verdicts == 11
    assert not parity.holds()
    assert "11 other verdicts" in str(parity)


def test_one_pixel_in_a_thousand_may_jump(compared: Callable[[Change], Parity]) -> None:
    def jump(pixels: int) -> Change:
        def change(outputs: Outputs) -> None:
            if len(outputs["map"]) == 1:  # two of the eleven images come alone
                outputs["map"].reshape(-1)[:pixels] += 1

        return change

    assert compared(jump(1)).holds()
    parity = compared(jump(3))
    assert parity.map_most == pytest.approx(1, rel=1e-3)
    assert not parity.holds()


def test_a_file_that_answers_as_it_was_written_passes(graph: Graph, facts: dict[str, Any]) -> None:
    check_vectors(Session(lambda image: outputs_of(graph, image), facts), "it")


def test_a_file_that_answers_otherwise_is_refused(graph: Graph, facts: dict[str, Any]) -> None:
    def run(image: NDArray[np.float32]) -> Outputs:
        outputs = outputs_of(graph, image)
        return outputs | {"map": outputs["map"] + np.float32(0.01)}

    with pytest.raises(ValueError, match=r"map_mean differs by 1\.0e-02"):
        check_vectors(Session(run, facts), "model.onnx")
