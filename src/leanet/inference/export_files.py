"""A detector's graph as files: ONNX, OpenVINO, torch.export.

The batch is a dynamic dimension, everything else is fixed. Files hold no paths of the machine that
wrote them: what tracing notes of source lines is removed.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from leanet.inference.engines import TORCH_FACTS, need
from leanet.inference.export_graph import FACTS, INPUT, Format

OPSET = 20
MOST_IMAGES = 4096  # in a batch of a torch.export program
MOST_BYTES = 2_000_000_000  # of an ONNX file, which is one message of protobuf
NAMES: dict[Format, tuple[str, ...]] = {
    "onnx": ("model.onnx",),
    "openvino": ("model.bin", "model.xml"),  # the last one is what is opened
    "torch": ("model.pt2",),
}


def traced(graph: nn.Module, img_size: int) -> torch.export.ExportedProgram:
    """The graph of a detector as a program, for any number of images.

    Raises:
        ValueError: the detector does something that no graph can hold.
    """
    reason = next((why for part in graph.modules() if (why := _why_not(part))), "")
    if reason:
        raise ValueError(f"this detector cannot be exported: {reason}")
    batch = torch.export.Dim("batch", min=1, max=MOST_IMAGES)
    example = torch.rand(2, 3, img_size, img_size)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(graph, (example,), dynamic_shapes=({0: batch},))
    except ValueError as error:  # its own words
        raise ValueError(f"this detector cannot be exported: {error}") from error
    except Exception as error:  # whatever the code that is traced may raise
        raise ValueError(
            f"this detector cannot be exported; torch says: {_short(error)}"
        ) from error
    for module in (program.graph_module, *program.graph_module.modules()):
        for node in getattr(getattr(module, "graph", None), "nodes", ()):
            node.meta.pop("stack_trace", None)
    return program


def write(
    program: torch.export.ExportedProgram, kind: Format, folder: Path, facts: dict[str, Any]
) -> Path:
    """Write the files of a format (`NAMES`) into a folder; returns the one to open.

    Raises:
        ValueError: a missing package, or a detector that the format cannot hold.
    """
    file = folder / NAMES[kind][-1]
    text = json.dumps(facts)
    if kind == "torch":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.export.save(program, file, extra_files={TORCH_FACTS: text})
        return file
    onnx_file = folder / NAMES["onnx"][-1]
    _write_onnx(program, onnx_file, text, facts["outputs"])
    if kind == "openvino":
        _write_openvino(onnx_file, file, text)
        onnx_file.unlink()
    return file


def _write_onnx(
    program: torch.export.ExportedProgram, file: Path, text: str, outputs: list[str]
) -> None:
    need("onnxscript")
    onnx = need("onnx")
    size = sum(tensor.nbytes for tensor in program.state_dict.values())
    if size > MOST_BYTES:
        raise ValueError(
            f"this detector holds {size / 1e9:.1f} GB and an ONNX file at most 2 GB; use "
            "--format torch, or train a smaller one (fewer channels, a smaller bank or img_size)"
        )
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = torch.onnx.export(
                program, dynamo=True, opset_version=OPSET, input_names=[INPUT],
                output_names=outputs, verbose=False,
            )  # fmt: skip
    except torch.onnx.OnnxExporterError as error:
        raise ValueError(
            f"this detector cannot be written as ONNX; the exporter says: {_short(error)}"
        ) from error
    assert made is not None
    model = made.model_proto
    for part in (*model.graph.node, *(n for f in model.functions for n in f.node), model.graph):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        value.ClearField("metadata_props")
    onnx.helper.set_model_props(model, {FACTS: text})
    onnx.checker.check_model(model)
    file.write_bytes(model.SerializeToString())


def _write_openvino(onnx_file: Path, file: Path, text: str) -> None:
    openvino = need("openvino")
    model = openvino.convert_model(onnx_file)
    model.set_rt_info(text, [FACTS])
    openvino.save_model(model, file, compress_to_fp16=False)


def _why_not(part: nn.Module) -> str:
    """Why a part of a detector cannot leave PyTorch, where it says so."""
    return str(getattr(part, "not_exportable", ""))


def _short(error: BaseException) -> str:
    return " ".join(str(error.__cause__ or error).split())[:300]
