"""What is done against classes of unequal size: fill the batches, weigh the loss, or nothing.

Extra images count as often as they are drawn beside the real ones.
"""

from __future__ import annotations

from collections import Counter
from typing import Literal

import torch
from torch import Tensor

from leanet.data.loader import ANOMALOUS_SHARE, Balance, Source
from leanet.records import ANOMALOUS, NORMAL

UNEVEN = 4  # times as many images of one class as of another
Wanted = Literal["auto", "none", "loss", "batches"]


def of_two(balance: Wanted, source: Source) -> tuple[Balance, Tensor | None]:
    """How normal and anomalous images are drawn, and the weight of an anomalous one in the loss."""
    anomalous = source.num_anomalous()
    if balance == "loss":
        normal = _drawn(source, NORMAL, len(source.indices) - anomalous)
        weight = normal / _drawn(source, ANOMALOUS, anomalous)
        return "none", torch.tensor(weight, device=source.images.device)
    if balance == "auto":
        rare = anomalous / len(source.indices) < ANOMALOUS_SHARE
        return ("batches" if rare else "none"), None
    return balance, None


def of_several(balance: Wanted, source: Source) -> tuple[Balance, Tensor | None]:
    """How images of several classes are drawn, and weights [K] of the classes, inverse to their
    numbers, mean 1 over the images; "auto" where a class is four times as frequent as another.

    Raises ValueError for "batches".
    """
    counts = Counter(source.labels[i] for i in source.indices)
    drawn = [_drawn(source, k, counts[k]) for k in range(max(source.labels) + 1)]
    numbers = torch.tensor(drawn, dtype=torch.float32)
    if balance == "batches":
        raise ValueError("balance batches is for normal and anomalous images; use loss, or none")
    uneven = bool(numbers.max() >= UNEVEN * numbers.min())
    if balance == "none" or (balance == "auto" and not uneven):
        return "none", None
    weights = numbers.sum() / (len(numbers) * numbers.clamp(min=1))
    return "none", weights.to(source.images.device)


def _drawn(source: Source, label: int, count: int) -> float:
    """`count` real images of a label and, in proportion to them, the extra ones of that label."""
    total = sum(part.share for part in source.extra)
    drawn = float(count)
    for part in source.extra:
        among = sum(source.labels[i] == label for i in part.indices) / len(part.indices)
        drawn += len(source.indices) * part.share / (1 - total) * among
    return drawn
