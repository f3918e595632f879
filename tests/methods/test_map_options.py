"""What an image's map is boiled down to, and the steps before."""

from __future__ import annotations

import pytest

from leanet.config import from_dict
from leanet.methods.map_options import TOP, Config, make_prior, steps_of


@pytest.mark.parametrize(
    ("kind", "unit", "top"),
    [
        ("auto", "distance", TOP),
        ("auto", "dE00", 1.0),
        ("auto", None, 1.0),
        ("mean", "distance", 1.0),
        ("top", "dE00", TOP),
    ],
)
def test_auto_is_the_top_of_distances_and_the_mean_of_other_maps(
    kind: str, unit: str | None, top: float
) -> None:
    prior = make_prior(from_dict(Config, {"map_prior": kind}), unit)
    assert prior is not None
    assert prior.top == top


def test_without_a_prior_there_is_none() -> None:
    assert make_prior(from_dict(Config, {"map_prior": "none"}), "distance") is None


def test_the_steps_are_those_of_the_options() -> None:
    steps = steps_of(from_dict(Config, {"map_blur": 1.5, "map_top_fraction": 0.1}))
    assert (steps.blur, steps.top_fraction) == (1.5, 0.1)
    with pytest.raises(ValueError, match="map_threshold"):
        steps_of(from_dict(Config, {"map_threshold": 1.5}))
