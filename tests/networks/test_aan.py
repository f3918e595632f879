import pytest
import torch
import torch.nn.functional as F
from torch import nn

from leanet.networks.aan import DirectAAN, MobileNetAAN, ResNetAAN, WideSqueezeExcite
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
    gate = WideSqueezeExcite(6)
    x = torch.rand(2, 6, 5, 5)
    hidden = (x.mean((2, 3)) @ gate.reduce.weight.T + gate.reduce.bias).clamp(min=0)
    factor = ((hidden @ gate.expand.weight.T + gate.expand.bias) / 6 + 0.5).clamp(0, 1)
    torch.testing.assert_close(gate(x), x * factor[:, :, None, None])


def test_the_mobile_network_computes_in_float32_under_autocast_on_the_cpu() -> None:
    network = MobileNetAAN()
    x = torch.rand(2, 1, 64, 64)
    types: list[torch.dtype] = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            module.register_forward_hook(lambda _m, _i, out: types.append(out.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = network.features(x)
    assert types == [torch.float32] * 11
    assert [feature.dtype for feature in features] == [torch.bfloat16] * 5


def test_training_the_mobile_network_in_bfloat16_stays_close_to_float32() -> None:
    torch.manual_seed(0)
    network = MobileNetAAN()
    x, target = torch.rand(8, 1, 64, 64), torch.tensor([0.0, 1.0] * 4)[:, None]
    logits, slopes = [], []
    for autocast in (False, True):
        network.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            logits.append(network(x).float())
        F.binary_cross_entropy_with_logits(logits[-1], target).backward()
        grads = [p.grad for p in network.parameters() if p.grad is not None and p.ndim > 1]
        slopes.append(torch.cat([grad.flatten() for grad in grads]))
    exact, mixed = logits
    torch.testing.assert_close(mixed, exact, rtol=0, atol=0.1 * exact.abs().max().item())
    assert F.cosine_similarity(*slopes, dim=0) > 0.82  # bfloat16 throughout: 0.66 to 0.76
