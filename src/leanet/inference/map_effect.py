"""How much of a verdict comes from the anomaly map, for networks that read an image and a map.

    map_effect   score(image, map) - score(image, reference map)
    exchanged    score(image, map) - score(image, map of another image)

The reference is what the map of a normal image looks like on average, or zeros where no normal
images are at hand; which of them it is belongs to the number. The score is the logit of "anomalous"
of the head that is explained.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from leanet.inference.cam_layers import evaluating
from leanet.inference.perturbation import Prepare

BATCH = 16


class Effect(NamedTuple):
    """The effects [B] on the logit of "anomalous"; `exchanged` is NaN where there is no other
    image."""

    map_effect: Tensor
    exchanged: Tensor


class Reference(NamedTuple):
    """A network map [1, 1, H, W] and what it is."""

    plane: Tensor
    words: str


@torch.no_grad()
def reference_map(prepare: Prepare, normal: Tensor | None, like: Tensor) -> Reference:
    """The mean map of normal images [N, 3, S, S], or zeros shaped as `like` [B, 1, H, W]."""
    if normal is None or len(normal) == 0:
        return Reference(torch.zeros_like(like[:1]), "zeros")
    total = torch.zeros_like(like[:1])
    for part in torch.split(normal, BATCH):
        total += prepare(part.to(like.device))[1].sum(dim=0, keepdim=True)
    return Reference(total / len(normal), f"the mean map of {len(normal)} normal images")


@torch.no_grad()
def map_effect(
    network: nn.Module,
    image: Tensor,
    prepare: Prepare,
    *,
    reference: Tensor,
    logits_of: Callable[[Any], Tensor],
) -> Effect:
    """The effects for images [B, 3, S, S]; each is exchanged with the next one of the batch."""

    def score(anomaly_map: Tensor) -> Tensor:
        logits = logits_of(network(*prepare(image, anomaly_map)))  # [B, 1] or [B, 2]
        return logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]

    with evaluating(network):
        own = prepare(image)[1]
        plain = score(own)
        effect = plain - score(reference.expand_as(own))
        if len(image) == 1:
            return Effect(effect, torch.full_like(effect, torch.nan))
        return Effect(effect, plain - score(own.roll(-1, dims=0)))
