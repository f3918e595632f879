"""The detector: what its map and score are, that neighbors in a batch do not matter, and what a
training leaves as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from leanet.data.folds import single_fold
from leanet.methods.adfa import AdfaDetector, build, build_adapter, train
from leanet.methods.adfa_config import CfaConfig, Config
from leanet.methods.memory import PEAK
from leanet.methods.recipe import Material, Trained
from leanet.methods.store import load_detector, save_detector
from leanet.networks.frozen import patches
from leanet.ops.adfa import kl_weight
from leanet.records import NORMAL
from leanet.runtime import Runtime

SIDE = 32
SMALL: dict[str, Any] = {"backbone": "test_resnet", "pretrained": False}
QUICK: dict[str, Any] = {**SMALL, "epochs": 2, "batch_size": 8, "max_steps": 0}


def untrained(config: type[Config] = Config, **options: Any) -> AdfaDetector:
    """A detector with random weights and a bank of random descriptions."""
    torch.manual_seed(0)
    detector = build(config(**SMALL, **options), SIDE, {})
    phi = detector.network(patches(detector.see(images(5))))
    detector.network.bank.copy_(phi.mean(dim=0).detach())
    return detector.eval()


def images(num: int = 3) -> Tensor:
    return torch.rand(num, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def squared(detector: AdfaDetector, image: Tensor) -> tuple[Tensor, Tensor]:
    """All squared distances [B, T, N], in double precision, and the KL weights [B]."""
    phi = detector.network(patches(detector.see(image)))
    bank = detector.network.bank
    found = (phi.double()[:, :, None] - bank.double()).square().sum(dim=3)
    return found, kl_weight(phi, bank).double()


def fit(data: Material, runtime: Runtime, config: Config, folder: str = "final") -> Trained:
    fold = single_fold(data.samples, seed=0, inner_splits=0)
    return train(config, fold, data, data.run / folder, runtime)


# score and map


@torch.no_grad()
def test_soft_distances_are_roots_of_weighted_means_over_the_bank() -> None:
    detector = untrained(eps=0.5)
    s, weight = squared(detector, images())
    s = s * weight[:, None, None]
    for one, found in zip(s, detector.explain(images())["distances"], strict=True):
        tau = max(one.max() ** 2, (one.min() - 1) ** 2) * 0.5 / 2
        low, high = torch.full((len(one), 1), -20.0).double(), (one.amax(1, True) / tau + 20)
        for _ in range(80):  # bisection: the memberships of a place sum to k
            gate = (low + high) / 2
            short = (gate - one / tau).sigmoid().sum(1, keepdim=True) < 3
            low, high = torch.where(short, gate, low), torch.where(short, high, gate)
        expected = ((gate - one / tau).sigmoid() * one).sum(dim=1).sqrt()
        torch.testing.assert_close(found.flatten().double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kl", [False, True])
@torch.no_grad()
def test_hard_distances_are_roots_of_the_sum_of_the_k_nearest(kl: bool) -> None:
    detector = untrained(topk="hard", k=2, kl_weight=kl)
    s, weight = squared(detector, images())
    nearest = s.sort(dim=2).values[..., :2].sum(dim=2) * (weight[:, None] if kl else 1)
    got = detector.explain(images())["distances"]
    assert got.shape == (3, 1, 7, 7)  # the middle 28 px, every fourth of them
    torch.testing.assert_close(got.flatten(1).double(), nearest.sqrt(), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_score_of_cfa_is_the_nearest_distance_times_its_share() -> None:
    detector = untrained(CfaConfig)
    e = squared(detector, images())[0].sort(dim=2).values[..., :3].sqrt()
    expected = e[..., 0] * torch.exp(-e[..., 0]) / torch.exp(-e).sum(dim=2)
    got = detector.explain(images())["distances"].flatten(1).double()
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_score_of_an_image_is_its_largest_pixel_or_the_mean_of_the_largest() -> None:
    for options, count in ({}, 1), ({"image_score": "top_mean", "top_pixels": 20}, 20):
        prediction = untrained(**options)(images())  # type: ignore[arg-type]
        assert prediction.map is not None
        largest = prediction.map[:, 0, 2:30, 2:30].flatten(1).topk(count).values
        torch.testing.assert_close(prediction.score, largest.mean(dim=1))


@pytest.mark.parametrize(
    ("config", "options"),
    [
        (Config, {}),
        (Config, {"cmax": "batch"}),
        (Config, {"topk_scale": "row"}),
        (CfaConfig, {}),
    ],
)
@torch.no_grad()
def test_a_score_alone_is_the_score_in_any_batch(config: Any, options: dict[str, Any]) -> None:
    detector = untrained(config, **options)
    beside = torch.cat([images(3), torch.ones(1, 3, SIDE, SIDE), torch.zeros(1, 3, SIDE, SIDE)])
    phi = detector.network(patches(detector.see(beside)))  # convolutions round by the batch
    together = detector._distances(phi)
    alone = torch.cat([detector._distances(one[None]) for one in phi])
    torch.testing.assert_close(together, alone, rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_what_is_in_the_bank_is_normal() -> None:
    detector = untrained(kl_weight=False, topk="hard", k=1)
    phi = detector.network(patches(detector.see(images(1))))
    detector.network.bank.copy_(phi[0])
    assert detector._distances(phi).max() < 1e-2


def test_too_many_neighbors_are_refused() -> None:
    with pytest.raises(ValueError, match=r"the bank has 4 entries .* must have 5"):
        build_adapter(Config(**SMALL, k=4), 64, 4)
    with pytest.raises(ValueError, match=r"the bank has 4 entries .* must have 6"):
        build_adapter(CfaConfig(**SMALL), 64, 4)
    with pytest.raises(ValueError, match="gamma_d 65: the features have 64 channels"):
        build_adapter(Config(**SMALL, gamma_d=65), 64, 9)


# training


def test_normal_images_alone_train_the_descriptor_and_nothing_else(
    material: Callable[..., Material], runtime: Runtime
) -> None:
    data = material()
    with runtime.seeded("final", "adfa"):
        start = build(Config(**QUICK), SIDE, {})
    before = {name: value.clone() for name, value in start.state_dict().items()}
    trained = fit(data, runtime, Config(**QUICK))
    after = trained.detector.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    parts = ("conv.weight", "conv.bias", "attention.conv.weight")
    assert changed == {"network.bank", *(f"network.descriptor.{part}" for part in parts)}
    normals = {i for i, label in enumerate(data.labels) if label == NORMAL}
    assert set(trained.held_out.indices) == normals
    assert trained.remarks["threshold_in_sample"]
    assert trained.remarks[PEAK] > 0
    assert trained.epochs == 2


def test_what_was_trained_survives_a_file(
    material: Callable[..., Material], runtime: Runtime, tmp_path: Path
) -> None:
    config = CfaConfig(**{**QUICK, "kl_weight": False, "gamma_c": 2})
    trained = fit(material(), runtime, config)
    save_detector(tmp_path, "cfa", config, trained.detector)
    loaded = load_detector(tmp_path)
    assert isinstance(loaded, AdfaDetector)
    assert loaded.network.bank.shape == (49 // 2, 272)
    assert torch.equal(loaded.network.bank, trained.detector.state_dict()["network.bank"])
    with torch.inference_mode():
        assert torch.equal(loaded(images()).score, trained.detector(images()).score)
    assert loaded.map_thresholds == trained.detector.map_thresholds


def test_the_published_program_says_what_is_different_here(
    material: Callable[..., Material], runtime: Runtime
) -> None:
    quick = {**QUICK, "epochs": 1}
    told = fit(material(), runtime, Config(**quick, cmax="batch")).remarks["notices"]
    assert any("cmax batch counts in training alone" in notice for notice in told)
    usual = fit(material(), runtime, Config(**quick)).remarks["notices"]
    assert not any("cmax" in notice for notice in usual)
