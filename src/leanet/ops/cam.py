"""Class activation maps: which places of a layer speak for a score.

A layer gives activations A, the score s (a logit, say) has the gradients G = ds/dA there, both
[B, C, h, w]. Every map here is a weighting of the activations, W(A, G) [B, C, h, w], summed over
the channels: [B, 1, h, w]. With pos(x) = max(x, 0):

    grad_cam             W = mean_hw(G) A                Selvaraju et al., arXiv:1610.02391
    hires_cam            W = G A                         Draelos & Carin, arXiv:2011.08891
    layer_cam            W = pos(G) A                    Jiang et al., doi:10.1109/TIP.2021.3089943
    grad_cam_plus_plus   W = A sum_hw(a pos(G)),         Chattopadhay et al., arXiv:1710.11063
                         a = G^2 / (2 G^2 + sum_hw(A) G^3)
    eigen_cam            W = rank-1 part of A            Muhammad & Yeasin, arXiv:2008.00299

Nothing is clipped or scaled: a map is signed, and in the unit of the score wherever the formula is
linear in G. Only such maps can be compared from one image to the next or pooled over images
(`comparable`); a ReLU or a scaling, as papers show them, is a matter of display.

The functions are plain tensor operations: with gradients made by `create_graph=True` they can be
trained through.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Formula(NamedTuple):
    """How activations are weighted: `weigh` (A, G) -> W [B, C, h, w]; the formula as text; whether
    raw values can be compared across images; what to know before trusting it."""

    weigh: Callable[[Tensor, Tensor], Tensor]
    formula: str
    comparable: bool
    doc: str


def grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Grad-CAM: [B, C, h, w] twice -> [B, 1, h, w], one weight per channel."""
    return _total(_by_mean_gradient(activations, gradients))


def hires_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """HiResCAM: [B, C, h, w] twice -> [B, 1, h, w], a weight of its own for every place.

    Before mean pooling and a linear layer it sums to the logit without its bias.
    """
    return _total(_by_gradient(activations, gradients))


def layer_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """LayerCAM: [B, C, h, w] twice -> [B, 1, h, w]; negative only where activations are."""
    return _total(_by_positive_gradient(activations, gradients))


def grad_cam_plus_plus(activations: Tensor, gradients: Tensor) -> Tensor:
    """Grad-CAM++: [B, C, h, w] twice -> [B, 1, h, w].

    Raises ValueError for negative activations, for which its denominator can be 0 or negative.
    """
    return _total(_by_plus_plus(activations, gradients))


def eigen_cam(activations: Tensor, gradients: Tensor | None = None) -> Tensor:
    """EigenCAM: activations [B, C, h, w] -> [B, 1, h, w]. It knows no class and no score, and does
    not look at the gradients."""
    return eigen_smooth(activations)[0]


def eigen_smooth(weighted: Tensor) -> tuple[Tensor, Tensor]:
    """Keep the strongest pattern that the channels of W share: W [B, C, h, w] -> map [B, 1, h, w]
    and the share [B] of the energy that it holds, in [0, 1].

    Per image X = W as [hw, C] becomes its rank-1 part s1 u1 v1^T, which is then summed over the
    channels: unit and sign stay, as u1 and v1 change their signs together. Where the share is small
    there is no common pattern, and the map is not to be trusted. The direction v1 is a constant for
    gradients (its own are infinite where two patterns are equally strong).
    """
    x = weighted.flatten(2).transpose(1, 2)  # [B, hw, C]
    v = torch.linalg.svd(x.detach(), full_matrices=False).Vh[:, 0, :, None]  # [B, C, 1]
    along = x @ v  # [B, hw, 1]: s1 u1
    smooth = (along * v.sum(dim=1, keepdim=True)).transpose(1, 2)  # [B, 1, hw]
    energy = x.square().sum(dim=(1, 2))
    share = torch.where(energy > 0, along.square().sum(dim=(1, 2)) / energy, 1.0)
    return smooth.reshape(len(x), 1, *weighted.shape[2:]), share.clamp(max=1.0)


def positive(cam: Tensor) -> Tensor:
    """Only what speaks for the score; the final ReLU of the papers, for display."""
    return cam.clamp(min=0)


def _total(weighted: Tensor) -> Tensor:
    return weighted.sum(dim=1, keepdim=True)


def _by_mean_gradient(activations: Tensor, gradients: Tensor) -> Tensor:
    return gradients.mean(dim=(2, 3), keepdim=True) * activations


def _by_gradient(activations: Tensor, gradients: Tensor) -> Tensor:
    return gradients * activations


def _by_positive_gradient(activations: Tensor, gradients: Tensor) -> Tensor:
    return gradients.clamp(min=0) * activations


def _by_plus_plus(activations: Tensor, gradients: Tensor) -> Tensor:
    if (activations < 0).any():
        raise ValueError(
            "grad_cam_plus_plus needs activations >= 0, and this layer has negative ones: take a "
            "layer behind a ReLU, or grad_cam"
        )
    # a pos(G) = pos(G) / (2 + sum(A) pos(G)): G^2 cancels, and where G <= 0 both are 0
    up = gradients.clamp(min=0)
    total = activations.sum(dim=(2, 3), keepdim=True)
    return activations * (up / (2 + total * up)).sum(dim=(2, 3), keepdim=True)


def _only_activations(activations: Tensor, gradients: Tensor) -> Tensor:
    return activations


FORMULAS: dict[str, Formula] = {
    "grad_cam": Formula(
        _by_mean_gradient,
        "sum_c mean_hw(G)_c A_c",
        True,
        "signed; one weight per channel, so it is smooth and coarse",
    ),
    "hires_cam": Formula(
        _by_gradient,
        "sum_c G A",
        True,
        "signed; with mean pooling and a linear head its sum is the logit minus the bias",
    ),
    "layer_cam": Formula(
        _by_positive_gradient,
        "sum_c pos(G) A",
        True,
        "for finer layers; leaves out what speaks against the class",
    ),
    "grad_cam_plus_plus": Formula(
        _by_plus_plus,
        "sum_c A sum_hw(a pos(G)), a = G^2 / (2 G^2 + sum_hw(A) G^3)",
        False,
        "not proportional to the score; needs a layer behind a ReLU",
    ),
    "eigen_cam": Formula(
        _only_activations,
        "rank-1 part of A, summed over channels",
        False,
        "no class and no gradient: a baseline that shows what the layer reacts to at all",
    ),
}
"""Name -> formula. `eigen_cam` is `eigen_smooth` of its W; the map of all others is the sum of W
over the channels."""


def cam_map(activations: Tensor, gradients: Tensor, method: str = "grad_cam") -> Tensor:
    """The map of a method of `FORMULAS`: [B, C, h, w] twice -> [B, 1, h, w]."""
    weighted = FORMULAS[method].weigh(activations, gradients)
    return eigen_smooth(weighted)[0] if method == "eigen_cam" else _total(weighted)
