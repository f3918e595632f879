import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leanet.networks.autoencoder import AutoEncoder, ResidualBlock, UNetRes


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def shapes(network: AutoEncoder, x: Tensor) -> list[tuple[int, ...]]:
    """Of the inputs of all layers, in order, and of the output."""
    seen: list[tuple[int, ...]] = []
    for layer in [network.first, *network.down, network.blocks, *network.up, network.out]:
        layer.register_forward_pre_hook(lambda _m, inputs: seen.append(tuple(inputs[0].shape[1:])))
    out: Tensor = network(x)
    return [*seen, tuple(out.shape[1:])]


def test_the_features_have_the_stated_shapes() -> None:
    with torch.device("meta"):
        found = shapes(AutoEncoder(3, 3), torch.empty(2, 3, 256, 256))
    channels = [3, 32, 64, 128, 256, 512, 512, 256, 128, 64, 32, 3]
    sides = [256, 256, 128, 64, 32, 16, 16, 32, 64, 128, 256, 256]
    assert found == [(c, s, s) for c, s in zip(channels, sides, strict=True)]


def test_with_skips_every_layer_behind_the_first_reads_twice_the_channels() -> None:
    with torch.device("meta"):
        found = shapes(UNetRes(3, 3), torch.empty(2, 3, 64, 64))
    assert [channels for channels, *_ in found[6:]] == [512, 512, 256, 128, 64, 3]


def test_a_residual_block_adds_without_an_activation() -> None:
    block = ResidualBlock(4).eval()
    for parameter in block.bn2.parameters():
        nn.init.zeros_(parameter)
    x = torch.randn(2, 4, 6, 6)
    assert torch.equal(block(x), x)
    nn.init.ones_(block.bn2.weight)
    branch = F.leaky_relu(block.bn1(block.conv1(x)), 0.2)
    assert torch.equal(block(x), x + block.bn2(block.conv2(branch)))


def test_outer_layers_have_no_norm_and_the_others_a_momentum_of_a_fifth() -> None:
    network = AutoEncoder(3, 3, base=4)
    outer = [network.first, network.down[0], network.up[3], network.out]
    assert not any(isinstance(m, nn.BatchNorm2d) for layer in outer for m in layer.modules())
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 3 + 2 * 5 + 3
    assert {norm.momentum for norm in norms} == {0.2}


@torch.no_grad()
@pytest.mark.parametrize(("kind", "reached"), [(AutoEncoder, False), (UNetRes, True)])
def test_fine_detail_passes_the_skips_only(kind: type[AutoEncoder], reached: bool) -> None:
    network = kind(1, 1, base=4).eval()
    for parameter in network.blocks.parameters():
        nn.init.zeros_(parameter)
    for parameter in network.down.parameters():
        nn.init.zeros_(parameter)  # nothing but the full-size skip carries the image
    one, other = (network(torch.rand(1, 1, 32, 32)) for _ in range(2))
    assert torch.equal(one, other) is not reached


def test_every_skip_reaches_the_output() -> None:
    network = UNetRes(1, 1, base=4).eval()
    encoded: list[Tensor] = []
    for layer in [network.first, *network.down]:
        layer.register_forward_hook(lambda _m, _i, out: encoded.append(out))
    network.blocks.register_forward_hook(lambda _m, _i, out: out.detach())
    slopes = torch.autograd.grad(
        network(torch.rand(1, 1, 32, 32)).sum(), encoded, allow_unused=True
    )
    assert [slope is not None for slope in slopes] == [True, True, True, True, False]


def test_half_the_base_has_about_a_quarter_of_the_weights() -> None:
    full, half = count(AutoEncoder(3, 3, base=32)), count(AutoEncoder(3, 3, base=16))
    assert 3.9 < full / half < 4.05


def test_other_sides_are_refused() -> None:
    with pytest.raises(ValueError, match="40 x 32 px does not fit"):
        AutoEncoder(1, 1, base=4)(torch.rand(1, 1, 32, 40))
