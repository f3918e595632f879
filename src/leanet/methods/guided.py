"""Guided attention, LEA-Net's way with few defects: the map is the start, the labels correct it.

A backbone with trained weights stays as it is. Every image is described by its features, pooled
where its anomaly map points; the map's own score is where the log-odds begin, and the labels only
correct that (networks/guided.py, ops/correction.py). Training is one convex problem, solved in
milliseconds, so every training image can be scored by a correction that has not seen it: the
working point costs no defect and stays honest with a single one. Where defects are many a
fine-tuned copy of the backbone joins in (tuned.py).

The maps of the training images come from models that have not seen them, as everywhere in LEA-Net.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from leanet.data.cache import images_in_unit_range
from leanet.data.folds import count_groups, split_parts
from leanet.methods import colorizer, supervised
from leanet.methods.extra import Extra, extra_labels, extra_sources, joined
from leanet.methods.held_out import parts_of
from leanet.methods.lea_config import Config, given_of
from leanet.methods.lea_detector import LEADetector, Reader, sees_the_same
from leanet.methods.lea_measures import measure_attention
from leanet.methods.map_models import TrainingMaps, chunks, training_maps
from leanet.methods.map_options import make_prior, steps_of
from leanet.methods.map_sources import describe, find_source, refuse_extras
from leanet.methods.recipe import Experience, HeldOut, Material, Trained
from leanet.methods.supervised import Normalize, seed_names
from leanet.methods.tuned import Rows, Tuned, fine_tune, is_wanted
from leanet.networks.guided import GuidedNet, pool
from leanet.networks.leanet import LEAOutput
from leanet.networks.prior import MapPrior
from leanet.ops.correction import cross_corrected, fit_correction
from leanet.progress import say_once
from leanet.records import ANOMALOUS, NORMAL, Fold, Sample
from leanet.runtime import Runtime

PARTS = 5  # in which the training images are scored by corrections that have not seen them
UNUSED = (
    *("epochs", "patience", "monitor", "val_fraction", "val_anomalous"),
    *("synthetic_share", "generated_share"),
)  # options of training by gradient descent
FOR_TUNED = (
    *("batch_size", "lr", "lr_schedule", "weight_decay"),
    *("augment", "balance", "norm_batches"),
)  # those that count where a copy is fine-tuned


class Described(NamedTuple):
    """Training images as the correction sees them: scores [N, K] (the map's z, then e if a
    fine-tuned copy joins in), phi [N, D], labels [N], for every one the sample that it is or was
    made from (-1 = none), and its number among all images."""

    scores: NDArray[np.float64]
    features: NDArray[np.float64]
    labels: NDArray[np.int64]
    samples: tuple[int, ...]
    numbers: tuple[int, ...]


def build_network(
    config: Config, img_size: int, prior: MapPrior | None, *, tuned: bool = False
) -> GuidedNet:
    """The network of resolved options, with random weights; `tuned`: with a copy to fine-tune."""
    assert prior is not None  # `lea_config.resolve` refuses none
    return GuidedNet(
        supervised.build_classifier(config, 3, 1, img_size),
        prior,
        temperature=config.attention_temperature,
        tuned=supervised.build_classifier(config, 3, 1, img_size) if tuned else None,
    )


def train(
    config: Config,
    fold: Fold,
    data: Material,
    folder: Path,
    runtime: Runtime,
    experience: Experience | None = None,
) -> Trained:
    """Maps, descriptions, correction; `config` is resolved. The scores for the working point are
    those of corrections that have not seen the image, whatever cross-validation has taught.

    Raises:
        ValueError: one class only, options or weights that do not fit.
    """
    everything = Experience(HeldOut((), {}), 1)  # nothing need be held out
    rest, _ = parts_of(config, fold, data, runtime, everything)
    _require_normals(rest, data.samples)
    source = find_source(config.map_source, config.map_model, data, runtime, config.map_options)
    source = dataclasses.replace(source, steps=steps_of(config))
    extras = supervised.extras_of(config, fold, rest, data, folder, runtime)
    refuse_extras(source, config.map_source, extras)
    maps = training_maps(source, config.map_mode, fold, data, folder, runtime, extras)
    network = prepared_network(config, fold, data, maps, runtime)
    reader = Reader(Normalize(config.mean, config.std), "image").to(runtime.device)
    described = describe_images(network, reader, data, maps, rest, extras)
    tuned = is_wanted(config, network.adn, rest, data)
    if tuned:
        rows = Rows(joined(data, extras), *described[2:])
        copies = fine_tune(config, fold, rest, rows, data, folder, runtime)
        described = _join(network, copies, described)
    correction = fit_correction(*described[:3], strength=config.correction)
    network.take(correction)
    detector = LEADetector(
        network,
        maps.model,
        reader,
        drawn_by=describe(source, maps.model),
        preparation=maps.preparation,
        fusion=None,
        decide="adn",
        network_size=data.img_size,
        one_look=sees_the_same(network, reader, maps.model, data.img_size),
    )
    remarks = {
        **maps.remarks,
        **measure_attention(network, reader, data, maps, rest),
        "trained_on": supervised.counts(rest, data),
        **supervised.told_of(extras),
        "correction": {
            **dict(zip(("trust", "joined"), correction.trust.tolist(), strict=False)),
            "bias": correction.bias,
        },
    }
    remarks["notices"] = [*remarks.get("notices", ()), *_notices(config, tuned=tuned)]
    held_out = _held_out(config, described, data, runtime.seed)
    return Trained(detector.eval(), held_out, 1, remarks)


@torch.inference_mode()
def describe_images(
    network: GuidedNet,
    reader: Reader,
    data: Material,
    maps: TrainingMaps,
    rest: Sequence[int],
    extras: Sequence[Extra] = (),
) -> Described:
    """Samples and extra images as the correction sees them; beside real defects at most as many
    extra images of a label as there are real defects, the first ones, so as not to drown them."""
    images, labels = joined(data, extras), (*data.labels, *extra_labels(extras))
    added = _few_of(range(len(data.samples), len(images)), labels, rest)
    numbers = [*rest, *added]
    prior, features = [], []
    for chosen in chunks(numbers):
        image, drawn = images_in_unit_range(images.take(chosen)), maps.maps.take(chosen)
        output: LEAOutput = reader(network, image, drawn)
        assert output.prior is not None
        prior.append(output.prior)
        features.append(pool(output.after))
    return Described(
        torch.cat(prior).double().cpu().numpy()[:, None],
        torch.cat(features).double().cpu().numpy(),
        np.array([labels[i] for i in numbers]),
        (*rest, *(extra_sources(extras)[i - len(data.samples)] for i in added)),
        tuple(numbers),
    )


def _join(network: GuidedNet, tuned: Tuned, described: Described) -> Described:
    """The fine-tuned copy in the network, and what it says of every image beside its map."""
    network.join(tuned.network)
    network.get_used_to_tuned(tuned.level, tuned.spread)
    scores = np.concatenate([described.scores, tuned.opinions[:, None]], axis=1)
    return described._replace(scores=scores)


def _few_of(added: Sequence[int], labels: Sequence[int], rest: Sequence[int]) -> list[int]:
    """Of each label at most as many as there are real defects; all, if there are none."""
    limit = sum(labels[i] == ANOMALOUS for i in rest) or len(added)
    return sorted(
        i for label in (NORMAL, ANOMALOUS) for i in [a for a in added if labels[a] == label][:limit]
    )


def prepared_network(
    config: Config, fold: Fold, data: Material, maps: TrainingMaps, runtime: Runtime
) -> GuidedNet:
    """The network of resolved options with their weights, used to the maps of the normal images of
    `fold.train`."""
    prior = make_prior(config, maps.model.map_unit)
    with runtime.seeded(*seed_names(config, fold.name), "adn"):
        network = build_network(config, data.img_size, prior)
    supervised.start_from_weights(config, network.adn, data.img_size)
    if not supervised.has_weights(config):
        say_once(
            "notice: guided attention on random features, which mean little; give --weights FILE, "
            "or --attention layers to train the classifier"
        )
    network.requires_grad_(False).eval().to(runtime.device)
    normals = [i for i in fold.train if data.labels[i] == NORMAL]
    drawn = [maps.maps.take(chosen) for chosen in chunks(normals)]
    network.prior.fit(torch.cat([network.prior.score(one) for one in drawn]))
    with torch.inference_mode():  # a black image tells the grid of the attention
        first = network.look(drawn[0].new_zeros(1, 3, data.img_size, data.img_size))[0]
    network.get_used_to(torch.cat([network.places(one, first).flatten(1) for one in drawn]))
    return network


def _require_normals(rest: Sequence[int], samples: Sequence[Sample]) -> None:
    """Raise ValueError where no normal image could be left out and another one stay."""
    if count_groups(rest, samples)[NORMAL] < 2:
        normals = sum(samples[i].label == NORMAL for i in rest)
        raise ValueError(
            f"guided attention needs normal images of at least 2 groups (an image without one is "
            f"its own), so that each is judged by others; the training part has {normals} of 1"
        )


def _held_out(config: Config, described: Described, data: Material, seed: int) -> HeldOut:
    """Scores of the training images by corrections that have not seen their part; a single defect
    has none. What belongs together stays together, extra images with what they were made from."""
    own = sorted(i for i in set(described.samples) if i >= 0)
    groups = {data.samples[i].group or f"\0{i}" for i in own}
    parts = split_parts(own, data.samples, min(PARTS, len(groups)), seed)
    part_of = {i: k for k, part in enumerate(parts) for i in part}
    rows: list[list[int]] = [[] for _ in parts]
    for row, sample in enumerate(described.samples):
        rows[part_of.get(sample, 0)].append(row)
    scores = cross_corrected(*described[:3], rows, strength=config.correction)
    known = [k for k in range(len(own)) if np.isfinite(scores[k])]  # the samples come first
    told = {"adn": scores, **dict(zip(("map", "tuned"), described.scores.T, strict=False))}
    values = {name: [float(all_of[k]) for k in known] for name, all_of in told.items()}
    indices = tuple(described.samples[k] for k in known)
    return HeldOut(indices, {"score": values["adn"], **values})


def _notices(config: Config, *, tuned: bool) -> list[str]:
    """Which options of training were given in vain."""
    given = given_of(config, UNUSED if tuned else (*FOR_TUNED, *UNUSED))
    if config.map_source is not None and config.map_model != colorizer.Config():
        given.append("map_model")  # another method draws, by default PatchCore
    if not given:
        return []
    why = "the copy that is fine-tuned has --tuned_epochs, and nothing is held out for it"
    if not tuned:
        why = (
            "since guided attention leaves the classifier's weights as they are (--attention "
            "layers trains them, and --tuned_from defects train a copy)"
        )
    notice = f"{', '.join(given)}: not used, {why}"
    say_once(f"notice: {notice}")
    return [notice]
