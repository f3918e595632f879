"""Weights of a DC-GAN into CAVGA's networks: layers are told by their shapes and their order.

Whoever trained a DC-GAN gave its layers names of their own, but every one of 64 px has the same
convolutions in the same order:

    discriminator   [64, 3] [128, 64] [256, 128] [512, 256] [1, 512]       -> encoder, discriminator
    generator       [100, 512] [512, 256] [256, 128] [128, 64] [64, 3]     -> decoder, but the first

A file may hold one of the two or both. BatchNorm goes along with its statistics, in its own order.
The encoder takes all of the discriminator but the last layer. The first layer of the generator
draws a 4x4 grid from noise and has no place behind a spatial latent: it is left out together with
the BatchNorm behind it, whose statistics are those of its outputs.

In PyTorch files the order is that in which the tensors stand; .safetensors files are stored in
another order, so there the names decide, with numbers counted as numbers (main.2 before main.10).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from leanet.networks.dcgan import Decoder, Discriminator, Encoder
from leanet.networks.weights import NAMED, read_weights

WEIGHTS = "weights.safetensors"  # in a run of `leanet fit dcgan`
NORM = ("weight", "bias", "running_mean", "running_var")
COUNTER = "num_batches_tracked"
FIRST = (512, 4, 4)  # outputs and kernel of the generator's first layer

Tensors = Mapping[str, Tensor]


class DcganReport(NamedTuple):
    """Names of tensors: of our networks, taken from the file ("encoder.0.weight"); in the file and
    left out, with their shapes; and those of our networks that the file has nothing for."""

    loaded: tuple[str, ...]
    skipped: tuple[str, ...]
    kept: tuple[str, ...]

    def text(self) -> str:
        """One line for people, at most ten names of what was left out."""
        counts = dict.fromkeys(("encoder", "decoder", "discriminator"), 0)
        for name in self.loaded:
            counts[name.partition(".")[0]] += 1
        told = [f"{name} ({count} tensors)" for name, count in counts.items() if count]
        parts = [f"pretrained {', '.join(told)}"]
        if self.kept:
            parts.append(f"random start of the {' and the '.join(self.kept)}: not in the file")
        if self.skipped:
            parts.append(f"left out of the file: {_named(self.skipped)}")
        return "; ".join(parts)


class _Layer(NamedTuple):
    """The shape of a layer's first tensor, and the names of all its tensors, by their last part."""

    shape: tuple[int, ...]
    names: Mapping[str, str]


def load_dcgan(
    path: Path,
    *,
    encoder: Encoder | None,
    decoder: Decoder | None,
    discriminator: Discriminator | None,
) -> DcganReport:
    """Load a DC-GAN into the networks that are given, in place, on whatever device they are.

    `path`: a run folder of `leanet fit dcgan`, or a file (.safetensors, or a PyTorch state
    dictionary) that holds a discriminator, a generator or both, under any names. A network that the
    file has nothing for keeps its start, which the report says.

    Raises ValueError if the file cannot be read, fits none of the networks, or holds other
    convolutions than a network without weights in it needs (both are listed, ten layers at most).
    Nothing is loaded then.
    """
    file = weights_file(path)
    given = _in_layer_order(read_weights(file), by_name=file.suffix == ".safetensors")
    networks = {"encoder": encoder, "decoder": decoder, "discriminator": discriminator}
    targets = {name: network for name, network in networks.items() if network is not None}
    matches = {name: _match(network.state_dict(), given) for name, network in targets.items()}
    fitting = {name: match for name, match in matches.items() if match}
    absent = {name: network for name, network in targets.items() if name not in fitting}
    used = {name for match in fitting.values() for name in match.values()}
    rest = {name: tensor for name, tensor in given.items() if name not in used}
    if not fitting or (absent and any(map(_is_unexplained, rest.values()))):
        raise ValueError(_misfit(file, absent, given))
    for name, match in fitting.items():
        own = targets[name].state_dict()
        targets[name].load_state_dict({**own, **{key: given[match[key]] for key in match}})
    return DcganReport(
        loaded=tuple(f"{name}.{key}" for name, match in fitting.items() for key in match),
        skipped=tuple(f"{name} {list(tensor.shape)}" for name, tensor in rest.items()),
        kept=tuple(absent),
    )


