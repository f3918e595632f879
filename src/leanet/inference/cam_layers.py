"""The layers of a network that can be explained: their names, their grids, and how to tap them.

A layer is a module, by its name in `named_modules`, or a stage of a network that is run stage by
stage (it has `strides`, `stage(index, x)` and `head(x)`), by one of these names:

    stage0, stage1, ...   what stage 0, 1, ... gives
    point0 ... point4     what goes on behind the last stage of stride 2, 4, 8, 16, 32, into the
                          next stage or the head; in LEA-Net this is after the fusion with the map
                          (guided attention pools what the stages give: stage0, stage1, ...)

If such networks are parts of a larger one, their names stand in front (`adn.stage3`,
`aan.stage2`), and the first of them also answers without.

A network may be frozen, in training mode or inside `no_grad`: tapping changes none of it.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

Change = Callable[[Any], Any]
"""What passes a tap -> what goes on instead of it."""

SMALLEST_GRID = 2  # a map of one cell shows no place


class Tap(NamedTuple):
    """A place in a network. `stage` is None for the output of `module` itself; for a staged module
    it is the stage whose output is meant, or, with `after`, what goes on behind it."""

    name: str
    module: nn.Module
    stage: int | None = None
    after: bool = False


class Layer(NamedTuple):
    """A layer that ran: shape (C, h, w) for one image, input pixels per cell (down, across), and
    the adapter that makes its output a map ("" = none needed)."""

    name: str
    shape: tuple[int, int, int]
    stride: tuple[float, float]
    adapter: str = ""

    def __str__(self) -> str:
        """As a line of a list."""
        channels, height, width = self.shape
        more = f"  (adapter {self.adapter})" if self.adapter else ""
        return f"{self.name:<28} {channels} x {height} x {width:<6} {cell(self.stride)}{more}"


def taps(network: nn.Module) -> dict[str, Tap]:
    """Every place that has a name: the modules, then the stages and points."""
    named = {name: Tap(name, module) for name, module in network.named_modules() if name}
    prefixes = list(_staged(network))
    for place, (prefix, staged) in enumerate(prefixes):
        for short, stage, after in _stages(staged):
            for name in [prefix + short, *([short] if place == 0 else [])]:
                named.setdefault(name, Tap(name, staged, stage, after))
    return named


def find_tap(network: nn.Module, name: str) -> Tap:
    """The place with this name.

    Raises:
        ValueError: there is none; names the three nearest.
    """
    known = taps(network)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.0)
        raise ValueError(
            f"the network has no layer {name!r}; the nearest names are {', '.join(near)} "
            "(--list_layers shows all)"
        )
    return known[name]


def list_layers(network: nn.Module, inputs: Sequence[Tensor]) -> list[Layer]:
    """All layers that give planes or tokens for these inputs [B, ...], in the order of running.

    Modules that run twice are left out: their activation is not one.
    """
    found, runs = dict[str, Layer](), dict[str, int]()

    def look(name: str, output: Any) -> Any:
        runs[name] = runs.get(name, 0) + 1
        layer = _layer(name, output, inputs[0], network)
        if layer is not None:
            found.pop(name, None)
            found[name] = layer
        return output

    with ExitStack() as stack:
        stack.enter_context(evaluating(network))
        stack.enter_context(torch.no_grad())
        for name, tap in taps(network).items():
            stack.callback(attach(tap, partial(look, name)))
        network(*(value[:1] for value in inputs))
    return [layer for layer in found.values() if runs[layer.name] == 1]


def default_layer(network: nn.Module, inputs: Sequence[Tensor]) -> str:
    """The output of the last stage (of networks without stages: the last layer) whose grid has at
    least 2 x 2 cells; in LEA-Net after the fusion with the map, in guided attention before it.

    Raises:
        ValueError: there is none.
    """
    return last_layers(network, inputs, 1)[0]


def last_layers(network: nn.Module, inputs: Sequence[Tensor], count: int) -> list[str]:
    """The default layer and those of the stages before it, coarsest first; fewer than `count` if
    there are no more. Without stages, the last layer of every grid size.

    Raises:
        ValueError: no layer has a grid of 2 x 2.
    """
    layers = [
        layer
        for layer in list_layers(network, inputs)
        if min(layer.shape[1:]) >= SMALLEST_GRID and not layer.adapter
    ]
    ran, names = {layer.name: layer for layer in layers}, _stage_names(network)
    chosen = [ran[name] for name in names if name in ran] if names else _one_per_grid(layers)
    if not chosen:
        raise ValueError(
            "no layer of this network gives a grid of at least 2 x 2 for these images: take larger "
            "images, or name a layer"
        )
    return [layer.name for layer in chosen[::-1][:count]]


def attach(tap: Tap, change: Change) -> Callable[[], None]:
    """Let `change` see and replace what passes; returns what takes the tap off again (the last one
    first, where several are on)."""
    if tap.stage is None:
        return tap.module.register_forward_hook(lambda module, args, out: change(out)).remove
    if not tap.after:
        return _wrap(tap.module, "stage", partial(_output, index=tap.stage, change=change))
    if tap.stage + 1 == len(_strides(tap.module)):
        return _wrap(tap.module, "head", partial(_head_input, change=change))
    return _wrap(tap.module, "stage", partial(_input, index=tap.stage + 1, change=change))


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, and the mode of every single module as it was behind."""
    before = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, mode in before.items():
            module.training = mode


