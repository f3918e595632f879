"""PatchCore: how far is a place from everything that normal images show anywhere?

Patches of normal images, described by a frozen network, are thinned to a few that still cover them
all, and a new patch is as anomalous as the nearest of these is far (Roth et al. 2022,
arXiv:2106.08265). Nothing is trained.

The patches lie in a file while the few are chosen (`leanet.ops.coreset`), so memory does not grow
with their number. What differs from the paper stands in docs/methods/patchcore.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from leanet.config import option
from leanet.methods import patches
from leanet.methods.memory import megabytes, peak_memory, told
from leanet.methods.normal_limits import conclude, split_normals
from leanet.methods.patches import PatchDetector, load_features, seen
from leanet.methods.recipe import INFERENCE_BATCH, Experience, Material, Trained
from leanet.methods.row_file import RowFile
from leanet.networks.frozen import patches as patches_of
from leanet.ops.coreset import (
    Rows,
    coreset_bytes,
    greedy_coreset,
    nearest_row,
    projected_dims,
    reweighted,
    sparse_projection,
)
from leanet.progress import Progress, say_once
from leanet.records import Fold
from leanet.runtime import Runtime

CANDIDATES, PROJECTED = "candidates.f32", "projected.f32"  # in the fold's folder, while it learns


@dataclass(frozen=True, kw_only=True)
class Config(patches.Config):
    """Options of PatchCore."""

    feature_indices: tuple[int, ...] | None = option(
        None, "feature levels of the backbone; default: those of stride 8 and 16"
    )
    coreset: float = option(
        0.1, "the bank: a share of the candidates up to 1 (= all), or their number above 1"
    )
    max_candidates: int = option(
        500_000, "places to choose from, drawn evenly from the images if there are more; 0 = all"
    )
    projection_eps: float = option(
        0.9, "candidates are compared in so few dimensions that distances may err so much; 0 = all"
    )
    neighbors: int = option(
        9, "neighbors in the bank that weigh the score of an image; 1 = the highest distance as is"
    )


PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"crop": "center"},
    "one_percent": {"coreset": 0.01},
}


class PatchCoreDetector(PatchDetector):
    """Detector: map [B, 1, S, S] >= 0, distances to the bank, and their weighed maximum [B]."""

    strides = (8, 16)
    bank: Tensor

    def __init__(self, config: Config, img_size: int, rows: int = 1) -> None:
        super().__init__(config, img_size)
        self.register_buffer("bank", torch.zeros(rows, sum(self.features.channels)))

    def distances(self, maps: list[Tensor]) -> Tensor:
        """Feature maps -> distances to the nearest row of the bank, [B, 1, h, w]."""
        described = patches_of(maps)
        batch, _, height, width = described.shape
        found = nearest_row(described.flatten(2).mT.flatten(0, 1), self.bank)
        return found.distance.view(batch, 1, height, width)

    def image_score(self, distances: Tensor, anomaly_map: Tensor, maps: list[Tensor]) -> Tensor:
        """The highest distance [B], weighed by the neighbors of the nearest row."""
        highest, place = distances.flatten(1).max(dim=1)
        if self.config.neighbors == 1:
            return highest
        described = patches_of(maps).flatten(2).mT
        farthest = described[torch.arange(place.shape[0], device=place.device), place]
        found = nearest_row(farthest, self.bank)
        return reweighted(farthest, found, self.bank, self.config.neighbors)

    def extra(self) -> dict[str, Any]:
        """Limits of the map, and the size of the bank."""
        return {**super().extra(), "bank_rows": len(self.bank)}


def build(config: Config, img_size: int, extra: dict[str, Any]) -> PatchCoreDetector:
    """The detector without its weights; `extra` as `PatchCoreDetector.extra` gives it."""
    detector = PatchCoreDetector(config, img_size, extra.get("bank_rows", 1))
    detector.take(extra)
    return detector


def train(
    config: Config,
    fold: Fold,
    data: Material,
    folder: Path,
    runtime: Runtime,
    experience: Experience | None = None,
) -> Trained:
    """Fill the bank from the normal images of `fold.train`.

    Raises:
        ValueError: no normal images, options or weights that do not fit.
        OSError: the disk has no room for the candidates.
    """
    require(config)
    normals = split_normals(fold, data, runtime.seed, experience, config.val_fraction)
    with runtime.seeded(fold.name, "patchcore"):
        detector = PatchCoreDetector(config, data.img_size)
    remarks = load_features(config, detector.features)
    for notice in remarks["notices"]:
        say_once(notice)
    detector.to(runtime.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    plan = plan_of(config, len(normals.rest), detector.features.grid**2, detector.bank.shape[1])
    generator = runtime.generator(fold.name, "patchcore")
    described = drawn(detector, data, normals.rest, plan, generator)
    detector.bank = fill(described, plan, folder, generator, runtime.device)
    remarks |= plan.remarks() | peak_memory(runtime.device)
    say_once(
        f"{fold.name}: a bank of {plan.bank} of {plan.places} places, {remarks['bank_mb']} MB"
        f"{told(remarks)}"
    )
    return conclude(detector, normals, data, experience, epochs=1, remarks=remarks)


def require(config: Config) -> None:
    """Refuse numbers that make no sense, before any work.

    Raises:
        ValueError: says which, and what is allowed.
    """
    size = config.coreset
    if size <= 0 or (size > 1 and size != int(size)):
        raise ValueError(
            f"coreset {size}: give a share in (0, 1] or, above 1, a whole number of places"
        )
    if not 0 <= config.projection_eps < 1:
        raise ValueError(
            f"projection_eps {config.projection_eps}: give 0 (compare as they are) or an error "
            "below 1"
        )
    if config.neighbors < 1 or config.max_candidates < 0:
        raise ValueError(
            f"neighbors {config.neighbors}, max_candidates {config.max_candidates}: give at least "
            "1 neighbor, and 0 (all) or more candidates"
        )


class Plan(NamedTuple):
    """How many places of the images there are, are candidates and go into the bank; in how many
    dimensions, and in how many candidates are compared."""

    images: int
    places: int
    candidates: int
    bank: int
    dims: int
    compared: int

    def quota(self, image: int) -> int:
        """Candidates from an image."""
        upto = self.candidates * (image + 1) // self.images
        return upto - self.candidates * image // self.images

    def remarks(self) -> dict[str, Any]:
        """Sizes (JSON), with what choosing needs in memory and on the disk."""
        on_disk = self.dims + (self.compared if self.compared < self.dims else 0)
        return {
            "places": self.places,
            "candidates": self.candidates,
            "bank_rows": self.bank,
            "bank_mb": megabytes(4 * self.bank * self.dims),
            "compared_dims": self.compared,
            "coreset_memory_mb": megabytes(
                coreset_bytes(self.candidates, self.compared, self.bank)
            ),
            "coreset_disk_mb": megabytes(4 * self.candidates * on_disk),
        }


def plan_of(config: Config, images: int, places: int, dims: int) -> Plan:
    """The sizes for so many images of so many places each, described by `dims` numbers."""
    total = images * places
    candidates = min(total, config.max_candidates or total)
    share = config.coreset <= 1
    bank = int(config.coreset * candidates) if share else min(int(config.coreset), candidates)
    compared = dims
    if config.projection_eps and candidates > 1:
        compared = max(1, min(dims, projected_dims(candidates, config.projection_eps)))
    return Plan(images, total, candidates, max(1, bank), dims, compared)


def drawn(
    detector: PatchCoreDetector,
    data: Material,
    indices: tuple[int, ...],
    plan: Plan,
    generator: torch.Generator,
) -> Iterator[Tensor]:
    """Descriptions [n, D] of the candidates, image by image."""
    image = 0
    with Progress("describing places", total=len(indices)) as bar:
        for maps in seen(detector, data, indices, INFERENCE_BATCH):
            for described in patches_of(maps).flatten(2).mT:
                chosen = torch.randperm(len(described), generator=generator)[: plan.quota(image)]
                yield described[chosen.sort().values.to(described.device)]
                image += 1
                bar.advance()


def fill(
    described: Iterator[Tensor],
    plan: Plan,
    folder: Path,
    generator: torch.Generator,
    device: torch.device,
) -> Tensor:
    """The bank [N, D] from descriptions of all candidates, which lie in files meanwhile."""
    fewer = plan.compared < plan.dims
    matrix = sparse_projection(plan.dims, plan.compared, generator).to(device) if fewer else None
    with ExitStack() as files:
        candidates = files.enter_context(RowFile(folder / CANDIDATES, plan.candidates, plan.dims))
        compared = candidates
        if matrix is not None:
            file = RowFile(folder / PROJECTED, plan.candidates, plan.compared)
            compared = files.enter_context(file)
        for rows in described:
            candidates.append(rows.cpu().numpy())
            if matrix is not None:
                compared.append((rows @ matrix).cpu().numpy())
        chosen = choose(compared, plan, generator, device)
        return torch.from_numpy(candidates[chosen.numpy()]).to(device)


def choose(compared: Rows, plan: Plan, generator: torch.Generator, device: torch.device) -> Tensor:
    """The rows of the bank, in the order of the candidates."""
    if plan.bank == plan.candidates:
        return torch.arange(plan.bank)
    with Progress("choosing the bank", total=plan.bank) as bar:
        rows = greedy_coreset(
            compared,
            plan.bank,
            generator,
            device=device,
            advance=lambda steps: bar.advance(steps=steps),
        )
    return rows.sort().values
