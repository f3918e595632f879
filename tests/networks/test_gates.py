"""The parameter table of the specification, every place against the block's formula, and what must
not change: the shared weights, and the output at identity start."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leanet.networks.blocks import BasicBlock, ResidualBlock, SelfAttention
from leanet.networks.choose import build_adn
from leanet.networks.gates import (
    IN_BLOCKS,
    NAMES,
    Gates,
    attach,
    attention_parameters,
    describe,
    maker,
    places,
    resolve,
)
from leanet.networks.resnet import ResNet
from leanet.networks.weights import load_tensors

PLAIN = {"resnet18": 11_689_512, "resnet34": 21_797_672, "resnet50": 25_557_032}
MODULES = ("se", "pre_se", "cbam", "eca", "simam", "srm")
PLACEMENTS = ("standard", "pre", "identity", "post")

# at 1000 classes, ratio 16: variant -> added to ResNet 18, 34, 50
ADDED: dict[str, tuple[dict[str, Any], tuple[int, int, int]]] = {
    "none": ({"name": "none"}, (0, 0, 0)),
    "se": ({"name": "se"}, (87_040, 157_184, 2_514_944)),
    "se, biases": ({"name": "se", "bias": True}, (89_080, 161_196, 2_530_992)),
    "se, timm's": (
        {"name": "se", "bias": True, "min_hidden": 8},
        (90_112, 162_744, 2_530_992),
    ),
    "pre_se": ({"name": "pre_se"}, (54_784, 124_928, 1_991_168)),
    "cbam": ({"name": "cbam"}, (89_880, 162_796, 2_532_592)),
    "eca": ({"name": "eca"}, (36, 74, 86)),
    "simam": ({"name": "simam"}, (0, 0, 0)),
    "simam, strength": ({"name": "simam", "start": "identity"}, (8, 16, 16)),
    "srm": ({"name": "srm"}, (7_680, 15_104, 60_416)),
    "abn": ({"name": "abn"}, (9_917_754, 14_638_394, 18_027_834)),
}
TOTAL_OF_3 = {  # ResNet 50 with 3 classes
    "none": 23_514_179,
    "se": 26_029_123,
    "se, biases": 26_045_171,
    "pre_se": 25_505_347,
    "cbam": 26_046_771,
    "eca": 23_514_265,
    "simam": 23_514_179,
    "srm": 23_574_595,
    "abn": 38_489_199,
}


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def on_meta(adn: str, num_outputs: int, gates: Gates) -> nn.Module:
    with torch.device("meta"):
        return build_adn(adn, 3, num_outputs, gates=gates)


def built(gates: Gates, seed: int = 3) -> Any:
    torch.manual_seed(seed)
    return build_adn("resnet18", 3, 3, gates=gates, stem="small").eval()


@functools.cache
def plain(seed: int = 3) -> Any:
    """Never changed by a test."""
    return built(Gates(), seed)


def small(gates: Gates) -> Any:
    """Quicker than `built`: no plain weights are drawn."""
    network = copy.deepcopy(plain())  # drawn by the first test that asks, before the seed is set
    torch.manual_seed(3)
    attach(network, gates, "resnet18")
    return network


@functools.cache
def plain_outputs() -> tuple[Tensor, Tensor]:
    """In evaluation and in training mode."""
    return plain()(images()), copy.deepcopy(plain()).train()(images())


def images(batch: int = 2, side: int = 16) -> Tensor:
    return torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(5))


class Half(nn.Module):
    """A gate that can be told from others by its effect."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1] == self.channels
        return 0.5 * x


@pytest.mark.parametrize("variant", ADDED)
def test_the_table_of_added_parameters(variant: str) -> None:
    values, added = ADDED[variant]
    gates = Gates(**values)
    for (adn, plain), expected in zip(PLAIN.items(), added, strict=True):
        assert count(on_meta(adn, 1000, gates)) - plain == expected, adn


@pytest.mark.parametrize("variant", TOTAL_OF_3)
def test_the_totals_with_three_classes(variant: str) -> None:
    assert count(on_meta("resnet50", 3, Gates(**ADDED[variant][0]))) == TOTAL_OF_3[variant]


def test_abn_has_fewer_weights_with_three_classes() -> None:
    for adn, plain, added in [("resnet18", 11_178_051, 8_396_332),
                              ("resnet34", 21_286_211, 13_116_972)]:  # fmt: skip
        assert count(on_meta(adn, 3, Gates("abn"))) - plain == added


