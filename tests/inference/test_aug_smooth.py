from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leanet.inference.aug_smooth import Changes, Smoothed, Variant, aug_smooth, move, move_back
from leanet.inference.cam import CAM, cam
from leanet.inference.cam_targets import Target


def images(count: int = 2, side: int = 8, seed: int = 1) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


class Equivariant(nn.Module):
    """1x1 convolutions and a sum over all places: no place is special. The map multiplies."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.fc = nn.Conv2d(3, 6, 1, bias=False), nn.Linear(6, classes, bias=False)

    def forward(self, image: Tensor, anomaly_map: Tensor | None = None) -> Tensor:
        f = functional.relu(self.conv(image))
        f = f if anomaly_map is None else f * anomaly_map
        logits: Tensor = self.fc(f.mean(dim=(2, 3)))
        return logits


class Uneven(Equivariant):
    """Places count from left to right."""

    def forward(self, image: Tensor, anomaly_map: Tensor | None = None) -> Tensor:
        return super().forward(image * torch.linspace(0, 1, image.shape[-1]))


def alone(image: Tensor) -> tuple[Tensor, ...]:
    return (image,)


def smooth(network: nn.Module, image: Tensor, prepare: Any = alone, **options: Any) -> Smoothed:
    def maps_of(inputs: tuple[Tensor, ...], target: Any) -> dict[str, CAM]:
        return {"": cam(network, inputs, layer="conv", target=target)}

    return aug_smooth(maps_of, image, prepare, **options)[""]


EVERY_MOVE = Changes(flip=True, turns=True, shift=2, gains=(1.0,))


@pytest.mark.parametrize("changes", [Changes(gains=(1.0,)), EVERY_MOVE, Changes(
    flip=False, vertical=True, turns=True, gains=(1.0,))])  # fmt: skip
def test_a_network_without_special_places_gives_the_plain_map(changes: Changes) -> None:
    network, x = Equivariant(), images()
    found, plain = smooth(network, x, changes=changes), cam(network, (x,), layer="conv")
    torch.testing.assert_close(found.cam.map, plain.map, rtol=1e-5, atol=1e-6)
    assert found.sd.max() < 1e-6
    torch.testing.assert_close(found.scores, plain.score.expand_as(found.scores))


def test_a_network_with_special_places_gives_the_mean_of_what_is_moved_back() -> None:
    network, x = Uneven(), images()
    found = smooth(network, x, changes=Changes(gains=(1.0,)), target=Target(which=1))
    plain, flipped = (
        cam(network, (one,), layer="conv", target=Target(which=1)).map for one in (x, x.flip(-1))
    )
    torch.testing.assert_close(found.cam.map, (plain + flipped.flip(-1)) / 2)
    torch.testing.assert_close(found.sd, (plain - flipped.flip(-1)).abs() / 2)
    assert found.sd.max() > 0


def test_the_six_variants_of_the_default() -> None:
    found = smooth(Equivariant(), images())
    gains = ["gain 0.9", "gain 1.1"]
    assert list(found.variants) == ["unchanged", *gains, "flip", *(f"flip, {g}" for g in gains)]
    assert found.scores.shape == (6, 2)


def test_gains_change_pixels_are_clipped_and_counted() -> None:
    seen: list[Tensor] = []

    def prepare(image: Tensor) -> tuple[Tensor, ...]:
        seen.append(image)
        return (image,)

    x = torch.full((1, 3, 2, 2), 0.5)
    x[:, :, 0, 0] = 0.95
    found = smooth(Equivariant(), x, prepare, changes=Changes(flip=False), batch_size=1)
    assert [float(one[0, 0, 1, 1]) for one in seen] == pytest.approx([0.5, 0.45, 0.55])
    assert [float(one[0, 0, 0, 0]) for one in seen] == pytest.approx([0.95, 0.855, 1.0])
    assert found.clipped.tolist() == pytest.approx([0, 0, 0.25])


def test_gains_in_linear_light_multiply_light() -> None:
    seen: list[Tensor] = []

    def prepare(image: Tensor) -> tuple[Tensor, ...]:
        seen.append(image)
        return (image,)

    x = torch.full((1, 3, 2, 2), 0.5)
    changes = Changes(flip=False, gains=(1.2,), linear_light=True)
    smooth(Equivariant(), x, prepare, changes=changes)
    light = [((float(one[0, 0, 0, 0]) + 0.055) / 1.055) ** 2.4 for one in seen]
    assert light[1] / light[0] == pytest.approx(1.2, rel=1e-4)
    assert float(seen[0][0, 0, 0, 0]) == 0.5  # the unchanged image stays as it is


def test_the_class_is_that_of_the_unchanged_image() -> None:
    class Bright(nn.Module):
        """Class 0 for dark images, 1 for bright ones."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 1, 1, bias=False)
            nn.init.constant_(self.conv.weight, 1 / 3)

        def forward(self, image: Tensor) -> Tensor:
            light = self.conv(image).mean(dim=(1, 2, 3))
            return torch.stack([0.5 - light, light - 0.5], dim=1)

    x = torch.full((1, 3, 2, 2), 0.49)
    found = smooth(Bright(), x, changes=Changes(flip=False))
    assert found.cam.classes is not None
    assert found.cam.classes.tolist() == [0]
    assert found.scores[:, 0].tolist() == pytest.approx([0.01, 0.059, -0.039], abs=1e-4)


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_the_batch_size_does_not_matter(batch_size: int) -> None:
    network, x = Uneven(), images(3)
    expected = smooth(network, x, batch_size=7)
    found = smooth(network, x, batch_size=batch_size)
    torch.testing.assert_close(found.cam.map, expected.cam.map)
    torch.testing.assert_close(found.scores, expected.scores)


