from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from leanet.data.generated import sha256_of
from leanet.inference import exported
from leanet.inference.engines import Session
from leanet.inference.export_graph import Graph, facts_of, outputs_of, vector_images
from leanet.inference.exported import ExportedDetector, open_exported
from leanet.ops.working_point import point_of

Opened = Callable[[str], ExportedDetector]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "weights").write_bytes(b"weights")
    (tmp_path / "model.onnx").touch()
    return tmp_path


@pytest.fixture
def opened(
    run: Path, tiny: nn.Module, card: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> Opened:
    """opened("onnx") -> `tiny`, as if it lay in the file model.onnx."""
    graph = Graph(tiny, point_of(card))
    known = outputs_of(graph, vector_images(16))
    facts = facts_of(tiny, card, point_of(card), sha256_of(run / "weights"), known)  # type: ignore[arg-type]
    session = Session(lambda image: outputs_of(graph, image), facts)
    monkeypatch.setitem(exported.OPEN, "onnx", lambda file: session)
    card["exports"] = {"onnx": {"file": "model.onnx"}}
    return lambda engine: open_exported(run, engine, card, run / "weights")


def test_it_has_the_facts_of_the_detector(opened: Opened, tiny: nn.Module) -> None:
    detector = opened("onnx")
    for name in ("img_size", "classes", "map_unit", "map_top", "map_low", "map_border"):
        assert getattr(detector, name) == getattr(tiny, name)
    assert detector.map_thresholds == {"honest": 1.0}


def test_it_judges_images_of_any_layout_in_memory(opened: Opened, tiny: nn.Module) -> None:
    image = torch.rand(2, 3, 16, 16).to(memory_format=torch.channels_last)
    torch.testing.assert_close(opened("onnx")(image).score, tiny(image).score)


def test_nothing_exported_is_said_with_the_command_to_do_it(opened: Opened) -> None:
    with pytest.raises(ValueError, match=r"no export for openvino; write it with .*--format open"):
        opened("openvino")
    with pytest.raises(ValueError, match="--int8 --data DATA"):
        opened("onnx_int8")


def test_a_file_that_has_gone_is_missed(opened: Opened, run: Path) -> None:
    (run / "model.onnx").unlink()
    with pytest.raises(ValueError, match="has gone; write it again"):
        opened("onnx")


def test_a_file_of_other_weights_is_refused(opened: Opened, run: Path) -> None:
    (run / "weights").write_bytes(b"trained again")
    with pytest.raises(ValueError, match=r"other weights than the run has now.*--overwrite"):
        opened("onnx")


def test_a_file_that_was_damaged_is_refused(opened: Opened, tiny: nn.Module) -> None:
    nn.init.zeros_(tiny.layer.weight)  # type: ignore[union-attr, arg-type]
    with pytest.raises(ValueError, match="does not give the answers that it was written with"):
        opened("onnx")
