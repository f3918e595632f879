"""PatchCore's two costs, side by side with the plain ways: choosing the bank, and distances to it.

Rows in clumps of very different width, as features are. `lazy` is `greedy_coreset`; `pass` looks at
all rows for each choice, as PatchCore is usually written; `matrix` holds all distances between
rows. Their choices are compared as well. `blocks` is `nearest_row`, `matrix` holds the distances of
all places to the whole bank. Every way runs in a process of its own, which tells its CPU time (the
shortest of a few turns) and by how much it grew: what the system counts, not what was computed.

Run: python benchmarks/coreset.py
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from leanet.ops.coreset import greedy_coreset, nearest_row

ROWS, DIMS, SHARE = 8000, 128, 0.1
PLACES, BANK = 16 * 1024, 4000  # 16 images of 32 x 32 places
TURNS = 3


def cloud(num: int, seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    center = 2 * torch.randn(50, DIMS, generator=torch.Generator().manual_seed(9))
    width = torch.logspace(-1, 0.5, 50)
    of = torch.randint(50, (num,), generator=draw)
    return center[of] + width[of, None] * torch.randn(num, DIMS, generator=draw)


def lazy(points: Tensor) -> Tensor:
    rows = points.numpy()
    return greedy_coreset(rows, int(SHARE * ROWS), torch.Generator().manual_seed(0))


def one_pass(points: Tensor) -> Tensor:
    chosen = [_first()]
    nearest = torch.full((ROWS,), torch.inf)
    while len(chosen) < int(SHARE * ROWS):
        new = (points - points[chosen[-1]]).square().sum(dim=1)
        nearest = torch.minimum(nearest, new)
        chosen.append(int(nearest.argmax()))
    return torch.tensor(chosen)


def matrix(points: Tensor) -> Tensor:
    distances = torch.cdist(points, points)
    chosen = [_first()]
    nearest = distances[chosen[0]].clone()
    while len(chosen) < int(SHARE * ROWS):
        chosen.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, distances[chosen[-1]])
    return torch.tensor(chosen)


def blocks(places: Tensor) -> Tensor:
    return nearest_row(places, cloud(BANK, 1)).distance


def whole(places: Tensor) -> Tensor:
    return torch.cdist(places, cloud(BANK, 1)).amin(dim=1)


WAYS: dict[str, dict[str, Callable[[Tensor], Tensor]]] = {
    "bank": {"lazy": lazy, "pass": one_pass, "matrix": matrix},
    "distances": {"blocks": blocks, "matrix": whole},
}


def _first() -> int:
    return int(torch.randint(ROWS, (1,), generator=torch.Generator().manual_seed(0)))


def measure(job: str, way: str) -> dict[str, object]:
    points = cloud(ROWS if job == "bank" else PLACES, 0)
    torch.mm(points[:64], points[:64].T)  # the libraries are loaded
    before, seconds = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, []
    for _ in range(TURNS):
        started = time.process_time()
        answer = WAYS[job][way](points)
        seconds.append(time.process_time() - started)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"seconds": min(seconds), "mb": grown * 1024 / 1e6, "answer": answer.tolist()}


def tell(job: str, title: str) -> None:
    print(title)
    first: dict[str, object] = {}
    for way in WAYS[job]:
        command = [sys.executable, __file__, job, way]
        found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        first = first or found
        ratio, more = (found[key] / first[key] for key in ("seconds", "mb"))
        alike = np.isclose(found["answer"], first["answer"], rtol=1e-3).mean()
        print(
            f"  {way:<8}{found['seconds']:>8.2f} s{ratio:>7.1f}x{found['mb']:>9.0f} MB{more:>7.1f}x"
            f"   {alike:.1%} as the first"
        )


def main() -> None:
    if len(sys.argv) == 3:
        print(json.dumps(measure(*sys.argv[1:])))
        return
    print(f"CPU, {torch.get_num_threads()} threads; time and growth of the process")
    tell("bank", f"{int(SHARE * ROWS)} of {ROWS} rows of {DIMS} numbers")
    tell("distances", f"{PLACES} places, a bank of {BANK} rows of {DIMS} numbers")


if __name__ == "__main__":
    main()
