from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leanet.inference.cam import CAM, cam, capture, weighted
from leanet.inference.cam_targets import Target
from leanet.networks.aan import ResNetAAN
from leanet.networks.cnn import CNN
from leanet.networks.leanet import LEANet
from leanet.networks.resnet import ResNet
from leanet.ops.cam import FORMULAS

COMPARABLE = [name for name, formula in FORMULAS.items() if formula.comparable]


class Tiny(nn.Module):
    """Convolution, ReLU, mean, linear."""

    def __init__(self, channels: int = 4, classes: int = 3, *, pool: str = "mean") -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.act = nn.ReLU()
        self.pool = pool
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        f = self.act(self.norm(self.conv(x)))
        pooled = f.mean(dim=(2, 3)) if self.pool == "mean" else f.amax(dim=(2, 3))
        logits: Tensor = self.fc(pooled)
        return logits


def tiny(**options: Any) -> Tiny:
    torch.manual_seed(0)
    network = Tiny(**options).eval()
    network.norm.running_mean.normal_()  # type: ignore[union-attr]
    network.norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    return network


def images(count: int = 2, side: int = 8, seed: int = 1) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def resnet(num_outputs: int = 4) -> ResNet:
    """With BatchNorm statistics that are not those of the start."""
    torch.manual_seed(0)
    network = ResNet(18, num_outputs=num_outputs).train()
    with torch.no_grad():
        network(images(4, 32, seed=5))
    return network.eval()


# --- values --------------------------------------------------------------------------------------


def test_two_layers_by_hand() -> None:
    """1x1 convolution with weights 2, -1; mean over two places; linear with weights 3, 5."""
    network = nn.Sequential(
        nn.Conv2d(1, 2, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 1)
    )
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([2.0, -1.0]).view(2, 1, 1, 1))
        network[3].weight.copy_(torch.tensor([[3.0, 5.0]]))
        network[3].bias.fill_(7)
    x = torch.tensor([[[[1.0, 4.0]]]])
    # A = (2, 8), (-1, -4); logit = 3 * 5 + 5 * -2.5 + 7 = 9.5; G = 3/2 and 5/2 at every place
    found = cam(network, (x,), layer="0")
    assert found.score.tolist() == [9.5]
    assert found.map.flatten().tolist() == [1.5 * 2 - 2.5 * 1, 1.5 * 8 - 2.5 * 4]
    assert found.map.shape == (1, 1, 1, 2)
    assert found.stride == (1, 1)
    other = cam(network, (-x,), layer="0")  # logit 4.5 > 0: still anomalous
    assert other.map.flatten().tolist() == [-0.5, -2]
    normal = cam(network, (x,), layer="0", target=Target(which=0))  # the score of normal is -z
    assert normal.score.tolist() == [-9.5]
    assert normal.map.flatten().tolist() == [-0.5, -2]


@pytest.mark.parametrize("layer", ["layer4", "layer3", "layer2.0.bn1", "conv1"])
def test_grad_cam_is_that_of_captum(layer: str) -> None:
    captum = pytest.importorskip("captum.attr")
    network, x = resnet(), images(2, 64)
    found = cam(network, (x,), layer=layer, target=Target(which=torch.tensor([2, 0])))
    oracle = captum.LayerGradCam(network, dict(network.named_modules())[layer])
    expected = oracle.attribute(x, target=torch.tensor([2, 0]), relu_attributions=False)
    torch.testing.assert_close(found.map, expected.detach(), rtol=1e-4, atol=1e-5)
    assert found.map.min() < 0 < found.map.max()


