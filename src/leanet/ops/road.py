"""ROAD: take pixels out of an image so that their absence does not show.

Black or blurred patches are themselves something to see, and a network may react to the shape of
the hole rather than to what is missing. ROAD (Rong et al. 2022, arXiv:2202.00449) asks for
every removed pixel x_p to be the weighted mean of its eight neighbors q,

    x_p = sum_q w_pq x_q / d_p,    w = 1/6 at a side, 1/12 at a corner,    d_p = sum_q w_pq,

with kept pixels as they are (at the image's border d_p is less than 1), plus a little noise.
Multiplied by d_p, these equations have a symmetric positive definite matrix, as long as one pixel
is kept. So conjugate gradients (preconditioned by d) solve them for a whole batch at once, on its
device, each plane at its own pace.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

NOISE: Final = 0.01  # SD of what is added to removed pixels, images being in [0, 1]


def impute(
    images: Tensor,
    removed: Tensor,
    *,
    noise: float = NOISE,
    generator: torch.Generator | None = None,
    tolerance: float = 1e-6,
    max_iterations: int = 2000,
) -> Tensor:
    """Images [B, C, H, W] in [0, 1] with the pixels `removed` (bool [B, 1, H, W]) filled in.

    `noise` is the SD of what is added to them, drawn on the CPU from `generator`; results may leave
    [0, 1] by that much. Every plane is solved until its residual is below `tolerance` times what it
    was with the removed pixels black, or by the first guess, whichever is more: where all around is
    black, black is the answer and leaves no residual.

    Raises ValueError for other shapes, an image without a kept pixel, noise without a generator,
    or a solution that is not reached in `max_iterations`.
    """
    _check(images, removed, noise, generator)
    gone = removed.to(images.dtype)
    degree = _neighbors(torch.ones_like(gone))
    known = images * (1 - gone)
    source = _neighbors(known) * gone
    start = _coarse_fill(images, gone) * gone
    solved = _solve(start, source, gone, degree, tolerance, max_iterations)
    filled = known + solved
    if noise > 0:
        drawn = torch.randn(images.shape, generator=generator).to(images)
        filled = filled + noise * drawn * gone
    return filled


def _solve(
    x: Tensor, source: Tensor, gone: Tensor, degree: Tensor, tolerance: float, limit: int
) -> Tensor:
    """Conjugate gradients for (degree - W) x = source on the removed pixels of every plane.

    A plane that is done stands still while others go on, so that the batch has no say in it. Works
    in place: on a CPU it is the passes over memory that take the time.
    """
    inverse = 1 / degree
    residual = source + _neighbors(x) * gone - degree * x
    z = residual * inverse
    direction, rz = z.clone(), _dot(residual, z)
    enough = tolerance**2 * torch.maximum(_dot(source, source * inverse), rz)
    for _ in range(limit):
        going = rz > enough
        if not going.any():
            return x
        along = _neighbors(direction).mul_(-gone).addcmul_(degree, direction)
        step = torch.where(going, rz / _dot(direction, along).clamp_min(1e-30), 0)
        x.addcmul_(direction, step)
        residual.addcmul_(along, -step)
        torch.mul(residual, inverse, out=z)
        rz, before = _dot(residual, z), rz
        direction.mul_(torch.where(going, rz / before.clamp_min(1e-30), 0)).add_(z)
    raise ValueError(
        f"filling in removed pixels did not converge in {limit} iterations; allow more, or a "
        f"tolerance above {tolerance:g}"
    )


def _neighbors(x: Tensor) -> Tensor:
    """Weighted sum over the eight neighbors within the image, [B, C, H, W].

    The weights are 1/12 of the outer product of (1, 2, 1) with itself, without its middle; two
    passes of sums are several times faster than a convolution.
    """
    rows = 2 * x
    rows[..., 1:, :] += x[..., :-1, :]
    rows[..., :-1, :] += x[..., 1:, :]
    total = torch.sub(rows, x, alpha=2).mul_(2)
    total[..., 1:] += rows[..., :-1]
    total[..., :-1] += rows[..., 1:]
    return total.div_(12)


def _coarse_fill(images: Tensor, gone: Tensor) -> Tensor:
    """A first guess that saves most iterations: means of the kept pixels, from the finest grid on
    which a cell has any."""
    kept = 1 - gone
    total, count = images * kept, kept
    sums, counts = [total], [count]
    while min(total.shape[-2:]) > 1:
        total, count = (F.avg_pool2d(t, 2, ceil_mode=True) for t in (total, count))
        sums.append(total)
        counts.append(count)
    filled = sums[-1].sum((2, 3), keepdim=True) / counts[-1].sum((2, 3), keepdim=True)
    for total, count in zip(reversed(sums), reversed(counts), strict=True):
        wider = F.interpolate(filled, size=total.shape[-2:], mode="bilinear", align_corners=False)
        filled = torch.where(count > 0, total / count.clamp_min(1e-12), wider)
    return filled


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner products of the planes, [B, C, 1, 1]."""
    x, y = a.reshape(-1, 1, a[0, 0].numel()), b.reshape(-1, b[0, 0].numel(), 1)
    return torch.bmm(x, y).view(*a.shape[:2], 1, 1)


def _check(
    images: Tensor, removed: Tensor, noise: float, generator: torch.Generator | None
) -> None:
    expected = (len(images), 1, *images.shape[-2:])
    if images.ndim != 4 or removed.dtype != torch.bool or tuple(removed.shape) != expected:
        raise ValueError(
            f"impute takes images [B, C, H, W] and removed pixels bool [B, 1, H, W], not "
            f"{list(images.shape)} and {removed.dtype} {list(removed.shape)}"
        )
    if bool(removed.flatten(1).all(dim=1).any()):
        raise ValueError("an image must keep at least one pixel to fill in the others from")
    if noise > 0 and generator is None:
        raise ValueError("noise is drawn from a generator: give one, or noise=0")
