"""Every row of the table of parameter counts, by the names that a user types."""

import pytest
import torch
from torch import Tensor, nn

from leanet.networks.abn import ABN
from leanet.networks.attention import SELF_ATTENTION
from leanet.networks.blocks import SelfAttention
from leanet.networks.choose import AANS, ADNS, build_aan, build_adn, paper_lr
from leanet.networks.gates import Gates, places
from leanet.networks.timm_stages import TimmStages
from leanet.networks.vgg import VGG

# with two outputs: name -> (trainable, with running statistics, one output has so many fewer)
ADN_COUNTS = {
    "resnet18": (11_177_538, 11_187_138, 513),
    "resnet18_stem_conv": (11_217_474, 11_225_282, 513),
    "resnet34": (21_286_211 - 513, 21_303_235 - 513, 513),
    "resnet50": (23_512_130, 23_565_250, 2_049),
    "vgg16": (165_726_018, 165_726_018, 4_097),
    "vgg19": (171_035_714, 171_035_714, 4_097),
    "cnn": (3_979_266, 3_982_210, 32_769),
}
NUM_GATES = {  # one per residual block, or per stage
    "resnet18": 8,
    "resnet18_stem_conv": 8,
    "resnet34": 16,
    "resnet50": 16,
    "vgg16": 5,
    "vgg19": 5,
    "cnn": 5,
}
AAN_COUNTS = {
    "resnet": (4_901_634, 4_905_602, 513),
    "mobilenet": (3_029_762, 3_041_906, 1_281),
    "direct": (0, 0, 0),
}


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def with_statistics(network: nn.Module) -> int:
    return count(network) + sum(b.numel() for n, b in network.named_buffers() if "running" in n)


@pytest.mark.parametrize("name", ADNS)
def test_every_classifier_has_the_parameters_of_the_specification(name: str) -> None:
    with torch.device("meta"):
        two, one = build_adn(name, 3, 2), build_adn(name)
    trainable, total, fewer = ADN_COUNTS[name]
    assert (count(two), with_statistics(two)) == (trainable, total)
    assert count(one) == trainable - fewer


@pytest.mark.parametrize("name", AANS)
def test_every_attention_network_has_the_parameters_of_the_specification(name: str) -> None:
    with torch.device("meta"):
        two, one = build_aan(name, 1, 2), build_aan(name)
    trainable, total, fewer = AAN_COUNTS[name]
    assert (count(two), with_statistics(two)) == (trainable, total)
    assert count(one) == trainable - fewer


@pytest.mark.parametrize(("adn", "aan", "expected"), [
    ("resnet18", "mobilenet", 14_207_300), ("resnet18", "resnet", 16_079_172),
    ("vgg16", "mobilenet", 168_755_780), ("vgg16", "resnet", 170_627_652),
    ("cnn", "mobilenet", 7_009_028), ("cnn", "resnet", 8_880_900),
])  # fmt: skip
def test_every_pair_has_the_parameters_of_the_specification(
    adn: str, aan: str, expected: int
) -> None:
    with torch.device("meta"):
        assert count(build_adn(adn, 3, 2)) + count(build_aan(aan, 1, 2)) == expected


@pytest.mark.parametrize(("in_chans", "expected"), [(1, 11_171_266), (4, 11_180_674)])
def test_the_map_alone_or_as_a_fourth_channel_changes_the_first_convolution(
    in_chans: int, expected: int
) -> None:
    with torch.device("meta"):
        assert count(build_adn("resnet18", in_chans, 2)) == expected


@pytest.mark.parametrize("name", ADNS)
@pytest.mark.parametrize("gate", SELF_ATTENTION)
def test_every_classifier_takes_every_self_attention(name: str, gate: str) -> None:
    with torch.device("meta"):
        network = build_adn(name, self_attention=gate)
        modules = [type(m) for m in network.modules() if isinstance(m, SelfAttention)]
        assert modules.count(SELF_ATTENTION[gate]) == NUM_GATES[name]  # type: ignore[arg-type]
        assert network.features(torch.empty(2, 3, 128, 128))[-1].shape[2:] == (4, 4)


def test_gates_reach_the_blocks_and_the_modules_know_their_name() -> None:
    with torch.device("meta"):
        network = build_adn("resnet34", gates=Gates("cbam", stages=(2,), blocks="identity"))
    assert list(places(network)) == [f"layer2.{index}.gate" for index in (1, 2, 3)]
    assert {m.place for m in network.modules() if isinstance(m, SelfAttention)} == {
        f"layer2.{index}.gate{part}" for index in (1, 2, 3) for part in ("", ".channel", ".spatial")
    }


