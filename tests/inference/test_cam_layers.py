from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from leanet.inference.cam_layers import (
    attach,
    cell,
    default_layer,
    evaluating,
    find_tap,
    last_layers,
    list_layers,
    taps,
)
from leanet.networks.aan import ResNetAAN
from leanet.networks.blocks import StagedClassifier
from leanet.networks.cnn import CNN
from leanet.networks.guided import GuidedNet
from leanet.networks.leanet import LEANet
from leanet.networks.prior import MapPrior
from leanet.networks.resnet import ResNet
from leanet.networks.timm_stages import TimmStages
from leanet.networks.vgg import VGG


def images(count: int = 2, side: int = 64, channels: int = 3) -> Tensor:
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(1))


def seen_at(network: nn.Module, name: str, *inputs: Tensor) -> Tensor:
    """What passes a layer."""
    passed: list[Tensor] = []

    def look(value: Tensor) -> Tensor:
        passed.append(value)
        return value

    remove = attach(find_tap(network, name), look)
    with torch.no_grad():
        network(*inputs)
    remove()
    assert len(passed) == 1
    return passed[0]


@pytest.mark.parametrize("build", [lambda: ResNet(18), lambda: VGG(16, hidden=8), CNN])
def test_a_stage_is_what_the_stage_gives(build: Callable[[], StagedClassifier]) -> None:
    network, x = build().eval(), images(1)
    with torch.no_grad():
        features = network.features(x)
    for index, expected in enumerate(features):
        assert torch.equal(seen_at(network, f"stage{index}", x), expected)
        assert torch.equal(seen_at(network, f"point{index}", x), expected)


def test_points_go_by_the_stride_and_stages_by_their_number() -> None:
    network = TimmStages("convnext_atto").eval()  # strides 4, 8, 16, 32
    assert {name for name in taps(network) if name.startswith("point")} == {
        "point1", "point2", "point3", "point4"}  # fmt: skip
    x = images()
    assert torch.equal(seen_at(network, "stage0", x), seen_at(network, "point1", x))


def test_a_network_with_channels_last_inside_has_stages_with_channels_first() -> None:
    network = TimmStages("swin_tiny_patch4_window7_224", img_size=64, window_size=2).eval()
    with torch.no_grad():
        expected = network.features(images())[2]
    assert torch.equal(seen_at(network, "stage2", images()), expected)
    layers = {layer.name: layer for layer in list_layers(network, (images(),))}
    assert layers["stage2"].shape == (384, 4, 4)
    assert layers["stages.2"].adapter == "channels_last"
    assert layers["stages.2"].shape == (384, 4, 4)


def lea_net() -> LEANet:
    torch.manual_seed(0)
    return LEANet(CNN(), ResNetAAN(), (3,)).eval()


def test_lea_net_has_the_stages_of_both_networks_and_the_points_of_the_classifier() -> None:
    network, inputs = lea_net(), (images(), images(channels=1))
    with torch.no_grad():
        output = network(*inputs)
    for name in ("stage3", "adn.stage3"):
        assert torch.equal(seen_at(network, name, *inputs), output.before[0])
    for name in ("point3", "adn.point3"):
        assert torch.equal(seen_at(network, name, *inputs), output.after[0])
    assert seen_at(network, "aan.stage3", *inputs).shape == (2, 256, 4, 4)
    assert network.aan is not None
    assert torch.equal(seen_at(network, "aan.blocks.2", *inputs),
                       seen_at(network, "aan.stage3", *inputs))  # fmt: skip


def test_what_a_tap_gives_goes_on() -> None:
    network, x = ResNet(18, num_outputs=2).eval(), images()
    for name in ("layer4", "stage4", "point4"):
        remove = attach(find_tap(network, name), torch.zeros_like)
        torch.testing.assert_close(network(x), network.fc.bias.expand(2, 2))
        remove()
    assert not torch.allclose(network(x), network.fc.bias.expand(2, 2))


