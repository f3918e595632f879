"""Checkpoints of anomalib, read without running anything that stands in them.

Since 2.7 anomalib writes plain data: tensors, the constructor's arguments, and the transform before
the network as class names with arguments. Beside numbers and text there are enumerations of
anomalib itself, which it names as safe; the restricted loader takes these and nothing else. Older
checkpoints hold whole objects and are refused.

The network is built by the class of the Lightning module that it belongs to, with the same
arguments but for `pre_trained`, since all its weights come from the file. anomalib is imported when
one of these functions is called, not before: it takes seconds.
"""

from __future__ import annotations

import enum
import hashlib
import importlib
import inspect
import json
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from leanet.config import nearest

INSTALL = "pip install 'leanet[anomalib]'"
AROUND = ("post_processor", "evaluator", "visualizer")  # parts that are left out
NETWORK = "model."  # before the names of its tensors
PLAIN = ("Normalize", "Grayscale")  # transforms that keep every pixel in its place
CROPS = ("CenterCrop", "ExportableCenterCrop")
DIGITS = 16  # of a digest: 64 bits tell the images of a data set apart


class Taken(NamedTuple):
    """Of a checkpoint: the network's tensors, what `build_network` and `build_transform` need
    (JSON), and the version of anomalib that read it."""

    tensors: dict[str, Tensor]
    extra: dict[str, Any]
    version: str


def read_checkpoint(file: Path, model: str) -> Taken:
    """Read the checkpoint of a model class of anomalib, such as Patchcore.

    Raises:
        ValueError: anomalib is not installed or has no such class, or `file` is absent, is no
            checkpoint of plain data, has not been fitted, or does not fit the class.
    """
    made = _class(model)
    content = _plain_content(file, made)
    state, arguments = content["state_dict"], _json(content["hyper_parameters"], file)
    if not bool(state.get("_is_fitted", torch.tensor(True)).all()):
        raise ValueError(f"{file} was saved before its model was fitted; train it first")
    tensors = {k.removeprefix(NETWORK): v for k, v in state.items() if k.startswith(NETWORK)}
    if "pre_trained" in arguments:
        arguments["pre_trained"] = False
    transform = _transform_in(content, file)
    fresh = _network(model, arguments, transform).state_dict()
    extra = {
        "arguments": arguments,
        "transform": transform,
        "shapes": {
            name: list(tensor.shape)
            for name, tensor in tensors.items()
            if name in fresh and fresh[name].shape != tensor.shape
        },
    }
    if differing := sorted(fresh.keys() ^ tensors.keys()):
        listed = ", ".join(differing[:5])
        raise ValueError(f"{file} is no checkpoint of {model}: {len(differing)} differ ({listed})")
    return Taken(tensors, extra, str(_package().__version__))


def build_network(model: str, extra: Mapping[str, Any]) -> nn.Module:
    """The network without its weights, from `Taken.extra`. Buffers that only fitting gives a size,
    such as a bank of features, get theirs."""
    network = _network(model, extra["arguments"], extra["transform"])
    for name, shape in extra["shapes"].items():
        owner, _, attribute = name.rpartition(".")
        part = network.get_submodule(owner)
        if attribute not in part._buffers:
            raise ValueError(f"{name} of {model} has shape {list(shape)} in the checkpoint only")
        old = part.get_buffer(attribute)
        part.register_buffer(attribute, torch.empty(tuple(shape), dtype=old.dtype))
    return network.eval()


def build_transform(spec: dict[str, Any] | None) -> tuple[nn.Module, float]:
    """What an image [B, 3, S, S] in [0, 1] passes before the network, and which share of each side
    of it the network sees. Raises ValueError for a transform that moves pixels otherwise."""
    # not what a pre-processor calls when it is exported: that resizes without antialiasing
    return _pre_processor(spec).transform or nn.Identity(), covered(spec)


def covered(spec: dict[str, Any] | None) -> float:
    """The share of each side of a square image that a stored transform keeps.

    >>> resize = {"class_path": "v2.Resize", "init_args": {"size": [256, 256]}}
    >>> crop = {"class_path": "v2.CenterCrop", "init_args": {"size": [224, 224]}}
    >>> covered({"class_path": "v2.Compose", "init_args": {"transforms": [resize, crop]}})
    0.875

    Raises ValueError for a transform that is not a square resize, a center crop after it, or one
    that leaves pixels in place.
    """
    share, side = 1.0, 0
    for step in _steps(spec):
        name = step["class_path"].rpartition(".")[2]
        if name in PLAIN:
            continue
        height, width = _pair(step["init_args"].get("size"))
        crops = name in CROPS and side >= height
        if height != width or not (crops or name == "Resize"):
            raise ValueError(
                f"the checkpoint's transform has {name} {height} x {width}; images are squares "
                "here, so only a resize to a square, a center crop inside it, Normalize and "
                "Grayscale can be taken over"
            )
        share, side = share * (height / side if crops else 1.0), height
    return share


