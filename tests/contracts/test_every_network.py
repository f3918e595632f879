"""What every network promises, whichever it is: a new network is one more line in a table."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from leanet.networks.aan import DirectAAN, MobileNetAAN, ResNetAAN
from leanet.networks.attention import self_attention
from leanet.networks.autoencoder import AutoEncoder, UNetRes
from leanet.networks.blocks import Staged, StagedClassifier
from leanet.networks.cnn import CNN
from leanet.networks.resnet import ResNet
from leanet.networks.segnet import SegNet
from leanet.networks.timm_stages import TimmStages
from leanet.networks.unet import UNet
from leanet.networks.vgg import VGG

SIDE = 64
NUM_OUTPUTS = 2

# name -> (input channels, how to build it)
CLASSIFIERS: dict[str, tuple[int, Callable[[], StagedClassifier]]] = {
    "resnet18": (3, lambda: ResNet(18, 3, NUM_OUTPUTS)),
    "resnet18-4ch": (4, lambda: ResNet(18, 4, NUM_OUTPUTS)),
    "resnet50": (3, lambda: ResNet(50, 3, NUM_OUTPUTS)),
    "resnet18-stem-conv": (3, lambda: ResNet(18, 3, NUM_OUTPUTS, stem_conv=True)),
    "vgg16": (3, lambda: VGG(16, 3, NUM_OUTPUTS, hidden=16)),
    "cnn": (3, lambda: CNN(3, NUM_OUTPUTS)),
    "cnn-se": (3, lambda: CNN(3, NUM_OUTPUTS, gate=self_attention("se"))),
    "cnn-cbam": (3, lambda: CNN(3, NUM_OUTPUTS, gate=self_attention("cbam"))),
    "cnn-eca": (3, lambda: CNN(3, NUM_OUTPUTS, gate=self_attention("eca"))),
    "cnn-simam": (3, lambda: CNN(3, NUM_OUTPUTS, gate=self_attention("simam"))),
    "cnn-srm": (3, lambda: CNN(3, NUM_OUTPUTS, gate=self_attention("srm"))),
    "timm-mobilenetv3": (3, lambda: TimmStages("mobilenetv3_small_050", 3, NUM_OUTPUTS)),
    "timm-convnext": (3, lambda: TimmStages("convnext_atto", 3, NUM_OUTPUTS)),
    "timm-map": (1, lambda: TimmStages("mobilenetv3_small_050", 1, NUM_OUTPUTS)),
    "aan-resnet": (1, lambda: ResNetAAN(1, NUM_OUTPUTS)),
    "aan-mobilenet": (1, lambda: MobileNetAAN(1, NUM_OUTPUTS)),
}
STAGED: dict[str, tuple[int, Callable[[], Staged]]] = {
    **CLASSIFIERS,
    "aan-direct": (1, DirectAAN),
}
RECONSTRUCTORS: dict[str, tuple[int, Callable[[], nn.Module]]] = {
    "unet-color": (1, lambda: UNet(1, 2, depth=6, base=8)),
    "unet-rgb": (3, lambda: UNet(3, 3, depth=5, base=8, dropout=0.5)),
    "ae": (3, lambda: AutoEncoder(3, 3, base=8)),
    "unetres": (3, lambda: UNetRes(3, 3, base=8)),
    "segnet": (1, lambda: SegNet(1, 2, base=4)),
}
TRAINED: dict[str, tuple[int, Callable[[], nn.Module]]] = {**CLASSIFIERS, **RECONSTRUCTORS}


def build(name: str) -> nn.Module:
    """A network with weights and BatchNorm statistics that are not at rest, in eval mode."""
    torch.manual_seed(1)
    in_chans, make = TRAINED[name]
    network = make()
    network.train()
    with torch.no_grad():
        network(torch.rand(4, in_chans, SIDE, SIDE))
    return network.eval()


def images(name: str, batch: int = 2, side: int = SIDE) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.rand(batch, TRAINED[name][0], side, side, generator=generator)


@pytest.fixture(scope="module")
def networks() -> dict[str, nn.Module]:
    return {name: build(name) for name in TRAINED}


@pytest.mark.parametrize("name", STAGED)
@pytest.mark.parametrize("side", [64, 96])
def test_strides_and_channels_are_true(name: str, side: int) -> None:
    in_chans, make = STAGED[name]
    network = make().eval()
    with torch.no_grad():
        features = network.features(torch.rand(1, in_chans, side, side))
    expected = [
        (1, channels, side // stride, side // stride)
        for channels, stride in zip(network.channels, network.strides, strict=True)
    ]
    assert [tuple(feature.shape) for feature in features] == expected


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_stage_by_stage_equals_forward(name: str, networks: dict[str, nn.Module]) -> None:
    network = networks[name]
    assert isinstance(network, StagedClassifier)
    assert network.has_head
    x = features = images(name)
    with torch.no_grad():
        for index in range(len(network.strides)):
            before = features.clone()
            following = network.stage(index, features)
            assert torch.equal(features, before)  # not modified in place
            features = following
        logits = network.head(features)
        assert torch.equal(logits, network(x))
    assert logits.shape == (2, NUM_OUTPUTS)


@pytest.mark.parametrize("name", RECONSTRUCTORS)
def test_a_reconstruction_has_the_size_of_its_input(
    name: str, networks: dict[str, nn.Module]
) -> None:
    with torch.no_grad():
        out = networks[name](images(name))
    assert out.shape[0] == 2
    assert out.shape[2:] == (SIDE, SIDE)
    assert 0 <= out.min() < out.max() <= 1


@pytest.mark.parametrize("name", TRAINED)
@torch.no_grad()
def test_eval_is_deterministic_alone_or_in_a_batch(
    name: str, networks: dict[str, nn.Module]
) -> None:
    network, x = networks[name], images(name, batch=3)
    together = network(x)
    assert torch.equal(network(x), together)
    alone = torch.cat([network(image[None]) for image in x])
    torch.testing.assert_close(alone, together, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", TRAINED)
@torch.no_grad()
def test_channels_last_gives_the_same(name: str, networks: dict[str, nn.Module]) -> None:
    x = images(name).to(memory_format=torch.channels_last)
    torch.testing.assert_close(
        networks[name](x), networks[name](images(name)), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("name", TRAINED)
@torch.no_grad()
def test_bfloat16_autocast_stays_close(name: str, networks: dict[str, nn.Module]) -> None:
    x = images(name)
    expected = networks[name](x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = networks[name](x).float()
    scale = expected.abs().max().item()
    torch.testing.assert_close(out, expected, rtol=0, atol=0.1 * scale)


@pytest.mark.parametrize("name", TRAINED)
def test_the_gradient_reaches_every_parameter(name: str) -> None:
    network = build(name).train()
    out = network(images(name, batch=4))
    weight = torch.rand(out.shape, generator=torch.Generator().manual_seed(3))
    (weight * out).sum().backward()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        # a bias before BatchNorm has no effect; everything else has
        assert parameter.ndim == 1 or parameter.grad.abs().max() > 0, parameter_name


@pytest.mark.parametrize("name", TRAINED)
@torch.no_grad()
def test_weights_saved_and_loaded_give_the_same(name: str, networks: dict[str, nn.Module]) -> None:
    torch.manual_seed(9)
    copy = TRAINED[name][1]().eval()
    x = images(name)
    assert not torch.equal(copy(x), networks[name](x))
    copy.load_state_dict(networks[name].state_dict())
    assert torch.equal(copy(x), networks[name](x))


@pytest.mark.parametrize("name", TRAINED)
def test_one_seed_gives_one_network(name: str) -> None:
    torch.manual_seed(4)
    first = TRAINED[name][1]().state_dict()
    torch.manual_seed(4)
    second = TRAINED[name][1]().state_dict()
    assert all(torch.equal(tensor, second[key]) for key, tensor in first.items())


@pytest.mark.parametrize("name", [n for n in TRAINED if n not in ("resnet18-4ch", "timm-map")])
@torch.no_grad()
def test_the_exported_program_gives_the_same(name: str, networks: dict[str, nn.Module]) -> None:
    x = images(name)
    program = torch.export.export(networks[name], (x,))
    torch.testing.assert_close(program.module()(x), networks[name](x), rtol=1e-4, atol=1e-5)
