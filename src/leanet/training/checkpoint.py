"""Checkpoints as safetensors: tensors and their JSON metadata in one file, written atomically.

No pickle anywhere: optimiser state is flattened into named tensors, everything else is JSON.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from leanet.files import replacing

State = dict[str, Tensor]
WEIGHTS = "weights.safetensors"  # of anything trained, in its folder


def save(path: Path, tensors: State, metadata: dict[str, Any]) -> None:
    """Write tensors (any device, any memory format) and metadata."""
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        try:
            save_file(plain, temporary, {"json": json.dumps(metadata)})
        except SafetensorError as error:  # a full disk, for one
            raise OSError(f"cannot write {path}: {error}") from error


def load(path: Path) -> tuple[State, dict[str, Any]]:
    """Read what `save` wrote.

    Raises:
        ValueError: the file is no safetensors file of this package.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {})["json"])
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except Exception as error:
        raise ValueError(f"{path} is no weights file of leanet ({error})") from error


def under(prefix: str, tensors: State) -> State:
    """Put a prefix before every name."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def below(prefix: str, tensors: State) -> State:
    """The tensors under a prefix, without it."""
    start = f"{prefix}."
    return {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> State:
    """The state of an optimiser whose per-parameter state consists of tensors (Adam, SGD, ...)."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": value for index, entry in state.items() for name, value in entry.items()
    }


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: State) -> None:
    """Put back what `optimizer_tensors` gave; hyperparameters stay those of `optimizer`.

    Every tensor gets the memory format of its parameter: fused steps walk through both in storage
    order.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, State] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        parameter = parameters[int(index)]
        if value.shape == parameter.shape:
            value = torch.empty_like(parameter, dtype=value.dtype, device="cpu").copy_(value)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