def cell(stride: tuple[float, float]) -> str:
    """The size of a cell in words.

    >>> cell((32.0, 32.0)), cell((16.0, 10.5))
    ('32 px per cell', '16 x 10.5 px per cell')
    """
    down, across = (f"{value:g}" for value in stride)
    return f"{down if down == across else f'{down} x {across}'} px per cell"


# --- outputs as planes ---------------------------------------------------------------------------


def as_planes(output: Tensor, adapter: str, network: nn.Module, image: Tensor) -> Tensor:
    """A layer's output as [B, C, h, w]; `adapter` is a name of `ADAPTERS`, or "" for channels_first
    if the grid has the proportions of the image [.., H, W].

    Raises:
        ValueError: an unknown adapter, or an output that it does not fit.
    """
    if adapter not in ("", *ADAPTERS):
        raise ValueError(f"adapter {adapter!r} is not known; allowed: {', '.join(ADAPTERS)}")
    planes = ADAPTERS[adapter or "channels_first"](output, network)
    if planes is None or (not adapter and looks_mistaken(planes, image)):
        raise ValueError(
            f"the layer's output {list(output.shape)} cannot be read as "
            f"{adapter or '[B, C, h, w]'}; take another layer (a stage, say), or name what it is "
            f"with adapter= ({', '.join(ADAPTERS)})"
        )
    return planes


def looks_mistaken(planes: Tensor, image: Tensor) -> bool:
    """Whether a grid [.., h, w] of an image [.., H, W] is out of its proportions: then the channels
    are probably last. Grids are rounded, so one cell more or less is no sign."""
    (height, width), (tall, wide) = planes.shape[-2:], image.shape[-2:]
    expected = width * tall / wide
    return abs(height - expected) > max(1.0, 0.25 * expected)


def _planes(output: Tensor, network: nn.Module) -> Tensor | None:
    return output if output.ndim == 4 else None


def _channels_last(output: Tensor, network: nn.Module) -> Tensor | None:
    return output.permute(0, 3, 1, 2) if output.ndim == 4 else None


def _tokens(output: Tensor, network: nn.Module) -> Tensor | None:
    """[B, N, C] of a vision transformer that says its grid and its prefix tokens, as timm's do."""
    grid = getattr(getattr(network, "patch_embed", None), "grid_size", None)
    prefix = getattr(network, "num_prefix_tokens", 0)
    if output.ndim != 3 or grid is None or output.shape[1] != prefix + math.prod(grid):
        return None
    channels_first = output[:, prefix:].transpose(1, 2)  # [B, C, N]
    return channels_first.reshape(*channels_first.shape[:2], *grid)


