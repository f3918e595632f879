"""Weight files into networks: every difference is named, nothing is loaded in part by accident.

Reads safetensors, and PyTorch files with the restricted loader (`weights_only=True`: tensors, no
code). The names and shapes in the file must be those of the network, but for what is expected and
handled:

- another number of input channels: the first convolution is adapted as timm does;
- another number of classes, or no head: the whole head keeps its own initial weights;
- self-attention in the network and none in the file: it keeps its start;
- BatchNorm counters in the network and none in the file;
- timm's name `se` for the self-attention of a block, here `gate`.

Any other difference is a ValueError.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from leanet.networks.blocks import SelfAttention

WRAPPERS = ("state_dict", "model")  # names under which training programs store the weights


NAMED = 10  # differences of each kind in an error


class LoadReport(NamedTuple):
    """Names of tensors: taken from the file; in the file but left out (a head of another number of
    classes); of the network, not taken from the file (that head, self-attention)."""

    loaded: tuple[str, ...]
    skipped: tuple[str, ...]
    kept: tuple[str, ...]


def load_weights(module: nn.Module, path: Path, *, ignore_head: bool = True) -> LoadReport:
    """Load the weight file `path` into `module`, in place.

    `ignore_head`: the last layer with weights keeps its own ones if the file's are for another
    number of classes or absent. Self-attention that is not in the file keeps its start. Raises
    ValueError if the file cannot be read, any other tensor is missing, unexpected or of another
    shape (the first ten of each are named), or the file has gates of timm and the network the start
    `identity`, whose gates are twice as high.
    """
    return load_tensors(module, read_weights(path), source=str(path), ignore_head=ignore_head)


def require_file(path: Path) -> None:
    """Raise ValueError if there is no file of weights."""
    if not path.is_file():
        raise ValueError(f"no weight file at {path}: give a .safetensors, .pt or .pth file")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a .safetensors file or a PyTorch state dictionary, on the CPU.

    Raises ValueError if the file is absent, or is anything else than named tensors.
    """
    require_file(path)
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is no safetensors file: {error}") from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # broken files raise nearly anything inside the unpickler
        raise ValueError(
            f"{path} is no file of plain tensors (state dictionary), which is all that is read "
            f"from PyTorch files: save `model.state_dict()`, best as .safetensors"
        ) from error
    return _state_dict(content, path)


def _state_dict(content: object, path: Path) -> dict[str, Tensor]:
    if isinstance(content, Mapping):
        content = next((content[key] for key in WRAPPERS if key in content), content)
    if isinstance(content, Mapping) and all(isinstance(v, Tensor) for v in content.values()):
        return dict(content)
    raise ValueError(f"{path} holds no state dictionary: save `model.state_dict()`")


def load_tensors(
    module: nn.Module, tensors: Mapping[str, Tensor], *, source: str, ignore_head: bool = True
) -> LoadReport:
    """Load named tensors into `module`, in place, as `load_weights` does; `source` names them in
    errors."""
    own = module.state_dict()
    given = _adapt_first_conv(module, _timm_gates(module, tensors, source))
    counters = {name for name in own if name.endswith("num_batches_tracked")}
    kept = set(counters) if counters.isdisjoint(given) else set()
    attention = _attention_names(module)
    if attention.isdisjoint(given):
        kept |= attention
    if ignore_head:
        kept |= _differing_head(module, own, given)
    used = {name: tensor for name, tensor in given.items() if name not in kept}
    differences = _differences({k: v for k, v in own.items() if k not in kept}, used)
    if differences:
        raise ValueError(f"the weights of {source} do not fit: {differences}")
    module.load_state_dict({**own, **used})
    return LoadReport(
        tuple(used),
        tuple(name for name in given if name in kept),
        tuple(name for name in own if name in kept - counters),
    )


def adapt_input_conv(weight: Tensor, in_chans: int) -> Tensor:
    """Fit RGB convolution weights [O, 3, K, K] to `in_chans` channels -> [O, in_chans, K, K].

    One channel: the sum over RGB, which equals feeding a gray image three times. More: RGB
    repeated in order and scaled by 3 / in_chans, which keeps the size of the output.
    """
    if in_chans == 1:
        return weight.sum(dim=1, keepdim=True)
    repeated = weight.repeat(1, math.ceil(in_chans / 3), 1, 1)[:, :in_chans]
    return repeated * (3 / in_chans)


def _adapt_first_conv(module: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    given = dict(tensors)
    name, first = _weighted_layers(module)[0]
    shape = _shape(given.get(f"{name}.weight")) or ()
    if isinstance(first, nn.Conv2d) and len(shape) == 4 and shape[1] == 3 != first.in_channels:
        given[f"{name}.weight"] = adapt_input_conv(given[f"{name}.weight"], first.in_channels)
    return given


def _timm_gates(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """layer1.0.se.fc1.weight is layer1.0.gate.fc1.weight in a network that has such a module."""
    gates = {n: m for n, m in module.named_modules() if isinstance(m, SelfAttention)}
    renamed = {}
    for name, tensor in tensors.items():
        block, found, rest = name.partition(".se.")
        gate = gates.get(f"{block}.gate") if found else None
        if getattr(gate, "scale", 1.0) != 1.0:
            raise ValueError(
                f"the weights of {source} hold trained gates ({name}), and the network has the "
                f"start 'identity', which doubles them: choose the start 'paper'"
            )
        renamed[f"{block}.gate.{rest}" if gate else name] = tensor
    return renamed


def _attention_names(module: nn.Module) -> set[str]:
    """The names of all tensors inside self-attention modules."""
    return {
        f"{prefix}.{name}"
        for prefix, part in module.named_modules()
        if isinstance(part, SelfAttention)
        for name in part.state_dict()
    }


def _differing_head(
    module: nn.Module, own: Mapping[str, Tensor], given: Mapping[str, Tensor]
) -> set[str]:
    """All names of the last layer if it is absent or has another number of outputs, otherwise the
    same shapes."""
    last, _ = _weighted_layers(module)[-1]
    head = {name for name in own if name.startswith(f"{last}.")}
    absent = head.isdisjoint(given)
    outputs = {given[name].shape[:1] for name in head if name in given}
    same_inputs = all(_shape(given.get(name), 1) == own[name].shape[1:] for name in head)
    others = same_inputs and len(outputs) == 1 and outputs != {own[n].shape[:1] for n in head}
    return head if absent or others else set()


def _weighted_layers(module: nn.Module) -> list[tuple[str, nn.Module]]:
    layers = [
        (name, layer)
        for name, layer in module.named_modules()
        if name and isinstance(getattr(layer, "weight", None), Tensor)
    ]
    if not layers:
        raise ValueError(f"{type(module).__name__} has no weights to load")
    return layers


def _differences(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    shapes = [
        f"{name} {tuple(given[name].shape)} for {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in given and given[name].shape != tensor.shape
    ]
    found = {
        "missing": [name for name in own if name not in given],
        "unexpected": [name for name in given if name not in own],
        "shape": shapes,
    }
    return "; ".join(f"{len(v)} {k}: {', '.join(v[:NAMED])}" for k, v in found.items() if v)


def _shape(tensor: Tensor | None, start: int = 0) -> torch.Size | None:
    return None if tensor is None else tensor.shape[start:]
