import pytest
import torch
from torch import nn

from leanet.networks.unet import UNet, unet_depth

# trainable parameters of the numbered layers of Table 9 (with BatchNorm weight and bias)
ENCODER = [1_088, 131_456, 525_056, 2_098_688, 4_195_840, 4_195_840, 4_195_840, 4_195_840]
DECODER = [1_050_112, 2_098_688, 2_098_688, 2_098_688, 1_049_344, 262_528, 65_728]


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def test_every_layer_has_the_parameters_of_table_9() -> None:
    network = UNet(1, 2)
    running = [b.numel() for n, b in network.named_buffers() if "running" in n]
    assert [count(layer) for layer in network.down] == ENCODER
    assert [count(layer) for layer in network.up] == DECODER
    assert count(network.out) == 1_026
    assert count(network) == 28_264_450
    assert count(network) + sum(running) == 28_275_330


def test_three_channels_on_both_sides_have_the_stated_count() -> None:
    assert count(UNet(3, 3)) == 28_267_011


def test_the_features_have_the_shapes_of_table_9() -> None:
    with torch.device("meta"):
        network = UNet(1, 2)
        x = torch.empty(2, 1, 256, 256)
    shapes: list[tuple[int, ...]] = []
    for layer in [*network.down, *network.up, network.out]:
        layer.register_forward_hook(lambda _m, _i, out: shapes.append(tuple(out.shape[1:])))
    assert network(x).shape == (2, 2, 256, 256)
    channels = [64, 128, 256, 512, 512, 512, 512, 512, 512, 512, 512, 512, 256, 128, 64, 2]
    sides = [128, 64, 32, 16, 8, 4, 2, 1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert shapes == [(c, s, s) for c, s in zip(channels, sides, strict=True)]


def test_the_output_lies_between_zero_and_one() -> None:
    out = UNet(3, 3, depth=5, base=4)(10 * torch.randn(2, 3, 64, 96))
    assert out.shape == (2, 3, 64, 96)
    assert 0 <= out.min() < out.max() <= 1


def test_there_is_no_skip_at_full_size() -> None:
    network = UNet(1, 1, depth=5, base=4).eval()
    for parameter in network.down[0].parameters():
        nn.init.zeros_(parameter)
    a, b = torch.rand(2, 1, 1, 64, 64)
    assert torch.equal(network(a), network(b))


def test_every_skip_reaches_the_output() -> None:
    network = UNet(1, 1, depth=5, base=4).eval()
    features: list[torch.Tensor] = []
    for layer in network.down:
        layer.register_forward_hook(lambda _m, _i, out: features.append(out))
    grads = torch.autograd.grad(network(torch.rand(1, 1, 64, 64)).sum(), features)
    assert all(grad.abs().max() > 0 for grad in grads)


def test_dropout_follows_the_first_three_decoder_layers() -> None:
    network = UNet(1, 2, base=4, dropout=0.5)
    has_dropout = [isinstance(list(layer.children())[-1], nn.Dropout) for layer in network.up]
    assert has_dropout == [True, True, True, False, False, False, False]
    assert not any(isinstance(m, nn.Dropout) for m in UNet(1, 2, base=4).modules())


@pytest.mark.parametrize(
    ("img_size", "depth"), [(32, 5), (64, 6), (96, 5), (128, 7), (192, 6), (256, 8), (512, 8)]
)
def test_the_depth_is_how_often_the_side_halves(img_size: int, depth: int) -> None:
    assert unet_depth(img_size) == depth


@pytest.mark.parametrize("img_size", [0, -32, 16, 100, 250])
def test_other_sides_are_refused_before_any_work(img_size: int) -> None:
    with pytest.raises(ValueError, match="multiple of 32 px"):
        unet_depth(img_size)


def test_wrong_depths_and_images_are_refused() -> None:
    with pytest.raises(ValueError, match="depth 9"):
        UNet(1, 2, depth=9)
    with pytest.raises(ValueError, match="64 x 48 px does not fit"):
        UNet(1, 2, depth=5, base=4)(torch.rand(1, 1, 48, 64))
