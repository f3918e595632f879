"""How fast and how small is soft top-k in closed form beside 200 Sinkhorn sweeps?

    python benchmarks/topk.py               # half a minute of one core
    python benchmarks/topk.py --rows 3136   # all rows in the sweeps as well, some minutes

One image of ADFA: 3136 places, a bank of 3136 entries, 448 channels, k 3, eps 0.1. The sweeps are
the ordinary ones, in float32 on a plan [rows, entries, 2], with the gradient from the finished plan
(no sweep is kept for the backward pass). Their time is proportional to the rows, so they get only
`--rows` of them and the time is scaled up.

Times are CPU seconds of one thread, best of the rounds, contenders in turn; they hardly depend on
what else the machine does. Memory is what the peak of a process of its own rises by, on all rows
(two sweeps: more need no more memory; Linux only). Differences to the sweeps in float64 are
relative to their largest entry; those of float64 show the method, those of float32 its digits.

Measured 2026-11-21, one thread of a very busy Intel Xeon with AVX-512, torch 2.15, 49 rows of
sweeps scaled up: operator 48 s by sweeps, 0.43 s in closed form (114 times as fast); loss, forward
and backward, 57 s and 0.72 s (79 times), of which each of three matrix products takes 0.12 s.
Memory 314 MiB and 24 MiB (13 times less); blocks of 256 rows need 32 to 34 MiB (9 to 10 times),
blocks of 64 need 20. Largest differences 7e-15 in float64; in float32 4e-7 for r, 5e-7 for A and
2e-6 for the gradient.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from leanet.ops.gate import cost_scale, soft_topk
from leanet.ops.topk import soft_topk_distance

PLACES, CHANNELS, K, EPS, SWEEPS, BLOCK = 3136, 448, 3, 0.1, 200, 128


class SinkhornTopK(torch.autograd.Function):
    """Scores [R, n] -> A [R, n] by sweeps over the plan."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, cmax: Tensor, sweeps: int) -> Tensor:
        n = scores.shape[1]
        cost = torch.stack([scores.square(), (scores - 1).square()], dim=2) / cmax
        kernel = (-cost / EPS).exp_()
        del cost
        masses = scores.new_tensor([K / n, (n - K) / n])
        v = scores.new_full((len(scores), 1, 2), 0.5)
        for _ in range(sweeps):
            u = (1 / n) / (kernel * v).sum(dim=2, keepdim=True)
            v = masses / (kernel * u).sum(dim=1, keepdim=True)
        member = n * (kernel[..., 0] * u[..., 0] * v[..., 0])
        ctx.save_for_backward(member, cmax)
        return member

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        member, cmax = ctx.saved_tensors
        slope = member * (1 - member)
        total = slope.sum(dim=1, keepdim=True)
        middle = (slope * upstream).sum(dim=1, keepdim=True) / total
        return slope * (middle - upstream) * (2 / EPS) / cmax, None, None


def image(
    top: float,
    rows: int = PLACES,
    dtype: torch.dtype = torch.float32,
    entries: int = PLACES,
) -> list[Tensor]:
    """phi [1, rows, D], bank [N, D], weight [1]: like features, with the largest score `top`."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(32, CHANNELS, generator=generator)
    bank = torch.randn(entries, 32, generator=generator) @ mixing
    noise = torch.randn(entries, CHANNELS, generator=generator)
    phi = (bank + noise)[:rows]
    weight = top / torch.cdist(phi, bank).max().square()
    return [phi[None].to(dtype), bank.to(dtype), weight[None].to(dtype)]


def scores_of(phi: Tensor, bank: Tensor, weight: Tensor) -> Tensor:
    """s [T, N] of the image, by autograd."""
    squared = phi[0].square().sum(dim=1, keepdim=True) + bank.square().sum(dim=1)
    return weight * (squared - 2 * phi[0] @ bank.T).clamp(min=0)


def by_sweeps(phi: Tensor, bank: Tensor, weight: Tensor, sweeps: int = SWEEPS) -> Tensor:
    """r [T]"""
    scores = scores_of(phi, bank, weight)
    cmax = cost_scale(scores.detach().amin(), scores.detach().amax())
    member: Tensor = SinkhornTopK.apply(scores, cmax, sweeps)
    return (member * scores).sum(dim=1)


def closed(phi: Tensor, bank: Tensor, weight: Tensor) -> Tensor:
    """r [T]"""
    return soft_topk_distance(phi, bank, weight, K, EPS, block=BLOCK)[0]


def step(distance: Callable[..., Tensor], given: list[Tensor]) -> tuple[Tensor, Tensor]:
    """r [T] and the gradient of its mean by phi."""
    phi = given[0].clone().requires_grad_()
    r = distance(phi, *given[1:])
    r.mean().backward()
    assert phi.grad is not None
    return r.detach(), phi.grad


def seconds(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def best(slow: Callable[[], object], fast: Callable[[], object], rounds: int) -> list[float]:
    """CPU seconds of both, in turn; the fast one has four turns for each of the slow one."""
    fast()
    times = [(seconds(slow), min(seconds(fast) for _ in range(4))) for _ in range(rounds)]
    return [min(column) for column in zip(*times, strict=True)]


def peak_rise(which: str, file: str) -> float:
    """MiB by which the peak of this process rises over one step of the image in a file."""
    distance = closed if which == "closed" else lambda *given: by_sweeps(*given, sweeps=2)
    step(distance, image(1.0, rows=8, entries=64))
    given = torch.load(file)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from what is held now
    before = _peak()
    step(distance, given)
    return (_peak() - before) / 1024


def _peak() -> int:
    """KiB. Not ru_maxrss, which a process takes over from the one that starts it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def peaks() -> list[float]:
    """Rises of both contenders."""
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/image.pt"
        torch.save(image(1.0), file)
        command = [sys.executable, __file__, "--peak"]
        rises = [subprocess.check_output([*command, which, file]) for which in ("sweeps", "closed")]
        return [float(rise) for rise in rises]


