"""The descriptor against numbers worked out by hand, and its size to the unit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leanet.networks.adfa import Adapter, Attention, ChannelAttention, Descriptor, coordinates

WIDE = 256 + 512 + 1024  # channels of WideResNet-50-2 in the layers 1 to 3


def maps(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def attention(kernel: list[float], **options: Any) -> ChannelAttention:
    made = ChannelAttention(Attention(kernel=len(kernel), **options))
    made.conv.weight.data = torch.tensor(kernel).view(1, 1, -1)
    return made


def weights_in(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_planes_are_the_row_and_then_the_column_of_a_place() -> None:
    rows, columns = coordinates(2, 3)[0]
    assert rows.tolist() == [[-1, -1, -1], [1, 1, 1]]
    assert columns.tolist() == [[-1, 0, 1], [-1, 0, 1]]


def test_a_single_row_or_column_is_at_0() -> None:
    assert coordinates(1, 1).tolist() == [[[[0]], [[0]]]]
    assert coordinates(1, 2)[0, 1].tolist() == [[-1, 1]]


def test_the_planes_stand_behind_the_features() -> None:
    descriptor = Descriptor(4, 3, None)
    features = maps(2, 4, 2, 3)
    weight, bias = descriptor.conv.weight[:, :, 0, 0], descriptor.conv.bias
    assert bias is not None
    rows, columns = coordinates(2, 3)[0]
    expected = torch.einsum("oc,bchw->bohw", weight[:, :4], features) + bias[:, None, None]
    expected = expected + weight[:, 4, None, None] * rows + weight[:, 5, None, None] * columns
    torch.testing.assert_close(descriptor(features), expected)


def test_a_kernel_of_zeros_adds_a_twentieth() -> None:
    features = maps(2, 12, 3, 3)
    torch.testing.assert_close(attention([0.0] * 9)(features), 1.05 * features)


def test_the_attention_is_the_sigmoid_of_mean_and_maximum_of_a_channel() -> None:
    mean, top = torch.tensor([0.15, 0.55, 0.95]), torch.tensor([0.3, 0.7, 1.1])
    features = torch.stack([top, 2 * mean - top], dim=1).view(1, 3, 1, 2)
    made = attention([0.0] * 4 + [1.0] + [0.0] * 4)
    expected = torch.tensor([[0.6106, 0.7773, 0.8859]])
    torch.testing.assert_close(made.weights(features), expected, rtol=0, atol=5e-5)
    added = features * 0.1 * expected[..., None, None]
    torch.testing.assert_close(made(features) - features, added, rtol=0, atol=1e-5)


def test_the_kernel_slides_over_the_channels_and_is_the_same_for_both_looks() -> None:
    features = maps(2, 5, 4, 4)
    made = attention([0.5, -1.0, 2.0])
    padded = nn.functional.pad(features.mean((2, 3)) + features.amax((2, 3)), (1, 1))
    logits = 0.5 * padded[:, :-2] - padded[:, 1:-1] + 2 * padded[:, 2:]
    torch.testing.assert_close(made.weights(features), logits.sigmoid())


def test_the_second_look_may_be_the_mean_once_more() -> None:
    features = maps(2, 5, 4, 4)
    expected = (2 * features.mean((2, 3))).sigmoid()
    torch.testing.assert_close(attention([1.0], second="avg").weights(features), expected)


def test_another_factor_adds_more() -> None:
    features = maps(1, 3, 2, 2)
    torch.testing.assert_close(attention([0.0], factor=1.0)(features), 1.5 * features)


@pytest.mark.parametrize("kernel", [0, 8, -1])
def test_a_kernel_without_a_middle_is_refused(kernel: int) -> None:
    with pytest.raises(ValueError, match=f"eca_kernel {kernel}: give an odd"):
        ChannelAttention(Attention(kernel=kernel))


@pytest.mark.parametrize(
    ("gamma_d", "eca", "radius", "count"),
    [(4, True, False, 804_169), (1, True, False, 3_216_649), (1, False, True, 3_216_641)],
)
def test_the_trained_parameters_are_as_many_as_published(
    gamma_d: int, eca: bool, radius: bool, count: int
) -> None:
    with torch.device("meta"):
        made = Descriptor(WIDE, WIDE // gamma_d, Attention() if eca else None)
        adapter = Adapter(made, 3136, 1e-5, learn_radius=radius)
    assert weights_in(adapter) == count
    assert adapter.bank.shape == (3136, WIDE // gamma_d)


def test_descriptions_are_in_rows_of_the_map_and_the_width_of_the_bank() -> None:
    adapter = Adapter(Descriptor(4, 3, Attention()), 6, learn_radius=False)
    features = maps(2, 4, 2, 3)
    phi = adapter(features)
    assert phi.shape == (2, 6, 3)
    torch.testing.assert_close(phi[1, 4], adapter.descriptor(features)[1, :, 1, 1])


def test_the_bank_is_stored_but_never_trained() -> None:
    adapter = Adapter(Descriptor(4, 3, None), 6, 0.5, learn_radius=False)
    assert {"bank", "radius"} <= set(adapter.state_dict())
    assert {name for name, _ in adapter.named_parameters()} == {
        "descriptor.conv.weight",
        "descriptor.conv.bias",
    }


def test_a_radius_to_be_learned_is_a_parameter() -> None:
    adapter = Adapter(Descriptor(4, 3, None), 6, 0.5, learn_radius=True)
    assert adapter.radius.requires_grad
    assert adapter.radius.is_leaf
    assert float(adapter.radius.detach()) == 0.5


def test_autocast_does_not_reach_the_descriptions() -> None:
    adapter = Adapter(Descriptor(4, 3, Attention()), 6, learn_radius=False)
    features = maps(1, 4, 2, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        phi = adapter(features)
    assert phi.dtype == torch.float32
    assert torch.equal(phi, adapter(features))
