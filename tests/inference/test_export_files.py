from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from leanet.inference import export_files
from leanet.inference.export_files import traced, write
from leanet.inference.export_graph import Graph
from leanet.methods.given_maps import GivenMaps
from leanet.ops.working_point import WorkingPoint

FACTS = {"outputs": ["score"]}


def test_a_program_takes_any_number_of_images(tiny: nn.Module) -> None:
    graph = Graph(tiny, WorkingPoint(0.5))
    program = traced(graph, 16).module()
    for num in (1, 2, 9):
        image = torch.rand(num, 3, 16, 16)
        assert torch.equal(program(image)["score"], graph(image)["score"])


def test_a_program_notes_no_lines_of_source(tiny: nn.Module) -> None:
    program = traced(Graph(tiny, WorkingPoint(0.5)), 16)
    assert [node for node in program.graph.nodes if "stack_trace" in node.meta] == []


def test_maps_from_a_folder_cannot_be_exported() -> None:
    with pytest.raises(ValueError, match="its maps come from a folder"):
        traced(Graph(GivenMaps(16, "distance"), WorkingPoint(0.5)), 16)


def test_what_onnx_cannot_hold_is_refused(
    tiny: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = traced(Graph(tiny, WorkingPoint(0.5)), 16)
    monkeypatch.setattr(export_files, "need", lambda module: None)
    monkeypatch.setattr(export_files, "MOST_BYTES", 100)
    with pytest.raises(ValueError, match="an ONNX file at most 2 GB"):
        write(program, "onnx", tmp_path, FACTS)


def test_a_missing_package_is_named(
    tiny: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = traced(Graph(tiny, WorkingPoint(0.5)), 16)

    def absent(name: str, *others: Any) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(ValueError, match="onnxscript is not installed"):
        write(program, "onnx", tmp_path, FACTS)
