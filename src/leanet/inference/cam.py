"""Class activation maps of any network: capture a layer, differentiate a score, weight, sum.

    found = cam(network, (images,), layer="layer4")
    found.map, found.score, found.classes      # [B, 1, h, w] raw and signed, [B], [B]

A network may have several inputs, be frozen, in training mode, in bfloat16, and the call may stand
inside `no_grad` or `inference_mode`: maps are the same, and the network, its gradients, its modes,
its hooks and the generators are as they were afterwards, also after an error. The network is run in
evaluation mode, as batch statistics would mix the images.

The activation is kept and a *copy* goes on: blocks that add or activate in place would otherwise
overwrite what was kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from leanet.config import nearest
from leanet.inference.cam_layers import (
    as_planes,
    attach,
    default_layer,
    evaluating,
    find_tap,
    stride_of,
)
from leanet.inference.cam_targets import Asked, Target, as_target
from leanet.ops.cam import FORMULAS, cam_map
from leanet.ops.cam import eigen_smooth as smoothed

HALF_SCALE = 1024.0  # of the score where activations are float16: small gradients would become 0


class CAM(NamedTuple):
    """map [B, 1, h, w], float32, raw; score [B]; stride: input pixels per cell (down, across).

    classes: the explained class of every image [B], None if the score is a function of its own;
    energy: share [B] of the energy that `eigen_smooth` has kept, None without.
    """

    map: Tensor
    score: Tensor
    layer: str
    stride: tuple[float, float]
    classes: Tensor | None = None
    energy: Tensor | None = None


class Captured(NamedTuple):
    """Per layer the activations and the gradients of the score there, [B, C, h, w], float32 at
    least; the score [B], the explained classes [B] or None, and the input's [H, W]."""

    activations: dict[str, Tensor]
    gradients: dict[str, Tensor]
    score: Tensor
    classes: Tensor | None
    strides: dict[str, tuple[float, float]]


def cam(  # noqa: PLR0913 - what can be asked, by name
    network: nn.Module,
    inputs: tuple[Tensor, ...],
    *,
    layer: str | None = None,
    target: Asked = "logit",
    method: str = "grad_cam",
    eigen_smooth: bool = False,
    output_index: int = 0,
    adapter: str = "",
) -> CAM:
    """The map of a score on a layer, for the inputs [B, ...] of a network.

    Args:
        layer: see `cam_layers`; None is the last stage with a grid of 2 x 2 or more.
        target: "logit", "margin" or "log_prob" of the predicted class; a `Target` for another
            class; or a function from what the network gives to a score [B].
        method: a name of `leanet.ops.cam.FORMULAS`.
        eigen_smooth: keep only the strongest common pattern of the channels.
        output_index: which output is meant, of a layer that gives several.
        adapter: how to read a layer that does not give [B, C, h, w]: channels_last or tokens.

    Raises:
        ValueError: an unknown name, a compiled or quantized network, a score that does not depend
            on the layer, or gradients that are not finite.
    """
    check_method(method, FORMULAS)
    name = default_layer(network, inputs) if layer is None else layer
    captured = capture(network, inputs, [name], target, output_index=output_index, adapter=adapter)
    return weighted(captured, name, method, eigen_smooth=eigen_smooth)


def weighted(captured: Captured, layer: str, method: str, *, eigen_smooth: bool = False) -> CAM:
    """The map of one method on one captured layer."""
    activations, gradients = captured.activations[layer], captured.gradients[layer]
    if eigen_smooth or method == "eigen_cam":
        plane, energy = smoothed(FORMULAS[method].weigh(activations, gradients))
    else:
        plane, energy = cam_map(activations, gradients, method), None
    return CAM(
        plane.float(),
        captured.score,
        layer,
        captured.strides[layer],
        captured.classes,
        None if energy is None else energy.float(),
    )


def capture(
    network: nn.Module,
    inputs: tuple[Tensor, ...],
    layers: Sequence[str],
    target: Asked = "logit",
    *,
    output_index: int = 0,
    adapter: str = "",
) -> Captured:
    """Run a network once and differentiate a score on some of its layers.

    Arguments and errors are those of `cam`.
    """
    refuse_unhookable(network)
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(evaluating(network))
        output, kept = _run(network, inputs, layers, output_index)
        score, classes = scored(target, output, len(inputs[0]))
        gradients = _gradients(score, kept, explained(target, classes))
        planes = partial(as_planes, adapter=adapter, network=network, image=inputs[0])
        activations = {name: planes(_wide(value.detach())) for name, value in kept.items()}
    return Captured(
        activations=activations,
        gradients={name: planes(gradient) for name, gradient in gradients.items()},
        score=score.detach(),
        classes=classes,
        strides={name: stride_of(value, inputs[0]) for name, value in activations.items()},
    )


def check_method(method: str, allowed: Sequence[str] | dict[str, Any]) -> None:
    """Raise `ValueError` for an unknown method, with the nearest known one."""
    if method not in allowed:
        raise ValueError(
            f"method {method!r} is not known{nearest(method, allowed)}; "
            f"allowed: {', '.join(allowed)}"
        )


