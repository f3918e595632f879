"""How fast is `delta_e_2000` beside scikit-image's `deltaE_ciede2000`?

    python benchmarks/color.py              # a few seconds
    python benchmarks/color.py --compile    # also torch.compile, about half a minute more

Every round times each contender once, so that all of them see the same load of the machine; the
table gives milliseconds per image (median and best round), the ratio of medians to scikit-image in
its two precisions (it uses one thread), and the largest error against its float64 result. Where
other programs keep the cores busy, threads wait for each other: then read the best rounds.

Measured 2026-11-20, two cores of an AMD EPYC with AVX-512, torch 2.15, 256 x 256, medians: scikit-
image float64 9.2 ms, float32 5.4 ms; ours float32 1.2 ms with two threads (7.8 and 4.6 times as
fast), 1.8 ms with one (5.0 and 3.0), 0.5 ms compiled. scikit-image takes 12.5 and 6.5 ms for pairs
of random colors, ours does not depend on the colors.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping

import numpy as np
import torch
from skimage.color import deltaE_ciede2000
from torch import Tensor

from leanet.ops.color import delta_e_2000, rgb_to_lab

BATCH = 16


def lab_pair(side: int) -> tuple[Tensor, Tensor]:
    """Smooth random images and noisy copies as float64 Lab, [BATCH, 3, side, side]."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(BATCH, 3, 9, 9, generator=generator, dtype=torch.float64)
    rgb = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1)
    noise = torch.randn(rgb.shape, generator=generator, dtype=torch.float64)
    return rgb_to_lab(rgb), rgb_to_lab((rgb + 0.05 * noise).clamp(0, 1))


def contenders(side: int, *, compiled: bool) -> dict[str, tuple[Callable[[], Tensor], int]]:
    """Name -> (function that computes the maps, number of images)."""
    lab1, lab2 = lab_pair(side)
    float1, float2 = lab1.float(), lab2.float()
    arrays = {
        np.dtype(kind): [np.ascontiguousarray(x[0].movedim(0, -1).numpy(), kind) for x in pair]
        for kind, pair in (("f8", (lab1, lab2)), ("f4", (lab1, lab2)))
    }

    def skimage(kind: str) -> Callable[[], Tensor]:
        first, second = arrays[np.dtype(kind)]
        return lambda: torch.from_numpy(deltaE_ciede2000(first, second))  # type: ignore[no-untyped-call]

    table: dict[str, tuple[Callable[[], Tensor], int]] = {
        "scikit-image float64": (skimage("f8"), 1),
        "scikit-image float32": (skimage("f4"), 1),
        "ours float64": (lambda: delta_e_2000(lab1[:1], lab2[:1]), 1),
        "ours float32": (lambda: delta_e_2000(float1[:1], float2[:1]), 1),
        f"ours float32, batch {BATCH}": (lambda: delta_e_2000(float1, float2), BATCH),
    }
    if compiled:
        fast = torch.compile(delta_e_2000)
        table["ours float32, compiled"] = (lambda: fast(float1[:1], float2[:1]), 1)
    return table


def time_rounds(
    table: Mapping[str, tuple[Callable[[], Tensor], int]], rounds: int
) -> dict[str, list[float]]:
    """Milliseconds per image of each contender in each round, after one round to warm up."""
    times: dict[str, list[float]] = {name: [] for name in table}
    for turn in range(rounds + 1):
        for name, (function, images) in table.items():
            start = time.perf_counter()
            function()
            if turn:
                times[name].append((time.perf_counter() - start) * 1e3 / images)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description="CIEDE2000: leanet beside scikit-image.")
    parser.add_argument("--threads", type=int, default=2, help="torch threads (default 2)")
    parser.add_argument("--side", type=int, default=256, help="image side in pixels (default 256)")
    parser.add_argument("--rounds", type=int, default=40, help="timed rounds (default 40)")
    parser.add_argument("--compile", action="store_true", help="also time torch.compile")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    table = contenders(args.side, compiled=args.compile)
    with torch.inference_mode():
        exact = table["scikit-image float64"][0]().flatten()
        errors = {
            name: (f().flatten()[: len(exact)] - exact).abs().max()
            for name, (f, _) in table.items()
        }
        times = time_rounds(table, args.rounds)
    medians = {name: statistics.median(values) for name, values in times.items()}

    print(
        f"CIEDE2000, {args.side} x {args.side}, torch {torch.__version__}, {args.threads} threads"
    )
    print(f"{'ms per image':26}{'median':>8}{'best':>8}{'x sk64':>8}{'x sk32':>8}{'max error':>11}")
    for name, median in medians.items():
        ratio64 = medians["scikit-image float64"] / median
        ratio32 = medians["scikit-image float32"] / median
        print(
            f"{name:26}{median:8.2f}{min(times[name]):8.2f}{ratio64:8.1f}{ratio32:8.1f}"
            f"{errors[name].item():11.1e}"
        )


if __name__ == "__main__":
    main()
