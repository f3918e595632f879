"""The loss terms against values worked out by hand, and against plain definitions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from leanet.ops.cavga import (
    NORMALIZATIONS,
    attention,
    dark_share,
    discriminator_loss,
    expansion,
    generator_loss,
    guidance,
    honest_limits,
    kl,
    missing,
    normalized,
    open_gate,
    reconstruction,
)


def raw_maps(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def grid(value: float, num: int = 1) -> Tensor:
    return torch.full((num, 1, 4, 4), value)


@pytest.mark.parametrize("how", NORMALIZATIONS)
def test_attention_lies_between_0_and_1_and_keeps_the_order_of_places(how: Any) -> None:
    raw = raw_maps(3, 2, 5, 5)
    mapped = attention(raw, how)
    assert mapped.min() >= 0
    assert mapped.max() <= 1
    rising = mapped.flatten(2).gather(2, raw.flatten(2).argsort(dim=2)).diff(dim=2)
    assert rising.min() >= 0
    torch.testing.assert_close(missing(raw, how), 1 - mapped)


def test_sigmoid_attention_has_no_relu() -> None:
    raw = torch.tensor([-math.log(3.0), 0.0, math.log(3.0)]).view(1, 1, 1, 3)
    torch.testing.assert_close(attention(raw).flatten(), torch.tensor([0.25, 0.5, 0.75]))


def test_relu_max_and_minmax_are_what_they_are_called() -> None:
    raw = torch.tensor([-2.0, 0.0, 1.0, 4.0]).view(1, 1, 2, 2)
    shares = attention(raw, "relu_max").flatten()
    torch.testing.assert_close(shares, torch.tensor([0, 0, 0.25, 1]), atol=1e-6, rtol=1e-6)
    shares = attention(raw, "minmax").flatten()
    torch.testing.assert_close(shares, torch.tensor([0, 1 / 3, 0.5, 1]), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("how", NORMALIZATIONS)
def test_the_attention_of_an_image_does_not_depend_on_its_batch(how: Any) -> None:
    raw = raw_maps(4, 2, 3, 3) * torch.tensor([1.0, 10.0, 100.0, 0.1]).view(4, 1, 1, 1)
    together = attention(raw, how)
    alone = torch.cat([attention(one[None], how) for one in raw])
    assert torch.equal(alone, together)


@pytest.mark.parametrize("how", NORMALIZATIONS)
@pytest.mark.parametrize("value", [0.0, -5.0, 5.0])
def test_a_flat_map_gives_finite_attention_and_gradient(how: Any, value: float) -> None:
    raw = grid(value).requires_grad_()
    mapped = missing(raw, how)
    mapped.mean().backward()
    assert mapped.isfinite().all()
    assert raw.grad is not None
    assert raw.grad.isfinite().all()
    if how != "sigmoid":
        assert mapped.unique().numel() == 1


def test_one_minus_a_is_not_0_far_out_and_keeps_its_order() -> None:
    raw = torch.tensor([38.0, 39.0, 40.0]).view(1, 1, 1, 3)
    lack = missing(raw).flatten()
    assert lack[2] > 0
    assert lack[0] > lack[1] > lack[2]
    assert float(lack[2]) == pytest.approx(math.exp(-40), rel=1e-5)
    assert (1 - attention(raw)).unique().tolist() == [0]  # what is avoided


def test_expansion_is_0_for_full_attention_and_1_for_none() -> None:
    assert float(expansion(1 - grid(1.0, 3))) == 0
    assert float(expansion(1 - grid(0.0, 3))) == 1
    assert float(expansion(missing(grid(0.0, 3)))) == 0.5
    assert float(expansion(torch.cat([grid(0.0), grid(0.5)]))) == 0.25


def test_guidance_is_1_for_indifferent_attention_0_at_best_and_2_at_worst() -> None:
    opened = torch.ones(3)
    for normal, anomalous, expected in ((0.5, 0.5, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 2.0)):
        loss = guidance(1 - grid(normal, 3), grid(anomalous, 3), opened)
        assert float(loss) == expected


def test_one_open_gate_of_four_gives_a_quarter() -> None:
    raw = raw_maps(4, 2, 3, 3)
    lack, anomalous = missing(raw[:, :1]), attention(raw[:, 1:])
    alone = guidance(lack[2:3], anomalous[2:3], torch.ones(1))
    loss = guidance(lack, anomalous, torch.tensor([False, False, True, False]))
    torch.testing.assert_close(loss, alone / 4)


def test_a_closed_gate_gives_no_loss_and_no_gradient() -> None:
    raw = raw_maps(4, 2, 3, 3).requires_grad_()
    gate = torch.tensor([True, False, False, True])
    loss = guidance(missing(raw[:, :1]), attention(raw[:, 1:]), gate)
    (gradient,) = torch.autograd.grad(loss, raw)
    reached = gradient.abs().amax(dim=(1, 2, 3)) > 0
    assert torch.equal(reached, gate)
    closed = guidance(missing(raw[:, :1]), attention(raw[:, 1:]), torch.zeros(4))
    (gradient,) = torch.autograd.grad(closed, raw)
    assert float(closed.detach()) == 0
    assert gradient.abs().max() == 0


def test_the_gate_opens_for_normal_images_that_are_taken_for_normal() -> None:
    classes = torch.tensor([[2.0, 1.0], [1.0, 2.0], [2.0, 1.0], [1.0, 2.0]], requires_grad=True)
    gate = open_gate(classes, torch.tensor([0.0, 0.0, 1.0, 1.0]))
    assert gate.tolist() == [True, False, False, False]
    assert not gate.requires_grad


def test_no_gradient_flows_through_a_soft_gate() -> None:
    gate = torch.tensor([0.5, 1.0], requires_grad=True)
    lack = grid(0.5, 2).requires_grad_()
    guidance(lack, grid(0.5, 2), gate).backward()
    assert gate.grad is None
    assert lack.grad is not None


def test_kl_of_the_prior_is_0_and_of_a_shifted_one_a_half() -> None:
    zero, one = torch.zeros(2, 8, 3, 3), torch.ones(2, 8, 3, 3)
    assert float(kl(zero, zero)) == float(kl(zero, zero, "image_sum")) == 0
    assert float(kl(one, zero)) == 0.5
    assert float(kl(one, zero, "image_sum")) == 0.5 * 8 * 3 * 3


@pytest.mark.parametrize("shape", [(2, 4, 3, 3), (5, 7)])
def test_kl_agrees_with_the_divergence_of_normal_distributions(shape: tuple[int, ...]) -> None:
    mu, logvar = raw_maps(*shape).double(), raw_maps(*shape, seed=1).double()
    each = kl_divergence(Normal(mu, (logvar / 2).exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(kl(mu, logvar), each.mean())
    torch.testing.assert_close(kl(mu, logvar, "image_sum"), each.sum() / shape[0])


def test_reconstruction_of_grey_by_zeros_is_ln_2() -> None:
    zeros, grey = torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 0.5)
    assert float(reconstruction(zeros, grey)) == pytest.approx(math.log(2))
    assert float(reconstruction(zeros, grey, "mse")) == 0
    assert float(reconstruction(zeros, torch.ones(2, 3, 4, 4), "mse")) == 0.25


@pytest.mark.parametrize("how", ["bce", "mse"])
def test_a_perfect_reconstruction_has_no_gradient_and_is_the_lowest(how: str) -> None:
    image = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    logits = image.logit().requires_grad_()
    best = reconstruction(logits, image, how)
    (gradient,) = torch.autograd.grad(best, logits)
    assert gradient.abs().max() < 1e-15
    for away in (-0.1, 0.1):
        assert reconstruction(logits.detach() + away, image, how) > best
    entropy = -(image * image.log() + (1 - image) * (1 - image).log()).mean()
    torch.testing.assert_close(best, entropy if how == "bce" else torch.zeros_like(entropy))


def test_reconstruction_is_a_mean_whatever_the_size() -> None:
    small = reconstruction(torch.ones(1, 3, 4, 4), torch.ones(1, 3, 4, 4))
    large = reconstruction(torch.ones(8, 3, 32, 32), torch.ones(8, 3, 32, 32))
    torch.testing.assert_close(small, large)


@pytest.mark.parametrize("how", ["bce", "mse"])
def test_logits_far_out_give_finite_losses(how: str) -> None:
    logits = torch.tensor([-200.0, 200.0]).view(1, 1, 1, 2).requires_grad_()
    loss = reconstruction(logits, torch.tensor([1.0, 0.0]).view(1, 1, 1, 2), how)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_an_undecided_discriminator_costs_2_ln_2_and_its_opponent_ln_2() -> None:
    zeros = torch.zeros(5)
    assert float(discriminator_loss(zeros, zeros)) == pytest.approx(1.386294, abs=1e-6)
    assert float(generator_loss(zeros)) == pytest.approx(math.log(2))
    assert float(generator_loss(zeros, "saturating")) == pytest.approx(-math.log(2))


def test_the_adversarial_terms_are_their_definitions() -> None:
    real, fake = raw_maps(6).double(), raw_maps(6, seed=1).double()
    d_real, d_fake = real.sigmoid(), fake.sigmoid()
    expected = -(d_real.log() + (1 - d_fake).log()).mean()
    torch.testing.assert_close(discriminator_loss(real, fake), expected)
    torch.testing.assert_close(generator_loss(fake), -d_fake.log().mean())
    torch.testing.assert_close(generator_loss(fake, "saturating"), (1 - d_fake).log().mean())


@pytest.mark.parametrize("mode", ["nonsaturating", "saturating"])
def test_the_two_sides_pull_the_logit_of_a_fake_in_opposite_directions(mode: str) -> None:
    fake = raw_maps(6).requires_grad_()
    (against,) = torch.autograd.grad(discriminator_loss(torch.zeros(6), fake), fake)
    (towards,) = torch.autograd.grad(generator_loss(fake, mode), fake)
    assert (against > 0).all()  # a step down lowers the logit
    assert (towards < 0).all()


def test_the_nonsaturating_gradient_stays_where_the_discriminator_is_sure() -> None:
    fake = torch.tensor([-20.0], requires_grad=True)
    (alive,) = torch.autograd.grad(generator_loss(fake), fake)
    (gone,) = torch.autograd.grad(generator_loss(fake, "saturating"), fake)
    assert float(alive) == pytest.approx(-1)
    assert abs(float(gone)) < 1e-8


def test_the_honest_scale_sends_the_99_percent_quantile_to_a_half_and_clips() -> None:
    scores = np.random.default_rng(0).gamma(2.0, size=101)
    low, high = honest_limits(scores.tolist())
    assert low == np.sort(scores)[0]
    assert high == pytest.approx(np.sort(scores)[99])
    told = normalized(torch.tensor([low, high, low - 1, 100.0], dtype=torch.float64), low, high)
    assert told.tolist() == [0.0, 0.5, 0.0, 1.0]
    exact = torch.from_numpy(scores)
    assert int((normalized(exact, low, high) > 0.5).sum()) == 1  # one normal in a hundred


def test_equal_scores_and_a_single_one_make_a_finite_scale() -> None:
    for scores in ([0.25], [0.25, 0.25, 0.25]):
        told = normalized(torch.tensor([0.2, 0.25, 0.3]), *honest_limits(scores))
        assert told.isfinite().all()
        assert told.tolist() == sorted(told.tolist())
        assert told[0] == 0
        assert told[2] == 1


def test_the_limits_need_a_score() -> None:
    with pytest.raises(ValueError, match="at least one score"):
        honest_limits([])


def test_the_share_of_negative_channel_weights_is_told_per_map() -> None:
    alpha = torch.tensor([[-1.0, 2.0, 0.0, 3.0], [-1.0, -2.0, -0.5, -3.0]])
    assert dark_share(alpha).tolist() == [0.25, 1.0]