def digest(path: Path) -> str:
    """Tells an image file by its bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:DIGITS]


def _package(part: str = "") -> Any:
    try:
        return importlib.import_module(f"anomalib.{part}" if part else "anomalib")
    except ImportError as error:
        raise ValueError(f"this needs anomalib ({error}): {INSTALL}") from error


def _class(model: str) -> Any:
    models = _package("models")
    base = _package("models.components").AnomalibModule
    known = {n: c for n, c in vars(models).items() if inspect.isclass(c) and issubclass(c, base)}
    if model not in known:
        raise ValueError(
            f"anomalib has no model {model!r}{nearest(model, known)}; it has {', '.join(known)}"
        )
    return known[model]


def _pre_processor(spec: Mapping[str, Any] | None) -> Any:
    made = _package("pre_processing").PreProcessor()
    made.load_checkpoint_config({"transform": spec})
    return made


def _network(model: str, arguments: Mapping[str, Any], spec: Mapping[str, Any] | None) -> nn.Module:
    """Built under a random stream of its own, since the weights that it draws are replaced anyway.
    Some networks take their size from the pre-processor."""
    made, before = _class(model), False if spec is None else _pre_processor(spec)
    try:
        with torch.random.fork_rng():
            around = {**dict.fromkeys(AROUND, False), "pre_processor": before}
            network: nn.Module = made(**arguments, **around).model
    except Exception as error:  # whatever a constructor of 33 models raises
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"anomalib cannot build {model} from the arguments in the checkpoint: {reason}\n"
            "Some of its models fetch weights while they are built: these must be in its cache, or "
            "the network within reach."
        ) from error
    return network


def _plain_content(file: Path, made: Any) -> dict[str, Any]:
    if not file.is_file():
        raise ValueError(f"no checkpoint at {file}; give the .ckpt file that anomalib wrote")
    safe = _package("utils.serialization").anomalib_safe_globals
    try:
        with safe(extra=made.checkpoint_safe_globals()):
            content = torch.load(file, map_location="cpu", weights_only=True)
        if not {"state_dict", "hyper_parameters", "anomalib_components_enabled"} <= set(content):
            raise ValueError("parts are missing")
    except Exception as error:  # broken files raise nearly anything inside the unpickler
        raise ValueError(
            f"{file} is no Lightning checkpoint of plain data, which is what anomalib writes since "
            "2.7 and all that is read; train the model again, or load and save it there"
        ) from error
    return dict(content)


def _transform_in(content: Mapping[str, Any], file: Path) -> dict[str, Any] | None:
    """The stored transform; None for a model that takes images as they are."""
    if not content["anomalib_components_enabled"].get("pre_processor", True):
        return None
    spec = (content.get("anomalib_pre_processor_config") or {}).get("transform")
    if spec is None:
        raise ValueError(
            f"{file} does not say how its images were resized and normalized: anomalib stores only "
            "Resize, CenterCrop, Normalize and the like; train with such a pre-processor"
        )
    return dict(spec)


def _json(arguments: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """Constructor arguments as JSON; enumerations as their values, which the classes take too."""

    def plain(value: Any) -> Any:
        if isinstance(value, enum.Enum):
            return value.value
        if isinstance(value, PurePath):
            return str(value)
        raise TypeError(f"{type(value).__name__} is no plain value")

    try:
        return dict(json.loads(json.dumps(dict(arguments), default=plain)))
    except TypeError as error:
        raise ValueError(f"{file} holds arguments that cannot be stored: {error}") from error


def _steps(spec: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    if spec is None:
        return []
    inside = spec["init_args"].get("transforms")
    return [dict(spec)] if inside is None else [one for part in inside for one in _steps(part)]


def _pair(size: Any) -> tuple[int, int]:
    """(height, width) of a size as torchvision writes it; (0, -1) for what is none."""
    numbers = [size] if isinstance(size, int) else list(size or ())
    return (numbers[0], numbers[-1]) if numbers else (0, -1)
