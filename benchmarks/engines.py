"""Exported files against PyTorch on this CPU: LEA-Net with its map model, and PatchCore.

Both detectors have random weights, which changes no speed, at the sizes that `leanet fit` takes
by default, PatchCore with MobileNetV2 and a bank of 4,000. One process, the same number of threads;
the ways take turns, and a ratio is the median over the turns of the time in PyTorch by that in the
file, of what the process itself got. `off` is the largest difference of scores, relative to
max(1, |score|).

Run: python benchmarks/engines.py [--turns N] [--size PX]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from leanet.config import from_dict, to_dict
from leanet.inference.engines import OPEN
from leanet.inference.export_files import traced, write
from leanet.inference.export_graph import Format, Graph, facts_of, outputs_of, vector_images
from leanet.methods import catalog
from leanet.methods.recipe import DetectorModule
from leanet.networks.frozen import patches
from leanet.ops.fusion import fit_fusion
from leanet.ops.map_steps import MapPreparation
from leanet.ops.maps import MapScale
from leanet.ops.working_point import WorkingPoint

BATCHES = (1, 16)
BANK = 4000
FILES: dict[Format, str] = {"onnx": "ONNX Runtime", "openvino": "OpenVINO"}
Run = Callable[[NDArray[np.float32]], dict[str, NDArray[Any]]]


def lea_net(size: int) -> DetectorModule:
    """As `leanet fit leanet` trains it: U-Net that colors, ResNet-18, MobileNet."""
    method, drawn_by = catalog.find("leanet"), catalog.find("colorizer")
    preparation = MapPreparation(MapScale(20.0, 4.0))
    extra = {
        "map_model": {
            "method": "colorizer",
            "config": to_dict(drawn_by.config()),
            "extra": {"map_top": 20.0},
        },
        "fusion": fit_fusion({n: [0.0, 1.0] for n in ("adn", "aan", "map")}, [0, 0]).to_dict(),
        **preparation.to_dict(),
    }
    detector = method.build(method.config(), size, extra)
    return settled(detector, size)


def patchcore(size: int) -> DetectorModule:
    """With MobileNetV2 and a bank of places of noise."""
    method = catalog.find("patchcore")
    config = from_dict(method.config, {"backbone": "mobilenetv2_100", "pretrained": False})
    detector = method.build(config, size, {"bank_rows": BANK})
    settled(detector, size)
    maps = detector.see(torch.rand(BANK * 256 // size**2 + 1, 3, size, size))
    detector.bank = patches(maps).flatten(2).mT.flatten(0, 1)[:BANK].contiguous()
    return detector


@torch.no_grad()
def settled(detector: DetectorModule, size: int) -> DetectorModule:
    """BatchNorms that know what they see, as after training: else random networks explode."""
    norms = [part for part in detector.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    detector(torch.rand(4, 3, size, size))
    detector.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # as it is loaded
    return detector.eval()


def ways(detector: DetectorModule, folder: Path) -> dict[str, Run]:
    """The detector in PyTorch, and its files."""
    graph = Graph(detector, WorkingPoint(0.5))
    known = outputs_of(graph, vector_images(detector.img_size))
    card = {"img_size": detector.img_size}
    program = traced(graph, detector.img_size)
    found: dict[str, Run] = {"PyTorch": lambda image: outputs_of(graph, image)}
    for kind, name in FILES.items():
        file = write(program, kind, folder, facts_of(detector, card, graph.point, "", known))
        found[name] = OPEN[kind](file).run
    return found


def measure(name: str, runs: dict[str, Run], size: int, turns: int) -> None:
    draw = np.random.default_rng(0)
    for batch in BATCHES:
        image = draw.random((batch, 3, size, size), dtype=np.float32)
        want = runs["PyTorch"](image)["score"]
        seconds: dict[str, list[float]] = {way: [] for way in runs}
        for _ in range(turns + 1):
            for way, run in runs.items():
                started = time.process_time()
                run(image)
                seconds[way].append(time.process_time() - started)
        eager = np.array(seconds["PyTorch"][1:])  # the first turn warms up
        for way, run in runs.items():
            own = np.array(seconds[way][1:])
            off = (np.abs(run(image)["score"] - want) / np.maximum(1, np.abs(want))).max()
            print(
                f"{name:<9} batch {batch:<3}{way:<13}{np.median(own) / batch * 1e3:>8.1f} ms/image"
                f"{np.median(eager / own):>7.2f}x   off {off:.1e}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--size", type=int, default=128, help="side of the images")
    given = parser.parse_args()
    print(f"CPU, {torch.get_num_threads()} threads, images of {given.size} px; CPU time")
    for name, build in (("LEA-Net", lea_net), ("PatchCore", patchcore)):
        torch.manual_seed(0)
        with tempfile.TemporaryDirectory() as folder, torch.inference_mode(False):
            measure(name, ways(build(given.size), Path(folder)), given.size, given.turns)


if __name__ == "__main__":
    main()
