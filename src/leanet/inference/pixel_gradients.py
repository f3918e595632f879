"""Which pixels of which input: gradients with respect to what a network reads.

    input_x_grad           sum_c x ds/dx                      Shrikumar et al., arXiv:1605.01713
    integrated_gradients   sum_c (x - x0) mean of ds/dx on    Sundararajan et al.,
                           the straight line from x0 to x     arXiv:1703.01365

Each input of a network (image, anomaly map) gets a map of its own, so that they can be weighed
against each other. The inputs are those behind `prepare`: where an image is normalized, its zero is
the mean color and not black. Integrated gradients of all inputs sum to the score minus the score of
the reference x0.
"""

from __future__ import annotations

from contextlib import ExitStack

import torch
from torch import Tensor, nn

from leanet.inference.cam import CAM, not_inference, refuse_unhookable, scored
from leanet.inference.cam_layers import evaluating
from leanet.inference.cam_targets import Asked, fix

STEPS = 32


def input_x_grad(
    network: nn.Module, inputs: tuple[Tensor, ...], *, target: Asked = "logit"
) -> tuple[CAM, ...]:
    """A map [B, 1, H, W] for every input [B, C, H, W]; the score is that of the inputs.

    Raises:
        ValueError: a compiled or quantized network, or a target that does not fit.
    """
    score, classes, gradients = _gradients(network, inputs, target)
    return _cams(inputs, gradients, score, classes)


def integrated_gradients(
    network: nn.Module,
    inputs: tuple[Tensor, ...],
    *,
    target: Asked = "logit",
    reference: tuple[Tensor, ...] | None = None,
    steps: int = STEPS,
) -> tuple[CAM, ...]:
    """As `input_x_grad`, along the line from `reference` (zeros; shapes must broadcast to those of
    the inputs), by the midpoint rule with so many steps. The class is that of the inputs themselves
    all along.

    Raises:
        ValueError: less than one step, and as `input_x_grad`.
    """
    if steps < 1:
        raise ValueError(f"steps {steps}: give 1 or more")
    start = reference or tuple(torch.zeros_like(value) for value in inputs)
    ways = [value - zero for value, zero in zip(inputs, start, strict=True)]
    score, classes, _ = _gradients(network, inputs, target)
    target = fix(target, classes)
    total = [torch.zeros_like(value, dtype=torch.float64) for value in inputs]
    for step in range(steps):
        share = (step + 0.5) / steps
        here = tuple(zero + share * way for zero, way in zip(start, ways, strict=True))
        for sums, gradient in zip(total, _gradients(network, here, target)[2], strict=True):
            sums += gradient
    return _cams(ways, [sums / steps for sums in total], score, classes)


def _gradients(
    network: nn.Module, inputs: tuple[Tensor, ...], target: Asked
) -> tuple[Tensor, Tensor | None, list[Tensor]]:
    """The score, its classes, and its gradient with respect to every input (0 where unused)."""
    refuse_unhookable(network)
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(evaluating(network))
        leaves = [not_inference(value).detach().clone().requires_grad_() for value in inputs]
        score, classes = scored(target, network(*leaves), len(inputs[0]))
        if not score.requires_grad:
            return score, classes, [torch.zeros_like(leaf) for leaf in leaves]
        found = torch.autograd.grad(score.sum(), leaves, allow_unused=True)
    gradients = [
        torch.zeros_like(leaf) if gradient is None else gradient
        for leaf, gradient in zip(leaves, found, strict=True)
    ]
    return score.detach(), classes, gradients


def _cams(
    values: list[Tensor] | tuple[Tensor, ...],
    gradients: list[Tensor],
    score: Tensor,
    classes: Tensor | None,
) -> tuple[CAM, ...]:
    return tuple(
        CAM(
            (value * gradient).sum(dim=1, keepdim=True).detach().float(),
            score,
            f"input{k}",
            (1.0, 1.0),
            classes,
        )
        for k, (value, gradient) in enumerate(zip(values, gradients, strict=True))
    )
