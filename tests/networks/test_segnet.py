import pytest
import torch
from torch import Tensor, nn

from leanet.networks.segnet import SegNet


def widths(layers: nn.Module) -> list[tuple[int, int]]:
    convs = [m for m in layers.modules() if isinstance(m, nn.Conv2d)]
    return [(conv.in_channels, conv.out_channels) for conv in convs]


def test_the_decoder_is_the_mirror_image_of_the_encoder() -> None:
    with torch.device("meta"):
        network = SegNet(3, 3)
    down, up = widths(network.down), widths(network.up)
    assert len(down) == len(up) == 13
    assert down[:4] == [(3, 64), (64, 64), (64, 128), (128, 128)]
    assert down[4:] == [(128, 256)] + [(256, 256)] * 2 + [(256, 512)] + [(512, 512)] * 5
    assert up[:-1] == [(out, source) for source, out in reversed(down[1:])]
    assert up[-1] == (64, 64)


def test_the_features_have_the_sides_of_their_stage() -> None:
    with torch.device("meta"):
        network, x = SegNet(3, 3), torch.empty(2, 3, 256, 256)
    sides: list[int] = []
    for layer in [*network.down, network.blocks, *network.up, network.out]:
        layer.register_forward_hook(lambda _m, _i, out: sides.append(out.shape[-1]))
    assert network(x).shape == (2, 3, 256, 256)
    assert sides == [256, 128, 64, 32, 16, 8, 16, 32, 64, 128, 256, 256]


@torch.no_grad()
def test_values_return_to_the_places_of_the_maxima() -> None:
    torch.manual_seed(0)  # other weights may end in a ReLU that is 0 everywhere
    network = SegNet(1, 1, base=2).eval()
    seen: list[Tensor] = []
    for layer in (network.down[0], network.up[-1]):
        layer.register_forward_hook(lambda _m, _i, out: seen.append(out))
    network.up[-1].register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    network(torch.rand(1, 1, 32, 32))
    before, unpooled = seen[0], seen[1]
    for channel, rows, columns in ((0, slice(0, 2), slice(4, 6)), (1, slice(8, 10), slice(30, 32))):
        place = before[0, channel, rows, columns].flatten().argmax()
        others = unpooled[0, channel, rows, columns].flatten().clone()
        others[place] = 0
        assert others.abs().max() == 0
    assert unpooled.abs().max() > 0


def test_other_sides_are_refused() -> None:
    with pytest.raises(ValueError, match=r"48 x 32 px does not fit .* 1/32"):
        SegNet(1, 1, base=2)(torch.rand(1, 1, 32, 48))