class Two(nn.Module):
    """Features of the image times one plus the map: two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 2)

    def forward(self, image: Tensor, anomaly_map: Tensor) -> Tensor:
        f = functional.relu(self.conv(image)) * (1 + anomaly_map)
        logits: Tensor = self.fc(f.mean(dim=(2, 3)))
        return logits


def test_two_inputs_are_those_of_captum() -> None:
    captum = pytest.importorskip("captum.attr")
    torch.manual_seed(0)
    network, inputs = Two().eval(), (images(), images(seed=3)[:, :1])
    found = cam(network, inputs, layer="conv", target=Target(which=1))
    expected = captum.LayerGradCam(network, network.conv).attribute(
        inputs, target=1, relu_attributions=False
    )
    torch.testing.assert_close(found.map, expected.detach(), rtol=1e-5, atol=1e-5)


def test_hires_cam_before_mean_and_linear_sums_to_the_logit_without_its_bias() -> None:
    network, x = tiny(), images()
    found = cam(network, (x,), layer="act", method="hires_cam")
    bias = network.fc.bias[found.classes]
    torch.testing.assert_close(found.map.sum(dim=(1, 2, 3)), found.score - bias.detach())
    plain = cam(network, (x,), layer="act", method="grad_cam")
    torch.testing.assert_close(plain.map, found.map)


def test_before_a_maximum_grad_cam_and_hires_cam_differ() -> None:
    network, x = tiny(pool="max"), images()
    hires, plain = (
        cam(network, (x,), layer="act", method=method).map for method in ("hires_cam", "grad_cam")
    )
    assert not torch.allclose(hires, plain, rtol=0.1)


@pytest.mark.parametrize("method", FORMULAS)
def test_the_map_follows_the_head_exactly_where_it_is_called_comparable(method: str) -> None:
    network, x = tiny(), images()
    plain = cam(network, (x,), layer="act", method=method).map
    with torch.no_grad():
        for weight in network.fc.parameters():
            weight *= 10
    scaled = cam(network, (x,), layer="act", method=method).map
    assert torch.allclose(scaled, 10 * plain, rtol=1e-4) == FORMULAS[method].comparable


def test_planted_evidence_in_one_quadrant_is_found_there() -> None:
    class Quadrant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            return functional.relu(self.conv(x))[:, :, :8, 8:].sum(dim=(1, 2, 3))[:, None]

    torch.manual_seed(0)
    network, x = Quadrant(), images(3, 16)
    for method in ("hires_cam", "layer_cam"):
        found = cam(network, (x,), layer="conv", method=method, target=Target(which=1)).map.abs()
        share = found[:, :, :8, 8:].sum(dim=(1, 2, 3)) / found.sum(dim=(1, 2, 3))
        assert (share >= 0.95).all(), method


# --- the network's own ways ----------------------------------------------------------------------


class InPlace(nn.Module):
    """A residual block that adds and activates in place, as timm's and torchvision's do."""

    def __init__(self, *, inplace: bool) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.act, self.fc, self.inplace = nn.ReLU(inplace=inplace), nn.Linear(6, 2), inplace

    def forward(self, x: Tensor) -> Tensor:
        f = self.bn(self.conv(x))
        if self.inplace:
            f += x.mean(dim=1, keepdim=True)
        else:
            f = f + x.mean(dim=1, keepdim=True)
        logits: Tensor = self.fc(self.act(f).mean(dim=(2, 3)))
        return logits


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("layer", ["bn", "conv"])
def test_in_place_operations_do_not_overwrite_what_was_kept(layer: str, frozen: bool) -> None:
    torch.manual_seed(0)
    network = InPlace(inplace=True).eval().requires_grad_(not frozen)
    other = InPlace(inplace=False).eval()
    other.load_state_dict(network.state_dict())
    x = images()
    found = cam(network, (x,), layer=layer, target=Target(which=1))
    expected = cam(other, (x,), layer=layer, target=Target(which=1))
    torch.testing.assert_close(found.map, expected.map)
    assert expected.map.min() < 0  # a ReLU in place would have cut this


@pytest.mark.parametrize("layer", ["layer4.1.bn2", "layer1.0.bn1"])
def test_torchvision_s_blocks_in_place_give_the_values_of_ours(layer: str) -> None:
    torchvision = pytest.importorskip("torchvision")
    network = resnet()
    reference = torchvision.models.resnet18(weights=None, num_classes=4).eval()
    reference.load_state_dict(network.state_dict())
    x = images(2, 64)
    found, expected = (cam(one, (x,), layer=layer) for one in (reference, network))
    torch.testing.assert_close(found.map, expected.map, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", FORMULAS)
def test_a_batch_gives_what_single_images_give(method: str) -> None:
    network, x = resnet(), images(3, 64)
    together = cam(network, (x,), layer="layer3", method=method)
    alone = [cam(network, (x[k : k + 1],), layer="layer3", method=method) for k in range(3)]
    for field in ("map", "score", "classes"):
        joined = torch.cat([getattr(one, field) for one in alone])
        torch.testing.assert_close(getattr(together, field), joined, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("part", ["all", "trunk", "head"])
def test_frozen_networks_give_the_same_maps(part: str) -> None:
    network, x = resnet(), images(2, 64)
    expected = cam(network, (x,), layer="layer3").map
    frozen = copy.deepcopy(network)
    for name, weight in frozen.named_parameters():
        weight.requires_grad_(part != "all" and name.startswith("fc") == (part == "trunk"))
    torch.testing.assert_close(cam(frozen, (x,), layer="layer3").map, expected, rtol=0, atol=0)


@pytest.mark.parametrize("inside", [torch.no_grad, torch.inference_mode])
def test_it_works_inside_no_grad_and_inference_mode(inside: Callable[[], Any]) -> None:
    network, x = tiny(), images()
    expected = cam(network, (x,), layer="conv")
    with inside():
        found = cam(network, (x + 0,), layer="conv")
        assert not torch.is_grad_enabled()
    assert torch.equal(found.map, expected.map)


def test_bfloat16_is_close_and_gives_float32() -> None:
    network, x = tiny(channels=16), images()
    expected = cam(network, (x,), layer="act", target=Target(which=1)).map
    found = cam(copy.deepcopy(network).bfloat16(), (x.bfloat16(),), layer="act",
                target=Target(which=1)).map  # fmt: skip
    assert found.dtype == torch.float32
    cosine = functional.cosine_similarity(found.flatten(1), expected.flatten(1))
    assert (cosine > 0.999).all()


class Scaled(nn.Module):
    """Gradients that are below the smallest float16 for a score of 1, and are not for 1024."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.factor = 1e-6

    def forward(self, x: Tensor) -> Tensor:
        return (self.conv(x).mean(dim=(1, 2, 3)) * self.factor)[:, None]


