"""Every module against its formula, written down again in numpy."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from leanet.networks.attention import (
    CBAM,
    ECA,
    SELF_ATTENTION,
    SRM,
    SimAM,
    SqueezeExcite,
    cut_he_normal_,
    eca_kernel,
    self_attention,
    simam_gate,
)
from leanet.networks.blocks import SelfAttention
from leanet.networks.resnet import ResNet

Array = NDArray[np.float64]
ADDED_TO_RESNET18 = {"se": 176_240, "cbam": 89_880, "eca": 36, "simam": 0, "srm": 7_680}


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def array(x: Tensor) -> Array:
    return x.detach().double().numpy()


def sigmoid(z: Array) -> Array:
    return 1 / (1 + np.exp(-z))


def features(batch: int = 3, channels: int = 32, height: int = 5, width: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return 2 * torch.randn(batch, channels, height, width, generator=generator) + 0.3


def unsettled(module: SelfAttention) -> SelfAttention:
    """The module in eval mode with all numbers drawn anew, so that none is 0 or 1 by chance."""
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            if tensor.dtype.is_floating_point:
                tensor.copy_(0.2 + torch.rand(tensor.shape, generator=generator))
    return module.eval()


def normed(z: Array, bn: nn.Module) -> Array:
    """BatchNorm of [B, C] with running statistics."""
    mean, var, weight, bias = (
        array(getattr(bn, name)) for name in ("running_mean", "running_var", "weight", "bias")
    )
    return (z - mean) / np.sqrt(var + 1e-5) * weight + bias


def mlp(pooled: Array, module: nn.Module) -> Array:
    """[B, C] through the two layers."""
    weights = [array(getattr(module, name).weight)[:, :, 0, 0] for name in ("fc1", "fc2")]
    biases = [
        0.0 if getattr(module, name).bias is None else array(getattr(module, name).bias)
        for name in ("fc1", "fc2")
    ]
    hidden = np.maximum(pooled @ weights[0].T + biases[0], 0)
    out: Array = hidden @ weights[1].T + biases[1]
    return out


@pytest.mark.parametrize("bias", [True, False])
def test_squeeze_and_excitation_is_its_formula(bias: bool) -> None:
    module, x = unsettled(SqueezeExcite(32, bias=bias)), features()
    expected = sigmoid(mlp(array(x).mean((2, 3)), module))[:, :, None, None]
    np.testing.assert_allclose(array(module.gate(x)), expected, rtol=1e-5)


def test_eca_mixes_the_means_of_neighboring_channels() -> None:
    module, x = unsettled(ECA(64)), features(channels=64)
    means = np.pad(array(x).mean((2, 3)), [(0, 0), (1, 1)])  # [B, 1 + 64 + 1]
    weight = array(module.conv.weight).ravel()  # type: ignore[union-attr, operator, arg-type]
    z = np.array([[row[c : c + 3] @ weight for c in range(64)] for row in means])
    np.testing.assert_allclose(array(module.gate(x))[:, :, 0, 0], sigmoid(z), rtol=1e-5)


def test_srm_weighs_mean_and_deviation_of_every_channel_alone() -> None:
    module, x = unsettled(SRM(32)), features()
    values = array(x)
    deviation = np.sqrt(values.var((2, 3)) + 1e-5)
    weight = array(module.weight)  # type: ignore[arg-type]
    z = weight[:, 0] * values.mean((2, 3)) + weight[:, 1] * deviation
    expected = sigmoid(normed(z, module.bn))  # type: ignore[arg-type]
    np.testing.assert_allclose(array(module.gate(x))[:, :, 0, 0], expected, rtol=1e-5)


def test_simam_is_the_inverse_of_the_smallest_energy_of_a_neuron() -> None:
    """Yang et al., eq. 1: the energy of a neuron t, least in the closed form, with lambda 1e-4."""
    x = features(1, 1, 3, 4)
    plane, lam = array(x)[0, 0], 1e-4
    n = plane.size
    mean = plane.mean()
    variance = ((plane - mean) ** 2).sum() / (n - 1)
    for row in range(3):
        for column in range(4):
            t = plane[row, column]
            energy = 4 * (variance + lam) / ((t - mean) ** 2 + 2 * variance + 2 * lam)
            expected = sigmoid(np.float64(1 / energy))
            assert math.isclose(float(simam_gate(x)[0, 0, row, column]), expected, rel_tol=1e-5)


def test_cbam_gates_the_channels_and_then_the_positions() -> None:
    module, x = unsettled(CBAM(32)), features()
    assert isinstance(module, CBAM)
    values = array(x)
    z = mlp(values.mean((2, 3)), module.channel) + mlp(values.max((2, 3)), module.channel)
    channel = sigmoid(z)[:, :, None, None]
    passed = values * channel
    pooled = np.stack([passed.mean(1), passed.max(1)], axis=1)  # [B, 2, H, W]
    padded = np.pad(pooled, [(0, 0), (0, 0), (3, 3), (3, 3)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (7, 7), axis=(2, 3))
    convolved = np.einsum("bchwij,cij->bhw", windows, array(module.spatial.conv.weight)[0])
    spatial = sigmoid(normed(convolved[..., None], module.spatial.bn))[..., 0][:, None]
    np.testing.assert_allclose(array(module.channel_gate(x)), channel, rtol=1e-4)
    np.testing.assert_allclose(array(module(x)), passed * spatial, rtol=1e-4)


@pytest.mark.parametrize("start", ["paper", "identity"])
@pytest.mark.parametrize("kind", SELF_ATTENTION.values())
def test_the_output_is_the_input_times_the_gate(
    kind: Callable[..., SelfAttention], start: str
) -> None:
    module, x = unsettled(kind(32, start=start)), features()
    gate = module.gate(x)
    assert gate.shape[0] == 3
    torch.testing.assert_close(module(x), x * gate)


@pytest.mark.parametrize("name", SELF_ATTENTION)
@pytest.mark.parametrize("train", [False, True])
def test_at_identity_start_the_features_stay_bit_for_bit(name: str, train: bool) -> None:
    make = self_attention(name, identity_start=True)
    assert make is not None
    module, x = make(32).train(train), features()
    assert torch.equal(module(x), x)


@pytest.mark.parametrize("name", SELF_ATTENTION)
def test_at_identity_start_a_step_opens_the_gate_gently(name: str) -> None:
    make = self_attention(name, identity_start=True)
    assert make is not None
    torch.manual_seed(0)
    module, x = make(32), features()
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    before = [p.detach().clone() for p in module.parameters()]
    for _ in range(3):
        optimizer.zero_grad()
        (module(x) * features().flip(0)).sum().backward()
        optimizer.step()
    assert any(not torch.equal(p, old) for p, old in zip(module.parameters(), before, strict=True))
    change = (module.eval().gate(x) - 1).abs().max().item()
    assert 1e-5 < change < 0.1


@pytest.mark.parametrize("name", SELF_ATTENTION)
def test_after_three_steps_every_parameter_learns(name: str) -> None:
    for identity_start in (False, True):
        make = self_attention(name, identity_start=identity_start)
        assert make is not None
        torch.manual_seed(0)
        module, x = make(32), features()
        optimizer = torch.optim.SGD([*module.parameters(), torch.zeros(1)], lr=1e-2)
        for _ in range(4):
            optimizer.zero_grad()
            if list(module.parameters()):
                (module(x) * features().flip(0)).sum().backward()
            optimizer.step()
        for key, parameter in module.named_parameters():
            assert parameter.grad is not None, key
            assert parameter.grad.abs().max() > 0, key


@pytest.mark.parametrize("name", SELF_ATTENTION)
def test_the_slope_is_that_of_finite_differences(name: str) -> None:
    module = unsettled(SELF_ATTENTION[name](4)).double()
    x = features(2, 4, 3, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(module, (x,))


@pytest.mark.parametrize("name", SELF_ATTENTION)
def test_a_constant_map_has_a_finite_slope(name: str) -> None:
    module = SELF_ATTENTION[name](8)
    x = torch.ones(2, 8, 4, 4, requires_grad=True)
    module(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("name", SELF_ATTENTION)
def test_the_parameters_added_to_a_resnet18_are_those_of_the_specification(name: str) -> None:
    with torch.device("meta"):
        network = ResNet(18, 3, 2, gate=self_attention(name))
    assert count(network) - 11_177_538 == ADDED_TO_RESNET18[name]


def test_reduction_16_and_missing_biases_have_the_stated_counts() -> None:
    with torch.device("meta"):
        sixteenth = ResNet(18, 3, 2, gate=self_attention("se", reduction=16))
        unbiased = ResNet(50, 3, 1000, gate=lambda c: SqueezeExcite(c, 16, bias=False))
        cbam = ResNet(50, 3, 1000, gate=self_attention("cbam"))
        srm = ResNet(50, 3, 1000, gate=self_attention("srm"))
        eca = ResNet(50, 3, 1000, gate=self_attention("eca"))
    assert count(sixteenth) - 11_177_538 == 89_080
    totals = [count(network) for network in (unbiased, cbam, srm, eca)]
    assert totals == [28_071_976, 28_089_624, 25_617_448, 25_557_118]


def test_simam_has_one_strength_per_block_at_identity_start_only() -> None:
    assert count(SimAM(8)) == 0
    assert count(SimAM(8, start="identity")) == 1
    module = SimAM(8, start="identity")
    nn.init.ones_(module.strength)  # type: ignore[arg-type]
    torch.testing.assert_close(module.gate(features()), simam_gate(features()))


@pytest.mark.parametrize(("channels", "kernel"), [
    (8, 3), (64, 3), (128, 5), (256, 5), (512, 5), (1024, 5), (2048, 7),
])  # fmt: skip
def test_eca_sees_more_neighbors_of_more_channels(channels: int, kernel: int) -> None:
    assert eca_kernel(channels) == kernel


@pytest.mark.parametrize(("model", "make"), [
    ("seresnet50", lambda c: SqueezeExcite(c, 16, min_hidden=8)),
    ("ecaresnet50t", ECA),
])  # fmt: skip
def test_weights_of_timm_fit_by_name_and_shape(
    model: str, make: Callable[[int], SelfAttention]
) -> None:
    with torch.device("meta"):
        reference = timm.create_model(model)
        blocks = [block for layer in (1, 2, 3, 4) for block in getattr(reference, f"layer{layer}")]
        for block in blocks:
            theirs = block.se.state_dict()
            ours = make(block.bn3.num_features).state_dict()
            assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


def test_the_cut_normal_has_the_stated_deviation_and_limits() -> None:
    torch.manual_seed(0)
    weight = torch.empty(400, 500)
    cut_he_normal_(weight, fan_in=50)
    assert math.isclose(weight.std().item(), 0.2, rel_tol=0.01)
    assert 0.44 < weight.abs().max().item() < 2 * 0.2 / 0.8796 + 1e-4


@pytest.mark.parametrize("name", SELF_ATTENTION)
def test_one_seed_gives_the_same_other_weights_with_and_without_modules(name: str) -> None:
    torch.manual_seed(3)
    plain = ResNet(18).state_dict()
    torch.manual_seed(3)
    gated = ResNet(18, gate=self_attention(name)).state_dict()
    assert all(torch.equal(tensor, gated[key]) for key, tensor in plain.items())
    torch.manual_seed(4)
    other = ResNet(18, gate=self_attention(name)).state_dict()
    drawn = [key for key in gated if "gate.fc" in key and key.endswith("weight")]
    assert not any(torch.equal(gated[key], other[key]) for key in drawn)


@torch.no_grad()
@pytest.mark.parametrize("name", SELF_ATTENTION)
def test_a_network_with_identity_start_gives_what_the_plain_one_gives(name: str) -> None:
    torch.manual_seed(3)
    plain = ResNet(18).eval()
    torch.manual_seed(3)
    gated = ResNet(18, gate=self_attention(name, identity_start=True)).eval()
    x = torch.rand(2, 3, 64, 64)
    assert torch.equal(gated(x), plain(x))


def test_too_little_to_compare_is_refused_with_advice() -> None:
    with pytest.raises(ValueError, match="1 x 1: choose a larger img_size"):
        SimAM(4)(torch.rand(2, 4, 1, 1))
    with pytest.raises(ValueError, match="single image: choose a larger batch_size"):
        SRM(4)(torch.rand(1, 4, 3, 3))
    assert SRM(4).eval()(torch.rand(1, 4, 3, 3)).shape == (1, 4, 3, 3)


def test_names_are_looked_up_with_advice() -> None:
    assert self_attention("none") is None
    with pytest.raises(ValueError, match=r"none, se, cbam, eca, simam, srm .*did you mean cbam"):
        self_attention("cbmm")
    for name, reduction in [("eca", 8), ("se", 0)]:
        with pytest.raises(ValueError, match=f"reduction {reduction} for {name}"):
            self_attention(name, reduction=reduction)
