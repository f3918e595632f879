"""Exported files in the programs that run them.

All answer on the CPU in float32, with as many threads as PyTorch has been given: the same answer
counts more than the last bit of speed.
"""

from __future__ import annotations

import importlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from leanet.inference.export_graph import FACTS, INPUT

Outputs = dict[str, NDArray[Any]]
TORCH_FACTS = f"{FACTS}.json"


class Session(NamedTuple):
    """An opened file: run(image [B, 3, S, S]) -> outputs by name, and the file's facts."""

    run: Callable[[NDArray[np.float32]], Outputs]
    facts: dict[str, Any]


def need(module: str) -> Any:
    """A module of the extra `export`.

    Raises:
        ValueError: it is not installed; says how to.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(
            f"{module} is not installed; install it with: pip install 'leanet[export]'"
        ) from error


def open_onnx(file: Path) -> Session:
    """An ONNX file in ONNX Runtime."""
    runtime = need("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    session = runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    facts = _facts(file, session.get_modelmeta().custom_metadata_map.get(FACTS))
    names = [output.name for output in session.get_outputs()]

    def run(image: NDArray[np.float32]) -> Outputs:
        return dict(zip(names, session.run(names, {INPUT: image}), strict=True))

    return Session(run, facts)


def open_openvino(file: Path) -> Session:
    """An OpenVINO model (.xml, with its .bin beside it)."""
    openvino = need("openvino")
    model = openvino.Core().read_model(file)
    stored = model.get_rt_info([FACTS]).astype(str) if model.has_rt_info([FACTS]) else None
    how = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    request = openvino.compile_model(model, "CPU", how).create_infer_request()
    facts = _facts(file, stored)
    turn = threading.Lock()  # a request serves one caller at a time

    def run(image: NDArray[np.float32]) -> Outputs:
        with turn:
            found = request.infer({INPUT: image})
        return {name: found[name] for name in facts["outputs"]}

    return Session(run, facts)


def open_torch(file: Path) -> Session:
    """A program of torch.export (.pt2)."""
    kept = {TORCH_FACTS: ""}
    module = torch.export.load(file, extra_files=kept).module()

    @torch.inference_mode()
    def run(image: NDArray[np.float32]) -> Outputs:
        return {name: v.numpy() for name, v in module(torch.from_numpy(image)).items()}

    return Session(run, _facts(file, kept[TORCH_FACTS]))


def _facts(file: Path, stored: Any) -> dict[str, Any]:
    if not stored:
        raise ValueError(f"{file} was not written by `leanet export`: it says nothing about itself")
    return dict(json.loads(stored))


OPEN: dict[str, Callable[[Path], Session]] = {
    "onnx": open_onnx,
    "onnx_int8": open_onnx,
    "openvino": open_openvino,
    "torch": open_torch,
}
