from __future__ import annotations

import torch

from leanet.generation.draw import draw_images, image_seed, to_bytes
from leanet.networks.gan import NOISE, Generator


def network() -> Generator:
    torch.manual_seed(0)
    return Generator(32, 8, 2)


def test_image_i_depends_on_seed_class_and_i_alone() -> None:
    few, many = (draw_images(network(), ["a", "b"], count, 0) for count in (2, 5))
    for name in ("a", "b"):
        assert few[name].dtype == torch.uint8
        assert (few[name].int() - many[name][:2].int()).abs().max() <= 1  # batches round otherwise
    other = draw_images(network(), ["a", "b"], 2, 1)
    assert not torch.equal(few["a"], other["a"])
    assert not torch.equal(few["a"], few["b"])


def test_the_seed_in_the_table_draws_the_image_again() -> None:
    generator, seed = network().eval(), image_seed(7, "b", 3)
    noise = torch.randn(1, NOISE, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        again = to_bytes(generator(noise, torch.tensor([1])))
    drawn = draw_images(generator, ["a", "b"], 4, 7)["b"][3:]
    assert (again.int() - drawn.int()).abs().max() <= 1


def test_bytes_are_rounded() -> None:
    values = torch.tensor([0.0, 0.4 / 255, 0.6 / 255, 1.0])
    assert to_bytes(values).tolist() == [0, 0, 1, 255]
