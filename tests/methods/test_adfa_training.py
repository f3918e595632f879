"""The bank, the loss, and a course of training."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from leanet.data.cache import images_in_unit_range
from leanet.methods.adfa import AdfaDetector, build
from leanet.methods.adfa_config import CfaConfig, Config
from leanet.methods.adfa_training import (
    compressed,
    fill_bank,
    loss_of,
    mean_descriptions,
    train_descriptor,
)
from leanet.methods.normal_limits import Normals
from leanet.methods.recipe import Material
from leanet.networks.adfa import Adapter, Descriptor
from leanet.networks.frozen import patches
from leanet.ops.adfa import kl_weight
from leanet.runtime import Runtime
from leanet.training import journal, loop

SIDE = 32
SMALL: dict[str, Any] = {"backbone": "test_resnet", "pretrained": False, "batch_size": 4}


def detector(config: type[Config] = Config, **options: Any) -> AdfaDetector:
    torch.manual_seed(0)
    return build(config(**{**SMALL, **options}), SIDE, {})


def each(ours: AdfaDetector, data: Material, indices: list[int]) -> Tensor:
    """Descriptions [B, T, D] of some images."""
    with torch.no_grad():
        image = images_in_unit_range(data.images.take(indices))
        return ours.network(patches(ours.see(image)))


def adapter(bank: Tensor, radius: float = 1e-5, *, learn: bool = False) -> Adapter:
    made = Adapter(Descriptor(1, bank.shape[1], None), len(bank), radius, learn_radius=learn)
    made.bank.copy_(bank)
    return made


def course(
    ours: AdfaDetector, data: Material, runtime: Runtime, folder: str = "final", held: Any = ()
) -> list[journal.Record]:
    normals = Normals(tuple(range(9)), held)
    return train_descriptor(ours, normals, data, data.run / folder, runtime, name="final")


# the bank


def test_the_bank_is_the_mean_over_images_whatever_the_batches(
    material: Callable[..., Material],
) -> None:
    data, ours = material(), detector()
    phi = each(ours, data, list(range(9)))
    fill_bank(ours, data, range(9), seed=0)
    assert ours.network.bank.shape == (49, 272 // 4)
    torch.testing.assert_close(ours.network.bank, phi.mean(dim=0), rtol=1e-5, atol=1e-6)


def test_the_published_bank_weighs_batches_alike(material: Callable[..., Material]) -> None:
    data, ours = material(), detector(bank_mean="batches")
    phi = each(ours, data, list(range(9)))
    expected = torch.stack([phi[:4].mean(0), phi[4:8].mean(0), phi[8]]).mean(dim=0)
    got = mean_descriptions(ours, data, range(9))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(got, phi.mean(dim=0), rtol=1e-3)


def test_a_compressed_bank_has_the_centers_of_its_clusters() -> None:
    torch.manual_seed(0)
    corners = torch.tensor([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0]])
    points = corners.repeat_interleave(5, 0) + 0.1 * torch.randn(15, 2)
    found = compressed(points, 3, seed=0)
    assert found.dtype == torch.float32
    expected = points.view(3, 5, 2).mean(dim=1)
    nearest = torch.cdist(expected, found).argmin(dim=1)
    torch.testing.assert_close(found[nearest], expected)
    assert torch.equal(found, compressed(points, 3, seed=0))


def test_the_bank_stays_while_the_descriptor_learns(
    material: Callable[..., Material], runtime: Runtime
) -> None:
    data, ours = material(), detector(epochs=2)
    fill_bank(ours, data, range(9), seed=0)
    before = ours.network.bank.clone()
    course(ours, data, runtime)
    assert torch.equal(ours.network.bank, before)


# the loss


def test_hard_neighbors_pull_with_their_weighted_squared_distances() -> None:
    phi, bank = torch.tensor([[[0.0, 0.0]]]), torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])
    config = Config(**SMALL, topk="hard", k=2, kl_weight=False)
    assert float(loss_of(config, adapter(bank), phi)) == pytest.approx(1 + 4)


@pytest.mark.parametrize("options", [{}, {"topk": "hard", "k": 1}])
def test_the_kl_weight_multiplies_the_distances_and_passes_no_gradient(
    options: dict[str, Any],
) -> None:
    bank = torch.tensor([[0.0, 0.0], [1.0, 0.0], [5.0, 0.0], [5.0, 5.0]])
    phi = torch.tensor([[0.0, math.log(3)], [1.0, 0.0], [5.0, 0.0], [5.0, 5.0]])[None]
    weighted = Config(**{**SMALL, **options})
    plain = replace(weighted, kl_weight=False)
    grads = []
    for config, scale in ((weighted, 1.0), (plain, math.sqrt(0.14384104))):
        x = (phi * scale).requires_grad_()  # scaled distances are those of scaled points
        loss_of(config, adapter(bank * scale), x).backward()  # type: ignore[no-untyped-call]
        assert x.grad is not None
        grads.append(x.grad * scale if config is plain else x.grad)
    assert grads[0].abs().max() > 0.01
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-4, atol=1e-5)


def test_the_costs_of_a_batch_differ_from_those_of_an_image() -> None:
    torch.manual_seed(0)
    bank, phi = torch.randn(6, 3), torch.randn(2, 6, 3)
    phi[1] *= 4  # its largest cost makes the top-k of the first image soft, too
    config = Config(**SMALL, kl_weight=False, eps=0.02)
    by_batch = replace(config, cmax="batch")
    alone = [loss_of(config, adapter(bank), one[None]) for one in phi]
    together = loss_of(config, adapter(bank), phi)
    torch.testing.assert_close(together, torch.stack(alone).mean())
    first = float(loss_of(by_batch, adapter(bank), phi)) - float(together)
    assert first > 0.05 * float(alone[0]) / 2


def test_the_first_image_is_closest_when_nothing_differs() -> None:
    bank = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    phi = bank[None].clone().requires_grad_()
    loss = loss_of(Config(**SMALL), adapter(bank), phi)
    loss.backward()  # type: ignore[no-untyped-call]
    assert phi.grad is not None
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
    assert phi.grad.isfinite().all()


def test_a_radius_that_is_learned_gets_a_gradient_again_and_again() -> None:
    bank, phi = torch.eye(8), torch.zeros(1, 8, 8)
    ours = adapter(bank, 0.5, learn=True)
    for _ in range(2):
        ours.radius.grad = None
        loss_of(CfaConfig(**SMALL), ours, phi).backward()  # type: ignore[no-untyped-call]
        assert ours.radius.grad is not None
        assert float(ours.radius.grad) == pytest.approx(-2 * 0.5 / 1e-3)  # of (1 - R^2) / nu


def test_a_small_constant_radius_never_pushes() -> None:
    torch.manual_seed(0)
    bank, phi = torch.randn(9, 4), torch.randn(2, 9, 4)
    config = CfaConfig(**SMALL, radius_learnable=False)
    nearest = torch.cdist(phi, bank).square().sort(dim=2).values[..., :3]
    expected = 1000 * nearest.mean()
    torch.testing.assert_close(loss_of(config, adapter(bank), phi), expected, rtol=1e-4, atol=1e-3)


# the course


def test_the_loss_falls_for_normal_images_that_were_held_out_too(
    material: Callable[..., Material], runtime: Runtime
) -> None:
    data, ours = material(), detector(epochs=6, kl_weight=False)
    fill_bank(ours, data, range(9), seed=0)
    records = course(ours, data, runtime, held=(10, 11))
    losses = [record["train_loss"] for record in records]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.9 * losses[0]
    assert records[-1]["val_loss"] < records[0]["val_loss"]


def test_the_journal_says_how_soft_top_k_was(
    material: Callable[..., Material], runtime: Runtime
) -> None:
    data, ours = material(), detector(epochs=1)
    fill_bank(ours, data, range(9), seed=0)
    (record,) = course(ours, data, runtime, held=(10, 11))
    phi = each(ours, data, [10, 11])
    weight = kl_weight(phi, ours.network.bank)
    s = torch.cdist(phi, ours.network.bank).square() * weight[:, None, None]
    largest, smallest = s.amax(dim=(1, 2)), s.amin(dim=(1, 2))
    assert record["kl_weight"] == pytest.approx(float(weight.mean()), rel=1e-4)
    assert record["max_score"] == pytest.approx(float(largest.max()), rel=1e-2)
    cost = torch.maximum(largest**2, (1 - smallest) ** 2)
    assert record["cmax"] == pytest.approx(float(cost.mean()), rel=1e-2)
    assert 1 <= record["effective"] <= 49
    assert 0 <= record["negative_share"] <= 1


def test_the_journal_of_a_learned_radius_has_it(
    material: Callable[..., Material], runtime: Runtime
) -> None:
    data, ours = material(), detector(CfaConfig, epochs=1)
    fill_bank(ours, data, range(9), seed=0)
    (record,) = course(ours, data, runtime)
    assert record["radius"] == float(ours.network.radius.detach()) != 1e-5
    assert {"kl_weight", "cmax", "val_loss"}.isdisjoint(record)


def test_the_steps_end_a_course_within_an_epoch(
    material: Callable[..., Material], runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, ours, steps = material(), detector(epochs=9, max_steps=3), []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(
        torch.optim.AdamW, "step", lambda self, *a, **b: (steps.append(1), step(self, *a, **b))[1]
    )
    assert len(course(ours, data, runtime)) == 2  # of two batches, 4 and 5 images
    assert len(steps) == 3


@pytest.mark.parametrize(("config", "more"), [(Config, {}), (CfaConfig, {"max_steps": 5})])
def test_a_course_that_was_cut_short_ends_with_the_same_weights(
    config: Any,
    more: dict[str, Any],
    material: Callable[..., Material],
    runtime: Runtime,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    data, options = material(), {"epochs": 3, "lr_schedule": "warmup_cosine", **more}
    train_epoch = loop._train_epoch

    def stops(*args: Any, **named: Any) -> dict[str, float]:
        if named["epoch"] == 1:
            raise KeyboardInterrupt
        return train_epoch(*args, **named)

    def run(folder: str) -> dict[str, Tensor]:
        ours = detector(config, **options)
        fill_bank(ours, data, range(9), seed=0)
        course(ours, data, runtime, folder)
        return ours.state_dict()

    expected = run("whole")
    with monkeypatch.context() as patched:
        patched.setattr(loop, "_train_epoch", stops)
        with pytest.raises(KeyboardInterrupt):
            run("cut")
    got = run("cut")
    assert all(torch.equal(got[name], expected[name]) for name in expected)
