"""A training step of CAVGA, side by side: attention in closed form, by double backward, and from
the layer before the last.

The closed form gives the same gradients (tests/networks/test_cavga.py); this is what it saves of a
whole step (both players, 16 images), and of the attention alone: from given features to the
gradient of the expansion loss. Ratios of times that were taken in turns, so that all see the same
load; on a CPU it is the time that the process itself got.

Run: python benchmarks/cavga.py [rounds]
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from leanet.data.cache import Cache
from leanet.data.loader import Source
from leanet.methods.cavga import build_network
from leanet.methods.cavga_config import Config
from leanet.methods.cavga_training import Game, Players, set_up, train_step
from leanet.networks.cavga import Cavga
from leanet.networks.dcgan import Discriminator
from leanet.ops.cavga import expansion, missing
from leanet.records import Batch
from leanet.runtime import make_runtime

BATCH, ROUNDS, WARM_UP = 16, 7, 1
SIDES = {"R_u": 128, "D_u": 64}
ALONE = 50  # passes per turn of the attention alone: one is over in a millisecond
PATHS: dict[str, dict[str, Any]] = {
    "closed form": {},
    "double backward": {"attention_path": "autograd"},
    "previous layer": {"attention_layer": "previous"},
}


def players_of(config: Config, side: int) -> tuple[Game, Players]:
    cache = Cache(torch.zeros(1, 3, side, side, dtype=torch.uint8).numpy(), torch.device("cpu"))
    nothing = Source(images=cache, labels=(0,), indices=())
    runtime = make_runtime("auto", "32-true")
    game = Game(
        config=config, source=nothing, held=nothing, runtime=runtime, name="bench", files=(Path(),)
    )
    torch.manual_seed(0)
    return game, set_up(game, build_network(config, side).train(), Discriminator().train())


def step_of(config: Config, side: int) -> Callable[[], None]:
    game, players = players_of(config, side)
    image = torch.rand(BATCH, 3, side, side, device=game.runtime.device)
    image = image.contiguous(memory_format=torch.channels_last)
    batch = Batch(image, torch.zeros(BATCH, device=image.device))
    draw = torch.Generator().manual_seed(0)
    return lambda: _drop(train_step(game, players, batch, draw))


def attention_of(config: Config, side: int) -> Callable[[], None]:
    network: Cavga = build_network(config, side).train()
    network.to(make_runtime("auto", "32-true").device)
    features = torch.rand(BATCH, 512, network.grid, network.grid, device=network.mu.weight.device)
    features.requires_grad_()

    def once() -> Tensor:
        if network.path == "closed":
            raw = F.conv2d(features, network.alpha()[:, :, None, None])
        else:
            mu = network.mu(features)
            raw = network._by_gradient(features, features, mu, mu, None)
        return expansion(missing(raw))

    def many() -> None:
        for _ in range(ALONE):
            once().backward()
            network.zero_grad(set_to_none=True)
            features.grad = None

    return many


def compare(steps: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Seconds per turn, forwards and backwards through the list in turns."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(WARM_UP + rounds):
        for name in list(steps)[:: 1 if turn % 2 else -1]:
            started = clock()
            steps[name]()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn >= WARM_UP:
                times[name].append(clock() - started)
    return times


def tell(title: str, times: dict[str, list[float]], per_turn: int = 1) -> None:
    first = next(iter(times.values()))
    print(title)
    for name, own in times.items():
        ratios = sorted(a / b for a, b in zip(own, first, strict=True))
        middle = 1e3 * statistics.median(own) / per_turn
        span = f"({ratios[0]:.2f} to {ratios[-1]:.2f})" if own is not first else ""
        print(f"  {name:<18}{middle:>9.2f} ms{statistics.median(ratios):>7.2f}x  {span}")


def _drop(values: dict[str, Tensor]) -> None:
    """Let go of the graph, as an epoch does."""
    values.clear()


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(
        f"{device}, {torch.get_num_threads()} threads, {BATCH} images; medians of {rounds} rounds"
    )
    for variant, side in SIDES.items():
        configs = {name: Config(variant=variant, **own) for name, own in PATHS.items()}  # type: ignore[arg-type]
        steps = {name: step_of(config, side) for name, config in configs.items()}
        tell(f"{variant}, {side} px, a step of both players", compare(steps, rounds))
        alone = {name: attention_of(configs[name], side) for name in list(PATHS)[:2]}
        tell(f"{variant}, {side} px, the attention alone", compare(alone, rounds), ALONE)


if __name__ == "__main__":
    main()