def both(image: Tensor, anomaly_map: Tensor) -> tuple[Tensor, ...]:
    return image, anomaly_map


def test_a_stored_map_moves_with_the_image_and_stays_as_bright() -> None:
    network, x, stored = Equivariant(), images(), images(seed=3)[:, :1]
    seen: list[Tensor] = []

    def prepare(image: Tensor, anomaly_map: Tensor) -> tuple[Tensor, ...]:
        seen.append(anomaly_map)
        return image, anomaly_map

    found = smooth(network, x, prepare, planes=(stored,), batch_size=2)
    plain = cam(network, (x, stored), layer="conv")
    flips = smooth(network, x, both, planes=(stored,), changes=Changes(gains=(1.0,)))
    torch.testing.assert_close(flips.cam.map, plain.map, rtol=1e-5, atol=1e-6)
    assert torch.equal(seen[1], stored)  # gain 0.9 leaves the map alone
    assert torch.equal(seen[3], stored.flip(-1))
    assert found.sd.max() > 0  # gains do change the map


def test_an_image_that_is_moved_without_its_map_is_noticed() -> None:
    """The trap of wrappers that hold the map fixed."""
    network, x, stored = Equivariant(), images(), images(seed=3)[:, :1]
    plain = cam(network, (x, stored), layer="conv").map
    wrong = smooth(network, x, lambda image: (image, stored.repeat(len(image) // 2, 1, 1, 1)),
                   changes=Changes(gains=(1.0,)))  # fmt: skip
    assert not torch.allclose(wrong.cam.map, plain, rtol=0.01)


def test_without_stored_planes_the_map_is_made_from_the_changed_image() -> None:
    network, x = Equivariant(), images()

    def recompute(image: Tensor) -> tuple[Tensor, ...]:
        return image, image.mean(dim=1, keepdim=True)

    found = smooth(network, x, recompute, changes=Changes(flip=False, gains=(1.0, 0.5)),
                   target=Target(which=0))  # fmt: skip
    # features and map are both halved
    torch.testing.assert_close(found.scores[1], found.scores[0] / 4)


@pytest.mark.parametrize(
    "variant",
    [
        Variant(flip=True),
        Variant(vertical=True),
        Variant(turns=1),
        Variant(flip=True, turns=3, shift=(2, 0)),
        Variant(flip=True, vertical=True, shift=(0, -4)),
    ],
)
def test_moving_back_undoes_moving(variant: Variant) -> None:
    x = images(2, 8)
    assert torch.equal(move_back(move(x, variant), variant, (1, 1)), x)
    pooled = functional.avg_pool2d(x, 2)
    small = functional.avg_pool2d(move(x, variant), 2)
    torch.testing.assert_close(move_back(small, variant, (2, 2)), pooled)


def test_every_combination_is_there_once() -> None:
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    for changes, count in [
        (Changes(turns=True, vertical=True), 8),
        (Changes(flip=False, turns=True, vertical=True), 8),
        (Changes(vertical=True), 4),
        (Changes(shift=1), 10),
    ]:
        moves = {tuple(move(x, one).flatten().tolist()) for one in changes.variants()}
        assert len(moves) == count
        assert len(changes.variants()) == 3 * count


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (Changes(gains=()), "one gain"),
        (Changes(gains=(1.0, -1.0)), "positive"),
        (Changes(turns=True), "square"),
        (Changes(shift=3), "no whole number of cells"),
    ],
)
def test_impossible_changes_are_refused(changes: Changes, told: str) -> None:
    network = nn.Sequential()
    network.add_module("conv", nn.Conv2d(3, 2, 2, stride=2))
    network.add_module("pool", nn.AdaptiveAvgPool2d(1))
    network.add_module("flat", nn.Flatten())
    with pytest.raises(ValueError, match=told):
        smooth(network, torch.rand(1, 3, 4, 8), changes=changes)


def test_a_batch_size_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size 0"):
        smooth(Equivariant(), images(), batch_size=0)