def test_identity_blocks_are_those_without_a_projection() -> None:
    gates = Gates("se", blocks="identity")
    network = on_meta("resnet50", 1000, gates)
    assert count(network) - PLAIN["resnet50"] == 1_818_624
    assert len(places(network)) == 12
    assert len(places(on_meta("resnet18", 3, gates))) == 5
    assert "layer2.0.gate" not in places(network)


@pytest.mark.parametrize(("placement", "channels"), [
    ("standard", [256] * 3 + [512] * 4 + [1024] * 6 + [2048] * 3),
    ("pre", [64] + [256] * 3 + [512] * 4 + [1024] * 6 + [2048] * 2),
    ("identity", [256] * 3 + [512] * 4 + [1024] * 6 + [2048] * 3),
    ("post", [256] * 3 + [512] * 4 + [1024] * 6 + [2048] * 3),
])  # fmt: skip
def test_the_gates_of_a_resnet50_have_the_stated_channels(
    placement: Any, channels: list[int]
) -> None:
    network = on_meta("resnet50", 3, Gates("srm", placement=placement))
    assert [len(p) for n, p in network.named_parameters() if n.endswith("gate.weight")] == channels


@torch.no_grad()
@pytest.mark.parametrize("stage", [1, 2])
def test_every_placement_computes_its_formula(stage: int) -> None:
    network = copy.deepcopy(plain())
    block = (network.layer1, network.layer2)[stage - 1][0]
    assert isinstance(block, ResidualBlock)
    nn.init.constant_(block.bn1.bias, 0.3)  # type: ignore[union-attr, arg-type]
    x = torch.randn(2, 64, 6, 6)
    shortcut = block.downsample(x)

    def out(branch: Tensor, short: Tensor) -> Tensor:
        return F.relu(branch + short)

    expected = {
        "standard": out(0.5 * block.branch(x), shortcut),
        "pre": out(block.branch(0.5 * x), shortcut),
        "identity": out(block.branch(x), 0.5 * shortcut),
        "post": 0.5 * out(block.branch(x), shortcut),
    }
    for placement, value in expected.items():
        block.gate = Half(64 if placement == "pre" else 64 * stage)
        block.placement = placement
        torch.testing.assert_close(block(x), value)
    assert len({round(v.sum().item(), 3) for v in expected.values()}) == 4


def test_stages_choose_the_layers() -> None:
    found = places(small(Gates("eca", stages=(2, 4))))
    assert list(found) == ["layer2.0.gate", "layer2.1.gate", "layer4.0.gate", "layer4.1.gate"]
    assert set(found.values()) == {"ECA"}


@pytest.mark.parametrize("name", ["se", "cbam", "srm", "abn", "timm:coord"])
def test_one_seed_gives_the_same_shared_weights_with_and_without(name: str) -> None:
    gated = built(Gates(name))
    random_after = torch.rand(3)
    assert all(torch.equal(t, gated.state_dict()[key]) for key, t in plain().state_dict().items())
    torch.manual_seed(3)
    build_adn("resnet18", 3, 3, stem="small")
    assert torch.equal(torch.rand(3), random_after)


@pytest.mark.parametrize("name", ["se", "cbam", "eca", "timm:coord"])
def test_modules_of_one_size_and_of_two_seeds_differ(name: str) -> None:
    first, other = small(Gates(name)).state_dict(), copy.deepcopy(plain())
    torch.manual_seed(4)
    attach(other, Gates(name), "resnet18")
    keys = [key for key, tensor in first.items() if ".gate." in key and tensor.ndim > 2]
    assert keys
    for key in keys:
        assert not torch.equal(first[key], other.state_dict()[key])
        twin = key.replace("layer1.0", "layer1.1")
        assert twin == key or not torch.equal(first[key], first[twin])


@torch.no_grad()
@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("name", [name for name in MODULES if name != "pre_se"])
def test_at_identity_start_the_output_is_the_plain_network_s(name: str, placement: Any) -> None:
    gates = Gates(name, placement=placement, start="identity")
    in_eval, in_train = plain_outputs()
    gated = small(gates)
    assert torch.equal(gated(images()), in_eval)
    assert torch.equal(gated.train()(images()), in_train)


@torch.no_grad()
@pytest.mark.parametrize("name", MODULES)
def test_loaded_weights_leave_the_attention_at_its_start(name: str) -> None:
    gated = small(Gates(name, start="identity"))
    report = load_tensors(gated, plain(8).state_dict(), source="plain")
    assert attention_parameters(gated) <= set(report.kept)
    assert torch.equal(gated(images()), plain(8)(images()))