def test_float16_gradients_do_not_vanish() -> None:
    torch.manual_seed(0)
    network, x = Scaled(), images()
    expected = cam(network, (x,), layer="conv", target=Target(which=1)).map
    half = cam(copy.deepcopy(network).half(), (x.half(),), layer="conv", target=Target(which=1))
    assert half.map.dtype == torch.float32
    torch.testing.assert_close(half.map, expected, rtol=0.05, atol=1e-10)


def test_nothing_of_the_network_changes() -> None:
    network, x = tiny(), images()
    network.train()
    network.norm.eval()  # a caller who keeps BatchNorm frozen
    network.fc.weight.grad = torch.ones_like(network.fc.weight)
    before, random = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    cam(network, (x,), layer="conv")
    assert (network.training, network.norm.training, network.fc.training) == (True, False, True)
    assert torch.equal(network.fc.weight.grad, torch.ones_like(network.fc.weight))
    assert network.conv.weight.grad is None
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(module._forward_hooks for module in network.modules())


def test_training_mode_outside_does_not_change_the_map() -> None:
    network, x = tiny(), images()
    expected = cam(network, (x,), layer="conv").map
    assert torch.equal(cam(network.train(), (x,), layer="conv").map, expected)


class StumbleError(Exception):
    """Raised by a user's own network or score."""


@pytest.mark.parametrize("where", ["network", "score", "after the layer"])
def test_errors_come_through_and_leave_nothing_behind(where: str) -> None:
    class Breaks(Tiny):
        def forward(self, x: Tensor) -> Tensor:
            if where == "network":
                raise StumbleError
            result = super().forward(x)
            if where == "after the layer":
                raise StumbleError
            return result

    def score(output: Tensor) -> Tensor:
        raise StumbleError

    network = Breaks().train()
    with pytest.raises(StumbleError):
        cam(network, (images(),), layer="conv", target=score)
    assert network.training
    assert not any(module._forward_hooks for module in network.modules())


def test_stages_are_as_they_were_after_an_error() -> None:
    network = resnet()

    def score(output: Tensor) -> Tensor:
        raise StumbleError

    for layer in ("stage0", "stage4", "point2"):
        with pytest.raises(StumbleError):
            cam(network, (images(1, 32),), layer=layer, target=score)
    assert "stage" not in vars(network)
    assert "head" not in vars(network)


# --- scores and classes --------------------------------------------------------------------------


def test_the_predicted_class_is_explained_unless_another_is_asked_for() -> None:
    network, x = tiny(), images(5)
    found = cam(network, (x,), layer="conv")
    logits = network(x).detach()
    assert found.classes is not None
    assert torch.equal(found.classes, logits.argmax(dim=1))
    torch.testing.assert_close(found.score, logits.amax(dim=1))


