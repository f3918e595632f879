"""The number that a map says of its image: computed by hand, its zero, its order, its limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from leanet.networks.prior import DARKEST, PLACE, MapPrior


def maps(num: int = 5, height: int = 32, width: int = 48, seed: int = 0) -> Tensor:
    brightness = torch.linspace(0.1, 1, num).view(-1, 1, 1, 1)
    generator = torch.Generator().manual_seed(seed)
    return brightness * torch.rand(num, 1, height, width, generator=generator)


def fitted(top: float = 1.0, num: int = 21) -> tuple[MapPrior, Tensor]:
    """Used to some maps of normal images, and these."""
    prior, normal = MapPrior(top), maps(num)
    prior.fit(prior.score(normal))
    return prior, normal


@pytest.mark.parametrize(("top", "places"), [(1.0, 24), (0.1, 3), (0.02, 1)])
def test_the_score_is_the_logarithm_of_the_mean_of_the_highest_places(
    top: float, places: int
) -> None:
    drawn = maps()
    score = MapPrior(top).score(drawn)
    for k, plane in enumerate(drawn[:, 0].double().numpy()):
        blocks = plane.reshape(32 // PLACE, PLACE, 48 // PLACE, PLACE).mean(axis=(1, 3))
        highest = np.sort(blocks.ravel())[-places:]
        assert float(score[k]) == pytest.approx(math.log(highest.mean() + DARKEST), abs=1e-5)


def test_maps_smaller_than_a_place_are_one_place() -> None:
    drawn = maps(height=5, width=3)
    expected = (drawn.mean(dim=(1, 2, 3)) + DARKEST).log()
    torch.testing.assert_close(MapPrior(0.02).score(drawn), expected)


@pytest.mark.parametrize("top", [1.0, 0.1])
def test_the_median_normal_image_is_zero_and_a_spread_above_it_is_asinh_of_one(top: float) -> None:
    prior, normal = fitted(top)
    z, scores = prior(normal), prior.score(normal)
    assert z.sort().values[10] == 0
    expected = np.arcsinh((scores - scores.median()).numpy() / float(prior.spread))
    np.testing.assert_allclose(z, expected, atol=1e-5)
    low, high = np.quantile(scores.double(), [0.1, 0.9])
    assert float(prior.spread) == pytest.approx((high - low) / 2.5631, rel=1e-4)


@pytest.mark.parametrize("top", [1.0, 0.02])
def test_brighter_maps_never_score_lower(top: float) -> None:
    prior, _ = fitted(top)
    one = maps(1, seed=4)
    z = prior(torch.cat([one * factor for factor in (0, 0.1, 0.5, 0.9, 1)]))
    assert z.diff().gt(0).all()
    assert torch.isfinite(z).all()


def test_a_small_bright_place_counts_more_among_the_highest_than_in_the_mean() -> None:
    spot = maps(21)[[10]]
    spot[..., :PLACE, :PLACE] = 1
    mean, top = (fitted(share)[0](spot) for share in (1.0, 0.02))
    assert top > mean > 0


def test_equal_normal_maps_leave_the_score_as_it_is() -> None:
    prior = MapPrior()
    prior.fit(torch.full((4,), -2.0))
    assert (float(prior.level), float(prior.spread)) == (-2, 1)


def test_a_map_says_the_same_alone_and_in_a_batch() -> None:
    prior, _ = fitted(0.1)
    drawn = maps(6, seed=2)
    torch.testing.assert_close(
        prior(drawn), torch.cat([prior(drawn[[k]]) for k in range(6)]), rtol=0, atol=1e-6
    )


def test_level_and_spread_are_part_of_the_weights() -> None:
    prior, normal = fitted()
    other = MapPrior()
    assert not torch.equal(other(normal), prior(normal))
    other.load_state_dict(prior.state_dict())
    assert torch.equal(other(normal), prior(normal))
    assert not list(prior.parameters())


@pytest.mark.parametrize("top", [0.0, -1.0, 1.5, math.nan])
def test_a_share_that_is_none_is_refused(top: float) -> None:
    with pytest.raises(ValueError, match=rf"top {top}: give a share of the places in \(0, 1\]"):
        MapPrior(top)
