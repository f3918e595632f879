"""Weight files into networks: every difference is named, nothing is loaded in part by accident.

Reads safetensors, and PyTorch files with the restricted loader (`weights_only=True`: tensors, no
code). Three differences are expected and handled: another number of input channels (the first
convolution is adapted as timm does), another number of classes (the head keeps its own initial
weights), and self-attention in the network but not in the file (it keeps its start). Any other
difference is a ValueError.
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


class LoadReport(NamedTuple):
    """Names of tensors: taken from the file, and in the file but left out (the head)."""

    loaded: tuple[str, ...]
    skipped: tuple[str, ...]


def load_weights(module: nn.Module, path: Path, *, ignore_head: bool = True) -> LoadReport:
    """Load the weight file `path` into `module`, in place.

    `ignore_head`: the last layer with weights keeps its own ones if the file's differ in shape or
    are absent. Self-attention that is not in the file keeps its start. Raises ValueError if the
    file cannot be read or any other tensor is missing, unexpected or of another shape (the first
    five of each are named).
    """
    return load_tensors(module, read_weights(path), source=str(path), ignore_head=ignore_head)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a .safetensors file or a PyTorch state dictionary, on the CPU.

    Raises ValueError if the file is absent, or is anything else than named tensors.
    """
    if not path.is_file():
        raise ValueError(f"no weight file at {path}: give a .safetensors, .pt or .pth file")
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
    given = _adapt_first_conv(module, tensors)
    kept = {name for name in own if name.endswith("num_batches_tracked") and name not in given}
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
    return LoadReport(tuple(used), tuple(name for name in given if name in kept))


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
    """All names of the last layer if any of its tensors is absent or of another shape."""
    last, _ = _weighted_layers(module)[-1]
    head = {name for name in own if name.startswith(f"{last}.")}
    fits = all(_shape(given.get(name)) == own[name].shape for name in head)
    return set() if fits else head


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
    return "; ".join(f"{len(v)} {k}: {', '.join(v[:5])}" for k, v in found.items() if v)


def _shape(tensor: Tensor | None) -> torch.Size | None:
    return None if tensor is None else tensor.shape