def refuse_unhookable(network: nn.Module) -> None:
    """Raise `ValueError` for networks that ignore hooks or cannot be differentiated."""
    for name, module in network.named_modules():
        kind, path = type(module).__name__, type(module).__module__
        compiled = kind == "OptimizedModule" or vars(module).get("_compiled_call_impl") is not None
        if compiled or isinstance(module, torch.jit.ScriptModule):
            what, remedy = "compiled", "explain the network as it was before"
        elif "quantized" in path.split("."):
            what, remedy = "quantized", "explain the network with the float weights it came from"
        else:
            continue
        raise ValueError(f"{name or 'the network'} ({kind}) is {what}, so it has no maps: {remedy}")


# --- steps ---------------------------------------------------------------------------------------


def _run(
    network: nn.Module, inputs: Sequence[Tensor], layers: Sequence[str], output_index: int
) -> tuple[Any, dict[str, Tensor]]:
    """What the network gives, and the activation of every layer."""
    seen = dict[str, list[Tensor]]()
    with ExitStack() as stack:
        for name in layers:
            change = partial(_keep, seen.setdefault(name, []), output_index=output_index)
            stack.callback(attach(find_tap(network, name), change))
        output = network(*(not_inference(value) for value in inputs))
    return output, {name: _only(name, found) for name, found in seen.items()}


def not_inference(value: Tensor) -> Tensor:
    """A tensor that autograd may keep; call it outside of inference mode."""
    return value.clone() if value.is_inference() else value


def _keep(seen: list[Tensor], output: Any, *, output_index: int) -> Any:
    """Keep an output as something to differentiate by, and hand on a copy."""
    if not isinstance(output, Tensor):
        return _with_part(output, output_index, partial(_keep, seen, output_index=0))
    # a leaf where nothing before it is trained, else a part of the graph, so that several layers
    # can be differentiated at once
    kept = output.clone() if output.requires_grad else output.detach().clone().requires_grad_()
    seen.append(kept)
    return kept.clone()


def _with_part(output: Any, index: int, change: Callable[[Any], Any]) -> Any:
    """An output with one of its parts changed."""
    if not isinstance(output, tuple | list) or not -len(output) <= index < len(output):
        raise ValueError(
            f"the layer gives a {type(output).__name__}, which has no part {index}; take another "
            "layer, or output_index= for one that gives several tensors"
        )
    parts = list(output)
    if not isinstance(parts[index], Tensor):
        raise ValueError(
            f"part {index} of what the layer gives is a {type(parts[index]).__name__}, no tensor; "
            "choose another with output_index="
        )
    parts[index] = change(parts[index])
    make = getattr(output, "_make", type(output))
    return make(parts)


def _only(name: str, found: Sequence[Tensor]) -> Tensor:
    if len(found) != 1:
        raise ValueError(
            f"layer {name} ran {len(found)} times for one image, and one map needs one activation; "
            "take another layer (--list_layers shows those that run once)"
        )
    return found[0]


def scored(target: Asked, output: Any, num_images: int) -> tuple[Tensor, Tensor | None]:
    """The score [B] of what a network gave, and the classes if it is that of a class."""
    target = as_target(target)
    classes = None
    if isinstance(target, Target):
        classes = target.classes(output)
        score = target.score(output, classes)
    else:
        score = target(output)
    if not isinstance(score, Tensor) or score.shape != (num_images,):
        shape = list(score.shape) if isinstance(score, Tensor) else type(score).__name__
        raise ValueError(
            f"the target must give a score for every image, [{num_images}], not {shape}"
        )
    return score, classes


def _gradients(score: Tensor, kept: dict[str, Tensor], named: str) -> dict[str, Tensor]:
    """Per layer the gradient of the score, float32 at least."""
    half = any(value.dtype == torch.float16 for value in kept.values())
    scale = HALF_SCALE if half else 1.0
    found: Sequence[Tensor | None] = [None] * len(kept)
    if score.requires_grad:
        found = torch.autograd.grad((score * scale).sum(), [*kept.values()], allow_unused=True)
    gradients = {}
    for name, gradient in zip(kept, found, strict=True):
        if gradient is None or not gradient.any():
            raise ValueError(
                f"the score of {named} does not depend on layer {name} for these images: every "
                "gradient is 0; take another layer, or the target logit"
            )
        if not gradient.isfinite().all():
            raise ValueError(
                f"gradients of the score of {named} at layer {name} are not finite; the weights "
                "are damaged, or the precision is too low: use float32"
            )
        gradients[name] = _wide(gradient) / scale
    return gradients


def explained(target: Asked, classes: Tensor | None) -> str:
    """The explained classes in words."""
    if classes is None:
        return "the given function"
    found = sorted(set(classes.tolist()))
    name = target.name if isinstance(target, Target) else str
    word = "class" if len(found) == 1 else "classes"
    return f"{word} {', '.join(name(index) for index in found)}"


def _wide(value: Tensor) -> Tensor:
    return value if value.dtype == torch.float64 else value.float()
