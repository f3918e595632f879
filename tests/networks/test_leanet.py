"""Equations 2 and 3, and what steering does and does not change."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leanet.networks.aan import DirectAAN, MobileNetAAN, ResNetAAN
from leanet.networks.blocks import Staged, StagedClassifier
from leanet.networks.leanet import (
    IN_CHANS,
    AdnInput,
    AttentionMap,
    Fuse,
    LEANet,
    adn_input,
    steer,
)
from leanet.networks.prior import MapPrior
from leanet.networks.resnet import ResNet
from leanet.networks.timm_stages import TimmStages

SUBSETS = [subset for size in range(6) for subset in combinations(range(5), size)]


class Plain(StagedClassifier):
    """One convolution a stage; the strides are given."""

    def __init__(self, strides: tuple[int, ...], in_chans: int = 3, width: int = 4) -> None:
        super().__init__()
        self.strides, self.channels = strides, (width,) * len(strides)
        steps = [after // before for before, after in zip((1, *strides), strides, strict=False)]
        sources = (in_chans, *self.channels)
        self.convs = nn.ModuleList(
            nn.Conv2d(sources[k], width, 3, stride=step, padding=1) for k, step in enumerate(steps)
        )
        self.fc = nn.Linear(width, 1)

    def stage(self, index: int, x: Tensor) -> Tensor:
        out: Tensor = self.convs[index](x).relu()
        return out

    def head(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits


class TwoLogits(Plain):
    """With a softmax pair."""

    def __init__(self, strides: tuple[int, ...]) -> None:
        super().__init__(strides)
        self.fc = nn.Linear(4, 2)


class ConstantAAN(Staged):
    """Features whose channel mean is `value` everywhere; the size of a stage can be wrong."""

    strides = (2, 4, 8, 16, 32)
    channels = (1,) * 5

    def __init__(self, value: float = 0.0, shrink: int = 1) -> None:
        super().__init__()
        self.value, self.shrink = value, shrink

    def stage(self, index: int, x: Tensor) -> Tensor:
        side = 64 // self.strides[index] // self.shrink
        return torch.full((len(x), 1, max(side, 1), max(side, 1)), self.value)


def inputs(batch: int = 2, side: int = 64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    image = torch.rand(batch, 3, side, side, generator=generator)
    return image, torch.rand(batch, 1, side, side, generator=generator)


def small(points: tuple[int, ...], **options: Any) -> LEANet:
    torch.manual_seed(0)
    adn = TimmStages("mobilenetv3_small_050")
    return LEANet(adn, MobileNetAAN(), points, **options)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("network", [small((0, 1, 2, 3, 4), strength=0.0), small(())])
def test_without_strength_or_points_the_classifier_is_the_plain_one_bit_for_bit(
    network: LEANet, train: bool
) -> None:
    network.train(train)
    image, anomaly_map = inputs()
    with torch.no_grad():
        assert torch.equal(network(image, anomaly_map).adn, network.adn(image))


def test_with_strength_the_map_changes_the_answer() -> None:
    network = small((3,)).eval()
    image, anomaly_map = inputs()
    with torch.no_grad():
        one, other = (network(image, m).adn for m in (anomaly_map, 1 - anomaly_map))
    assert not torch.equal(one, other)


def test_the_attention_map_is_the_sigmoid_of_the_channel_mean() -> None:
    features = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    attention = AttentionMap(features.shape[1])(features)
    assert attention.shape == (2, 1, 4, 5)
    for b in range(2):
        for y in range(4):
            for x in range(5):
                mean = sum(float(features[b, c, y, x]) for c in range(3)) / 3
                expected = 1 / (1 + torch.tensor(-mean).exp())
                torch.testing.assert_close(attention[b, 0, y, x], expected)


@pytest.mark.parametrize("strength", [-0.5, 0.0, 1.0, 2.5])
def test_a_constant_attention_scales_the_features(strength: float) -> None:
    value = 0.7
    network = LEANet(Plain((2, 4, 8)), ConstantAAN(value), (1,), strength=strength)
    output = network(*inputs())
    c = float(torch.tensor(value).sigmoid())
    torch.testing.assert_close(output.attention[0], torch.full((2, 1, 16, 16), c))
    torch.testing.assert_close(output.after[0], (1 + strength * c) * output.before[0])


def test_what_is_steered_feeds_the_next_stage() -> None:
    network = LEANet(Plain((2, 4, 8)), ConstantAAN(), (1,))
    output = network(*inputs())
    expected = network.adn.head(network.adn.stage(2, output.after[0]))
    assert torch.equal(output.adn, expected)


@pytest.mark.parametrize(("strength", "reached"), [(1.0, True), (0.0, False)])
def test_the_classifier_loss_reaches_the_attention_network_through_its_strength(
    strength: float, reached: bool
) -> None:
    network = small((1, 3), strength=strength)
    network(*inputs(4)).adn.square().sum().backward()
    stages = [p.grad for name, p in network.aan.named_parameters() if name.startswith("stages.3")]
    moved = [grad is not None and bool(grad.abs().max() > 0) for grad in stages]
    assert any(moved) is reached
    head = [p.grad for p in network.aan.fc.parameters()]  # type: ignore[union-attr]
    assert head == [None, None]  # its own loss alone trains the attention network's head


def test_the_attention_network_runs_on_from_its_own_features() -> None:
    network = small((0, 2, 4)).eval()
    image, anomaly_map = inputs()
    with torch.no_grad():
        assert torch.equal(network(image, anomaly_map).aan, network.aan(anomaly_map))


@pytest.mark.parametrize("points", SUBSETS, ids=str)
@torch.no_grad()
def test_every_set_of_points_is_steered_in_network_order(points: tuple[int, ...]) -> None:
    network = LEANet(Plain((2, 4, 8, 16, 32)), DirectAAN(), points[::-1]).eval()
    image, anomaly_map = inputs()
    output = network(image, anomaly_map)
    assert network.points == points
    assert [a.shape[-1] for a in output.attention] == [64 // 2 ** (p + 1) for p in points]
    f = image
    for index in range(5):
        f = network.adn.stage(index, f)
        if index in points:
            averaged = torch.nn.functional.avg_pool2d(anomaly_map, 2 ** (index + 1))
            f = f * (1 + averaged.sigmoid())
    torch.testing.assert_close(output.adn, network.adn.head(f))
    assert output.aan is None


def test_a_point_named_twice_counts_once() -> None:
    assert small((3, 1, 3)).points == (1, 3)


@torch.no_grad()
def test_taps_are_matched_by_stride_not_by_index() -> None:
    adn = TimmStages("convnext_atto")
    assert adn.strides == (4, 8, 16, 32)
    network = LEANet(adn, ResNetAAN(), (1, 4)).eval()
    assert (network.stages, network.taps) == ([0, 3], [1, 4])
    image, anomaly_map = inputs()
    output = network(image, anomaly_map)
    assert [tuple(a.shape) for a in output.attention] == [(2, 1, 16, 16), (2, 1, 2, 2)]
    tap = network.aan.features(anomaly_map)[1]
    assert torch.equal(output.attention[0], AttentionMap(tap.shape[1])(tap))


@pytest.mark.parametrize("point", [-1, 0, 5])
def test_a_point_that_is_not_there_is_refused_with_those_that_are(point: int) -> None:
    adn = TimmStages("convnext_atto")  # four stages, so no A1
    expected = rf"attention point {point} .*the classifier has no.*1 \(A2, stride 4\).*4 \(A5"
    with pytest.raises(ValueError, match=expected):
        LEANet(adn, ResNetAAN(), (point,))


def test_a_stride_that_the_attention_network_lacks_is_refused_with_those_it_has() -> None:
    with pytest.raises(ValueError, match=r"stride 64, and the attention network.*A1.*A5"):
        LEANet(Plain((2, 64)), DirectAAN(), (5,))


def test_points_without_an_attention_network_are_refused() -> None:
    with pytest.raises(ValueError, match="need an attention network"):
        LEANet(Plain((2, 4)), None, (0,))


@torch.no_grad()
def test_without_an_attention_network_the_classifier_stands_alone() -> None:
    network = LEANet(Plain((2, 4)), None, ())
    output = network(*inputs())
    assert torch.equal(output.adn, network.adn(inputs()[0]))
    assert (output.aan, output.attention) == (None, ())


@pytest.mark.parametrize(("how", "expected"), [
    ("image", lambda i, x: i),
    ("map", lambda i, x: x),
    ("4_channel", lambda i, x: torch.stack([i[:, 0], i[:, 1], i[:, 2], x[:, 0]], dim=1)),
    ("attentioned", lambda i, x: i * (1 + x)),
    ("multiplied", lambda i, x: i * x),
])  # fmt: skip
def test_the_ways_to_show_image_and_map_to_the_classifier(
    how: AdnInput, expected: Callable[[Tensor, Tensor], Tensor]
) -> None:
    image, anomaly_map = inputs()
    seen = adn_input(image, anomaly_map, how)
    torch.testing.assert_close(seen, expected(image, anomaly_map))
    assert seen.shape[1] == IN_CHANS[how]


def test_the_attention_can_be_pooled_by_its_maximum_or_by_learned_weights() -> None:
    features = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(1))
    largest = AttentionMap(3, "max")(features)
    torch.testing.assert_close(largest, torch.sigmoid(features.max(dim=1, keepdim=True).values))
    learned = AttentionMap(3, "conv")
    assert learned.conv is not None
    weight, bias = learned.conv.weight[0, :, 0, 0], learned.conv.bias
    by_hand = torch.sigmoid(torch.einsum("bchw,c->bhw", features, weight) + bias)
    torch.testing.assert_close(learned(features)[:, 0], by_hand)


def test_standardized_attention_has_contrast_however_flat_the_features_are() -> None:
    flat = 5 + 0.01 * torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    assert AttentionMap(3)(flat).std() < 0.001
    logits = torch.logit(AttentionMap(3, standardize=True)(flat))
    torch.testing.assert_close(logits.mean(dim=(1, 2, 3)), torch.zeros(2), atol=1e-3, rtol=0)
    assert (logits.std(dim=(1, 2, 3)) > 0.9).all()
    assert torch.isfinite(AttentionMap(3, standardize=True)(torch.zeros(1, 3, 8, 8))).all()


@pytest.mark.parametrize(("how", "expected"), [("add", 2.5), ("multiply", 1.5)])
def test_other_fusions_serve_ablation(how: Fuse, expected: float) -> None:
    attention = torch.full((1, 1, 2, 2), 0.5)
    steered = steer(torch.full((1, 2, 2, 2), 1.0), attention, torch.tensor(3.0), how)
    torch.testing.assert_close(steered, torch.full((1, 2, 2, 2), expected))


def test_a_negative_strength_counts_as_none_where_it_must_not_invert_and_can_come_back() -> None:
    network = small((0, 3), learn_strength="positive", strength=-0.5)
    assert network.named_strengths() == {"A1": 0.0, "A4": 0.0}
    network(*inputs(4)).adn.sum().backward()
    assert network.strength.grad is not None
    assert (network.strength.grad != 0).all()


def test_a_learned_strength_is_one_parameter_per_point() -> None:
    fixed, learned = small((0, 3)), small((0, 3), learn_strength="free", strength=0.5)
    count: Callable[[LEANet], int] = lambda net: sum(p.numel() for p in net.parameters())  # noqa: E731
    assert count(learned) == count(fixed) + 2
    assert isinstance(learned.strength, nn.Parameter)
    assert learned.strength.tolist() == [0.5, 0.5]
    learned(*inputs(4)).adn.sum().backward()
    assert learned.strength.grad is not None
    assert (learned.strength.grad != 0).all()


def test_each_point_has_its_own_strength() -> None:
    network = LEANet(Plain((2, 4, 8)), ConstantAAN(), (0, 2))
    network.strength.copy_(torch.tensor([0.0, 3.0]))
    output = network(*inputs())
    assert torch.equal(output.after[0], output.before[0])
    torch.testing.assert_close(output.after[1], 2.5 * output.before[1])


@pytest.mark.parametrize(("aan", "parameters"), [
    (MobileNetAAN, 14_207_300), (ResNetAAN, 16_079_172),
])  # fmt: skip
def test_the_parameter_counts_are_those_of_the_specification(
    aan: Callable[..., Staged], parameters: int
) -> None:
    with torch.device("meta"):
        network = LEANet(ResNet(18, 3, 2), aan(1, 2), (0,))
    assert sum(p.numel() for p in network.parameters()) == parameters


@torch.no_grad()
def test_the_exported_program_gives_the_same() -> None:
    network = LEANet(TimmStages("mobilenetv3_small_050"), MobileNetAAN(), (1, 3)).eval()
    image, anomaly_map = inputs()
    program = torch.export.export(network, (image, anomaly_map))
    got, expected = program.module()(image, anomaly_map), network(image, anomaly_map)
    torch.testing.assert_close(got.adn, expected.adn, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got.aan, expected.aan, rtol=1e-4, atol=1e-5)


def test_attention_of_another_size_is_resized_to_the_features() -> None:
    features = torch.ones(1, 2, 4, 6)
    attention = torch.tensor([[[[0.0, 1.0]]]])
    steered = steer(features, attention, torch.tensor(1.0))
    expected = torch.nn.functional.interpolate(attention, (4, 6), mode="bilinear")
    torch.testing.assert_close(steered, (1 + expected).expand_as(features))
    assert steered[0, 0, 0, 0] == 1
    assert steered[0, 0, 0, -1] == 2
    network = LEANet(Plain((2, 4, 8)), ConstantAAN(shrink=2), (1,))
    assert network(*inputs()).after[0].shape == (2, 4, 16, 16)


# --- the map's expectation as the start of the log-odds ------------------------------------------


def used_prior() -> MapPrior:
    """A prior that is used to somewhat darker maps than those of `inputs`."""
    prior, (_, normal) = MapPrior(), inputs(9)
    prior.fit(prior.score(0.9 * normal))
    return prior


@pytest.mark.parametrize("points", [(), (3,)])
def test_the_logit_begins_with_what_the_map_expects(points: tuple[int, ...]) -> None:
    prior, (image, anomaly_map) = used_prior(), inputs()
    with torch.no_grad():
        plain = small(points).eval()(image, anomaly_map)
        begun = small(points, prior=prior).eval()(image, anomaly_map)
    assert plain.prior is None
    assert begun.prior is not None
    assert begun.prior.abs().min() > 0
    assert torch.equal(begun.prior, prior(anomaly_map))
    assert torch.equal(begun.adn, plain.adn + begun.prior[:, None])
    assert plain.aan is not None
    assert begun.aan is not None
    assert torch.equal(begun.aan, plain.aan)


def test_of_a_softmax_pair_the_anomalous_logit_begins_with_it() -> None:
    image, anomaly_map = inputs()
    network = LEANet(TwoLogits((2, 4)), None, (), prior=used_prior())
    output = network(image, anomaly_map)
    assert output.prior is not None
    plain = network.adn(image)
    assert torch.equal(output.adn[:, 0], plain[:, 0])
    assert torch.equal(output.adn[:, 1], plain[:, 1] + output.prior)


def test_level_and_spread_of_the_prior_are_stored_and_not_trained() -> None:
    network, other = small((3,), prior=used_prior()), small((3,), prior=MapPrior())
    other.load_state_dict(network.state_dict())
    assert other.prior is not None
    assert float(other.prior.level) != 0
    image, anomaly_map = inputs()
    with torch.no_grad():
        expected = network.eval()(image, anomaly_map).adn
        assert torch.equal(other.eval()(image, anomaly_map).adn, expected)
    assert not any("prior" in name for name, _ in network.named_parameters())
