"""Distances to a bank against the matrix of all distances, image by image and block by block."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leanet.ops import topk
from leanet.ops.gate import cost_scale, soft_topk
from leanet.ops.topk import nearest_distances, soft_topk_distance, topk_figures

WEIGHT = torch.tensor([0.02, 0.05, 0.01], dtype=torch.float64)


def descriptors(images: int = 3, places: int = 20, size: int = 6) -> tuple[Tensor, Tensor]:
    """phi [B, T, D] and a bank [30, D], float64."""
    generator = torch.Generator().manual_seed(0)
    phi = torch.randn(images, places, size, generator=generator)
    return phi.double(), torch.randn(30, size, generator=generator).double()


def all_scores(phi: Tensor, bank: Tensor, weight: Tensor) -> Tensor:
    """s [B, T, N], the plain way."""
    return (phi[:, :, None] - bank).square().sum(dim=3) * weight[:, None, None]


def plain(phi: Tensor, bank: Tensor, weight: Tensor, k: int, eps: float, cmax: Tensor) -> Tensor:
    """r [B, T] by way of all scores, for the constant Cmax [B] of each image."""
    scores = all_scores(phi, bank, weight)
    flat = scores.flatten(0, 1)
    member = soft_topk(flat, k, eps, cmax.repeat_interleave(phi.shape[1]))
    return (member * flat).sum(dim=1).view(phi.shape[:2])


def cmax_per_image(phi: Tensor, bank: Tensor, weight: Tensor) -> Tensor:
    scores = all_scores(phi, bank, weight).flatten(1)
    return cost_scale(scores.amin(dim=1), scores.amax(dim=1))


@pytest.mark.parametrize("cmax", ["image", "batch"])
@pytest.mark.parametrize("block", [1, 7, 20, 128])
def test_value_and_gradient_are_those_of_all_scores(cmax: Any, block: int) -> None:
    phi, bank = descriptors()
    phi.requires_grad_()
    costs = cmax_per_image(phi.detach(), bank, WEIGHT)
    expected = plain(
        phi, bank, WEIGHT, 3, 0.1, costs if cmax == "image" else costs.amax().expand(3)
    )
    upstream = torch.rand(3, 20, generator=torch.Generator().manual_seed(1)).double()
    (gradient,) = torch.autograd.grad((expected * upstream).sum(), phi)

    found = soft_topk_distance(phi, bank, WEIGHT, 3, 0.1, cmax=cmax, block=block)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    found_gradient = torch.autograd.grad((found * upstream).sum(), phi)[0]
    torch.testing.assert_close(found_gradient, gradient, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("scale", ["cmax", "row"])
def test_blocks_change_nothing(scale: Any) -> None:
    phi, bank = (x.float() for x in descriptors(2, 50, 16))
    results = []
    for block in (3, 16, 50, 64, 1000):
        x = phi.clone().requires_grad_()
        r = soft_topk_distance(x, bank, None, 3, 0.1, scale=scale, block=block)
        r.sum().backward()
        results.append((r.detach(), x.grad))
    for r, gradient in results[1:]:
        torch.testing.assert_close(r, results[0][0], rtol=1e-6, atol=0)
        torch.testing.assert_close(gradient, results[0][1], rtol=1e-5, atol=1e-5)


def test_gradcheck_with_cmax_as_a_constant(monkeypatch: pytest.MonkeyPatch) -> None:
    phi, bank = descriptors(2, 3, 4)
    phi.requires_grad_()
    cost = cmax_per_image(phi.detach(), bank, WEIGHT[:2])
    monkeypatch.setattr(topk, "cost_scale", lambda low, high, over: cost)
    assert torch.autograd.gradcheck(
        lambda x: soft_topk_distance(x, bank, WEIGHT[:2], 3, 0.1, block=4), (phi,)
    )


def test_gradients_reach_phi_alone() -> None:
    phi, bank = descriptors(2)
    weight = WEIGHT[:2].clone().requires_grad_()
    bank.requires_grad_()
    assert not soft_topk_distance(phi, bank, weight, 3, 0.1).requires_grad
    assert not nearest_distances(phi, bank, 3).requires_grad
    r = soft_topk_distance(phi.requires_grad_(), bank, weight, 3, 0.1).sum()
    (r + nearest_distances(phi, bank, 3).sum()).backward()
    assert phi.grad is not None
    assert bank.grad is None
    assert weight.grad is None


def test_descriptors_as_a_convolution_gives_them() -> None:
    phi, bank = descriptors()
    feature_map = phi.transpose(1, 2).contiguous().requires_grad_()  # [B, D, T]
    found = soft_topk_distance(feature_map.transpose(1, 2), bank, None, 3, 0.1)
    near = nearest_distances(feature_map.transpose(1, 2), bank, 3)
    assert torch.equal(found, soft_topk_distance(phi, bank, None, 3, 0.1))
    (found.sum() + near.sum()).backward()
    assert feature_map.grad is not None
    assert feature_map.grad.shape == feature_map.shape


def test_an_image_does_not_depend_on_its_batch_unless_asked() -> None:
    """Row [0.1, 0.2, 0.4, 0.8, 1.6], k 2, eps 0.1: alone, beside a maximum of 4, beside 16."""
    bank = torch.tensor([0.1, 0.2, 0.4, 0.8, 1.6], dtype=torch.float64).sqrt()[:, None]
    one = torch.zeros(1, 1, 1, dtype=torch.float64)
    alone = float(soft_topk_distance(one, bank, None, 2, 0.1))
    assert alone == pytest.approx(0.403926, abs=1e-6)
    for top, beside in ((4.0, 0.853313), (16.0, 1.212215)):
        mate = bank[-1:] - top**0.5
        batch = torch.stack([one[0], mate])
        assert float((batch[1, 0] - bank.T).square().max()) == pytest.approx(top)
        each = soft_topk_distance(batch, bank, None, 2, 0.1, cmax="image")
        assert float(each[0, 0]) == pytest.approx(alone, abs=1e-9)
        together = soft_topk_distance(batch, bank, None, 2, 0.1, cmax="batch")
        assert float(together[0, 0]) == pytest.approx(beside, abs=1e-6)


@pytest.mark.parametrize("scale", ["cmax", "row"])
def test_the_scores_of_an_image_alone_and_in_a_batch(scale: Any) -> None:
    phi, bank = (x.float() for x in descriptors())
    phi = phi * torch.tensor([0.1, 1.0, 10.0])[:, None, None]
    together = soft_topk_distance(phi, bank, WEIGHT, 3, 0.1, scale=scale, block=7)
    alone = [
        soft_topk_distance(phi[i : i + 1], bank, WEIGHT[i : i + 1], 3, 0.1, scale=scale)
        for i in range(3)
    ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-6, atol=0)


@pytest.mark.parametrize("scale", ["cmax", "row"])
def test_a_weight_of_zero_gives_zero_and_a_finite_gradient(scale: Any) -> None:
    _, bank = descriptors()
    phi = bank[None].clone().requires_grad_()
    r = soft_topk_distance(phi, bank, torch.zeros(1), 3, 0.1, scale=scale)
    r.sum().backward()
    assert float(r.detach().abs().max()) == 0
    assert phi.grad is not None
    assert float(phi.grad.abs().max()) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", ["cmax", "row"])
def test_a_tiny_eps_sums_the_k_nearest(dtype: torch.dtype, scale: Any) -> None:
    phi, bank = (x.to(dtype) for x in descriptors())
    phi.requires_grad_()
    soft = soft_topk_distance(phi, bank, None, 3, 1e-9, scale=scale)
    hard = nearest_distances(phi, bank, 3).sum(dim=2)
    assert soft.dtype == dtype
    torch.testing.assert_close(soft, hard, rtol=1e-5, atol=1e-5)
    of_soft, of_hard = (torch.autograd.grad(r.sum(), phi)[0] for r in (soft, hard))
    torch.testing.assert_close(of_soft, of_hard, rtol=1e-4, atol=1e-4)


def test_the_scale_of_rows_knows_no_unit() -> None:
    phi, bank = descriptors()
    small = soft_topk_distance(phi, bank, None, 3, 0.1, scale="row")
    large = soft_topk_distance(100 * phi, 100 * bank, None, 3, 0.1, scale="row")
    torch.testing.assert_close(large, 1e4 * small)
    scores = all_scores(phi, bank, torch.ones(3)).flatten(0, 1)
    tau = 0.1 * scores.sort(dim=1).values[:, :3].mean(dim=1)
    member = soft_topk(scores, 3, 1.0, 2 * tau)
    torch.testing.assert_close(small.flatten(), (member * scores).sum(dim=1))


def test_features_far_from_zero_keep_their_digits() -> None:
    phi, bank = descriptors(1, 40, 64)
    exact = soft_topk_distance(phi + 30, bank + 30, None, 3, 0.1)
    near = nearest_distances(phi + 30, bank + 30, 3)
    rough = soft_topk_distance((phi + 30).float(), (bank + 30).float(), None, 3, 0.1)
    torch.testing.assert_close(rough.double(), exact, rtol=2e-6, atol=0)
    found = nearest_distances((phi + 30).float(), (bank + 30).float(), 3)
    torch.testing.assert_close(found.double(), near, rtol=5e-6, atol=0)


def test_autocast_and_half_precision_are_worked_on_in_float32() -> None:
    phi, bank = (x.float() for x in descriptors())
    expected = soft_topk_distance(phi, bank, WEIGHT, 3, 0.1), nearest_distances(phi, bank, 4)
    with torch.autocast("cpu", dtype=torch.float16):
        inside = soft_topk_distance(phi, bank, WEIGHT, 3, 0.1), nearest_distances(phi, bank, 4)
    assert all(torch.equal(a, b) for a, b in zip(inside, expected, strict=True))
    half = phi.half().requires_grad_()
    r = soft_topk_distance(half, bank, WEIGHT, 3, 0.1)
    assert r.dtype == torch.float32
    r.sum().backward()
    assert half.grad is not None
    assert half.grad.dtype == torch.float16


def test_the_nearest_distances_and_their_gradient() -> None:
    phi, bank = descriptors()
    phi.requires_grad_()
    expected = all_scores(phi, bank, torch.ones(3)).sort(dim=2).values[..., :6]
    upstream = torch.rand(3, 20, 6, generator=torch.Generator().manual_seed(1)).double()
    (gradient,) = torch.autograd.grad((expected * upstream).sum(), phi)
    for block in (1, 7, 128):
        found = nearest_distances(phi, bank, 6, block=block)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(torch.autograd.grad((found * upstream).sum(), phi)[0], gradient)


def test_a_descriptor_in_the_bank_is_at_distance_0_not_below() -> None:
    generator = torch.Generator().manual_seed(0)
    bank = 5 + torch.randn(40, 64, generator=generator)
    found = nearest_distances(bank[None], bank, 3)
    assert float(found.min()) >= 0
    assert float(found[..., 0].max()) < 1e-3
    assert float(found[..., 1].min()) > 1


@pytest.mark.parametrize(("top", "over"), [(1.0, "image"), (30.0, "batch")])
def test_the_figures_of_the_journal(top: float, over: Any) -> None:
    phi, bank = descriptors()
    weight = WEIGHT * (top / float(all_scores(phi, bank, WEIGHT).max()))
    scores = all_scores(phi, bank, weight).requires_grad_()
    cmax = cmax_per_image(phi, bank, weight)
    cmax = cmax if over == "image" else cmax.amax().expand(3)
    flat = scores.flatten(0, 1)
    member = soft_topk(flat, 3, 0.1, cmax.repeat_interleave(20))
    (pull,) = torch.autograd.grad((member * flat).sum(), scores)
    member = member.detach()

    found = topk_figures(phi.requires_grad_(), bank, weight, 3, 0.1, cmax=over, block=7)
    effective = (member.sum(dim=1).square() / member.square().sum(dim=1)).mean()
    assert found["max_score"] == pytest.approx(top)
    assert found["cmax"] == pytest.approx(float(cmax.mean()))
    assert found["effective"] == pytest.approx(float(effective))
    assert found["negative_share"] == pytest.approx(float((pull < 0).double().mean()))
    assert set(found) == {"max_score", "cmax", "effective", "negative_share"}


@pytest.mark.parametrize("scale", ["cmax", "row"])
@pytest.mark.parametrize("eps", [0.2, 0.1, 0.01, 1e-3, 1e-6])
def test_the_fixed_number_of_steps_suffices(
    eps: float, scale: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    phi, bank = (x.float() for x in descriptors(3, 100, 8))
    for weight in (None, torch.tensor([1e-3, 0.03, 0.1])):
        expected = soft_topk_distance(phi, bank, weight, 3, eps, scale=scale, block=64)
        with monkeypatch.context() as patch:
            patch.setattr(torch.compiler, "is_exporting", lambda: True)
            traced = soft_topk_distance(phi, bank, weight, 3, eps, scale=scale)
        torch.testing.assert_close(traced, expected, rtol=1e-5, atol=0)


class Scorer(nn.Module):
    def __init__(self, bank: Tensor) -> None:
        super().__init__()
        self.register_buffer("bank", bank)

    def forward(self, phi: Tensor) -> tuple[Tensor, Tensor]:
        bank = self.get_buffer("bank")
        weight = phi.square().mean(dim=(1, 2)) / 100
        return soft_topk_distance(phi, bank, weight, 3, 0.1), nearest_distances(phi, bank, 4)


def test_an_exported_program_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topk._How, "steps", lambda how: 5)  # a small graph; enough for this eps
    phi, bank = (x.float() for x in descriptors())
    scorer = Scorer(bank)
    batch = torch.export.Dim("batch", min=1, max=8)
    program = torch.export.export(scorer, (phi,), dynamic_shapes={"phi": {0: batch}})
    other = descriptors(5)[0].float() * 3
    for found, expected in zip(program.module()(other), scorer(other), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


def test_what_cannot_be_asked() -> None:
    phi, bank = descriptors()
    with pytest.raises(ValueError, match="k must be 1 to 29, got 30"):
        soft_topk_distance(phi, bank, None, 30, 0.1)
    with pytest.raises(ValueError, match="eps must be > 0, got 0"):
        soft_topk_distance(phi, bank, None, 3, 0.0)
    with pytest.raises(ValueError, match="block must be 1 row or more, got 0"):
        soft_topk_distance(phi, bank, None, 3, 0.1, block=0)
    with pytest.raises(ValueError, match="block must be 1 row or more"):
        nearest_distances(phi, bank, 3, block=0)
    for count in (0, 31):
        with pytest.raises(ValueError, match=f"count must be 1 to 30, got {count}"):
            nearest_distances(phi, bank, count)


@pytest.mark.slow
def test_an_exported_graph_that_works_in_parts_gives_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Distance(torch.nn.Module):
        def forward(self, phi: Tensor) -> Tensor:
            return soft_topk_distance(phi, bank, None, 3, 0.1)

    generator = torch.Generator().manual_seed(0)
    phi, bank = (torch.rand(*shape, generator=generator) for shape in ((3, 11, 4), (9, 4)))
    monkeypatch.setattr(topk, "TRACED", 6)
    shapes = ({0: torch.export.Dim("batch", min=1, max=64)},)
    program = torch.export.export(Distance(), (phi[:2],), dynamic_shapes=shapes).module()
    torch.testing.assert_close(program(phi), Distance()(phi), rtol=1e-5, atol=1e-5)
