from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from leanet.ops import cam
from leanet.ops.cam import FORMULAS, cam_map, eigen_smooth

# one image, two channels, 1 x 2 places
A = torch.tensor([[[[1.0, 3.0]], [[2.0, -1.0]]]])
G = torch.tensor([[[[0.5, 1.5]], [[-2.0, 4.0]]]])


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (cam.grad_cam, [1 * 1 + 1 * 2, 1 * 3 + 1 * -1]),  # mean gradients 1 and 1
        (cam.hires_cam, [0.5 * 1 + -2 * 2, 1.5 * 3 + 4 * -1]),
        (cam.layer_cam, [0.5 * 1 + 0 * 2, 1.5 * 3 + 4 * -1]),
    ],
)
def test_two_channels_and_two_places_by_hand(
    method: Callable[[Tensor, Tensor], Tensor], expected: list[float]
) -> None:
    result = method(A, G)
    assert result.shape == (1, 1, 1, 2)
    assert result.flatten().tolist() == pytest.approx(expected)


def test_plus_plus_by_the_paper_s_formula() -> None:
    activations, gradients = A.abs(), G
    weights = []
    for a, g in zip(activations[0].numpy(), gradients[0].numpy(), strict=True):
        alpha = g**2 / (2 * g**2 + a.sum() * g**3)
        weights.append((alpha * np.maximum(g, 0)).sum())
    expected = sum(w * a for w, a in zip(weights, activations[0].numpy(), strict=True))
    result = cam.grad_cam_plus_plus(activations, gradients)
    np.testing.assert_allclose(result[0, 0], expected, rtol=1e-6)


def test_plus_plus_is_zero_where_there_is_no_gradient_and_not_0_over_0() -> None:
    zeros = torch.zeros_like(G)
    assert torch.equal(cam.grad_cam_plus_plus(A.abs(), zeros), torch.zeros(1, 1, 1, 2))


def test_plus_plus_refuses_negative_activations() -> None:
    with pytest.raises(ValueError, match="activations >= 0"):
        cam.grad_cam_plus_plus(A, G)


@pytest.mark.parametrize("name", FORMULAS)
def test_the_table_and_the_functions_agree(name: str) -> None:
    activations, gradients = drawn(2, 5, 3, 4).abs(), drawn(2, 5, 3, 4, seed=1)
    by_name = cam_map(activations, gradients, name)
    assert torch.equal(by_name, getattr(cam, name)(activations, gradients))
    assert by_name.shape == (2, 1, 3, 4)


@pytest.mark.parametrize("name", FORMULAS)
def test_a_map_is_comparable_exactly_if_it_follows_the_score(name: str) -> None:
    activations, gradients = drawn(2, 5, 3, 4).abs(), drawn(2, 5, 3, 4, seed=1)
    plain = cam_map(activations, gradients, name)
    ten_times = cam_map(activations, 10 * gradients, name)
    follows = torch.allclose(ten_times, 10 * plain, rtol=1e-4)
    assert follows == FORMULAS[name].comparable


@pytest.mark.parametrize("name", FORMULAS)
def test_every_image_is_on_its_own(name: str) -> None:
    activations, gradients = drawn(3, 5, 3, 4).abs(), drawn(3, 5, 3, 4, seed=1)
    together = cam_map(activations, gradients, name)
    alone = [cam_map(activations[k : k + 1], gradients[k : k + 1], name) for k in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-6)


def test_eigen_smooth_is_the_rank_1_part_by_numpy() -> None:
    weighted = drawn(2, 6, 3, 4)
    smooth, share = eigen_smooth(weighted)
    for k in range(2):
        x = weighted[k].flatten(1).T.double().numpy()
        u, s, vt = np.linalg.svd(x, full_matrices=False)
        expected = (s[0] * np.outer(u[:, 0], vt[0])).sum(1).reshape(3, 4)
        np.testing.assert_allclose(smooth[k, 0], expected, atol=1e-5)
        assert float(share[k]) == pytest.approx(s[0] ** 2 / (s**2).sum(), rel=1e-5)


@given(st.floats(-3, 3).filter(lambda v: abs(v) > 0.01), st.integers(0, 20))
def test_eigen_smooth_keeps_sign_and_unit(factor: float, seed: int) -> None:
    """The sign of a singular vector is arbitrary; that of the map must not be."""
    pattern, channels = drawn(1, 1, 3, 4, seed=seed), drawn(1, 5, 1, 1, seed=seed + 100)
    weighted = pattern * channels  # of rank 1: smoothing changes nothing
    smooth, share = eigen_smooth(factor * weighted)
    torch.testing.assert_close(
        smooth, factor * weighted.sum(dim=1, keepdim=True), rtol=1e-4, atol=1e-4
    )
    assert float(share[0]) == pytest.approx(1.0, abs=1e-5)


def test_eigen_smooth_of_nothing_is_nothing() -> None:
    smooth, share = eigen_smooth(torch.zeros(2, 4, 3, 3))
    assert torch.equal(smooth, torch.zeros(2, 1, 3, 3))
    assert torch.equal(share, torch.ones(2))


def test_without_a_common_pattern_the_share_is_small() -> None:
    channels = torch.eye(9).reshape(1, 9, 3, 3)  # every channel speaks for another place
    assert float(eigen_smooth(channels)[1]) == pytest.approx(1 / 9)


@pytest.mark.parametrize("name", FORMULAS)
def test_training_through_a_map_reaches_the_weights(name: str) -> None:
    torch.manual_seed(0)
    features = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU())
    head = nn.Linear(4, 1)
    activations = features(torch.rand(2, 1, 5, 5))
    score = head(activations.tanh().mean(dim=(2, 3))).sum()
    (gradients,) = torch.autograd.grad(score, activations, create_graph=True)
    cam_map(activations, gradients, name).square().mean().backward()
    for weight in [*features.parameters(), *(() if name == "eigen_cam" else [head.weight])]:
        assert weight.grad is not None
        assert torch.isfinite(weight.grad).all()
        assert math.isfinite(float(weight.grad.abs().sum()))
        assert float(weight.grad.abs().sum()) > 0


def test_the_linear_maps_have_the_right_second_derivative() -> None:
    activations = drawn(1, 3, 2, 2).double().requires_grad_()
    gradients = drawn(1, 3, 2, 2, seed=1).double().requires_grad_()
    for method in (cam.grad_cam, cam.hires_cam):
        assert torch.autograd.gradcheck(method, (activations, gradients))


def test_positive_cuts_what_speaks_against() -> None:
    assert cam.positive(torch.tensor([-1.0, 2.0])).tolist() == [0, 2]