def test_taps_come_off_last_one_first() -> None:
    network = ResNet(18).eval()
    removes = [attach(find_tap(network, name), lambda x: x) for name in ("stage1", "stage2")]
    assert "stage" in vars(network)
    for remove in removes[::-1]:
        remove()
    assert "stage" not in vars(network)
    network(images())


def test_a_wrapped_stage_of_a_user_is_put_back() -> None:
    network = ResNet(18).eval()
    plain = network.stage
    own = lambda index, x: plain(index, x)  # noqa: E731
    vars(network)["stage"] = own
    attach(find_tap(network, "stage1"), lambda x: x)()
    assert vars(network)["stage"] is own


def test_an_unknown_layer_is_refused_with_the_three_nearest() -> None:
    with pytest.raises(ValueError, match=r"'layer5'; .* layer4, layer3, layer2"):
        find_tap(ResNet(18), "layer5")


def test_layers_are_listed_with_shape_and_stride_in_the_order_of_running() -> None:
    network = ResNet(18).train()
    layers = {layer.name: layer for layer in list_layers(network, (images(side=64),))}
    assert layers["layer4"].shape == (512, 2, 2)
    assert layers["layer4"].stride == (32, 32)
    assert layers["stage0"].shape == (64, 32, 32)
    names = list(layers)
    assert names.index("conv1") < names.index("layer1.0.conv1") < names.index("layer1")
    assert "fc" not in layers  # no places
    assert network.training
    assert str(layers["layer4"]) == "layer4                       512 x 2 x 2      32 px per cell"


def test_modules_that_run_twice_are_not_listed() -> None:
    torchvision = pytest.importorskip("torchvision")
    network = torchvision.models.resnet18(weights=None)
    names = {layer.name for layer in list_layers(network, (images(),))}
    assert "layer1.0.relu" not in names
    assert "layer1.0" in names


@pytest.mark.parametrize(("side", "expected"), [(64, "stage4"), (63, "stage4"), (32, "stage3")])
def test_the_default_is_the_last_stage_with_four_cells(side: int, expected: str) -> None:
    assert default_layer(ResNet(18), (images(side=side),)) == expected


def test_the_default_of_lea_net_lies_behind_the_fusion() -> None:
    assert default_layer(lea_net(), (images(), images(channels=1))) == "point4"


def test_guided_attention_is_explained_by_all_of_what_its_stages_give() -> None:
    network = GuidedNet(TimmStages("mobilenetv3_small_050"), MapPrior())
    inputs = (images(side=64), torch.rand(1, 1, 64, 64))
    names = last_layers(network, inputs, 3)
    strides = [network.adn.strides[int(name.removeprefix("stage"))] for name in names]
    assert strides == [32, 16, 8]


def test_the_default_without_stages_is_the_last_layer_of_the_coarsest_grid() -> None:
    torchvision = pytest.importorskip("torchvision")
    network = torchvision.models.resnet18(weights=None)
    assert default_layer(network, (images(),)) == "layer4"
    assert last_layers(network, (images(),), 2) == ["layer4", "layer3"]


def test_the_stage_before_the_default_is_known() -> None:
    assert last_layers(ResNet(18), (images(),), 2) == ["stage4", "stage3"]
    assert last_layers(lea_net(), (images(), images(channels=1)), 3) == [
        "point4", "point3", "point2"]  # fmt: skip


def test_a_network_without_places_has_no_default() -> None:
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 1))
    with pytest.raises(ValueError, match="grid of at least 2 x 2"):
        default_layer(network, (images(),))


def test_the_mode_of_every_module_comes_back() -> None:
    network = ResNet(18).train()
    network.bn1.eval()
    before = [module.training for module in network.modules()]
    with evaluating(network):
        assert not any(module.training for module in network.modules())
    assert [module.training for module in network.modules()] == before


def test_a_cell_in_words() -> None:
    assert cell((8.0, 4.0)) == "8 x 4 px per cell"
