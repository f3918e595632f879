"""From an image to the map: what is looked at, what stays unseen, how it is blurred."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import scipy.ndimage
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from leanet.methods.patches import Config, PatchDetector, border_of, load_features, seen
from leanet.methods.recipe import Material

SIDE = 64


class Bright(PatchDetector):
    """A place is as far from normal as its first feature is high."""

    def distances(self, maps: list[Tensor]) -> Tensor:
        return maps[0][:, :1].abs()


def config(**options: Any) -> Config:
    return Config(backbone="test_resnet", pretrained=False, **options)


def detector(**options: Any) -> Bright:
    torch.manual_seed(0)
    return Bright(config(**options), SIDE).eval()


def images(num: int = 2) -> Tensor:
    return torch.rand(num, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("side", "border"), [(256, 16), (128, 8), (64, 4), (32, 2)])
def test_a_center_crop_keeps_224_of_256_pixels(side: int, border: int) -> None:
    assert border_of(config(crop="center"), side) == border
    assert border_of(config(crop="none"), side) == 0


@torch.no_grad()
def test_nothing_outside_the_crop_is_looked_at() -> None:
    cropped, outside = detector(crop="center"), images()
    outside[..., 4:60, 4:60] = images()[..., 4:60, 4:60]
    outside[..., :4, :] = 1 - outside[..., :4, :]
    first, second = cropped(images()), cropped(outside)
    assert first.map is not None
    assert torch.equal(first.map, second.map)
    assert torch.equal(first.score, second.score)
    assert torch.equal(cropped.see(images())[0], cropped.features(images()[..., 4:60, 4:60])[0])


@torch.no_grad()
def test_the_map_is_0_where_nothing_was_looked_at() -> None:
    cropped = detector(crop="center")
    found = cropped(images()).map
    assert found is not None
    assert found.shape == (2, 1, SIDE, SIDE)
    assert cropped.map_border == 4
    assert (found[..., 4:60, 4:60] > 0).all()
    found[..., 4:60, 4:60] = 0
    assert not found.any()


@torch.no_grad()
def test_the_map_is_enlarged_and_then_blurred_as_by_scipy() -> None:
    plain, blurred = detector(blur_sigma=0.0), detector(blur_sigma=2.0)
    sharp, soft = plain(images()), blurred(images())
    grid = plain.distances(plain.see(images()))
    large = torch.nn.functional.interpolate(grid, (SIDE, SIDE), mode="bilinear")
    torch.testing.assert_close(sharp.map, large)
    expected = scipy.ndimage.gaussian_filter(large[:, 0].numpy(), (0, 2, 2), mode="reflect")
    assert soft.map is not None
    torch.testing.assert_close(soft.map[:, 0], torch.from_numpy(expected), rtol=0, atol=1e-5)
    torch.testing.assert_close(soft.score, soft.map.amax(dim=(1, 2, 3)))


def test_the_features_are_stored_once() -> None:
    ours = detector()
    assert ours.network is ours.features
    assert not [name for name in ours.state_dict() if not name.startswith("features.")]


def test_autocast_does_not_reach_the_features() -> None:
    ours = detector()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        inside = ours(images())
    with torch.no_grad():
        assert torch.equal(ours(images()).score, inside.score)


def test_random_features_are_told_and_a_file_takes_their_place(tmp_path: Path) -> None:
    torch.manual_seed(3)
    state = timm.create_model("test_resnet").state_dict()
    save_file(state, tmp_path / "w.safetensors")
    ours = detector()
    told = load_features(config(), ours.features)
    assert told["backbone"] == "random"
    assert "--weights FILE" in told["notices"][0]
    file = str(tmp_path / "w.safetensors")
    told = load_features(config(weights=file), ours.features)
    assert (told["backbone"], told["notices"]) == (file, [])
    loaded = ours.features.backbone.conv1[0].weight
    assert torch.equal(loaded, state["conv1.0.weight"])


def test_what_was_not_trained_comes_back_from_what_is_stored() -> None:
    ours, again = detector(), detector()
    ours.map_top, ours.map_thresholds = 3.0, {"honest": 1.5}
    again.take(ours.extra())
    assert (again.map_top, again.map_thresholds) == (3.0, {"honest": 1.5})
    again.take({})
    assert again.map_top == 3.0


def test_an_incomplete_detector_says_so() -> None:
    ours = PatchDetector(config(), SIDE)
    with pytest.raises(TypeError, match="PatchDetector is no complete detector"):
        ours(images())


def test_all_images_are_seen_in_order(material: Callable[..., Material]) -> None:
    data = material()
    ours = Bright(config(), data.img_size)
    found = list(seen(ours, data, [3, 0, 5], batch_size=2))
    assert [len(maps[0]) for maps in found] == [2, 1]
    image = data.images.take([0]).float() / 255
    torch.testing.assert_close(found[0][0][1:], ours.see(image)[0])
