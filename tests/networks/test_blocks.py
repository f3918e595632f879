import math

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock as ReferenceBasicBlock
from torchvision.models.resnet import Bottleneck as ReferenceBottleneck

from leanet.networks.blocks import (
    BasicBlock,
    Bottleneck,
    SelfAttention,
    conv_bn,
    he_normal_,
    require_multiple,
)


class Scale(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def test_a_basic_block_is_that_of_torchvision() -> None:
    block = BasicBlock(4, 4).eval()
    reference = ReferenceBasicBlock(4, 4).eval()
    reference.load_state_dict(block.state_dict())
    x = torch.randn(2, 4, 6, 6)
    assert torch.equal(block(x), reference(x))


def test_a_bottleneck_is_that_of_torchvision() -> None:
    block = Bottleneck(16, 4).eval()
    reference = ReferenceBottleneck(16, 4).eval()
    reference.load_state_dict(block.state_dict())
    x = torch.randn(2, 16, 6, 6)
    assert torch.equal(block(x), reference(x))


def test_a_biased_block_has_a_bare_biased_shortcut() -> None:
    block = BasicBlock(4, 8, stride=2, biased=True)
    assert isinstance(block.downsample, nn.Conv2d)
    assert block.downsample.bias is not None
    assert block.conv1.bias is not None
    assert block(torch.rand(2, 4, 8, 8)).shape == (2, 8, 4, 4)


def test_a_gate_acts_on_the_branch_alone() -> None:
    x = torch.randn(2, 8, 4, 4)
    assert torch.equal(BasicBlock(8, 8, gate=Scale).eval()(x), x.relu())
    assert torch.equal(Bottleneck(8, 2, gate=Scale).eval()(x), x.relu())


def test_conv_bn_keeps_or_halves_the_sides() -> None:
    x = torch.rand(2, 4, 8, 8)
    assert conv_bn(4, 6, 5)(x).shape == (2, 6, 8, 8)
    assert conv_bn(4, 6, 3, 2)(x).shape == (2, 6, 4, 4)
    assert conv_bn(4, 6, 3)(x).min() >= 0
    assert conv_bn(4, 6, 3, relu=False)(x).min() < 0


def test_he_normal_has_the_stated_deviation_and_zero_biases() -> None:
    torch.manual_seed(0)
    dense, grouped = nn.Conv2d(64, 128, 3), nn.Conv2d(256, 256, 5, groups=256)
    he_normal_(nn.Sequential(dense, grouped))
    assert math.isclose(dense.weight.std().item(), math.sqrt(2 / (9 * 128)), rel_tol=0.02)
    assert math.isclose(grouped.weight.std().item(), math.sqrt(2 / 25), rel_tol=0.05)
    assert dense.bias is not None
    assert dense.bias.abs().max() == 0


class Threes(SelfAttention):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(2, 2, 1))
        nn.init.constant_(self.inner[0].weight, 3.0)  # type: ignore[arg-type]

    def gate(self, x: Tensor) -> Tensor:
        return 1 + x[:, :1]


def test_self_attention_multiplies_by_its_gate() -> None:
    x = torch.rand(2, 2, 3, 3)
    assert torch.equal(Threes()(x), x * (1 + x[:, :1]))


def test_he_normal_leaves_the_start_of_self_attention_alone() -> None:
    network = nn.Sequential(nn.Conv2d(2, 2, 1), Threes())
    nn.init.constant_(network[0].weight, 3.0)  # type: ignore[arg-type]
    he_normal_(network)
    weights = {name: p for name, p in network.named_parameters() if name.endswith("weight")}
    assert (weights["1.inner.0.weight"] == 3).all()
    assert (weights["0.weight"] != 3).all()


def test_sides_that_do_not_halve_are_refused() -> None:
    require_multiple(torch.empty(1, 1, 64, 32), 32)
    with pytest.raises(ValueError, match=r"64 x 48 px does not fit .* multiple of 32 px, or not"):
        require_multiple(torch.empty(1, 1, 48, 64), 32, ", or not")
