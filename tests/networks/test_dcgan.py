from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leanet.networks.dcgan import Decoder, Discriminator, Encoder, Generator, init_


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def images(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope="module")
def discriminator() -> Discriminator:
    torch.manual_seed(0)
    return Discriminator().eval()


@pytest.mark.parametrize(
    ("network", "parameters"),
    [
        (Encoder, 2_757_376),
        (Discriminator, 2_765_568),
        (Generator, 3_576_704),
        (Decoder, 2_756_480),
    ],
)
def test_the_layers_have_the_published_sizes(network: Any, parameters: int) -> None:
    with torch.device("meta"):
        assert count(network()) == parameters


@pytest.mark.parametrize("side", [32, 64, 128, 256])
def test_encoder_and_decoder_halve_and_double_four_times(side: int) -> None:
    with torch.device("meta"):
        features = Encoder()(torch.empty(2, 3, side, side))
        assert features.shape == (2, 512, side // 16, side // 16)
        assert Decoder()(features).shape == (2, 3, side, side)


def test_the_encoder_has_no_batch_norm_on_its_first_convolution() -> None:
    with torch.device("meta"):
        kinds = [type(layer).__name__ for layer in Encoder()]
    assert kinds == ["Conv2d", "LeakyReLU", *3 * ["Conv2d", "BatchNorm2d", "LeakyReLU"]]
    slopes = {layer.negative_slope for layer in Encoder() if isinstance(layer, nn.LeakyReLU)}
    assert slopes == {0.2}


def test_no_convolution_has_a_bias() -> None:
    for network in (Generator(), Discriminator()):
        kinds = nn.Conv2d | nn.ConvTranspose2d
        assert all(one.bias is None for one in network.modules() if isinstance(one, kinds))


def test_the_generator_draws_64_px_in_its_range() -> None:
    torch.manual_seed(0)
    image = Generator()(torch.randn(2, 100, 1, 1))
    assert image.shape == (2, 3, 64, 64)
    assert -1 <= image.min() < image.max() <= 1


def test_all_layers_of_the_generator_but_the_first_are_those_of_the_decoder() -> None:
    with torch.device("meta"):
        whole, body = Generator().state_dict(), Decoder().state_dict()
    inside = {name.removeprefix("body."): v for name, v in whole.items() if name[:5] == "body."}
    assert {name: v.shape for name, v in inside.items()} == {n: v.shape for n, v in body.items()}
    assert {name.partition(".")[0] for name in whole} == {"first", "body"}


@pytest.mark.parametrize("side", [64, 128])
def test_the_logit_of_an_image_is_the_mean_of_the_logits_of_its_parts(
    discriminator: Discriminator, side: int
) -> None:
    image = images(2, 3, side, side)
    parts = discriminator.last(discriminator.body(image))
    assert parts.shape == (2, 1, side // 16 - 3, side // 16 - 3)
    logit = discriminator(image)
    assert logit.shape == (2,)
    torch.testing.assert_close(logit, parts.flatten(1).mean(dim=1))


def test_a_large_image_has_13_by_13_logits() -> None:
    with torch.device("meta"):
        network = Discriminator()
        assert network.last(network.body(torch.empty(1, 3, 256, 256))).shape == (1, 1, 13, 13)
        assert network(torch.empty(5, 3, 256, 256)).shape == (5,)


def test_the_logit_of_an_image_does_not_depend_on_its_batch(discriminator: Discriminator) -> None:
    image = images(3, 3, 64, 64)
    alone = torch.cat([discriminator(one[None]) for one in image])
    torch.testing.assert_close(discriminator(image), alone)


def test_small_images_are_enlarged_to_64_px(discriminator: Discriminator) -> None:
    image = images(2, 3, 32, 32)
    large = F.interpolate(image, (64, 64), mode="bilinear", align_corners=False)
    torch.testing.assert_close(discriminator(image), discriminator(large))


def test_resize64_looks_at_a_smoothly_reduced_image(discriminator: Discriminator) -> None:
    other = Discriminator("resize64").eval()
    other.load_state_dict(discriminator.state_dict())
    stripes = torch.tensor([-1.0, 1.0]).repeat(64).expand(1, 3, 128, 128)
    # away from the border, a smooth reduction turns stripes of a pixel into grey
    reduced = F.interpolate(stripes, (64, 64), mode="bilinear", antialias=True)
    assert reduced[..., 2:-2].abs().max() < 0.2
    torch.testing.assert_close(other(stripes), discriminator(reduced))
    small = images(2, 3, 64, 64)
    assert torch.equal(other(small), discriminator(small))


def test_an_unknown_head_is_refused() -> None:
    wrong: Any = "max_logit"
    with pytest.raises(ValueError, match="allowed are mean_logit, resize64"):
        Discriminator(wrong)


def test_weights_start_as_in_dc_gan() -> None:
    torch.manual_seed(0)
    modules = nn.Sequential(Generator(), Discriminator(), nn.Conv2d(64, 64, 1))
    init_(modules)
    for layer in modules.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm2d):
            mean, loose = (
                float(isinstance(layer, nn.BatchNorm2d)),
                5 / math.sqrt(layer.weight.numel()),
            )
            assert float(layer.weight.detach().mean()) == pytest.approx(mean, abs=0.02 * loose)
            assert float(layer.weight.detach().std()) == pytest.approx(0.02, rel=loose)
            assert layer.bias is None or layer.bias.abs().max() == 0
