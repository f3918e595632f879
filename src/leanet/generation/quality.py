"""How good are generated images? Numbers with what they must be read against.

* KID beside its null: the same between training and validation images. Small samples move both.
* Coverage and density of as many generated images as there are validation images, and of those.
* Diversity: mean distance of two images of a class, relative to real ones. Near 0: all alike.
* Memorization: do generated images lie closer to training images than unseen real ones do? Asked in
  the space of the features and, always, of the pixels.
* Class fidelity, given a classifier of real images: does it see the class that was asked for?
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from leanet.generation.spaces import PIXELS, Space, batches, sized
from leanet.methods.recipe import DetectorModule
from leanet.ops.kid import coverage_density, in_proportion, kid_with_sd, mean_distance
from leanet.ops.neighbors import Memorization, Nearest, memorization, mirrored, nearest
from leanet.runtime import Runtime


class Sets(NamedTuple):
    """uint8 images [N, 3, S, S] per class: what the generator learned from, what was held out, and
    what it drew. `flip`: which mirror images count as the same."""

    training: Mapping[str, Tensor]
    held: Mapping[str, Tensor]
    generated: Mapping[str, Tensor]
    flip: str


class Quality(NamedTuple):
    """measured: JSON for quality.json; closest: of every generated image (classes in order), the
    nearest training image in the space; copies: whether it counts as one in either space."""

    measured: dict[str, Any]
    closest: Nearest
    copies: Tensor


def measure(
    sets: Sets, space: Space, runtime: Runtime, classifier: DetectorModule | None = None
) -> Quality:
    """Compare generated images with those that the generator learned from and with unseen ones."""
    training, held, drawn = (
        {name: space.of(image) for name, image in part.items() if len(image)}
        for part in (sets.training, sets.held, sets.generated)
    )
    spaces = [space] if space.name == PIXELS.name else [space, PIXELS]
    remembered = {one.name: remember(sets, one, runtime) for one in spaces}
    closest = remembered[space.name][1]
    limits = {name: found.limit for name, (found, _) in remembered.items()}
    copies = torch.stack([near.distance < limits[n] for n, (_, near) in remembered.items()])
    measured: dict[str, Any] = {
        "space": {"name": space.name, "sha256": space.sha256},
        "images": {name: len(image) for name, image in sets.generated.items()},
        "kid": _kid(training, held, drawn, runtime),
        "coverage": _coverage(training, held, drawn),
        "diversity": {
            name: mean_distance(own) / mean_distance(training[name]) for name, own in drawn.items()
        },
        "memorization": {
            name: found._asdict() | {"suspicious": found.suspicious}
            for name, (found, _) in remembered.items()
        },
    }
    if classifier is not None:
        measured["class_fidelity"] = fidelity(classifier, sets.generated)
    measured["warnings"] = _warnings({name: found for name, (found, _) in remembered.items()})
    return Quality(measured, closest, copies.any(dim=0))


def remember(sets: Sets, space: Space, runtime: Runtime) -> tuple[Memorization, Nearest]:
    """The memorization check in a space, and the nearest training image of every generated one.

    Raises:
        ValueError: no held-out images, without which distances mean nothing.
    """
    training, held, drawn = (torch.cat(list(part.values())) for part in sets[:3])
    if len(held) < 1:
        raise ValueError(
            "the generator's run held no images out, so whether it memorizes cannot be told; "
            "train it with --val_fraction 0.2"
        )
    bank = space.of(training)
    near = nearest([space.of(one) for one in mirrored(drawn, sets.flip)], bank)
    unseen = nearest([space.of(one) for one in mirrored(held, sets.flip)], bank)
    others = nearest([bank], bank, itself=True)
    rng = np.random.default_rng([runtime.seed, 1])
    return memorization(near.distance, unseen.distance, others.distance, rng), near


@torch.inference_mode()
def fidelity(classifier: DetectorModule, generated: Mapping[str, Tensor]) -> dict[str, Any]:
    """Share of generated images that a classifier of real images gives the class asked for, and
    what naming the most frequent class would reach.

    Raises:
        ValueError: the classifier does not know these classes.
    """
    classes: Sequence[str] = getattr(classifier, "classes", ())
    if unknown := [name for name in generated if name not in classes]:
        raise ValueError(
            f"the classifier knows {', '.join(classes) or 'normal and anomalous'}, and not the "
            f"class {unknown[0]!r}; give a run of `leanet fit classifier --classes kinds`"
        )
    device = next(classifier.parameters()).device
    right: dict[str, float] = {}
    for name, image in generated.items():
        hits = [
            _guessed(classifier, part.to(device)) == classes.index(name) for part in batches(image)
        ]
        right[name] = float(torch.cat(hits).double().mean())
    counts = [len(image) for image in generated.values()]
    total = sum(share * n for share, n in zip(right.values(), counts, strict=True)) / sum(counts)
    return {"accuracy": total, "majority": max(counts) / sum(counts), "per_class": right}


def _guessed(classifier: DetectorModule, image: Tensor) -> Tensor:
    probs: Tensor | None = classifier(sized(image, classifier.img_size)).probs
    assert probs is not None, "a classifier with classes gives probabilities"
    return probs.argmax(dim=1)


def _kid(
    training: Mapping[str, Tensor],
    held: Mapping[str, Tensor],
    drawn: Mapping[str, Tensor],
    runtime: Runtime,
) -> dict[str, Any]:
    """Pooled and per class: KID and its SD over subsets, and the same between real images."""
    generator = runtime.generator("kid")
    groups = {"pooled": list(drawn), **({name: [name] for name in drawn} if len(drawn) > 1 else {})}
    found = {}
    for group, names in groups.items():
        real = torch.cat([training[name] for name in names])
        counts = [len(training[name]) for name in names]
        mixed = in_proportion([drawn[name] for name in names], counts)
        value = kid_with_sd(real, mixed, generator)
        unseen = [held[name] for name in names if name in held]
        row: dict[str, Any] = {"value": value.value, "sd": value.sd, "null": None, "null_sd": None}
        if unseen and sum(map(len, unseen)) >= 2:
            null = kid_with_sd(real, torch.cat(unseen), generator)
            row |= {"null": null.value, "null_sd": null.sd}
        found[group] = row
    return found


def _coverage(
    training: Mapping[str, Tensor], held: Mapping[str, Tensor], drawn: Mapping[str, Tensor]
) -> dict[str, Any]:
    """Pooled, of equally many generated and held-out images of every class."""
    real = torch.cat(list(training.values()))
    counts = {name: min(len(drawn[name]), len(own)) for name, own in held.items() if name in drawn}
    found: dict[str, Any] = {"images": sum(counts.values())}
    for name, part in (("generated", drawn), ("validation", held)):
        chosen = [part[kind][:count] for kind, count in counts.items()]
        found[name] = coverage_density(real, torch.cat(chosen))._asdict()
    return found


def _warnings(remembered: Mapping[str, Memorization]) -> list[str]:
    return [
        f"the generator memorizes ({space}): P(d_g < d_v) = {found.closer:.2f}, "
        f"{found.copies:.0%} copies of training images"
        for space, found in remembered.items()
        if found.suspicious
    ]