ADAPTERS: dict[str, Callable[[Tensor, nn.Module], Tensor | None]] = {
    "channels_first": _planes,
    "channels_last": _channels_last,
    "tokens": _tokens,
}
"""Name -> output of a layer as [B, C, h, w], None where it does not fit."""


def _layer(name: str, output: Any, image: Tensor, network: nn.Module) -> Layer | None:
    """What to say about a layer, None if its output has no places."""
    if not isinstance(output, Tensor) or output.shape[:1] != (1,) or 0 in output.shape:
        return None
    planes, used = _planes(output, network), ""
    if planes is None:
        planes, used = _tokens(output, network), "tokens"
    elif looks_mistaken(planes, image):
        planes, used = _channels_last(output, network), "channels_last"
    if planes is None or looks_mistaken(planes, image):
        return None
    channels, height, width = planes.shape[1:]
    return Layer(name, (channels, height, width), stride_of(planes, image), used)


def stride_of(planes: Tensor, image: Tensor) -> tuple[float, float]:
    """Input pixels per cell: image [.., H, W] by planes [.., h, w] -> (down, across)."""
    down, across = (
        full / cells for full, cells in zip(image.shape[-2:], planes.shape[-2:], strict=True)
    )
    return down, across


# --- staged networks -----------------------------------------------------------------------------


def _staged(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The staged networks, the network itself or its parts, with their names and a dot behind."""
    for name, module in network.named_modules():
        if callable(getattr(module, "stage", None)) and _strides(module):
            yield f"{name}." if name else "", module


def _strides(module: nn.Module) -> tuple[int, ...]:
    strides = getattr(module, "strides", ())
    return strides if isinstance(strides, tuple) else ()


def _stages(staged: nn.Module) -> Iterator[tuple[str, int, bool]]:
    """Short name, index, and whether it is meant behind the fusion."""
    strides = _strides(staged)
    for index, stride in enumerate(strides):
        yield f"stage{index}", index, False
        point = stride.bit_length() - 2
        if point >= 0 and stride == 2 ** (point + 1) and stride not in strides[index + 1 :]:
            yield f"point{point}", index, True


def _stage_names(network: nn.Module) -> list[str]:
    """The layers that the network itself names as `explained`, if it does: the last layers of a
    network that also draws images say nothing about its classes, and what is pooled stage by stage
    goes on in more than one way. Else the stages of the first staged network, in order: as points
    where it is a part."""
    if named := getattr(network, "explained", ()):
        return list(named)
    for prefix, staged in _staged(network):
        by_index = {}
        for name, index, after in _stages(staged):
            if not after or prefix:
                by_index[index] = name
        return list(by_index.values())
    return []


def _one_per_grid(layers: Sequence[Layer]) -> list[Layer]:
    """The last layer of every grid size, coarsest last."""
    last = {layer.shape[1:]: layer for layer in layers}
    return sorted(last.values(), key=lambda layer: -math.prod(layer.shape[1:]))


def _wrap(module: nn.Module, method: str, around: Callable[..., Any]) -> Callable[[], None]:
    """Put `around(method, *args)` in the place of a method of this one module."""
    known, before = method in vars(module), getattr(module, method)
    object.__setattr__(module, method, partial(around, before))

    def remove() -> None:
        if known:
            object.__setattr__(module, method, before)
        else:
            object.__delattr__(module, method)

    return remove


def _output(method: Any, at: int, x: Tensor, *, index: int, change: Change) -> Any:
    out = method(at, x)
    return change(out) if at == index else out


def _input(method: Any, at: int, x: Tensor, *, index: int, change: Change) -> Any:
    return method(at, change(x) if at == index else x)


def _head_input(method: Any, x: Tensor, *, change: Change) -> Any:
    return method(change(x))
