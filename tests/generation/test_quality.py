from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leanet.generation.quality import Sets, fidelity, measure
from leanet.generation.spaces import PIXELS, Space
from leanet.ops.kid import kid
from leanet.ops.neighbors import pixel_features
from leanet.runtime import Runtime

LEVELS = {"dark": 0, "light": 127}


def pictures(count: int, seed: int) -> dict[str, Tensor]:
    """Noise of two brightnesses, uint8 [count, 3, 16, 16] per class."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (torch.randint(128, (count, 3, 16, 16), generator=generator) + level).byte()
        for name, level in LEVELS.items()
    }


def sets(generated: dict[str, Tensor], flip: str = "none") -> Sets:
    return Sets(pictures(30, 0), pictures(12, 1), generated, flip)


def test_images_as_good_as_unseen_real_ones_pass(runtime: Runtime) -> None:
    found = measure(sets(pictures(30, 2)), PIXELS, runtime).measured
    pooled = found["kid"]["pooled"]
    assert abs(pooled["value"] - pooled["null"]) < 3 * pooled["null_sd"]
    assert found["diversity"] == {name: pytest.approx(1, abs=0.05) for name in LEVELS}
    assert found["memorization"]["16x16 pixel means"]["closer"] == pytest.approx(0.5, abs=0.15)
    assert found["coverage"]["images"] == 24
    assert found["warnings"] == []


def test_kid_is_that_of_the_features_per_class_and_pooled(runtime: Runtime) -> None:
    given = sets(pictures(9, 2))
    found = measure(given, PIXELS, runtime).measured["kid"]

    def features(part: Any, *names: str) -> Tensor:
        return torch.cat([pixel_features(part[name].float() / 255) for name in names])

    for group, names in {"pooled": ("dark", "light"), "dark": ("dark",)}.items():
        real = features(given.training, *names)
        value = kid(real, features(given.generated, *names))
        assert found[group]["value"] == pytest.approx(value)
        assert found[group]["null"] == pytest.approx(kid(real, features(given.held, *names)))


def test_swapped_classes_show_in_the_classes_and_not_in_the_pool(runtime: Runtime) -> None:
    drawn = pictures(30, 2)
    swapped = {"dark": drawn["light"], "light": drawn["dark"]}
    found = measure(sets(swapped), PIXELS, runtime).measured["kid"]
    assert found["dark"]["value"] > 0.1
    assert abs(found["pooled"]["value"]) < 0.05


def test_a_generator_that_draws_one_image_has_no_diversity(runtime: Runtime) -> None:
    drawn = {name: image[:1].repeat(20, 1, 1, 1) for name, image in pictures(1, 2).items()}
    found = measure(sets(drawn), PIXELS, runtime).measured
    assert max(found["diversity"].values()) < 1e-3
    assert found["coverage"]["generated"]["coverage"] < found["coverage"]["validation"]["coverage"]


@pytest.mark.parametrize(("flip", "caught"), [("none", False), ("horizontal", True)])
def test_mirrored_replays_are_copies_where_mirroring_is_allowed(
    runtime: Runtime, flip: str, caught: bool
) -> None:
    replayed = {name: image.flip(3) for name, image in pictures(30, 0).items()}
    quality = measure(sets(replayed, flip), PIXELS, runtime)
    assert bool(quality.copies.all()) is caught
    assert bool(quality.measured["warnings"]) is caught


def test_copies_are_looked_for_in_the_pixels_as_well(runtime: Runtime) -> None:
    """A space that sees nothing but the mean color takes no image for a copy."""
    space = Space("mean color", "abc", lambda image: image.mean(dim=(2, 3)))
    quality = measure(sets(pictures(30, 0)), space, runtime)
    assert set(quality.measured["memorization"]) == {"mean color", "16x16 pixel means"}
    assert quality.measured["space"] == {"name": "mean color", "sha256": "abc"}
    assert quality.copies.all()
    blind = measure(sets(pictures(30, 2)), space, runtime)
    assert not blind.copies.all()


def test_the_nearest_training_image_is_the_replayed_one(runtime: Runtime) -> None:
    replayed = {name: image[[3, 1]] for name, image in pictures(30, 0).items()}
    quality = measure(sets(replayed), PIXELS, runtime)
    assert quality.closest.row.tolist() == [3, 1, 33, 31]


def test_without_held_out_images_the_check_is_refused(runtime: Runtime) -> None:
    held = {name: image[:0] for name, image in pictures(2, 1).items()}
    given = Sets(pictures(30, 0), held, pictures(4, 2), "none")
    with pytest.raises(ValueError, match="--val_fraction"):
        measure(given, PIXELS, runtime)


class Bright(nn.Module):
    """Tells dark from light by the mean; calls every other light image dark."""

    img_size, classes = 8, ("dark", "light")

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, image: Tensor) -> Any:
        assert image.shape[-1] == self.img_size
        light = image.mean(dim=(1, 2, 3)) > 0.5
        light[::2] = False
        return SimpleNamespace(probs=torch.stack([~light, light], dim=1).double())


def test_class_fidelity_is_the_share_that_a_classifier_recognizes() -> None:
    drawn = {"dark": pictures(10, 2)["dark"], "light": pictures(30, 2)["light"]}
    found = fidelity(Bright(), drawn)  # type: ignore[arg-type]
    assert found["per_class"] == {"dark": 1.0, "light": 0.5}
    assert found["accuracy"] == pytest.approx(25 / 40)
    assert found["majority"] == pytest.approx(30 / 40)


def test_a_classifier_of_other_classes_is_refused() -> None:
    with pytest.raises(ValueError, match="not the class 'medium'"):
        fidelity(Bright(), {"medium": pictures(2, 0)["dark"]})  # type: ignore[arg-type]
