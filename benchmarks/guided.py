"""What guided attention costs: beside the plain classifier and beside its maps alone.

Random weights, which change no speed, and a bank of 4,000 places. `one look`: the map model and the
attention read the same features, computed once, as `leanet fit leanet --weights FILE` has it by
default; `two looks`: each runs the backbone itself, as with maps of another source; `and a copy`:
with the fine-tuned copy that joins in from ten labelled defects on. The contenders
take turns; milliseconds per image are medians over the turns, ratios are to the plain classifier.

Run: python benchmarks/guided.py [--turns N] [--size PX]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from leanet.config import from_dict, to_dict
from leanet.methods import catalog
from leanet.methods.lea_detector import LEADetector
from leanet.networks.frozen import patches
from leanet.networks.guided import GuidedNet
from leanet.ops.map_steps import MapPreparation
from leanet.ops.maps import MapScale

BACKBONES, BATCHES, BANK = ("mobilenetv2_100", "resnet18"), (1, 16), 4000


def guided(backbone: str, size: int) -> LEADetector:
    """With PatchCore on the same backbone."""
    lea, patchcore = catalog.find("leanet"), catalog.find("patchcore")
    source = from_dict(patchcore.config, {"backbone": backbone, "pretrained": False})
    extra = {
        "map_model": {
            "method": "patchcore",
            "config": to_dict(source),
            "extra": {"bank_rows": BANK},
        },
        "fusion": None,
        **MapPreparation(MapScale(20.0, 4.0)).to_dict(),
        "tuned": True,
    }
    options = {"adn": f"timm/{backbone}", "attention": "guided"}
    made = lea.build(from_dict(lea.config, options), size, extra)
    assert isinstance(made, LEADetector)
    model = made.map_model
    seen = model.see(torch.rand(BANK * 64 // size**2 + 1, 3, size, size))
    places = patches(seen).flatten(2).mT.flatten(0, 1)
    model.bank = places[:BANK].contiguous()
    made.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # as it is loaded
    return made.eval()


def contenders(detector: LEADetector) -> dict[str, Callable[[Tensor], object]]:
    """Name -> what is done with a batch of images."""

    network = detector.network
    assert isinstance(network, GuidedNet)
    copy = network.tuned

    def judged(image: Tensor, *, one_look: bool, with_copy: bool = False) -> object:
        detector.one_look, network.tuned = one_look, copy if with_copy else None
        return detector(image)

    return {
        "plain classifier": network.adn,
        "maps alone": detector.map_model,
        "guided, one look": lambda image: judged(image, one_look=True),
        "one look and a copy": lambda image: judged(image, one_look=True, with_copy=True),
        "guided, two looks": lambda image: judged(image, one_look=False),
    }


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description="The cost of guided attention.")
    parser.add_argument("--turns", type=int, default=9, help="timed turns (default 9)")
    parser.add_argument("--size", type=int, default=224, help="image side in pixels (default 224)")
    given = parser.parse_args()
    print(f"{given.size} px, torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"{'ms per image':22}", *(f"{f'{b}, batch {n}':>28}" for b in BACKBONES for n in BATCHES))
    columns = []
    for backbone in BACKBONES:
        table = contenders(guided(backbone, given.size))
        columns += [measured(table, batch, given.size, given.turns) for batch in BATCHES]
    for name in columns[0]:
        told = (f"{c[name]:.1f} ({c[name] / c['plain classifier']:.2f} x)" for c in columns)
        print(f"{name:22}", *(f"{one:>28}" for one in told))


def measured(
    table: dict[str, Callable[[Tensor], object]], batch: int, size: int, turns: int
) -> dict[str, float]:
    """Milliseconds per image, after a turn to warm up."""
    images = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0))
    times: dict[str, list[float]] = {name: [] for name in table}
    for turn in range(turns + 1):
        for name, run in table.items():
            started = time.perf_counter()
            run(images)
            if turn:
                times[name].append((time.perf_counter() - started) * 1e3 / batch)
    return {name: statistics.median(values) for name, values in times.items()}


if __name__ == "__main__":
    main()
