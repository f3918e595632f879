"""The model that answers, and what makes it answer otherwise."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from leanet.serve.live import Live, judge_pictures, open_model
from leanet.trained import read_card, update_card


@pytest.fixture
def run(lea_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(lea_run, tmp_path / "run")


def test_a_threshold_that_was_set_meanwhile_counts_from_the_next_request_on(run: Path) -> None:
    live = Live(open_model(run, "original"))
    picture = np.zeros((live.model.detector.img_size,) * 2 + (3,), np.uint8)
    score = judge_pictures(live.model, [picture])[0].score
    assert score is not None
    for threshold, verdict in ((score - 1, "anomalous"), (score + 1, "normal")):
        update_card(run, threshold={**read_card(run)["threshold"], "value": threshold})
        assert judge_pictures(live.model, [picture])[0].verdict == verdict


def test_a_run_that_is_gone_answers_on(run: Path) -> None:
    live = Live(open_model(run, "original"))
    shutil.rmtree(run)
    assert live.model.name == "original"


def test_a_retrained_model_without_an_export_answers_with_torch_but_the_original_refuses(
    run: Path,
) -> None:
    assert open_model(run, "001", engine="onnx", or_torch=True).engine == "torch"
    with pytest.raises(ValueError, match="leanet export"):
        open_model(run, "original", engine="onnx")