def differences(rows: int) -> None:
    print(f"{'difference to the sweeps':34}{'S = 0.3':>10}{'S = 1':>10}{'S = 30':>10}")
    for dtype in (torch.float64, torch.float32):
        found: dict[str, list[float]] = {"r": [], "gradient by phi": [], "A": []}
        for top in (0.3, 1.0, 30.0):
            given = image(top, rows, dtype)
            exact = step(by_sweeps, [x.double() for x in given])
            for name, ours, other in zip(found, step(closed, given), exact, strict=False):
                found[name].append(float((ours - other).abs().max() / other.abs().max()))
            scores = scores_of(*given)
            cmax = cost_scale(scores.amin(), scores.amax())
            member = soft_topk(scores, K, EPS).double()
            exact_member = SinkhornTopK.apply(scores.double(), cmax.double(), SWEEPS)
            found["A"].append(float((member - exact_member).abs().max() / exact_member.max()))
        for name, values in found.items():
            print(f"  {name + ', ' + str(dtype)[6:]:32}" + "".join(f"{x:10.1e}" for x in values))


def main() -> None:
    parser = argparse.ArgumentParser(description="Soft top-k: closed form beside Sinkhorn sweeps.")
    parser.add_argument("--rows", type=int, default=98, help="rows for the sweeps (default 98)")
    parser.add_argument("--rounds", type=int, default=2, help="timed rounds (default 2)")
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.peak:
        print(peak_rise(*args.peak))
        return

    given, few = image(1.0), image(1.0, args.rows)
    scores = scores_of(*few)
    cmax = cost_scale(scores.amin(), scores.amax())
    operator = best(
        lambda: SinkhornTopK.apply(scores, cmax, SWEEPS),
        lambda: soft_topk(scores, K, EPS),
        args.rounds,
    )
    whole = best(lambda: step(by_sweeps, few), lambda: step(closed, given), args.rounds)
    factor = PLACES / args.rows
    product = min(seconds(lambda: given[0][0] @ given[1].T) for _ in range(4))
    print(
        f"Soft top-k, {PLACES} x {PLACES} x {CHANNELS}, k {K}, eps {EPS}, blocks of {BLOCK}, torch "
        f"{torch.__version__}, one thread; sweeps on {args.rows} rows, scaled up"
    )
    print(f"{'CPU seconds for all rows':34}{'sweeps':>10}{'closed':>10}{'ratio':>10}")
    for name, slow, fast in (
        ("operator, forward", operator[0] * factor, operator[1] * factor),
        ("loss, forward and backward", whole[0] * factor, whole[1]),
    ):
        print(f"  {name:32}{slow:10.2f}{fast:10.3f}{slow / fast:10.0f}")
    print(f"  matrix product phi C, once (the closed form has three) {product:19.3f}")

    large, small = peaks()
    print(f"{'MiB above the inputs':34}{'sweeps':>10}{'closed':>10}{'ratio':>10}")
    line = f"{large:10.0f}{small:10.0f}{large / small:10.1f}"
    print(f"  {'loss, forward and backward':32}{line}")
    differences(min(args.rows, 32))


if __name__ == "__main__":
    main()
