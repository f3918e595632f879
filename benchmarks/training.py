"""A training step, side by side: ADN alone, AAN alone, LEA-Net, plain and with bf16, channels-last.

Ratios of CPU (or device) time for one step of 16 images; the target is that LEA-Net costs at most
1.05 times the sum of its two networks.

Run: python benchmarks/training.py [side]
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from leanet.networks.aan import MobileNetAAN, ResNetAAN
from leanet.networks.leanet import LEANet
from leanet.networks.resnet import ResNet
from leanet.networks.unet import UNet, unet_depth

BATCH, ROUNDS, WARM_UP = 16, 7, 2


def step_of(network: nn.Module, inputs: tuple[Tensor, ...], fast: bool) -> Callable[[], None]:
    layout = torch.channels_last if fast else torch.contiguous_format
    network.to(memory_format=layout).train()
    inputs = tuple(tensor.contiguous(memory_format=layout) for tensor in inputs)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4, fused=True)

    def step() -> None:
        with torch.autocast(inputs[0].device.type, torch.bfloat16, enabled=fast):
            output = network(*inputs)
        logits = [output] if isinstance(output, Tensor) else [output.adn, output.aan]
        loss = torch.stack([logit.float().square().mean() for logit in logits]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def main() -> None:
    side = int(sys.argv[1]) if len(sys.argv) > 1 else 128
    device = "cuda" if torch.cuda.is_available() else "cpu"
    image = torch.rand(BATCH, 3, side, side, device=device)
    anomaly_map = torch.rand(BATCH, 1, side, side, device=device)
    pair = (image, anomaly_map)
    cases: dict[str, tuple[nn.Module, tuple[Tensor, ...]]] = {
        "ADN ResNet18": (ResNet(18), (image,)),
        "AAN ResNet": (ResNetAAN(), (anomaly_map,)),
        "AAN MobileNet": (MobileNetAAN(), (anomaly_map,)),
        "LEA-Net ResNet, A4": (LEANet(ResNet(18), ResNetAAN(), (3,)), pair),
        "LEA-Net ResNet, A1": (LEANet(ResNet(18), ResNetAAN(), (0,)), pair),
        "LEA-Net MobileNet, A4": (LEANet(ResNet(18), MobileNetAAN(), (3,)), pair),
        "U-Net 32": (UNet(1, 2, depth=unet_depth(side), base=32), (anomaly_map,)),
        "U-Net 64 (Table 9)": (UNet(1, 2, depth=unet_depth(side), base=64), (anomaly_map,)),
    }
    steps = {
        (name, fast): step_of(network.to(device), inputs, fast)
        for name, (network, inputs) in cases.items()
        for fast in (False, True)
    }
    times: dict[tuple[str, bool], list[float]] = {key: [] for key in steps}
    for turn in range(WARM_UP + ROUNDS):  # interleaved, so that all see the same load
        for key, step in steps.items():
            started = time.perf_counter()
            step()
            if device == "cuda":
                torch.cuda.synchronize()
            if turn >= WARM_UP:
                times[key].append(time.perf_counter() - started)
    middle = {key: statistics.median(values) for key, values in times.items()}
    print(f"{device}, {torch.get_num_threads()} threads, {BATCH} images of {side} px, ms a step")
    print(f"{'':<24}{'float32':>10}{'bf16 + cl':>11}{'ratio':>8}")
    for name in cases:
        slow, fast = middle[name, False], middle[name, True]
        print(f"{name:<24}{slow * 1e3:>10.1f}{fast * 1e3:>11.1f}{slow / fast:>7.1f}x")
    for aan, lea in (
        ("AAN ResNet", "LEA-Net ResNet, A4"),
        ("AAN MobileNet", "LEA-Net MobileNet, A4"),
    ):
        ratios = [
            middle[lea, fast] / (middle["ADN ResNet18", fast] + middle[aan, fast])
            for fast in (False, True)
        ]
        print(f"{lea}: {ratios[0]:.2f} x (ADN + AAN alone) in float32, {ratios[1]:.2f} x in bf16")


if __name__ == "__main__":
    main()
