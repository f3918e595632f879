"""Which training images are trained on, and which are held out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from leanet.methods.held_out import parts_of
from leanet.methods.recipe import Experience, HeldOut, Material
from leanet.methods.supervised import Config
from leanet.records import Fold
from leanet.runtime import Runtime

Noise = Callable[[int, int], Material]


def everything(data: Material) -> Fold:
    return Fold(name="final", train=tuple(range(len(data.samples))), test=())


def config(**changes: Any) -> Config:
    return Config(**({"epochs": 3, "batch_size": 8} | changes))


@pytest.mark.parametrize("counts", [(9, 0), (0, 9)])
def test_one_class_alone_is_refused(
    counts: tuple[int, int], runtime: Runtime, noise: Noise
) -> None:
    data = noise(*counts)
    message = f"{counts[0]} normal and {counts[1]} anomalous.*leanet fit colorizer"
    with pytest.raises(ValueError, match=message):
        parts_of(config(), everything(data), data, runtime, None)


def test_a_share_of_each_class_is_held_out(runtime: Runtime, noise: Noise) -> None:
    data = noise(20, 25)
    rest, held = parts_of(config(), everything(data), data, runtime, None)
    assert sorted(rest + held) == list(range(45))
    assert [sum(data.labels[i] == y for i in held) for y in (0, 1)] == [4, 5]


@pytest.mark.parametrize(("wanted", "anomalous"), [("auto", 0), ("always", 2)])
def test_anomalous_images_too_few_to_decide_stay_in_training(
    wanted: str, anomalous: int, runtime: Runtime, noise: Noise
) -> None:
    data = noise(20, 10)
    rest, held = parts_of(config(val_anomalous=wanted), everything(data), data, runtime, None)
    assert sorted(rest + held) == list(range(30))
    assert [sum(data.labels[i] == y for i in held) for y in (0, 1)] == [4, anomalous]


def test_what_goes_back_to_the_training_takes_its_group_along(
    runtime: Runtime, noise: Noise
) -> None:
    """Each group holds two good images and a bad one."""
    data = noise(20, 10)
    groups = [f"part {i % 10}" for i in range(30)]
    samples = [replace(s, group=g) for s, g in zip(data.samples, groups, strict=True)]
    samples += [replace(s, group=f"good {k}") for k, s in enumerate(data.samples[:20])]
    grouped = replace(data, samples=tuple(samples))
    rest, held = parts_of(config(), everything(grouped), grouped, runtime, None)
    assert sorted(rest + held) == list(range(50))
    assert {grouped.labels[i] for i in held} == {0}
    assert not {samples[i].group for i in held} & {samples[i].group for i in rest}


def test_with_experience_or_without_a_share_everything_trains(
    runtime: Runtime, noise: Noise
) -> None:
    data = noise(20, 10)
    learned = Experience(HeldOut((0,), {"score": [0.0]}), epochs=2)
    whole = (tuple(range(30)), ())
    assert parts_of(config(), everything(data), data, runtime, learned) == whole
    assert parts_of(config(val_fraction=0.0), everything(data), data, runtime, None) == whole
