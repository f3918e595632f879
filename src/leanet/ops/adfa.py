"""Terms of ADFA and CFA that need no network (arXiv:2308.15280 and arXiv:2206.04325)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


@torch.no_grad()
def kl_weight(phi: Tensor, bank: Tensor) -> Tensor:
    """w [B] = sum over places t of KL(softmax(C_t) || softmax(phi_t)) for descriptors phi
    [B, T, D] and the bank [T, D] of the same places; softmax over channels. A constant: no gradient
    goes through it.

    Raises ValueError for a bank of another shape, as one compressed by K-means has.
    """
    if phi.shape[1:] != bank.shape:
        raise ValueError(
            f"the KL weight compares each place with its own entry: descriptors of shape "
            f"{tuple(phi.shape)} need a bank of {tuple(phi.shape[1:])}, got {tuple(bank.shape)}; "
            "keep the bank whole (gamma_c 1) or leave the weight out (kl_weight false)"
        )
    with torch.autocast(phi.device.type, enabled=False):
        wide = phi if phi.dtype == torch.float64 else phi.float()
        logs = F.log_softmax(bank.to(wide), dim=1)
        return (logs.exp() * (logs - F.log_softmax(wide, dim=2))).sum(dim=(1, 2))


def cfa_loss(squared: Tensor, radius: Tensor, k: int, j: int, nu: float, alpha: float) -> Tensor:
    """CFA's loss of the k + j smallest squared distances [B, T, k + j], ascending: the k nearest
    are pulled into the sphere of `radius` R (scalar), the j next ones kept out of it by `alpha`.

        L = (mean relu(d_1..k - R^2) + mean relu(R^2 - d_k+1..k+j - alpha)) / nu

    Raises ValueError for another number of distances.
    """
    if squared.shape[-1] != k + j:
        raise ValueError(
            f"k = {k} and j = {j} need {k + j} distances of each place, got {squared.shape[-1]}"
        )
    limit = radius.square()
    loss = (squared[..., :k] - limit).relu().mean()
    if j:
        loss = loss + (limit - squared[..., k:] - alpha).relu().mean()
    return loss / nu


def softmin_score(squared: Tensor) -> Tensor:
    """e_1 exp(-e_1) / sum_i exp(-e_i) of squared distances e_i^2 [..., 3], ascending -> [...].

    >>> round(float(softmin_score(torch.tensor([1.0, 4.0, 9.0]))), 6)
    0.665241
    """
    distances = squared.clamp(min=0).sqrt()
    return distances[..., 0] * (-distances).softmax(dim=-1)[..., 0]


def top_mean(anomaly_map: Tensor, count: int) -> Tensor:
    """Mean of the `count` largest pixels of each image [B, ...] -> [B].

    Raises ValueError unless the images have so many pixels.
    """
    pixels = anomaly_map.flatten(1)
    if not 1 <= count <= pixels.shape[1]:
        raise ValueError(
            f"a map of {pixels.shape[1]} pixels has no {count} largest: top_pixels must be 1 to "
            f"{pixels.shape[1]}"
        )
    return pixels.topk(count, dim=1).values.mean(dim=1)
