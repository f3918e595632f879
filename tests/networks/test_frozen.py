"""Frozen features against timm's own, and against being trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from leanet.networks import frozen
from leanet.networks.frozen import FrozenFeatures, joined, patches

SMALL = "test_resnet"  # timm's, of 0.5 million weights
HALF = (0.5, 0.5, 0.5)


def features(name: str = SMALL, *args: Any, **options: Any) -> FrozenFeatures:
    return FrozenFeatures(name, *args, **{"img_size": 64, "mean": HALF, "std": HALF, **options})


def images(side: int = 64) -> Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file of the whole small network, head included; its statistics are not those of a start."""
    torch.manual_seed(2)
    state = timm.create_model(SMALL).state_dict()
    for key, value in state.items():
        if key.endswith(("running_mean", "running_var")):
            value.uniform_(0.5, 1.5)
    save_file(state, tmp_path / "small.safetensors")
    return tmp_path / "small.safetensors"


def timm_features(name: str, weights: Path, indices: Sequence[int]) -> Any:
    reference = timm.create_model(name, features_only=True, out_indices=indices)
    reference.load_state_dict(load_file(weights), strict=False)  # all but the head
    return reference.eval()


@pytest.mark.parametrize("indices", [None, (1,), (0, 4)])
def test_a_file_gives_the_features_of_timm(weights: Path, indices: Any) -> None:
    reference = timm_features(SMALL, weights, indices or (1, 2, 3))
    ours = features(SMALL, indices, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    ours.load(weights)
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.4, 0.5, 0.6])
    with torch.no_grad():
        expected = reference((images() - mean.view(3, 1, 1)) / std.view(3, 1, 1))
        got = ours(images())
    assert len(got) == len(expected)
    assert all(torch.equal(one, other) for one, other in zip(got, expected, strict=True))
    assert ours.channels == tuple(one.shape[1] for one in expected)
    assert ours.strides == tuple(64 // one.shape[2] for one in expected)
    assert ours.grid == expected[0].shape[2]


def test_layers_behind_the_last_map_are_cut_off() -> None:
    names = {name.split(".")[1] for name in features(SMALL, (1, 2)).state_dict()}
    assert {"layer1", "layer2"} <= names
    assert names.isdisjoint({"layer3", "layer4", "fc"})


def test_nothing_changes_in_training_mode() -> None:
    ours = features()
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    first = ours(images())
    second = ours.train()(images())
    assert not any(module.training for module in ours.modules())
    assert not any(parameter.requires_grad for parameter in ours.parameters())
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert all(torch.equal(before[name], value) for name, value in ours.state_dict().items())


@pytest.mark.parametrize("side", [56, 60])
def test_the_grid_is_that_of_the_first_map_where_the_stride_does_not_divide_the_side(
    side: int,
) -> None:
    ours = features(img_size=side)
    assert ours(images(side))[0].shape[2:] == (ours.grid, ours.grid)


def test_the_grid_is_what_is_seen_where_a_backbone_cuts_its_borders_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(FrozenFeatures, "forward", lambda self, image: [torch.zeros(1, 32, 7, 7)])
    assert features(SMALL, (1,), img_size=32).grid == 7


@pytest.mark.parametrize("shape", [(1, 32, 8, 4), (1, 32, 8), (1, 5, 8, 8)])
def test_features_that_are_no_square_maps_are_refused(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FrozenFeatures, "forward", lambda self, image: [torch.zeros(shape)])
    with pytest.raises(ValueError, match=r"not maps of 32 channels; choose another"):
        features(SMALL, (1,))


def test_an_image_too_small_for_a_backbone_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: FrozenFeatures, image: Tensor) -> list[Tensor]:
        raise RuntimeError("nothing is left")

    monkeypatch.setattr(FrozenFeatures, "forward", fails)
    with pytest.raises(ValueError, match=f"timm model {SMALL} sees no 64 px: nothing is left"):
        features()


def test_a_plain_vision_transformer_gives_three_of_its_blocks_as_maps() -> None:
    ours = features("test_vit", img_size=64)
    assert ours.indices == (2, 3, 5)
    assert [tuple(one.shape) for one in ours(images())] == [(2, 64, 4, 4)] * 3


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"no model 'resnet81': did you mean .*resnet18"):
        features("resnet81")


@pytest.mark.parametrize("wrong", [(), (5,), (2, 1), (1, 1), (-1,)])
def test_levels_that_are_not_there_or_out_of_order_are_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"has the levels 0 to 4 \(strides 2, 4, 8, 16, 32\)"):
        features(SMALL, wrong)


def test_a_spread_of_0_is_refused() -> None:
    with pytest.raises(ValueError, match=r"std 0\.5, 0, 0\.5: give three positive numbers"):
        features(std=(0.5, 0, 0.5))


def test_an_argument_that_the_model_does_not_take_is_refused() -> None:
    with pytest.raises(ValueError, match=f"timm cannot build {SMALL} with .*'flavor': 1"):
        features(model_args={"flavor": 1})


def test_a_backbone_without_maps_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm, "create_model", lambda *args, **options: torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match="gives no feature maps; choose another backbone"):
        features()


def test_without_maps_of_the_usual_strides_levels_must_be_named() -> None:
    with pytest.raises(ValueError, match=r"stride 8, 16, .*name others by --feature_indices"):
        frozen._indices("coarse", [8, 16, 32], None, (4, 8, 16))


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    save_file({"head.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=f"other.safetensors for timm model {SMALL} do not fit"):
        features().load(tmp_path / "other.safetensors")


def test_without_a_file_the_weights_are_those_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    state = timm.create_model(SMALL).state_dict()
    asked: list[str] = []
    monkeypatch.setattr(frozen, "hub_weights", lambda name: asked.append(name) or state)
    ours = features()
    ours.load()
    assert asked == [SMALL]
    assert torch.equal(ours.backbone.conv1[0].weight, state["conv1.0.weight"])


def test_every_map_is_averaged_over_its_neighbors_before_it_is_enlarged() -> None:
    fine, coarse = torch.rand(1, 2, 6, 6), torch.rand(1, 3, 3, 3)
    got = patches([fine, coarse])
    kernel = torch.full((3, 1, 3, 3), 1 / 9)
    small = F.conv2d(F.pad(coarse, (1, 1, 1, 1)), kernel, groups=3)  # zeros count
    large = F.interpolate(small, (6, 6), mode="bilinear", align_corners=False)
    torch.testing.assert_close(got[:, 2:], large)
    torch.testing.assert_close(got[0, 0, 0, 0], fine[0, 0, :2, :2].sum() / 9)


def test_maps_are_joined_on_the_grid_of_the_first() -> None:
    fine, coarse = torch.rand(1, 2, 4, 4), torch.rand(1, 1, 2, 2)
    got = joined([fine, coarse], mode="nearest")
    assert torch.equal(got[:, :2], fine)
    assert torch.equal(got[0, 2], coarse[0, 0].repeat_interleave(2, 0).repeat_interleave(2, 1))
