"""Sizes against the published ones; attention against a Grad-CAM written out here."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision.models import resnet18

from leanet.networks.cavga import Cavga, Inside, ResidualDecoder, UpBlock, has_closed_form
from leanet.ops.cavga import attention, expansion, guidance, missing

SIDES = {"R": 64, "D": 32}  # px; a grid of 2 x 2
ROWS = [(latent, weak) for latent in ("conv", "flat") for weak in (False, True)]
all_rows = pytest.mark.parametrize(("latent", "weak"), ROWS)  # of the table of closed forms


@pytest.fixture
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def count(*modules: nn.Module | None) -> int:
    return sum(p.numel() for module in modules if module for p in module.parameters())


def empty(*words: Any, **options: Any) -> Cavga:
    """A network without numbers, to count and to measure."""
    with torch.device("meta"):
        return Cavga(*words, **options)


def shapes(kind: Any, latent: Any, side: int, **options: Any) -> Inside:
    """What a network makes of two images, without computing it."""
    with FakeTensorMode():
        inside: Inside = Cavga(kind, latent, side, **options)(torch.empty(2, 3, side, side))
    return inside


@functools.cache
def _made(dtype: torch.dtype, kind: Any, latent: Any, options: tuple[Any, ...]) -> Cavga:
    torch.manual_seed(0)
    network = Cavga(kind, latent, SIDES[kind], **{"latent_channels": 6, **dict(options)})
    for name, tensor in network.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif name.endswith(("bias", "running_mean")):
            tensor.normal_(0, 0.1)
    for layer in (network.mu, network.logvar):  # larger than at the start: visible maps
        nn.init.normal_(layer.weight, 0, 0.1)
    if network.head is not None:
        nn.init.normal_(network.head[-1].weight, 0, 0.5)
    return network.eval()


def made(kind: Any, latent: Any, **options: Any) -> Cavga:
    """A small network with random weights, biases and statistics of its norms included, in
    evaluation mode."""
    key = tuple(sorted(options.items()))
    return copy.deepcopy(_made(torch.get_default_dtype(), kind, latent, key))


def twin(network: Cavga, path: Any, **options: Any) -> Cavga:
    """The same network on another path."""
    other = Cavga(
        network.kind,
        network.latent,
        SIDES[network.kind],
        latent_channels=6,
        weak=network.head is not None,
        path=path,
        **options,
    )
    other.load_state_dict(network.state_dict())
    return other.train(network.training)


def images(network: Cavga, num: int = 2) -> Tensor:
    side = SIDES[network.kind]
    return torch.rand(num, 3, side, side, generator=torch.Generator().manual_seed(1))


def noise_like(mu: Tensor) -> Tensor:
    return torch.randn(mu.shape, generator=torch.Generator().manual_seed(2))


def grad_cam(network: Cavga, image: Tensor, noise: Tensor | None = None) -> Tensor:
    """Plain Grad-CAM without ReLU, one image at a time: raw maps [B, T, h, w]."""
    maps = []
    for index, one in enumerate(image):
        inside = network(one[None], None if noise is None else noise[index : index + 1])
        features = inside.features.detach().requires_grad_()
        seen = features if network.latent == "conv" else features.flatten(1)
        mu = network.mu(seen)
        if network.head is None:
            target, scores = features, [mu.sum()]
        elif network.latent == "conv":
            target = inside.z.detach().requires_grad_()
            scores = list(network.head(target.flatten(1))[0])
        else:
            target, scores = features, list(network.head(mu)[0])
        own = []
        for score in scores:
            (gradient,) = torch.autograd.grad(score, target, retain_graph=True)
            alpha = gradient[0].mean(dim=(1, 2))
            own.append(torch.einsum("k,khw->hw", alpha, target[0].detach()))
        maps.append(torch.stack(own))
    return torch.stack(maps)


# sizes


def test_the_parts_of_r_have_the_published_sizes() -> None:
    network = empty("R", "conv", 256)
    assert count(network.encoder) == 11_176_512
    assert count(network.mu) == count(network.logvar) == 65_664
    assert count(network.entry) == 66_048
    assert [count(block) for block in network.decoder] == [
        *(1_901_568, 475_648, 119_040, 29_824, 7_488),
        435,
    ]
    assert count(network.entry, network.decoder) == 2_600_051
    assert count(network) == 13_907_891


@pytest.mark.parametrize("side", [64, 256])
def test_the_parts_of_d_have_the_published_sizes(side: int) -> None:
    network = empty("D", "conv", side)
    assert count(network.encoder) == 2_757_376
    assert count(network.mu, network.logvar) == 131_328
    assert count(network.entry) == 66_560
    assert count(network.entry, network.decoder) == 2_823_040
    assert count(network) == 5_711_744


@pytest.mark.parametrize(
    ("kind", "side", "parameters"),
    [("R", 256, 26_326_451), ("D", 64, 8_668_032), ("D", 256, 55_976_832)],
)
def test_networks_with_a_flat_latent_have_the_published_sizes(
    kind: Any, side: int, parameters: int
) -> None:
    assert count(empty(kind, "flat", side)) == parameters


@pytest.mark.parametrize(
    ("words", "parameters"),
    [
        (("R", "conv", 256), 16_386),
        (("D", "conv", 256), 65_538),
        (("D", "conv", 64), 4_098),
        (("R", "flat", 256), 258),
        (("D", "flat", 64), 258),
    ],
)
def test_the_head_has_the_published_size(words: Any, parameters: int) -> None:
    network = empty(*words, weak=True)
    assert count(network.head) == parameters
    assert count(network) - count(empty(*words)) == parameters


def test_without_the_pool_the_grid_is_twice_as_fine_and_a_block_less() -> None:
    network = empty("R", "conv", 256, stem_pool=False)
    assert count(network.encoder) == 11_176_512
    assert [count(block) for block in network.decoder][:-1] == [1_901_568, 475_648, 119_040, 29_824]
    assert count(network.decoder[-1]) == 3 * (32 * 9 + 1)
    inside = shapes("R", "conv", 256, stem_pool=False)
    assert inside.mu.shape == (2, 128, 16, 16)
    assert inside.logits.shape == (2, 3, 256, 256)


def test_a_hidden_layer_of_the_head_is_one_more() -> None:
    network = empty("D", "conv", 64, weak=True, head_hidden=10, path="autograd")
    assert count(network.head) == (128 * 16 + 1) * 10 + (10 + 1) * 2


@pytest.mark.parametrize(
    ("kind", "side", "weak"),
    [("R", 64, True), ("R", 256, False), ("D", 64, False), ("D", 128, True), ("D", 256, True)],
)
def test_shapes_at_every_side(kind: Any, side: int, weak: bool) -> None:
    grid = side // (32 if kind == "R" else 16)
    inside = shapes(kind, "conv", side, weak=weak)
    assert inside.features.shape == (2, 512, grid, grid)
    assert inside.mu.shape == inside.logvar.shape == inside.z.shape == (2, 128, grid, grid)
    assert inside.logits.shape == (2, 3, side, side)
    assert inside.attention.shape == (2, 2 if weak else 1, grid, grid)
    assert (inside.classes is not None) == weak
    assert inside.classes is None or inside.classes.shape == (2, 2)


@pytest.mark.parametrize(("kind", "side"), [("R", 128), ("D", 64)])
def test_shapes_with_a_flat_latent(kind: Any, side: int) -> None:
    grid = side // (32 if kind == "R" else 16)
    inside = shapes(kind, "flat", side, weak=True)
    assert inside.mu.shape == inside.logvar.shape == inside.z.shape == (2, 128)
    assert inside.logits.shape == (2, 3, side, side)
    assert inside.attention.shape == (2, 2, grid, grid)


@pytest.mark.parametrize(("kind", "pool", "wrong"), [("R", True, 100), ("R", True, 48)])
@pytest.mark.parametrize("latent", ["conv", "flat"])
def test_a_side_that_does_not_fit_is_refused(
    kind: Any, latent: Any, pool: bool, wrong: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(*given: Any) -> None:
        pytest.fail("layers were made first")

    monkeypatch.setattr("leanet.networks.cavga.ResnetEncoder", build)
    with pytest.raises(ValueError, match=f"{wrong}.* multiple of 32"):
        Cavga(kind, latent, wrong, stem_pool=pool)


@pytest.mark.parametrize("wrong", [0, 8, 100])
def test_a_side_for_sixteenths_is_a_multiple_of_16(wrong: int) -> None:
    for kind, pool in (("D", True), ("D", False), ("R", False)):
        with pytest.raises(ValueError, match=f"{wrong}.* multiple of 16"):
            empty(kind, "conv", wrong, stem_pool=pool)
        assert empty(kind, "conv", 48, stem_pool=pool).grid == 3


# the layers


def test_the_encoder_is_the_known_resnet_18() -> None:
    torch.manual_seed(0)
    known = resnet18(weights=None).eval()
    network = made("R", "conv")
    own = {name: v for name, v in known.state_dict().items() if not name.startswith("fc")}
    assert network.encoder.state_dict().keys() == own.keys()
    network.encoder.load_state_dict(own)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    sd = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    x = (images(network) - mean) / sd
    with torch.no_grad():
        for name, layer in known.named_children():
            x = layer(x) if name not in ("avgpool", "fc") else x
        torch.testing.assert_close(network(images(network)).features, x)


def test_an_up_block_doubles_the_side_beside_a_skip_of_the_enlarged_input() -> None:
    torch.manual_seed(0)
    block, x = UpBlock(4, 4).eval(), torch.randn(1, 4, 3, 3)
    nn.init.zeros_(block.bn2.weight)
    nearest = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    assert torch.equal(block(x), nearest.relu())
    assert isinstance(block.skip, nn.Identity)
    assert isinstance(UpBlock(4, 2).skip, nn.Conv2d)


def test_the_residual_decoder_ends_in_logits_of_both_signs() -> None:
    torch.manual_seed(0)
    logits = ResidualDecoder(2).eval()(torch.randn(1, 512, 4, 4))
    assert logits.shape == (1, 3, 16, 16)
    assert logits.min() < 0 < logits.max()


def test_r_sees_imagenet_units_and_d_the_range_from_minus_1_to_1() -> None:
    for kind, low, high in (("R", (0 - 0.485) / 0.229, (1 - 0.485) / 0.229), ("D", -1.0, 1.0)):
        seen: list[Tensor] = []
        network = made(kind, "conv")
        first = next(one for one in network.encoder.modules() if isinstance(one, nn.Conv2d))
        first.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given[0]))
        with torch.no_grad():
            network(
                torch.stack(
                    [torch.zeros_like(images(network)[0]), torch.ones_like(images(network)[0])]
                )
            )
        assert float(seen[0][0, 0, 0, 0]) == pytest.approx(low)
        assert float(seen[0][1, 0, 0, 0]) == pytest.approx(high)


def test_the_image_of_d_is_that_of_a_tanh() -> None:
    network = made("D", "conv")
    with torch.no_grad():
        inside = network(images(network))
        plain = network.decoder(network.entry(inside.mu))
    torch.testing.assert_close(inside.logits.sigmoid(), (plain.tanh() + 1) / 2)
    assert plain.std() > 1e-3


@all_rows
def test_z_is_the_mean_without_noise_and_spread_by_the_variance_with_it(
    latent: Any, weak: bool
) -> None:
    network = made("D", latent, weak=weak)
    with torch.no_grad():
        still = network(images(network))
        assert torch.equal(still.z, still.mu)
        noise = noise_like(still.mu)
        moved = network(images(network), noise)
    torch.testing.assert_close(moved.z, moved.mu + noise * (moved.logvar / 2).exp())
    assert not torch.equal(moved.logits, still.logits)


def test_the_log_variance_stays_within_10() -> None:
    network = made("D", "conv")
    nn.init.normal_(network.logvar.weight, 0, 1e4)
    with torch.no_grad():
        inside = network(images(network), noise_like(network(images(network)).mu))
    assert inside.logvar.min() == -10
    assert inside.logvar.max() == 10
    assert inside.logits.isfinite().all()


def test_the_head_sees_z() -> None:
    network = made("D", "conv", weak=True)
    assert network.head is not None
    with torch.no_grad():
        mu = network(images(network)).mu
        inside = network(images(network), noise_like(mu))
        torch.testing.assert_close(inside.classes, network.head(inside.z.flatten(1)))


# attention


@all_rows
@pytest.mark.usefixtures("double")
def test_both_paths_are_grad_cam_in_double_precision(latent: Any, weak: bool) -> None:
    network = made("D", latent, weak=weak)
    noise = torch.randn(
        2, *network.latent_shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )
    expected = grad_cam(network, images(network), noise)
    assert expected.std() > 1e-3
    for one in (network, twin(network, "autograd")):
        got = one(images(network), noise).attention.detach()
        error = (got - expected).abs().max() / expected.abs().max()
        assert float(error) < 1e-12


@pytest.mark.parametrize(
    ("kind", "latent", "weak"), [("R", "conv", False), *(("D", *row) for row in ROWS)]
)
def test_the_closed_form_is_the_gradient_in_single_precision(
    kind: Any, latent: Any, weak: bool
) -> None:
    network = made(kind, latent, weak=weak)
    other = twin(network, "autograd")
    got, expected = (one.train()(images(network)).attention for one in (network, other))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["R", "D"])
@pytest.mark.usefixtures("double")
def test_the_raw_map_is_the_channel_sum_of_mu_less_that_of_the_biases(kind: Any) -> None:
    network = made(kind, "conv")
    inside = network(images(network))
    expected = inside.mu.sum(dim=1, keepdim=True) - network.mu.bias.sum()
    assert network.mu.bias.abs().sum() > 0.1
    torch.testing.assert_close(inside.attention, expected, rtol=1e-12, atol=1e-12)


@all_rows
def test_channel_weights_are_one_row_per_map(latent: Any, weak: bool) -> None:
    rows = 2 if weak else 1
    channels = 6 if weak and latent == "conv" else 512
    assert made("D", latent, weak=weak).alpha().shape == (rows, channels)


@pytest.mark.parametrize("latent", ["conv", "flat"])
def test_unsupervised_and_flat_attention_has_no_noise_in_it(latent: Any) -> None:
    for weak in (False, True) if latent == "flat" else (False,):
        for path in ("closed", "autograd"):
            network = made("D", latent, weak=weak, path=path)
            still = network(images(network))
            moved = network(images(network), noise_like(still.mu))
            torch.testing.assert_close(moved.attention, still.attention)


def gradients(network: Cavga, loss: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*network.named_parameters(), strict=True)
    given = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    return dict(zip(names, given, strict=True))


@pytest.mark.parametrize(("kind", "path"), [("R", "closed"), ("D", "closed"), ("D", "autograd")])
def test_the_expansion_reaches_the_weights_of_mu_and_the_encoder_and_nothing_else(
    kind: Any, path: Any
) -> None:
    network = made(kind, "conv", path=path).train()
    found = gradients(network, expansion(missing(network(images(network)).attention)))
    reached = {name.partition(".")[0] for name, one in found.items() if one.abs().max() > 0}
    assert reached == {"encoder", "mu"}
    assert found["mu.weight"].abs().max() > 0
    assert found["mu.bias"].abs().max() == 0


@all_rows
@pytest.mark.usefixtures("double")
def test_both_paths_give_the_same_gradients(latent: Any, weak: bool) -> None:
    network = made("D", latent, weak=weak).train()
    other = twin(network, "autograd")
    noise = torch.randn(2, *network.latent_shape)
    both = []
    for one in (network, other):
        raw = one(images(network), noise).attention
        loss = expansion(missing(raw))
        if weak:
            loss = guidance(missing(raw[:, :1]), attention(raw[:, 1:]), torch.ones(2))
        both.append(gradients(one, loss))
    for name, expected in both[0].items():
        scale = max(float(expected.abs().max()), 1e-12)
        torch.testing.assert_close(both[1][name], expected, rtol=1e-8, atol=1e-9 * scale)
    named = "head.0.weight" if weak else "mu.weight"
    assert both[0][named].abs().max() > 0


@pytest.mark.usefixtures("double")
def test_the_gradient_on_the_weights_of_mu_is_what_calculus_says() -> None:
    network = made("D", "conv").train()
    inside = network(images(network))
    found = gradients(network, expansion(missing(inside.attention)))["mu.weight"]
    mapped = attention(inside.attention)  # dL/dW[c, k] = -mean over images, places of A (1 - A) F_k
    expected = -(mapped * (1 - mapped) * inside.features).mean(dim=(0, 2, 3))
    torch.testing.assert_close(found.flatten(1), expected.expand(6, -1))


def test_detached_channel_weights_would_be_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    network = made("D", "conv").train()
    whole = Cavga.alpha
    monkeypatch.setattr(Cavga, "alpha", lambda self: whole(self).detach())
    found = gradients(network, expansion(missing(network(images(network)).attention)))
    assert found["mu.weight"].abs().max() == 0
    assert found["encoder.0.weight"].abs().max() > 0


@pytest.mark.parametrize("kind", ["R", "D"])
@pytest.mark.parametrize("weak", [False, True])
def test_the_layer_before_the_last_has_a_finer_map_of_its_own_gradient(
    kind: Any, weak: bool
) -> None:
    network = made(kind, "conv", weak=weak, path="autograd", layer="previous")
    inside = network(images(network))
    seen: list[Tensor] = []
    layer = network.encoder.layer3 if kind == "R" else network.encoder[-4]  # type: ignore[index]
    layer.register_forward_hook(lambda *given: seen.append(given[-1]))
    mu = network(images(network)).mu
    scores = [mu.sum()]
    if network.head is not None:
        scores = list(network.head(mu.flatten(1)).sum(dim=0))
    assert inside.attention.shape == (2, len(scores), 4, 4)
    assert network.map_grid == 4
    for index, score in enumerate(scores):
        (gradient,) = torch.autograd.grad(score, seen[0], retain_graph=True)
        alpha = gradient.mean(dim=(2, 3))
        expected = torch.einsum("bk,bkhw->bhw", alpha, seen[0])
        torch.testing.assert_close(inside.attention[:, index], expected)


def test_a_hidden_layer_makes_the_channel_weights_differ_by_image() -> None:
    network = made("D", "conv", weak=True, head_hidden=16, path="autograd")
    assert network.head is not None
    nn.init.normal_(network.head[0].weight, 0, 0.5)
    expected = grad_cam(network, images(network))
    torch.testing.assert_close(network(images(network)).attention, expected)
    z = network(images(network)).z.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(network.head(z.flatten(1))[:, 1].sum(), z)
    alpha = gradient.mean(dim=(2, 3))
    assert not torch.allclose(alpha[0], alpha[1])


@pytest.mark.parametrize("options", [{"layer": "previous"}, {"weak": True, "head_hidden": 4}])
def test_the_closed_form_is_refused_where_there_is_none(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no closed form"):
        empty("D", "conv", 64, **options)
    with pytest.raises(ValueError, match="differ by image"):
        empty("D", "conv", 64, path="autograd", **options).alpha()
    known = {"weak": False, "head_hidden": 0, "layer": "last", **options}
    assert not has_closed_form(**known)


def test_the_closed_form_is_there_for_every_usual_head() -> None:
    assert has_closed_form(weak=False, head_hidden=0, layer="last")
    assert has_closed_form(weak=True, head_hidden=0, layer="last")
    assert has_closed_form(weak=False, head_hidden=8, layer="last")  # there is no head


# while scoring

ODD: list[dict[str, Any]] = [
    {},
    {"path": "autograd"},
    {"path": "autograd", "weak": True},
    {"path": "autograd", "layer": "previous"},
    {"path": "autograd", "weak": True, "head_hidden": 8},
]


def outputs(inside: Inside) -> list[Tensor]:
    return [value for value in inside if value is not None]


@pytest.mark.parametrize(
    ("options", "off"), [(ODD[1], torch.no_grad), *((one, torch.inference_mode) for one in ODD)]
)
def test_scoring_works_where_gradients_are_switched_off(options: Any, off: Any) -> None:
    network = made("D", "conv", **options)
    expected = outputs(network(images(network)))
    with off():
        got = outputs(network(images(network)))
        assert torch.is_inference_mode_enabled() == (off is torch.inference_mode)
        assert (got[-1] * 2).sum().isfinite()
    for one, two in zip(got, expected, strict=True):
        assert not one.requires_grad
        torch.testing.assert_close(one, two)
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("options", ODD)
def test_an_image_has_the_same_attention_alone_and_in_any_batch(options: Any) -> None:
    network = made("D", "conv", **options)
    with torch.inference_mode():
        together = outputs(network(images(network, 3)))
        alone = [outputs(network(one[None])) for one in images(network, 3)]
    for index, expected in enumerate(together):
        got = torch.cat([one[index] for one in alone])
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_a_frozen_encoder_still_has_attention() -> None:
    network = made("D", "conv", path="autograd").requires_grad_(False)
    expected = twin(network, "closed")(images(network)).attention
    torch.testing.assert_close(network(images(network)).attention, expected.detach())


@pytest.mark.parametrize(("kind", "path"), [("R", "closed"), ("D", "autograd")])
def test_a_black_image_gives_finite_values_in_both_modes(kind: Any, path: Any) -> None:
    network = made(kind, "conv", path=path)
    image = torch.zeros_like(images(network))
    for mode in (False, True):
        inside = network.train(mode)(image)
        assert all(one.isfinite().all() for one in outputs(inside))
        for how in ("sigmoid", "relu_max", "minmax"):
            assert attention(inside.attention, how).isfinite().all()
        found = gradients(network, expansion(missing(inside.attention)))
        assert all(one.isfinite().all() for one in found.values())


def test_sampling_does_not_touch_the_weights_of_the_norms_in_evaluation() -> None:
    network = made("D", "conv")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with torch.no_grad():
        network(images(network), noise_like(network(images(network)).mu))
    assert all(torch.equal(before[name], v) for name, v in network.state_dict().items())


def test_a_weak_network_starts_undecided() -> None:
    torch.manual_seed(0)
    network = Cavga("D", "conv", 32, weak=True)
    mapped = attention(network(images(network)).attention.detach())
    assert (mapped - 0.5).abs().max() < 0.1
    loss = guidance(1 - mapped[:, :1], mapped[:, 1:], torch.ones(2))
    assert float(loss) == pytest.approx(1.0, abs=0.02)