def test_a_function_of_the_output_may_be_the_score() -> None:
    network, x = tiny(), images()
    found = cam(network, (x,), layer="conv", target=lambda logits: logits[:, 1] - logits[:, 0])
    one, other = (cam(network, (x,), layer="conv", target=Target(which=k)).map for k in (1, 0))
    torch.testing.assert_close(found.map, one - other)
    assert found.classes is None


def test_a_score_that_is_not_one_number_per_image_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[2\], not \[2, 3\]"):
        cam(tiny(), (images(),), layer="conv", target=lambda logits: logits)


def test_several_layers_and_methods_take_one_run() -> None:
    network, x = resnet(), images(2, 64)
    runs: list[int] = []
    handle = network.conv1.register_forward_hook(lambda *_: runs.append(1))
    captured = capture(network, (x,), ["stage2", "stage4", "layer3"])
    handle.remove()
    assert len(runs) == 1
    for layer in ("stage2", "stage4", "layer3"):
        for method in ("grad_cam", "layer_cam"):
            found = weighted(captured, layer, method)
            expected = cam(network, (x,), layer=layer, method=method)
            torch.testing.assert_close(found.map, expected.map, rtol=1e-5, atol=1e-7)
            assert found.stride == expected.stride


def test_eigen_smooth_reports_how_much_it_has_kept() -> None:
    network, x = tiny(), images()
    assert cam(network, (x,), layer="conv").energy is None
    found = cam(network, (x,), layer="conv", eigen_smooth=True)
    assert found.energy is not None
    assert found.energy.shape == (2,)
    assert ((found.energy > 0) & (found.energy <= 1)).all()


# --- networks with two inputs --------------------------------------------------------------------


def lea_net() -> LEANet:
    torch.manual_seed(0)
    network = LEANet(CNN(3, 1), ResNetAAN(1, 1), (1, 3))
    with torch.no_grad():
        network.train()(images(4, 64), images(4, 64, seed=2)[:, :1])
    return network.eval()


def adn(output: Any) -> Tensor:
    logits: Tensor = output.adn
    return logits


def test_lea_net_s_fusion_lies_between_the_stage_and_the_point() -> None:
    network, inputs = lea_net(), (images(2, 64), images(2, 64, seed=2)[:, :1])
    found = capture(network, inputs, ["stage3", "point3"], Target(logits_of=adn))
    output = network(*inputs)
    torch.testing.assert_close(found.activations["stage3"], output.before[1].detach())
    torch.testing.assert_close(found.activations["point3"], output.after[1].detach())
    factor = 1 + output.attention[1].detach()
    torch.testing.assert_close(
        found.gradients["stage3"], factor * found.gradients["point3"], rtol=1e-4, atol=1e-8
    )


def test_lea_net_s_attention_network_can_be_explained_through_both_heads() -> None:
    network, inputs = lea_net(), (images(2, 64), images(2, 64, seed=2)[:, :1])
    by_adn = cam(network, inputs, layer="aan.stage3", target=Target(which=1, logits_of=adn))
    by_aan = cam(network, inputs, layer="aan.stage3", target=Target(
        which=1, logits_of=lambda output: output.aan))  # fmt: skip
    assert by_adn.map.shape == by_aan.map.shape == (2, 1, 4, 4)
    assert not torch.allclose(by_adn.map, by_aan.map, rtol=0.1)


def test_a_layer_without_influence_on_the_score_is_named() -> None:
    network, inputs = lea_net(), (images(2, 64), images(2, 64, seed=2)[:, :1])
    with pytest.raises(ValueError, match=r"class.* does not depend on layer aan\.stage4"):
        cam(network, inputs, layer="aan.stage4", target=Target(logits_of=adn))


# --- what is refused -----------------------------------------------------------------------------


def test_gradients_that_are_not_finite_are_named() -> None:
    network = tiny()
    with torch.no_grad():
        network.fc.weight.fill_(torch.inf)
    with pytest.raises(ValueError, match="layer act are not finite"):
        cam(network, (images(),), layer="act", target=Target(which=1))


def test_an_image_without_gradient_in_a_batch_has_an_empty_map() -> None:
    network, x = tiny(), images(2)

    def first_only(logits: Tensor) -> Tensor:
        return logits[:, 0] * torch.tensor([1.0, 0.0])

    found = cam(network, (x,), layer="conv", target=first_only)
    assert found.map[0].abs().sum() > 0
    assert found.map[1].abs().sum() == 0


