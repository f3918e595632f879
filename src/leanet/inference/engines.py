"""Exported files in the programs that run them.

All answer on the CPU in float32, with as many threads as PyTorch has been given: the same answer
counts more than the last bit of speed. Threads that share an image wait for each other at every
layer, so ONNX Runtime gets a large batch divided among the threads instead, by a second,
single-threaded copy of the program, opened when the first such batch comes (and as large).
"""

from __future__ import annotations

import importlib
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from leanet.inference.export_graph import FACTS, INPUT

Outputs = dict[str, NDArray[Any]]
Run = Callable[[NDArray[np.float32]], Outputs]
TORCH_FACTS = f"{FACTS}.json"
SHARE = 4  # images that a thread gets at least, where a batch is divided


class Session(NamedTuple):
    """An opened file: run(image [B, 3, S, S]) -> outputs by name, and the file's facts."""

    run: Run
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


def divided(whole: Run, single: Callable[[], Run], threads: int) -> Run:
    """`whole`, but batches of `SHARE` images for each thread and more go in equal parts to as many
    threads, each by what `single` opens: a call of one thread that may be made several times at
    once. Images keep their order."""
    if threads == 1:
        return whole
    pool, turn, opened = ThreadPoolExecutor(threads), threading.Lock(), list[Run]()

    def run(image: NDArray[np.float32]) -> Outputs:
        if len(image) < SHARE * threads:
            return whole(image)
        with turn:
            if not opened:
                opened.append(single())
        parts = list(pool.map(opened[0], np.array_split(image, threads)))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    return run


def open_onnx(file: Path) -> Session:
    """An ONNX file in ONNX Runtime. It is read once: who writes another one in its place changes
    nothing here."""
    runtime = need("onnxruntime")
    model = file.read_bytes()

    def opened(threads: int) -> Any:
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors
        return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def run_of(session: Any) -> Run:
        names = [output.name for output in session.get_outputs()]
        return lambda image: dict(zip(names, session.run(names, {INPUT: image}), strict=True))

    threads = torch.get_num_threads()
    session = opened(threads)
    facts = _facts(file, session.get_modelmeta().custom_metadata_map.get(FACTS))
    return Session(divided(run_of(session), lambda: run_of(opened(1)), threads), facts)


def open_openvino(file: Path) -> Session:
    """An OpenVINO model (.xml, with its .bin beside it). Its batches stay whole: two streams of it
    that were fed by threads of ours stood still now and then."""
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
