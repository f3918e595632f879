from typing import cast

import pytest
import timm
import torch
from torch import nn

from leanet.networks.gates import Gates, attach
from leanet.networks.resnet import ResNet
from leanet.networks.timm_attention import (
    ALLOWED,
    REFUSED,
    TimmAttention,
    built_in_attention,
    check_timm,
)
from leanet.networks.timm_stages import TimmStages

PLAIN = 25_557_032


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("name", ALLOWED)
def test_every_module_adds_to_a_resnet50_what_the_table_says(name: str) -> None:
    with torch.device("meta"):
        network = ResNet(50, 3, 1000)
        attach(network, Gates(f"timm:{name}"), "resnet50")
    assert round(100 * (count(network) / PLAIN - 1), 2) == ALLOWED[name]


@pytest.mark.parametrize("name", ALLOWED)
def test_every_module_keeps_the_shape_and_learns(name: str) -> None:
    torch.manual_seed(0)
    module = TimmAttention(name, 32)
    x = torch.rand(2, 32, 6, 5, requires_grad=True)
    out = module(x)
    out.square().sum().backward()
    assert out.shape == x.shape
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert any(p.grad is not None and p.grad.any() for p in module.parameters())


def test_it_computes_what_timm_s_own_block_computes() -> None:
    """At the place of timm's own: behind the last BatchNorm, before the sum."""
    torch.manual_seed(0)
    theirs = timm.create_model("resnet18", block_args={"attn_layer": "gc"}).eval()
    ours = ResNet(18, num_outputs=1000)
    attach(ours, Gates("timm:gc"), "resnet18")
    state = {k.replace(".se.", ".gate.inner."): v for k, v in theirs.state_dict().items()}
    ours.load_state_dict(state)
    x = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(ours.eval()(x), theirs(x), rtol=1e-4, atol=1e-5)


def test_the_gate_is_what_the_input_was_multiplied_by() -> None:
    torch.manual_seed(0)
    module = TimmAttention("se", 16)
    x = torch.rand(2, 16, 3, 3) + 0.1
    x[0, 0, 0, 0] = 0
    gate = module.gate(x)
    torch.testing.assert_close(module(x), x * gate)
    assert gate[0, 0, 0, 0] == 1
    torch.testing.assert_close(gate[1], gate[1, :, :1, :1].expand(-1, 3, 3))  # se: of channels


@pytest.mark.parametrize("name", REFUSED)
def test_the_others_are_refused_with_the_reason(name: str) -> None:
    with pytest.raises(ValueError, match=f"timm:{name} is not offered: (it replaces|timm cannot)"):
        check_timm(name)


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean coord"):
        check_timm("cord")


def test_networks_with_attention_of_their_own_are_told_apart() -> None:
    counts = {name: built_in_attention(TimmStages(name)) for name in
              ("resnet10t", "mobilenetv3_small_050", "regnety_002", "efficientnet_b0")}  # fmt: skip
    assert counts == {
        "resnet10t": 0, "mobilenetv3_small_050": 9, "regnety_002": 13, "efficientnet_b0": 16,
    }  # fmt: skip
    gated = ResNet(18)
    attach(gated, Gates("timm:se"), "resnet18")
    assert built_in_attention(gated) == 0


def test_the_reasons_hold() -> None:
    """What timm itself does with the names that are refused."""
    with pytest.raises(TypeError, match="act_layer"):
        timm.create_model("resnet18", block_args={"attn_layer": "ge"})
    with pytest.raises(AssertionError, match="feature size"):
        timm.create_model("resnet18", block_args={"attn_layer": "bottleneck"})
    with torch.device("meta"):
        for name in ("sk", "splat"):
            network = timm.create_model("resnet50", block_args={"attn_layer": name})
            assert count(cast(nn.Module, network)) > 8 * PLAIN
