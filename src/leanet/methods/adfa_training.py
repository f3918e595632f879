"""The bank of ADFA and CFA, and how their descriptor learns.

Only the descriptor (and the radius, if it is learned) is trained; the features are frozen, and the
bank is what the descriptor with its random first weights makes of the normal images. Distances,
softmax and top-k are computed in float32, whatever `--precision` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from leanet.data.loader import Source
from leanet.methods.adfa_config import Config
from leanet.methods.normal_limits import Normals
from leanet.methods.patches import PatchDetector, seen
from leanet.methods.recipe import Material
from leanet.networks.adfa import Adapter
from leanet.networks.frozen import patches
from leanet.ops.adfa import cfa_loss, kl_weight
from leanet.ops.gate import CmaxOver
from leanet.ops.topk import nearest_distances, soft_topk_distance, topk_figures
from leanet.records import Batch
from leanet.runtime import Runtime
from leanet.training import journal
from leanet.training.loop import Job, Schedule, fit, mean_losses

LOOKED_AT = 4  # images whose distances are described in the journal


class Adapted(PatchDetector):
    """A detector with a descriptor and a bank."""

    network: Adapter


def fill_bank(detector: Adapted, data: Material, indices: Sequence[int], seed: int) -> None:
    """Fill the bank, in place, by the mean of what the descriptor makes of these images in each
    place; compressed by K-means where the options say so."""
    bank = mean_descriptions(detector, data, indices)
    entries = len(detector.network.bank)
    if entries < len(bank):
        bank = compressed(bank, entries, seed)
    detector.network.bank.copy_(bank)


@torch.no_grad()
def mean_descriptions(detector: Adapted, data: Material, indices: Sequence[int]) -> Tensor:
    """Mean descriptions [T, D], float32: over images, or, with `bank_mean` batches, the mean of
    the means of batches, in which an image of a short last batch weighs more."""
    config, total, weight = detector.config, torch.zeros(()), 0
    for maps in seen(detector, data, indices, config.batch_size):
        phi = detector.network(patches(maps)).double()
        by_image = config.bank_mean == "images"
        total = total.to(phi) + (phi.sum(dim=0) if by_image else phi.mean(dim=0))
        weight += len(phi) if by_image else 1
    return (total / weight).float()


def compressed(bank: Tensor, entries: int, seed: int) -> Tensor:
    """The centers [entries, D] that K-means finds in a bank [T, D]."""
    from sklearn.cluster import KMeans

    found = KMeans(entries, n_init=1, random_state=seed % 2**32).fit(bank.cpu().numpy())
    return torch.from_numpy(found.cluster_centers_).to(bank)


def train_descriptor(
    detector: Adapted,
    normals: Normals,
    data: Material,
    folder: Path,
    runtime: Runtime,
    *,
    name: str,
) -> list[journal.Record]:
    """Train in place, to the last epoch, and return the journal; goes on from the checkpoint in
    `folder`."""
    config: Config = detector.config
    size = config.batch_size
    source = Source(images=data.images, labels=data.labels, indices=normals.rest)
    held = Source(images=data.images, labels=data.labels, indices=normals.held)
    watched = (normals.held or normals.rest)[:LOOKED_AT]
    maps = next(seen(detector, data, watched, LOOKED_AT))

    def loss(network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            places = patches(detector.see(batch.image))
        return {"loss": loss_of(config, detector.network, network(places))}

    def look(network: nn.Module) -> dict[str, float]:
        found = mean_losses(network, loss, held, size) if held.indices else {}
        return found | figures(config, detector.network, maps)

    schedule = Schedule(
        epochs=config.epochs,
        batch_size=size,
        lr=config.lr,
        weight_decay=config.weight_decay,
        amsgrad=config.amsgrad,
        lr_schedule=config.lr_schedule,
        max_steps=config.max_steps,
        drop_last=config.drop_last,
    )
    job = Job(
        name=name,
        network=detector.network,
        loss=loss,
        source=source,
        schedule=schedule,
        validate=look,
        files=[sample.path for sample in data.samples],
    )
    return fit(job, runtime, folder)


def loss_of(config: Config, adapter: Adapter, phi: Tensor) -> Tensor:
    """The loss of descriptions phi [B, T, D]."""
    with torch.autocast(phi.device.type, enabled=False):
        squared = squared_distances(config, adapter, phi, cmax=config.cmax, count=config.neighbors)
        if config.topk == "soft":
            return squared.mean()
        if config.loss == "adfa":
            return squared.sum(dim=2).mean()
        k, j = config.k, config.hard_negatives
        return cfa_loss(squared, adapter.radius, k, j, config.nu, config.alpha)


def squared_distances(
    config: Config, adapter: Adapter, phi: Tensor, *, cmax: CmaxOver, count: int
) -> Tensor:
    """What the options make of descriptions phi [B, T, D] and the bank: soft distances [B, T], or
    the `count` smallest ones [B, T, count], ascending; times the KL weight of each image, if any.
    `cmax` counts for the soft ones."""
    weight = kl_weight(phi, adapter.bank) if config.kl_weight else None
    if config.topk == "soft":
        return soft_topk_distance(
            phi,
            adapter.bank,
            weight,
            config.k,
            config.eps,
            cmax=cmax,
            scale=config.topk_scale,
            block=config.block,
        )
    nearest = nearest_distances(phi, adapter.bank, count, config.block)
    return nearest if weight is None else nearest * weight[:, None, None]


@torch.no_grad()
def figures(config: Config, adapter: Adapter, maps: list[Tensor]) -> dict[str, float]:
    """For the journal, of a few images: the mean KL weight, the radius if it is learned, and what
    soft top-k does: largest distance (max_score), cmax, effective entries, and the share of entries
    that push (negative_share)."""
    adapter.eval()
    phi = adapter(patches(maps))
    found: dict[str, float] = {}
    weight = kl_weight(phi, adapter.bank) if config.kl_weight else None
    if weight is not None:
        found["kl_weight"] = float(weight.mean())
    if config.radius_learnable:
        found["radius"] = float(adapter.radius.detach())
    if config.topk == "soft":
        found |= topk_figures(
            phi,
            adapter.bank,
            weight,
            config.k,
            config.eps,
            cmax=config.cmax,
            scale=config.topk_scale,
            block=config.block,
        )
    return found