def weights_file(path: Path) -> Path:
    """The weights of a run folder of `leanet fit dcgan`, or the file itself.

    Raises ValueError for a folder without weights.
    """
    if path.is_dir() and not (path / WEIGHTS).is_file():
        raise ValueError(
            f"{path} holds no {WEIGHTS}: give a finished run of `leanet fit dcgan`, or a file"
        )
    return path / WEIGHTS if path.is_dir() else path


def _in_layer_order(tensors: Tensors, *, by_name: bool) -> dict[str, Tensor]:
    def key(name: str) -> list[tuple[int, int, str]]:
        parts = re.split(r"(\d+)", name)
        return [(1, int(one), "") if odd % 2 else (0, 0, one) for odd, one in enumerate(parts)]

    return {name: tensors[name] for name in (sorted(tensors, key=key) if by_name else tensors)}


def _match(own: Tensors, given: Tensors) -> dict[str, str] | None:
    """For every name of our network that of the file; None unless all layers are there."""
    names: dict[str, str] = {}
    for layers in (_convolutions, _norms):
        wanted, offered = layers(own), layers(given)
        start = _first_fit(wanted, offered)
        if start is None:
            return None
        for one, other in zip(wanted, offered[start:], strict=False):
            names |= {one.names[k]: other.names[k] for k in one.names if k in other.names}
    return names


def _first_fit(wanted: Sequence[_Layer], offered: Sequence[_Layer]) -> int | None:
    shapes = [one.shape for one in wanted]
    for start in range(len(offered) - len(wanted) + 1):
        if [one.shape for one in offered[start : start + len(wanted)]] == shapes:
            return start
    return None


def _convolutions(tensors: Tensors) -> list[_Layer]:
    """All tensors of four dimensions: nothing but the weights of a convolution has them."""
    return [
        _Layer(tuple(tensor.shape), {"weight": name})
        for name, tensor in tensors.items()
        if tensor.dim() == 4
    ]


def _norms(tensors: Tensors) -> list[_Layer]:
    """The layers that have all tensors of a BatchNorm."""
    found = []
    for name, tensor in tensors.items():
        prefix, dot, leaf = name.rpartition(".")
        names = {k: f"{prefix}{dot}{k}" for k in (*NORM, COUNTER) if f"{prefix}{dot}{k}" in tensors}
        if leaf == "running_mean" and set(NORM) <= set(names):
            found.append(_Layer(tuple(tensor.shape), names))
    return found


def _is_unexplained(tensor: Tensor) -> bool:
    """A convolution that is not the first layer of a generator, which is left out in any case."""
    return tensor.dim() == 4 and (tensor.shape[0] == 1 or tensor.shape[1:] != FIRST)


def _misfit(file: Path, networks: Mapping[str, nn.Module], given: Tensors) -> str:
    """What these networks need and what the file has, its first ten layers of each kind."""

    def shapes(layers: Sequence[_Layer]) -> str:
        return " ".join(str(list(one.shape)) for one in layers)

    def listed(layers: Sequence[_Layer]) -> str:
        return _named([f"{next(iter(n.names.values()))} {list(n.shape)}" for n in layers]) or "none"

    lines = [f"the weights of {file} are not those of a DC-GAN of 64 px"]
    for name, network in networks.items():
        own = network.state_dict()
        needed = f"convolutions {shapes(_convolutions(own))}, BatchNorms {shapes(_norms(own))}"
        lines.append(f"{name}: needs, one after the other, {needed}")
    lines.append(f"the file has the convolutions {listed(_convolutions(given))}")
    lines.append(f"and the BatchNorms {listed(_norms(given))}")
    return "\n".join(lines)


def _named(texts: Sequence[str]) -> str:
    more = f", and {len(texts) - NAMED} more" if len(texts) > NAMED else ""
    return ", ".join(texts[:NAMED]) + more
