from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from leanet.inference.export_graph import (
    Graph,
    at_least,
    facts_of,
    in_single_precision,
    outputs_of,
    prediction_of,
    vector_images,
)
from leanet.ops.calibration import Calibration, probability_of
from leanet.ops.working_point import WorkingPoint, decide, point_of


@given(limit=st.floats(-1e6, 1e6), steps=st.integers(-2, 2))
def test_a_float32_score_is_judged_as_in_float64(limit: float, steps: int) -> None:
    score = np.float32(limit)
    for _ in range(abs(steps)):
        score = np.nextafter(score, np.float32(np.sign(steps) * np.inf))
    assert (float(score) >= limit) == bool(torch.tensor(score) >= at_least(limit))


def test_the_review_zone_ends_where_it_did() -> None:
    point = WorkingPoint(0.1, review=(0.1, 0.3))
    single = in_single_precision(point)
    near = [np.float32(0.1), np.float32(0.3)]
    near += [np.nextafter(x, np.float32(side)) for x in near for side in (0, 1)]
    scores = torch.tensor(np.array(near))
    assert torch.equal(decide(single, scores).review, decide(point, scores.double()).review)


def test_knots_that_float32_cannot_tell_apart_give_no_nan() -> None:
    knots = (0.0, 1.0, 1.0 + 1e-12, 2.0)
    calibration = Calibration(kind="isotonic", knots=knots, values=(0.0, 0.2, 0.4, 1.0))
    single = in_single_precision(WorkingPoint(0.5, calibration=calibration)).calibration
    assert single is not None
    scores = torch.tensor([-1.0, 0.5, 1.0, 1.5, 3.0])
    found = probability_of(single, scores)
    torch.testing.assert_close(found, torch.tensor([0.0, 0.2, 0.4, 0.7, 1.0]))


def test_the_graph_gives_what_follows_from_the_score(tiny: nn.Module, card: dict[str, Any]) -> None:
    image = np.random.default_rng(0).random((5, 3, 16, 16), dtype=np.float32)
    found = outputs_of(Graph(tiny, point_of(card)), image)
    score = torch.from_numpy(found["score"]).double()
    decided = decide(point_of(card), score)
    assert list(found) == [
        "score", "verdict", "review", "probability", "map", "probs", "part_mean"
    ]  # fmt: skip
    assert found["verdict"].tolist() == decided.anomalous.long().tolist()
    assert found["review"].tolist() == decided.review.long().tolist()
    assert found["probability"] == pytest.approx(decided.probability.numpy(), abs=1e-6)


def test_without_a_normal_class_there_is_no_score_to_decide_by(tiny: nn.Module) -> None:
    found = outputs_of(Graph(tiny, WorkingPoint(None)), vector_images(16))
    assert list(found) == ["map", "probs", "part_mean"]
    assert prediction_of(found).score.tolist() == [0, 0, 0]


def test_outputs_become_the_prediction_again(tiny: nn.Module, card: dict[str, Any]) -> None:
    image = torch.from_numpy(vector_images(16))
    want = tiny(image)
    got = prediction_of(outputs_of(Graph(tiny, point_of(card)), image.numpy()))
    assert torch.equal(got.score, want.score)
    assert torch.equal(got.map, want.map)
    assert torch.equal(got.probs, want.probs)
    assert torch.equal(got.parts["mean"], want.parts["mean"])


def test_the_test_images_are_those_of_the_formula() -> None:
    images = vector_images(9)
    for k, c, y, x in ((0, 0, 0, 0), (1, 2, 3, 4), (2, 1, 8, 8)):
        level = (7 * x * (k + 1) + 5 * y * (c + 1) + 31 * k * c) % 256
        assert images[k, c, y, x] == np.float32(level / 255)


def test_the_facts_are_json_and_name_the_weights(tiny: nn.Module, card: dict[str, Any]) -> None:
    graph = Graph(tiny, point_of(card))
    known = outputs_of(graph, vector_images(16))
    facts = json.loads(json.dumps(facts_of(tiny, card, point_of(card), "abc", known)))
    assert facts["weights_sha256"] == "abc"
    assert facts["threshold"] == 0.1
    assert facts["review"] == [0.05, 0.2]
    assert facts["map_top"] == 2.0
    assert len(facts["test_vectors"]["expected"]["score"]) == 3
    assert len(facts["test_vectors"]["expected"]["map_mean"]) == 3
