from __future__ import annotations

import pytest
import torch
from torch import nn

from leanet.networks.gan import (
    NOISE,
    Discriminator,
    Generator,
    UpBlock,
    grids,
    minibatch_sd,
    num_channels,
)


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("side", "width", "millions"),
    [(64, 8, (0.38, 0.42)), (64, 16, (0.90, 1.68)), (128, 32, (2.36, 6.73))],
)
def test_the_presets_have_the_stated_sizes(
    side: int, width: int, millions: tuple[float, float]
) -> None:
    with torch.device("meta"):
        pair = Generator(side, width, 3), Discriminator(side, width, 3)
    assert tuple(round(count(n) / 1e6, 2) for n in pair) == millions


@pytest.mark.parametrize("side", [32, 64, 128])
def test_images_have_the_side_that_was_asked_for_and_lie_in_the_unit_range(side: int) -> None:
    torch.manual_seed(0)
    image = Generator(side, 8, 2)(torch.randn(4, NOISE), torch.tensor([0, 0, 1, 1]))
    assert image.shape == (4, 3, side, side)
    assert 0 <= image.min() < image.max() <= 1
    assert Discriminator(side, 8, 2)(image * 2 - 1, torch.tensor([0, 0, 1, 1])).shape == (4,)


@pytest.mark.parametrize("side", [16, 48, 512])
def test_other_sides_are_refused(side: int) -> None:
    with pytest.raises(ValueError, match=f"not of {side}"):
        Generator(side, 8, 1)


def test_channels_fit_group_norm_at_every_grid() -> None:
    for width in (8, 16, 32, 64):
        assert all(num_channels(grid, width) % 8 == 0 for grid in grids(256))


def test_noise_and_class_both_change_the_image() -> None:
    torch.manual_seed(0)
    network, noise = Generator(32, 8, 2).eval(), torch.randn(2, NOISE)
    zeros = torch.zeros(2, dtype=torch.long)
    image = network(noise, zeros)
    assert not torch.allclose(image[0], image[1], atol=0.01)
    assert not torch.allclose(image, network(noise, zeros + 1), atol=0.01)


def test_the_class_is_judged_too() -> None:
    torch.manual_seed(0)
    network, image = Discriminator(32, 8, 2).eval(), torch.rand(4, 3, 32, 32) * 2 - 1
    as_first = network(image, torch.zeros(4, dtype=torch.long))
    assert not torch.allclose(as_first, network(image, torch.ones(4, dtype=torch.long)))


def test_the_shortcut_is_the_same_before_and_after_doubling_the_side() -> None:
    torch.manual_seed(0)
    block = UpBlock(16, 8)
    x, e = torch.randn(2, 16, 4, 4), torch.randn(2, 192)
    block.after.film.weight.data.zero_()
    block.after.film.bias.data.copy_(torch.cat([-torch.ones(8), torch.zeros(8)]))
    doubled = block.skip(x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))
    torch.testing.assert_close(block(x, e), doubled)


def test_minibatch_sd_compares_the_images_of_a_group_only() -> None:
    alike = torch.randn(1, 5, 4, 4).expand(4, -1, -1, -1)
    different = torch.randn(4, 5, 4, 4)
    plane = minibatch_sd(torch.cat([alike, different]))
    assert plane.shape == (8, 1, 4, 4)
    assert plane[:4].max() < 1e-3
    expected = different.std(dim=0, correction=0).mean()
    torch.testing.assert_close(plane[4:], expected.expand(4, 1, 4, 4), atol=1e-5, rtol=1e-4)
    assert minibatch_sd(different[:3]).unique().numel() == 1


def test_spectral_norm_holds_every_layer_of_the_discriminator() -> None:
    torch.manual_seed(0)
    network = Discriminator(32, 8, 2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(50)
        for _ in range(30):  # power iterations
            network(torch.rand(4, 3, 32, 32), torch.zeros(4, dtype=torch.long))
    network.eval()
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.Embedding)]
    assert len(layers) == 1 + 2 * 3 + 3
    for layer in layers:
        norm = float(torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2))
        assert norm == pytest.approx(1, abs=0.05)