@torch.no_grad()
@pytest.mark.parametrize("name", MODULES)
def test_at_paper_start_the_modules_do_something(name: str) -> None:
    assert not torch.allclose(small(Gates(name))(images()), plain_outputs()[0], rtol=1e-2)


@torch.no_grad()
@pytest.mark.parametrize("name", [*MODULES, "abn"])
def test_an_image_alone_gives_what_it_gives_in_a_batch(name: str) -> None:
    network, x = built(Gates(name)), images(3)
    alone = torch.cat([network(image[None]) for image in x])
    torch.testing.assert_close(alone, network(x), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", ["cbam", "simam", "timm:ela"])
@pytest.mark.parametrize(("adn", "expected"), [
    ("timm/resnet10t", ["gates.1", "gates.2", "gates.3", "gates.4"]),
    ("timm/convnext_atto", ["gates.0", "gates.1", "gates.2", "gates.3"]),
    ("cnn", ["gates.1", "gates.2", "gates.3", "gates.4"]),
])  # fmt: skip
def test_other_networks_take_them_behind_their_stages(
    adn: str, expected: list[str], name: str
) -> None:
    torch.manual_seed(3)
    bare = build_adn(adn, 3, 3).eval()
    torch.manual_seed(3)
    start = "paper" if name.startswith("timm") else "identity"
    gated = build_adn(adn, 3, 3, gates=Gates(name, start=start)).eval()  # type: ignore[arg-type]
    assert list(places(gated)) == expected
    assert all(torch.equal(v, gated.state_dict()[k]) for k, v in bare.state_dict().items())
    if start == "identity":
        assert torch.equal(gated(images(side=64)), bare(images(side=64)))


@torch.no_grad()
def test_behind_a_stage_the_gate_meets_what_the_next_stage_reads() -> None:
    torch.manual_seed(3)
    network: Any = build_adn("timm/convnext_atto", 3, 3).eval()
    before = network.features(images(side=64))
    network.gates[1] = Half(network.channels[1])
    after = network.features(images(side=64))
    assert torch.equal(after[0], before[0])
    torch.testing.assert_close(after[1], 0.5 * before[1])
    torch.testing.assert_close(after[2], network.stage(2, 0.5 * before[1]))


def test_a_network_without_the_stage_is_refused() -> None:
    network = build_adn("cnn")
    network.strides = (2, 4, 8, 16, 16)
    with pytest.raises(ValueError, match=r"cnn has no place for eca in stages \(4,\)"):
        attach(network, Gates("eca", stages=(4,)), "cnn")


def test_too_small_a_map_or_batch_is_refused_with_the_layer() -> None:
    torch.manual_seed(0)
    simam = build_adn("resnet18", gates=Gates("simam"))
    with pytest.raises(ValueError, match=r"SimAM at layer4\.0\.gate compares .* 1 x 1: choose"):
        simam(images(side=32))
    srm = build_adn("resnet18", gates=Gates("srm", stages=(3,)))
    with pytest.raises(ValueError, match=r"SRM at layer3\.0\.gate .*\(256 maps of 4 x 4\) has a"):
        srm(images(1, side=64))


def test_the_attention_parameters_are_those_that_the_plain_network_lacks() -> None:
    without = {name for name, _ in on_meta("resnet18", 3, Gates()).named_parameters()}
    for name in ("cbam", "abn", "timm:gc"):
        gated = on_meta("resnet18", 3, Gates(name))
        added = {name for name, _ in gated.named_parameters()} - without
        assert attention_parameters(gated) == added


def test_auto_is_decided_by_the_network() -> None:
    assert resolve(Gates("se"), "resnet34").attach == "block"
    assert resolve(Gates("se"), "timm/resnet34").attach == "stage"
    assert resolve(Gates("se"), "vgg16").attach == "stage"
    assert resolve(Gates(), "vgg16").attach == "auto"
    assert {resolve(Gates("se", attach="block"), adn).attach for adn in IN_BLOCKS} == {"block"}


@pytest.mark.parametrize(("gates", "adn", "expected"), [
    (Gates(), "resnet18", "none"),
    (Gates("abn", start="identity"), "resnet18",
     "abn, between stages 3 and 4, start identity"),
    (Gates("se", placement="post", blocks="identity", bias=True), "resnet18",
     "se, ratio 16, with biases, post in identity blocks of stages 1, 2, 3, 4, start paper"),
    (Gates("timm:gc", stages=(4,)), "timm/convnext_tiny", "timm:gc, behind stages 4, start paper"),
])  # fmt: skip
def test_a_line_says_what_stands_where(gates: Gates, adn: str, expected: str) -> None:
    assert describe(gates, adn) == expected


def test_a_list_of_stages_from_yaml_is_taken() -> None:
    assert Gates("se", stages=[2, 3]) == Gates("se", stages=(2, 3))  # type: ignore[arg-type]


@pytest.mark.parametrize(("values", "message"), [
    ({"name": "cbma"}, r"none, se, pre_se, .*abn, timm:NAME \(did you mean cbam"),
    ({"name": "timm:sk"}, "timm:sk is not offered"),
    ({"name": "timm:se", "start": "identity"}, "timm:se has no start 'identity'"),
    ({"name": "se", "placement": "before"}, "placement 'before' .*standard, pre, identity, post"),
    ({"name": "se", "blocks": "some"}, "blocks 'some'"),
    ({"name": "se", "start": "auto"}, "start 'auto'"),
    ({"name": "se", "attach": "layer"}, "attach 'layer'"),
    ({"name": "se", "stages": ()}, "give some of 1, 2, 3, 4"),
    ({"name": "se", "stages": (0, 1)}, "give some of 1, 2, 3, 4"),
    ({"name": "se", "stages": (1, 1)}, "each once"),
    ({"name": "se", "ratio": 0}, "ratio 0"),
    ({"name": "cbam", "min_hidden": 0}, "min_hidden 0"),
    ({"name": "cbam", "bias": True}, "bias True for cbam: it takes no bias"),
    ({"name": "eca", "ratio": 8}, "ratio 8 for eca"),
    ({"name": "timm:se", "ratio": 8}, "ratio 8 for timm:se"),
    ({"name": "none", "placement": "pre"}, "placement 'pre' for none"),
    ({"name": "abn", "blocks": "identity"}, "blocks 'identity' for abn"),
    ({"name": "abn", "stages": (4,)}, "stages .4,. for abn"),
    ({"name": "pre_se", "placement": "post"}, "pre_se is se at placement pre, not 'post'"),
])  # fmt: skip
def test_what_makes_no_sense_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Gates(**values)


@pytest.mark.parametrize(("values", "adn", "message"), [
    ({"name": "se", "attach": "block"}, "timm/resnet50", "attach 'block' for timm/resnet50: only"),
    ({"name": "se", "attach": "stage"}, "resnet50", "attach 'stage' for resnet50"),
    ({"name": "pre_se"}, "timm/resnet50", "'pre' .* for timm/resnet50: behind whole stages"),
    ({"name": "se", "blocks": "identity"}, "cnn", "blocks 'identity' for cnn"),
    ({"name": "abn"}, "timm/resnet50", "abn for timm/resnet50: it needs a ResNet of ours"),
])  # fmt: skip
def test_what_a_network_does_not_take_is_refused(
    values: dict[str, Any], adn: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        resolve(Gates(**values), adn)


def test_pre_se_is_squeeze_and_excitation_before_the_branch() -> None:
    gates = Gates("pre_se")
    assert (gates.module, gates.place) == ("se", "pre")
    other = small(Gates("se", placement="pre"))
    assert torch.equal(small(gates)(images()), other(images()))


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("none", "abn")])
def test_the_slope_through_a_gated_block_is_that_of_finite_differences(name: str) -> None:
    torch.manual_seed(0)
    make: Callable[[int], nn.Module] = maker(Gates(name, ratio=2) if "e_" in name else Gates(name))
    block = BasicBlock(4, 4, gate=make).double().eval()
    block.placement = Gates(name).place
    x = torch.randn(2, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(block, (x,))


@pytest.mark.parametrize("name", ["none", "abn"])
def test_what_is_no_module_cannot_be_made(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is no module"):
        maker(Gates(name))


def test_the_maker_gives_what_the_name_says() -> None:
    se = maker(Gates("se", ratio=4, min_hidden=3, bias=True))(8)
    assert isinstance(se, SelfAttention)
    assert se.state_dict()["fc1.weight"].shape == (3, 8, 1, 1)
    assert "fc1.bias" in se.state_dict()
    assert isinstance(ResNet(18, gate=maker(Gates("eca"))).layer1[0].gate, SelfAttention)  # type: ignore[union-attr]
