"""The terms of ADFA and CFA against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, kl_divergence

from leanet.ops.adfa import cfa_loss, kl_weight, softmin_score, top_mean
from leanet.ops.topk import soft_topk_distance

BANK = torch.tensor([[0.0, 0.0], [1.0, 0.0]])


def test_the_kl_weight_of_the_worked_example() -> None:
    phi = torch.tensor([[[0.0, math.log(3.0)], [1.0, 0.0]]])
    assert kl_weight(phi, BANK).tolist() == pytest.approx([0.14384104], abs=1e-7)


def test_the_kl_weight_is_a_sum_over_places_for_each_image_and_a_constant() -> None:
    generator = torch.Generator().manual_seed(0)
    phi = torch.randn(3, 5, 4, generator=generator).double().requires_grad_()
    bank = torch.randn(5, 4, generator=generator).double()
    expected = kl_divergence(Categorical(logits=bank), Categorical(logits=phi)).sum(dim=1)
    found = kl_weight(phi, bank)
    torch.testing.assert_close(found, expected.detach())
    assert not found.requires_grad


def test_descriptors_that_are_the_bank_have_no_weight_and_no_distance() -> None:
    phi = BANK[None].clone().requires_grad_()
    weight = kl_weight(phi, BANK)
    r = soft_topk_distance(phi, BANK, weight, 1, 0.1)
    r.sum().backward()
    assert float(weight) == 0
    assert float(r.detach().abs().max()) == 0
    assert phi.grad is not None
    assert float(phi.grad.abs().max()) == 0


def test_very_unlike_places_keep_a_finite_weight() -> None:
    weight = kl_weight(torch.tensor([[[0.0, 900.0], [900.0, 0.0]]]), BANK)
    # 0.5 * 900 and 0.2689 * 900, minus the entropies of the bank's places
    expected = 450 - 0.6931472 + 900 * 0.2689414 - 0.5822031
    assert float(weight) == pytest.approx(expected, rel=1e-5)
    with torch.autocast("cpu", dtype=torch.float16):
        half = kl_weight(torch.tensor([[[0.0, 9.0], [9.0, 0.0]]]).half(), BANK)
    assert half.dtype == torch.float32


def test_a_bank_of_other_places_has_no_kl_weight() -> None:
    with pytest.raises(ValueError, match=r"need a bank of \(3, 2\), got \(2, 2\)"):
        kl_weight(torch.zeros(1, 3, 2), BANK)


def loss_of(squared: Tensor, radius: float, k: int, j: int) -> float:
    return float(cfa_loss(squared, torch.tensor(radius), k, j, nu=0.5, alpha=0.1))


def test_cfa_pulls_the_k_nearest_in_and_keeps_the_j_next_out() -> None:
    squared = torch.tensor([[[0.2, 0.5, 0.7, 1.0, 1.2]]])
    # R^2 = 1.44: nothing to pull; the margin is violated by 0.64, 0.34, 0.14 of the last three
    assert loss_of(squared, 1.2, 2, 3) == pytest.approx((0.64 + 0.34 + 0.14) / 3 / 0.5, rel=1e-5)
    # R^2 = 0.36: 0.14 outside, counted with 0 for the nearest; the others are beyond the margin
    assert loss_of(squared, 0.6, 2, 3) == pytest.approx(0.14 / 2 / 0.5, rel=1e-5)
    assert loss_of(squared, 0.6, 4, 1) == pytest.approx((0.14 + 0.34 + 0.64) / 4 / 0.5, rel=1e-5)
    assert loss_of(squared, 0.6, 5, 0) == pytest.approx(
        (0.14 + 0.34 + 0.64 + 0.84) / 5 / 0.5, rel=1e-5
    )


def test_a_tiny_constant_radius_leaves_the_mean_distance() -> None:
    squared = torch.rand(2, 4, 6, generator=torch.Generator().manual_seed(0)).sort(dim=2).values
    loss = cfa_loss(squared, torch.tensor(1e-5), 3, 3, nu=1e-3, alpha=0.1)
    assert float(loss) == pytest.approx(1000 * float(squared[..., :3].mean()), rel=1e-5)


def test_a_learnable_radius_gets_a_gradient_again_and_again() -> None:
    squared = torch.tensor([[[0.2, 0.5, 0.7, 1.0]]])
    radius = torch.tensor(0.6, requires_grad=True)
    for _ in range(2):  # neither keeps a graph
        radius.grad = None
        cfa_loss(squared, radius, 2, 2, nu=0.5, alpha=0.1).backward()
        assert radius.grad is not None
        assert float(radius.grad) == pytest.approx(-2 * 0.6 / 2 / 0.5, rel=1e-5)


def test_distances_of_another_number_are_refused() -> None:
    with pytest.raises(ValueError, match="need 6 distances of each place, got 5"):
        cfa_loss(torch.rand(1, 2, 5), torch.tensor(1e-5), 3, 3, nu=1e-3, alpha=0.1)


def test_the_softmin_score_of_the_worked_example() -> None:
    assert float(softmin_score(torch.tensor([1.0, 4.0, 9.0]))) == pytest.approx(0.6652410, abs=1e-7)
    scores = softmin_score(torch.tensor([[[0.0, 0.0, 0.0], [4.0, 4.0, 4.0]]]))
    torch.testing.assert_close(scores, torch.tensor([[0.0, 2 / 3]]))


def test_the_mean_of_the_largest_pixels() -> None:
    maps = torch.arange(18.0).view(2, 1, 3, 3)
    assert top_mean(maps, 1).tolist() == [8, 17]
    assert top_mean(maps, 3).tolist() == [7, 16]
    torch.testing.assert_close(top_mean(maps, 9), maps.flatten(1).mean(dim=1))
    for count in (0, 10):
        with pytest.raises(ValueError, match="top_pixels must be 1 to 9"):
            top_mean(maps, count)
