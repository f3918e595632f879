from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn

from leanet.networks.resnet import ResNet
from leanet.networks.weights import load_weights


class Scale(nn.Module):
    """A gate that notes how many channels it was made for."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.full((channels, 1, 1), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("depth", "in_chans", "expected"),
    [(18, 3, 11_177_538), (18, 1, 11_171_266), (18, 4, 11_180_674), (50, 3, 23_512_130)],
)
def test_the_parameter_counts_are_those_of_the_specification(
    depth: int, in_chans: int, expected: int
) -> None:
    assert count(ResNet(depth, in_chans, 2)) == expected


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_names_initial_weights_and_output_equal_torchvision(depth: int) -> None:
    torch.manual_seed(3)
    network = ResNet(depth, num_outputs=10).eval()
    torch.manual_seed(3)
    reference = getattr(torchvision.models, f"resnet{depth}")(weights=None, num_classes=10).eval()
    own, expected = network.state_dict(), reference.state_dict()
    assert set(own) == set(expected)
    assert all(torch.equal(own[name], tensor) for name, tensor in expected.items())
    x = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(network(x), reference(x), rtol=1e-5, atol=1e-5)


def test_the_usual_weight_files_fit(tmp_path: Path) -> None:
    reference = torchvision.models.resnet18(weights=None)
    torch.save(reference.state_dict(), tmp_path / "resnet18.pth")
    network = ResNet(18)
    report = load_weights(network, tmp_path / "resnet18.pth")
    assert set(report.skipped) == {"fc.weight", "fc.bias"}
    name = "layer4.1.conv2.weight"
    assert torch.equal(network.state_dict()[name], reference.state_dict()[name])


def test_the_first_tap_lies_before_the_max_pool() -> None:
    network = ResNet(18).eval()
    x = torch.rand(1, 3, 64, 64)
    tap = network.stage(0, x)
    assert torch.equal(tap, network.bn1(network.conv1(x)).relu())


@pytest.mark.parametrize("side", [128, 256])
@pytest.mark.parametrize(
    ("depth", "channels"), [(18, (64, 64, 128, 256, 512)), (50, (64, 256, 512, 1024, 2048))]
)
def test_the_taps_have_the_published_shapes(
    depth: int, channels: tuple[int, ...], side: int
) -> None:
    with torch.device("meta"):
        features = ResNet(depth).eval().features(torch.empty(1, 3, side, side))
    shapes = [tuple(feature.shape[1:]) for feature in features]
    assert shapes == [(c, side // 2**p, side // 2**p) for p, c in enumerate(channels, start=1)]


@pytest.mark.parametrize(
    ("depth", "widths"),
    [
        (18, [64] * 2 + [128] * 2 + [256] * 2 + [512] * 2),
        (50, [256] * 3 + [512] * 4 + [1024] * 6 + [2048] * 3),
    ],
)
def test_a_gate_sits_in_every_block(depth: int, widths: list[int]) -> None:
    with torch.device("meta"):
        network = ResNet(depth, gate=Scale)
    assert [len(gate.factor) for gate in network.modules() if isinstance(gate, Scale)] == widths


@torch.no_grad()
def test_the_program_s_variant_has_a_bare_convolution_between_a1_and_the_max_pool() -> None:
    network = ResNet(18, stem_conv=True).eval()
    x = torch.rand(1, 3, 64, 64)
    tap = network.stage(0, x)
    assert torch.equal(tap, network.bn1(network.conv1(x)).relu())
    convolved = torch.nn.functional.conv2d(
        tap, network.stem_conv.weight, network.stem_conv.bias, padding=1
    )
    assert convolved.min() < 0  # neither BatchNorm nor ReLU
    pooled = torch.nn.functional.max_pool2d(convolved, 3, 2, 1)
    torch.testing.assert_close(network.stage(1, tap), network.layer1(pooled))


def test_the_program_s_variant_has_biases_and_bare_shortcuts() -> None:
    with torch.device("meta"):
        network = ResNet(18, 3, 2, stem_conv=True)
    convs = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert all(conv.bias is not None for conv in convs)
    shortcuts = [block.downsample for layer in (network.layer2, network.layer3, network.layer4)
                 for block in layer if not isinstance(block.downsample, nn.Identity)]  # fmt: skip
    assert [type(shortcut) for shortcut in shortcuts] == [nn.Conv2d] * 3
    with pytest.raises(ValueError, match="depth 18 or 34"):
        ResNet(50, stem_conv=True)


def test_the_small_stem_keeps_the_size_of_small_images() -> None:
    with torch.device("meta"):
        network = ResNet(18, stem="small").eval()
        features = network.features(torch.empty(1, 3, 32, 32))
    assert network.strides == (1, 1, 2, 4, 8)
    assert [feature.shape[-1] for feature in features] == [32, 32, 16, 8, 4]
    assert network.conv1.weight.shape == (64, 3, 3, 3)
    assert count(network) == count(ResNet(18)) - 64 * 3 * (49 - 9)
    with pytest.raises(ValueError, match="cannot be the small one too"):
        ResNet(18, stem_conv=True, stem="small")


@torch.no_grad()
def test_the_small_stem_is_one_convolution_without_a_pool() -> None:
    network = ResNet(18, stem="small").eval()
    x = torch.rand(1, 3, 16, 16)
    convolved = torch.nn.functional.conv2d(x, network.conv1.weight, padding=1)
    tap = network.stage(0, x)
    torch.testing.assert_close(tap, network.bn1(convolved).relu())
    assert torch.equal(network.stage(1, tap), network.layer1(tap))


def test_an_unknown_depth_is_refused() -> None:
    with pytest.raises(ValueError, match="ResNet depth 101"):
        ResNet(101)