def test_compiled_networks_are_refused_with_the_remedy() -> None:
    network = tiny()
    with pytest.raises(ValueError, match=r"compiled.*before"):
        cam(torch.compile(network), (images(),), layer="conv")  # type: ignore[arg-type]
    network.conv.compile()
    with pytest.raises(ValueError, match=r"conv \(Conv2d\) is compiled"):
        cam(network, (images(),), layer="act")


def test_quantized_networks_are_refused_with_the_remedy() -> None:
    class Linear(nn.Linear):
        """Stands for torch.ao.nn.quantized.Linear."""

    Linear.__module__ = "torch.ao.nn.quantized.modules.linear"
    network = tiny()
    network.fc = Linear(4, 3)
    with pytest.raises(ValueError, match=r"fc \(Linear\) is quantized.*float weights"):
        cam(network, (images(),), layer="conv")


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match="did you mean grad_cam"):
        cam(tiny(), (images(),), layer="conv", method="gradcam")


def test_a_layer_that_runs_twice_or_never_is_refused() -> None:
    class Twice(Tiny):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + super().forward(x.flip(-1))

    with pytest.raises(ValueError, match="conv ran 2 times"):
        cam(Twice(), (images(),), layer="conv")
    network = tiny()
    network.add_module("spare", nn.Conv2d(3, 3, 1))
    with pytest.raises(ValueError, match="spare ran 0 times"):
        cam(network, (images(),), layer="spare")


class Pair(NamedTuple):
    first: Tensor
    second: Tensor


class Forked(nn.Module):
    def forward(self, x: Tensor) -> Pair:
        return Pair(x * 2, x * 3)


class WithPair(nn.Module):
    """A layer with two outputs, of which the score uses both."""

    def __init__(self) -> None:
        super().__init__()
        self.fork = Forked()

    def forward(self, x: Tensor) -> Tensor:
        pair = self.fork(x)
        return (pair.first.sum(dim=(1, 2, 3)) + 5 * pair.second.sum(dim=(1, 2, 3)))[:, None]


def test_one_output_of_several_can_be_chosen() -> None:
    network, x = WithPair(), images()
    first, second = (
        cam(network, (x,), layer="fork", target=Target(which=1), output_index=k).map for k in (0, 1)
    )
    torch.testing.assert_close(first, (2 * x).sum(dim=1, keepdim=True))
    torch.testing.assert_close(second, 5 * (3 * x).sum(dim=1, keepdim=True))
    with pytest.raises(ValueError, match="no part 2"):
        cam(network, (x,), layer="fork", output_index=2)


def test_tokens_are_refused_without_and_read_with_an_adapter() -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    vit = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=3).eval()
    x = images(2, 64)
    with pytest.raises(ValueError, match=r"\[2, 17, 192\].*adapter="):
        cam(vit, (x,), layer="blocks.10")
    found = cam(vit, (x,), layer="blocks.10", adapter="tokens")
    assert found.map.shape == (2, 1, 4, 4)
    assert found.stride == (16, 16)


def test_channels_last_are_noticed_and_read_with_an_adapter() -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    swin = timm.create_model("swin_tiny_patch4_window7_224", img_size=64, num_classes=3,
                             window_size=2).eval()  # fmt: skip
    x = images(2, 64)
    with pytest.raises(ValueError, match="adapter="):
        cam(swin, (x,), layer="layers.2")
    found = cam(swin, (x,), layer="layers.2", adapter="channels_last")
    assert found.map.shape == (2, 1, 4, 4)
    with pytest.raises(ValueError, match="'tokenz' is not known"):
        cam(swin, (x,), layer="layers.2", adapter="tokenz")


def test_the_default_is_the_last_stage_with_places() -> None:
    found: CAM = cam(resnet(), (images(1, 32),))
    assert (found.layer, found.map.shape, found.stride) == ("stage3", (1, 1, 2, 2), (16, 16))
    assert cam(resnet(), (images(1, 64),)).layer == "stage4"


@pytest.mark.slow
def test_grad_cam_takes_at_most_three_forward_passes() -> None:
    import time

    network, x = resnet(), images(8, 128)

    def seconds(job: Callable[[], object]) -> float:
        times = []
        for _ in range(5):
            start = time.perf_counter()
            job()
            times.append(time.perf_counter() - start)
        return min(times)

    with torch.no_grad():
        forward = seconds(lambda: network(x))
    assert seconds(lambda: cam(network, (x,), layer="layer4")) < 3 * forward
