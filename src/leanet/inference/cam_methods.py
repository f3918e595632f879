"""All explanation methods by name, and several of them at once.

Methods of a layer share one run of the network (`leanet.ops.cam`); those of the inputs have a map
for every input (`leanet.inference.pixel_gradients`); those that perturb run it once per channel
(`leanet.inference.perturbation`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from torch import Tensor, nn

from leanet.inference.cam import CAM, capture, check_method, weighted
from leanet.inference.cam_layers import find_tap, last_layers
from leanet.inference.cam_targets import Asked
from leanet.inference.pixel_gradients import input_x_grad, integrated_gradients
from leanet.ops.cam import FORMULAS

Kind = Literal["layer", "input", "perturbation"]


class Method(NamedTuple):
    """What it works on; its formula; whether raw values can be compared across images; whether
    they have a sign worth showing; what to know."""

    kind: Kind
    formula: str
    comparable: bool
    signed: bool
    doc: str


UNSIGNED = ("layer_cam", "grad_cam_plus_plus")  # behind a ReLU never negative

METHODS: dict[str, Method] = {
    **{
        name: Method("layer", one.formula, one.comparable, name not in UNSIGNED, one.doc)
        for name, one in FORMULAS.items()
    },
    "score_cam": Method(
        "perturbation",
        "sum_c (score of the image masked by A_c - score of the blurred image) A_c",
        True,
        True,
        "no gradients; a forward pass per channel: minutes",
    ),
    "ablation_cam": Method(
        "perturbation",
        "sum_c (score - score without channel c) A_c",
        True,
        True,
        "no gradients; a forward pass per channel: minutes",
    ),
    "input_x_grad": Method(
        "input",
        "sum_c x G",
        True,
        True,
        "per pixel and input; noisy; how image and map share the score, to first order",
    ),
    "integrated_gradients": Method(
        "input",
        "sum_c (x - 0) mean of G on the way from 0 to x",
        True,
        True,
        "per pixel and input; all maps together sum to score - score of zeros",
    ),
}
INPUTS = ("image", "map")  # names of a network's inputs


class Wanted(NamedTuple):
    """One method on one layer; "" for methods of the inputs."""

    method: str
    layer: str = ""

    @property
    def key(self) -> str:
        """The name of its map: `grad_cam-stage4`; methods of inputs append that of the input."""
        return f"{self.method}-{self.layer}" if self.layer else self.method


def plan(
    network: nn.Module, inputs: Sequence[Tensor], methods: Sequence[str], layers: Sequence[str]
) -> list[Wanted]:
    """Which methods on which layers. Without `layers` it is the default layer, for layer_cam also
    that of the stage before.

    Raises:
        ValueError: an unknown method or layer.
    """
    for method in methods:
        check_method(method, METHODS)
    for layer in layers:
        find_tap(network, layer)
    on_layers = [method for method in methods if METHODS[method].kind != "input"]
    found = list(layers) or (last_layers(network, inputs, 2) if on_layers else [])
    wanted = []
    for method in dict.fromkeys(methods):
        if METHODS[method].kind == "input":
            wanted.append(Wanted(method))
        else:
            several = bool(layers) or method == "layer_cam"
            wanted += [Wanted(method, layer) for layer in (found if several else found[:1])]
    return wanted


def maps_of(
    network: nn.Module,
    inputs: tuple[Tensor, ...],
    target: Asked,
    wanted: Sequence[Wanted],
    *,
    eigen_smooth: bool = False,
) -> dict[str, CAM]:
    """The maps of methods of layers and inputs, by their names; perturbations are left out.

    Raises:
        ValueError: as `leanet.inference.cam.cam`.
    """
    maps: dict[str, CAM] = {}
    layers = {one.layer for one in wanted if METHODS[one.method].kind == "layer"}
    captured = capture(network, inputs, sorted(layers), target) if layers else None
    for one in wanted:
        kind = METHODS[one.method].kind
        if kind == "layer" and captured is not None:
            maps[one.key] = weighted(captured, one.layer, one.method, eigen_smooth=eigen_smooth)
        elif kind == "input":
            per_input = input_x_grad if one.method == "input_x_grad" else integrated_gradients
            found = per_input(network, inputs, target=target)
            maps |= {
                f"{one.key}-{name}": cam._replace(layer=name)
                for name, cam in zip(INPUTS, found, strict=False)
            }
    return maps
