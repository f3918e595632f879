from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from leanet.networks import dcgan
from leanet.networks.dcgan import Decoder, Discriminator, Encoder, Generator
from leanet.networks.dcgan_weights import DcganReport, load_dcgan

State = dict[str, Tensor]
WIDTH = 4  # of the narrow networks


@pytest.fixture(autouse=True)
def _seeded() -> Iterable[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sixteenth of the channels: quicker."""
    monkeypatch.setattr(dcgan, "CHANNELS", (WIDTH, 2 * WIDTH, 4 * WIDTH, 8 * WIDTH))


class Networks:
    """Those of CAVGA, at their random start."""

    def __init__(self) -> None:
        self.encoder, self.decoder, self.discriminator = Encoder(), Decoder(), Discriminator()

    def load(self, path: Path, without: tuple[str, ...] = ()) -> DcganReport:
        given: dict[str, Any] = {k: None if k in without else v for k, v in vars(self).items()}
        return load_dcgan(path, **given)

    def states(self) -> dict[str, State]:
        return {k: {n: t.clone() for n, t in v.state_dict().items()} for k, v in vars(self).items()}


def example_generator(noise: int = 100, width: int = 64) -> nn.Sequential:
    """As in the PyTorch example, whose layers are called main.0, main.1, ..."""
    sides = [8 * width, 4 * width, 2 * width, width]
    layers: list[nn.Module] = [nn.ConvTranspose2d(noise, sides[0], 4, 1, 0, bias=False)]
    for a, b in pairwise(sides):
        layers += [nn.BatchNorm2d(a), nn.ReLU(), nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False)]
    layers += [nn.BatchNorm2d(width), nn.ReLU()]
    layers += [nn.ConvTranspose2d(width, 3, 4, 2, 1, bias=False), nn.Tanh()]
    return seen_something(nn.Sequential(*layers))


def example_discriminator(width: int = 64) -> nn.Sequential:
    sides = [width, 2 * width, 4 * width, 8 * width]
    layers: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
    for a, b in pairwise(sides):
        layers += [nn.Conv2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.LeakyReLU(0.2)]
    return seen_something(nn.Sequential(*layers, nn.Conv2d(sides[-1], 1, 4, bias=False)))


def seen_something(network: nn.Sequential) -> nn.Sequential:
    """BatchNorm with weights and statistics that are not those of the start."""
    for layer in network:
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
                assert tensor is not None
                nn.init.uniform_(tensor, 0.5, 1.5)
            assert layer.num_batches_tracked is not None
            layer.num_batches_tracked += 7
    return network.eval()


def named(network: nn.Module, prefix: str) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_both_networks_of_the_pytorch_example_arrive_by_shape_and_order(
    suffix: str, tmp_path: Path
) -> None:
    theirs, judge = example_generator(), example_discriminator()
    tensors = {**named(theirs, "netG.main."), **named(judge, "netD.main.")}
    path = tmp_path / f"celeba.{suffix}"
    save_file(tensors, path) if suffix == "safetensors" else torch.save(tensors, path)
    ours = Networks()
    report = ours.load(path)
    for network in vars(ours).values():
        network.eval()
    with torch.no_grad():
        image, grid = torch.rand(2, 3, 64, 64) * 2 - 1, torch.rand(2, 512, 4, 4)
        torch.testing.assert_close(ours.encoder(image), judge[:-1](image))
        torch.testing.assert_close(ours.discriminator(image), judge(image).flatten())
        torch.testing.assert_close(ours.decoder(grid).tanh(), theirs[3:](grid))
    assert report.kept == ()
    assert len(report.loaded) == sum(len(own) for own in ours.states().values())
    assert {name.split()[0] for name in report.skipped} == {
        "netG.main.0.weight",
        *(f"netG.main.1.{leaf}" for leaf in nn.BatchNorm2d(1).state_dict()),
    }
    assert "netG.main.0.weight [100, 512, 4, 4]" in report.text()
    assert "pretrained encoder (" in report.text()


def test_our_own_networks_go_round(narrow: None, tmp_path: Path) -> None:
    generator, discriminator = Generator(), Discriminator()
    tensors = {**named(generator, "generator."), **named(discriminator, "discriminator.")}
    save_file(tensors, tmp_path / "weights.safetensors")
    ours = Networks()
    ours.load(tmp_path)
    expected = {
        "encoder": discriminator.body.state_dict(),
        "decoder": generator.body.state_dict(),
        "discriminator": discriminator.state_dict(),
    }
    for name, state in ours.states().items():
        assert all(torch.equal(state[key], expected[name][key]) for key in state), name


def test_a_lone_generator_serves_the_decoder_and_the_rest_keeps_its_start(tmp_path: Path) -> None:
    torch.save(example_generator(noise=64).state_dict(), tmp_path / "netG.pth")
    ours = Networks()
    before = ours.states()
    report = ours.load(tmp_path / "netG.pth")
    assert report.kept == ("encoder", "discriminator")
    assert "random start of the encoder and the discriminator" in report.text()
    after = ours.states()
    changed = {k for k in before if any(not before[k][n].equal(after[k][n]) for n in before[k])}
    assert changed == {"decoder"}


def test_a_network_that_is_not_asked_for_is_left_alone(narrow: None, tmp_path: Path) -> None:
    tensors = {
        **named(example_generator(width=WIDTH), "g."),
        **named(example_discriminator(WIDTH), "d."),
    }
    save_file(tensors, tmp_path / "both.safetensors")
    report = Networks().load(tmp_path / "both.safetensors", without=("encoder", "decoder"))
    assert {name.partition(".")[0] for name in report.loaded} == {"discriminator"}
    assert sum(name.startswith("g.") for name in report.skipped) == len(
        named(example_generator(width=WIDTH), "")
    )
    assert report.kept == ()
    assert "and 15 more" in report.text()


def test_biases_that_our_layers_have_not_are_told(narrow: None, tmp_path: Path) -> None:
    tensors = {**named(example_discriminator(WIDTH), "d."), "d.0.bias": torch.ones(WIDTH)}
    save_file(tensors, tmp_path / "d.safetensors")
    report = Networks().load(tmp_path / "d.safetensors")
    assert report.skipped == ("d.0.bias [4]",)
    assert report.kept == ("decoder",)


def wrong_width() -> State:
    return named(example_discriminator(2), "d.")


def without_statistics() -> State:
    tensors = named(example_discriminator(WIDTH), "d.")
    return {n: t for n, t in tensors.items() if not n.endswith("running_mean")}


def good_generator_and_gray_discriminator() -> State:
    judge = named(example_discriminator(WIDTH), "d.")
    judge["d.0.weight"] = judge["d.0.weight"][:, :1].contiguous()
    return {**named(example_generator(width=WIDTH), "g."), **judge}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (wrong_width, r"encoder: needs.* \[4, 3, 4, 4\](.|\n)*file has .* d.0.weight \[2, 3"),
        (without_statistics, r"needs.* BatchNorms \[8\] \[16\] \[32\]\n(.|\n)*BatchNorms none"),
        (
            good_generator_and_gray_discriminator,
            r"64 px\nencoder(.|\n)* d\.0\.weight \[4, 1, 4, 4\]",
        ),
        (lambda: {"fc.weight": torch.ones(2, 3)}, "the file has the convolutions none"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_the_differences(
    tensors: Any, message: str, narrow: None, tmp_path: Path
) -> None:
    save_file(tensors(), tmp_path / "w.safetensors")
    ours = Networks()
    before = ours.states()
    with pytest.raises(ValueError, match=r"not those of a DC-GAN of 64 px") as caught:
        ours.load(tmp_path / "w.safetensors")
    assert re.search(message, str(caught.value))
    after = ours.states()
    assert all(before[k][n].equal(after[k][n]) for k in before for n in before[k])


def test_a_folder_without_weights_and_a_missing_file_are_named(
    narrow: None, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"holds no weights.safetensors: .* `leanet fit dcgan`"):
        Networks().load(tmp_path)
    with pytest.raises(ValueError, match="no weight file at"):
        Networks().load(tmp_path / "netG.pth")
