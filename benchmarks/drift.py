"""How soon drift is noticed, and how often without a cause, on the normal pictures of a data set.

    python benchmarks/drift.py DATA --img_size 96

Half of the normal pictures are the training pictures; the others are the line, drawn at random. At
some moment lamp or camera change (`leanet.ops.light`). Printed per change: in how many of the
splits an alarm was raised, after how many pictures (median), and which statistic was the first.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from leanet.data.loader import stream
from leanet.data.scan import scan
from leanet.inference.baseline import baseline_of, measured
from leanet.ops import light
from leanet.ops.maps import blur
from leanet.records import NORMAL
from leanet.serve.drift import DriftMonitor

Change = Callable[[Tensor], Tensor]
Values = dict[str, NDArray[np.float64]]
BEFORE, AFTER, UNCHANGED = 100, 200, 1000  # pictures


def changes() -> dict[str, Change]:
    """By name; the first changes nothing."""
    found: dict[str, Change] = {"unchanged": lambda image: image}
    for factor in (0.95, 0.9, 0.8, 0.7, 0.5):
        found[f"light x {factor:g}"] = lambda image, f=factor: light.exposure(image, f)
    for kelvin in (6200, 5800, 5400, 5000):
        found[f"{kelvin} K"] = lambda image, k=kelvin: light.white_balance(image, k)
    for sigma in (0.4, 0.6, 0.8, 1.2):
        found[f"blur {sigma:g} px"] = lambda image, s=sigma: blur(image, s)
    draw = torch.Generator().manual_seed(0)
    for strength in (0.01, 0.02, 0.04):
        found[f"noise {strength:g}"] = lambda image, s=strength: light.sensor_noise(
            image, s, torch.randn(image.shape, generator=draw)
        )
    return found


def statistics(paths: list[Path], size: int) -> dict[str, Values]:
    """change -> statistic -> [N], of 8-bit pictures."""
    images = [loaded.image for loaded in stream(paths, size, batch_size=16, bad=[])]
    return {
        name: measured((255 * change(image)).round() / 255 for image in images)
        for name, change in changes().items()
    }


class Split:
    """Half of the pictures as training, the others as the line."""

    def __init__(self, found: dict[str, Values], size: int, rng: np.random.Generator) -> None:
        unchanged = found["unchanged"]
        order = rng.permutation(len(unchanged["brightness"]))
        middle = order.size // 2
        self.found, self.rng, self.line = found, rng, order[middle:]
        known = {name: one[order[:middle]] for name, one in unchanged.items()}
        self.baseline = baseline_of(known, np.ones(middle, dtype=bool), size, None)

    def row(self, change: str, k: int) -> dict[str, float]:
        return {name: float(one[k]) for name, one in self.found[change].items()}

    def beyond(self, change: str) -> float:
        """The share of single pictures that lie beyond a limit."""
        monitor = DriftMonitor(self.baseline)
        return float(np.mean([bool(monitor.outside(self.row(change, k))) for k in self.line]))

    def noticed(self, change: str, monitor: DriftMonitor, num: int) -> tuple[int, str] | None:
        """After how many of `num` pictures an alarm was raised, and for what."""
        for count, k in enumerate(self.rng.choice(self.line, num).tolist(), start=1):
            monitor.note(self.row(change, k), None)
            if monitor.alarms:
                worst = max(monitor.alarms, key=lambda name: monitor.alarms[name].distance)
                return count, worst
        return None

    def delay(self, change: str) -> tuple[int, str] | None:
        """The same for a change that comes after unchanged pictures."""
        monitor = DriftMonitor(self.baseline)
        self.noticed("unchanged", monitor, BEFORE)
        return self.noticed(change, monitor, AFTER)


def tell(splits: list[Split]) -> None:
    """What unchanged pictures do, then a row for every change."""
    shares = [one.beyond("unchanged") for one in splits]
    rates = [one.baseline["rate"] for one in splits if one.baseline]
    print(f"unchanged: {100 * np.mean(shares):.2f} % of single pictures beyond a limit, ", end="")
    print(f"{100 * np.mean(rates):.2f} % promised")
    false = [one.noticed("unchanged", DriftMonitor(one.baseline), UNCHANGED) for one in splits]
    count = sum(one is not None for one in false)
    print(f"unchanged: {count} alarms on {len(splits)} lines of {UNCHANGED} pictures\n")
    print("| change | noticed | after | single pictures beyond a limit | first by |")
    print("|---|---|---|---|---|")
    for change in list(splits[0].found)[1:]:
        found = [one for one in (split.delay(change) for split in splits) if one is not None]
        after = f"{np.median([count for count, _ in found]):.0f} pictures" if found else "-"
        names = Counter(name for _, name in found).most_common(2)
        share = np.mean([one.beyond(change) for one in splits])
        listed = ", ".join(name for name, _ in names)
        print(f"| {change} | {len(found)} of {len(splits)} | {after} | {share:.0%} | {listed} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--img_size", type=int, default=96)
    parser.add_argument("--splits", type=int, default=20)
    given = parser.parse_args()
    paths = [one.path for one in scan(given.data).samples if one.label == NORMAL]
    found, rng = statistics(paths, given.img_size), np.random.default_rng(0)
    print(f"{len(paths)} normal pictures at {given.img_size} px; half of them are the training")
    tell([Split(found, given.img_size, rng) for _ in range(given.splits)])


if __name__ == "__main__":
    main()
