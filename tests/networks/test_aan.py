import pytest
import torch
import torch.nn.functional as F
from torch import nn

from leanet.networks.aan import DirectAAN, MobileNetAAN, ResNetAAN, SqueezeExcite
from leanet.networks.blocks import Staged


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def shapes(network: Staged, side: int) -> list[tuple[int, ...]]:
    with torch.device("meta"):
        x = torch.empty(1, 1, side, side)
    features = network.to("meta").eval().features(x)
    return [tuple(feature.shape[1:]) for feature in features]


def test_the_parameter_counts_are_those_of_the_specification() -> None:
    assert count(ResNetAAN(num_outputs=2)) == 4_901_634
    assert count(MobileNetAAN(num_outputs=2)) == 3_029_762
    assert count(ResNetAAN()) == 4_901_634 - 513
    assert count(MobileNetAAN()) == 3_029_762 - 1_281
    assert count(DirectAAN()) == 0


@pytest.mark.parametrize("side", [128, 256])
@pytest.mark.parametrize(
    ("kind", "channels"),
    [
        (ResNetAAN, (64, 64, 128, 256, 512)),
        (MobileNetAAN, (16, 16, 24, 48, 96)),
        (DirectAAN, (1, 1, 1, 1, 1)),
    ],
)
def test_the_taps_have_the_published_shapes(
    kind: type[Staged], channels: tuple[int, ...], side: int
) -> None:
    expected = [(c, side // 2**p, side // 2**p) for p, c in enumerate(channels, start=1)]
    assert shapes(kind(), side) == expected


def test_buffers_count_as_in_the_original_program() -> None:
    for network, expected in [(ResNetAAN(1, 2), 4_905_602), (MobileNetAAN(1, 2), 3_041_906)]:
        stats = [b.numel() for n, b in network.named_buffers() if "running" in n]
        assert count(network) + sum(stats) == expected


def test_direct_averages_the_map_over_squares_of_the_stride() -> None:
    x = torch.rand(2, 1, 64, 96)
    network = DirectAAN()
    for stride, feature in zip(network.strides, network.features(x), strict=True):
        squares = x.reshape(2, 1, 64 // stride, stride, 96 // stride, stride)
        torch.testing.assert_close(feature, squares.mean(dim=(3, 5)))


def test_direct_has_no_head() -> None:
    network = DirectAAN()
    assert not network.has_head
    assert network(torch.rand(1, 1, 64, 64)) is None


def test_the_first_tap_of_the_residual_network_lies_before_the_max_pool() -> None:
    network = ResNetAAN().eval()
    x = torch.rand(1, 1, 64, 64)
    conv, norm = network.stem[0], network.stem[1]
    tap = network.stage(0, x)
    assert torch.equal(tap, norm(conv(x)).relu())
    pooled = F.max_pool2d(tap, 3, 2, 1)
    assert torch.equal(network.stage(1, tap), network.blocks[0](pooled))


def test_only_the_linear_taps_of_the_mobile_network_are_negative() -> None:
    torch.manual_seed(0)
    first, *others = MobileNetAAN().features(torch.rand(2, 1, 64, 64))
    assert first.min() >= 0
    assert all(feature.min() < 0 for feature in others)


def test_squeeze_and_excitation_scales_by_a_hard_sigmoid_of_the_channel_means() -> None:
    gate = SqueezeExcite(6)
    x = torch.rand(2, 6, 5, 5)
    hidden = (x.mean((2, 3)) @ gate.reduce.weight.T + gate.reduce.bias).clamp(min=0)
    factor = ((hidden @ gate.expand.weight.T + gate.expand.bias) / 6 + 0.5).clamp(0, 1)
    torch.testing.assert_close(gate(x), x * factor[:, :, None, None])
