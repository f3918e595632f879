"""The faults of the original program, each found: a gate that nobody uses, layers that nobody
reads."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leanet.networks.abn import ABN
from leanet.networks.attention import SqueezeExcite
from leanet.networks.blocks import BasicBlock, Bottleneck, SelfAttention
from leanet.networks.choose import build_adn
from leanet.networks.gates import Gates
from leanet.networks.health import GateActivity, dead_parameters, gate_activity, inactive


class UnusedGate(BasicBlock):
    """The original's Pre-SE: the gated features are computed, and the branch reads the others."""

    def forward(self, x: Tensor) -> Tensor:
        self.gate(x)
        return F.relu(self.branch(x) + self.downsample(x))


class DisconnectedBranch(Bottleneck):
    """The original's identity block: every convolution reads the input of the block."""

    def branch(self, x: Tensor) -> Tensor:
        F.relu(self.bn1(self.conv1(x)))
        F.relu(self.bn2(self.conv2(x[:, : self.conv2.in_channels])))
        out: Tensor = self.bn3(self.conv3(x[:, : self.conv3.in_channels]))
        return out


def images(batch: int = 4, channels: int = 3, side: int = 32) -> Tensor:
    return torch.rand(batch, channels, side, side, generator=torch.Generator().manual_seed(5))


def three_steps(network: nn.Module, x: Tensor) -> None:
    """Three optimizer steps; the gradients of the third stay."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        out = network.attend(x) if isinstance(network, ABN) else network(x)
        outputs = out[:2] if isinstance(out, tuple) else (out,)
        labels = torch.arange(len(x)) % 3
        torch.stack(
            [F.cross_entropy(o.flatten(1)[:, :3], labels) for o in outputs]
        ).sum().backward()
        optimizer.step()


def test_a_gate_that_nobody_uses_is_found() -> None:
    torch.manual_seed(0)
    block = UnusedGate(8, 8, gate=lambda channels: SqueezeExcite(channels, 2))
    three_steps(block, images(channels=8, side=6))
    assert dead_parameters(block) == [
        "gate.fc1.weight", "gate.fc1.bias", "gate.fc2.weight", "gate.fc2.bias",
    ]  # fmt: skip


def test_convolutions_that_nobody_reads_are_found() -> None:
    torch.manual_seed(0)
    block = DisconnectedBranch(8, 2)
    three_steps(block, images(channels=8, side=6))
    assert dead_parameters(block) == [
        "conv1.weight", "bn1.weight", "bn1.bias", "conv2.weight", "bn2.weight", "bn2.bias",
    ]  # fmt: skip


def test_the_same_blocks_wired_as_they_should_be_are_alive() -> None:
    torch.manual_seed(0)
    blocks = [BasicBlock(8, 8, gate=lambda c: SqueezeExcite(c, 2)), Bottleneck(8, 2)]
    for block in blocks:
        block.placement = "pre"
        three_steps(block, images(channels=8, side=6))
        assert dead_parameters(block) == []


@pytest.mark.parametrize("start", ["paper", "identity"])
@pytest.mark.parametrize("name", ["none", "se", "pre_se", "cbam", "eca", "simam", "srm", "abn"])
def test_every_parameter_of_a_network_learns_after_three_steps(name: str, start: str) -> None:
    torch.manual_seed(0)
    gates = Gates(name, start=start)  # type: ignore[arg-type]
    network = build_adn("resnet18", 3, 3, gates=gates, stem="small")
    three_steps(network, images(side=16))
    assert dead_parameters(network) == []


@pytest.mark.parametrize("placement", ["identity", "post"])
def test_the_other_placements_are_alive_too(placement: str) -> None:
    torch.manual_seed(0)
    gates = Gates("se", placement=placement, min_hidden=8)  # type: ignore[arg-type]
    network = build_adn("resnet18", 3, 3, gates=gates, stem="small")
    three_steps(network, images(side=16))
    assert dead_parameters(network) == []


def test_frozen_parameters_are_not_called_dead() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
    network[0].requires_grad_(False)
    network(torch.rand(2, 4)).sum().backward()
    assert dead_parameters(network) == []
    network[1].bias.grad = None  # type: ignore[union-attr]
    assert dead_parameters(network) == ["1.bias"]


def test_the_activity_is_that_of_the_factors() -> None:
    torch.manual_seed(0)
    gate = SqueezeExcite(4, 2)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), gate)
    x = images(2)
    factors = gate.gate(network[0](x)).detach().double()
    (one,) = gate_activity(network, x)
    expected = [factors.mean(), factors.std(correction=0), factors.min(), factors.max()]
    assert one.name == "1"
    torch.testing.assert_close(torch.tensor(one[1:], dtype=torch.float64), torch.stack(expected))


def test_looking_changes_nothing() -> None:
    torch.manual_seed(0)
    network = build_adn("resnet18", 3, 3, gates=Gates("srm"), stem="small")
    network.layer1.eval()  # type: ignore[operator]
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert len(gate_activity(network, images(1, side=16))) == 8  # one image: srm in evaluation mode
    assert network.training
    assert not network.layer1.training  # type: ignore[union-attr]
    assert all(torch.equal(network.state_dict()[name], old) for name, old in before.items())
    modules = [module for module in network.modules() if isinstance(module, SelfAttention)]
    assert not any(module._forward_pre_hooks for module in modules)


def test_both_halves_of_cbam_and_the_map_of_abn_are_named() -> None:
    with torch.no_grad():
        cbam = build_adn("resnet18", gates=Gates("cbam", stages=(4,)), stem="small")
        abn = build_adn("resnet18", 3, 3, gates=Gates("abn"), stem="small")
    assert [one.name for one in gate_activity(cbam, images(2, side=16))] == [
        "layer4.0.gate.channel", "layer4.0.gate.spatial",
        "layer4.1.gate.channel", "layer4.1.gate.spatial",
    ]  # fmt: skip
    (one,) = gate_activity(abn, images(2, side=16))
    assert one.name == "branch"
    assert 1 < one.low < one.mean < one.high < 2


def test_gates_at_identity_start_are_inactive_and_at_paper_start_are_not() -> None:
    torch.manual_seed(0)
    x = images(2, side=16)
    asleep = build_adn("resnet18", gates=Gates("se", start="identity"), stem="small")
    awake = build_adn("resnet18", gates=Gates("se"), stem="small")
    assert len(inactive(gate_activity(asleep, x))) == 8
    assert inactive(gate_activity(awake, x)) == []


def test_a_gate_is_inactive_only_if_it_is_so_everywhere() -> None:
    rows = [
        GateActivity("still", 1.0, 0.0, 0.981, 1.019),
        GateActivity("low", 1.0, 0.0, 0.98, 1.0),
        GateActivity("high", 1.0, 0.0, 1.0, 1.03),
    ]
    assert inactive(rows) == ["still"]