def test_abn_is_a_network_of_its_own() -> None:
    with torch.device("meta"):
        network = build_adn("resnet34", 3, 4, gates=Gates("abn"), stem="small", dropout=0.1)
    assert isinstance(network, ABN)
    assert network.strides == (1, 1, 2, 4, 8)
    assert network.dropout.p == 0.1
    assert network.branch.conv.out_channels == 4


@torch.no_grad()
@pytest.mark.parametrize("name", ["resnet18", "cnn", "timm/mobilenetv3_small_050"])
def test_dropout_stands_before_the_last_layer_while_it_learns(name: str) -> None:
    torch.manual_seed(0)
    network = build_adn(name, 3, 2, dropout=0.5)
    read: list[Tensor] = []
    network.fc.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))  # type: ignore[union-attr, operator]
    features = torch.rand(4, network.channels[-1], 2, 2) + 0.1
    network.head(features)
    network.eval().head(features)
    assert 0.4 < (read[0] == 0).float().mean() < 0.6
    torch.testing.assert_close(read[0], torch.where(read[0] == 0, 0, 2 * read[1]))
    assert (read[1] > 0).all()


def test_dropout_changes_no_weight_and_reaches_vgg_too() -> None:
    torch.manual_seed(1)
    plain = build_adn("cnn").state_dict()
    torch.manual_seed(1)
    dropped = build_adn("cnn", dropout=0.3).state_dict()
    assert plain.keys() == dropped.keys()
    assert all(torch.equal(tensor, dropped[key]) for key, tensor in plain.items())
    vgg = VGG(16, hidden=8, dropout=0.999)
    vgg.fc.register_forward_pre_hook(lambda _, inputs: check(inputs[0]))

    def check(hidden: Tensor) -> None:
        assert (hidden == 0).float().mean() > 0.9

    vgg(torch.rand(2, 3, 32, 32))


def test_identity_start_reaches_the_modules() -> None:
    network = build_adn("cnn", self_attention="simam", identity_start=True)
    assert any(name.endswith("strength") for name, _ in network.named_parameters())


def test_any_backbone_of_timm_serves_as_either_network() -> None:
    adn, aan = build_adn("timm/mobilenetv3_small_050", 3, 2), build_aan("timm/resnet10t", 1, 2)
    assert isinstance(adn, TimmStages)
    assert isinstance(aan, TimmStages)
    assert adn(torch.rand(2, 3, 64, 64)).shape == aan(torch.rand(2, 1, 64, 64)).shape == (2, 2)


def test_only_families_of_one_size_are_told_the_size() -> None:
    small = {"window_size": 2, "embed_dim": 12, "depths": (1, 1, 1, 1)}
    swin = build_adn("timm/swin_tiny_patch4_window7_224", img_size=64, **small)
    assert swin(torch.rand(1, 3, 64, 64)).shape == (1, 1)
    assert build_adn("timm/mobilenetv3_small_050", img_size=64).strides == (2, 4, 8, 16, 32)


def test_the_paper_s_step_sizes_are_known() -> None:
    rates = {name: paper_lr(name) for name in [*ADNS, "timm/resnet18"]}
    assert {name for name, rate in rates.items() if rate == 1e-5} == {"vgg16", "vgg19"}
    assert {rate for name, rate in rates.items() if not name.startswith("vgg")} == {1e-4}
    with pytest.raises(ValueError, match="did you mean vgg16"):
        paper_lr("vg16")


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"ADN 'resnet_18' .*timm/NAME \(did you mean resnet18"):
        build_adn("resnet_18")
    with pytest.raises(ValueError, match=r"AAN 'mobilnet' .*\(did you mean mobilenet"):
        build_aan("mobilnet")
    with pytest.raises(ValueError, match="timm knows no model"):
        build_adn("timm/resnet_18")


def test_what_a_network_does_not_take_is_refused() -> None:
    with pytest.raises(ValueError, match="self-attention 'se' for timm/resnet18"):
        build_adn("timm/resnet18", self_attention="se")
    with pytest.raises(ValueError, match=r"resnet18 takes no arguments \(pad_type\)"):
        build_adn("resnet18", pad_type="same")
    with pytest.raises(ValueError, match="did you mean cbam"):
        build_adn("resnet18", self_attention="cbma")
    for name in ("timm/resnet18", "cnn", "resnet18_stem_conv"):
        with pytest.raises(ValueError, match=f"stem 'small' for {name}: only resnet18, resnet34,"):
            build_adn(name, stem="small")
    with pytest.raises(ValueError, match="'se' and gates 'eca': give one of the two"):
        build_adn("resnet18", self_attention="se", gates=Gates("eca"))
    with pytest.raises(ValueError, match="stem 'tiny' is not known"):
        build_adn("resnet18", stem="tiny")  # type: ignore[arg-type]
