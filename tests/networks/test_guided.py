"""Guided attention: where it looks, what it adds up, and what never changes in it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from leanet.networks.guided import GuidedNet, pool
from leanet.networks.prior import MapPrior
from leanet.networks.timm_stages import TimmStages
from leanet.networks.vgg import VGG
from leanet.ops.correction import Correction, fit_correction

SIDE = 64


def network(temperature: float = 0.5) -> GuidedNet:
    """Random stages, used to some maps, without a correction."""
    torch.manual_seed(0)
    made = GuidedNet(TimmStages("mobilenetv3_small_050"), MapPrior(), temperature=temperature)
    normal = inputs(6, seed=1)[1]
    made.prior.fit(made.prior.score(normal))
    made.get_used_to(made.places(normal, torch.zeros(1, 1, SIDE // 8, SIDE // 8)).flatten(1))
    return made


def corrected(temperature: float = 0.5) -> tuple[GuidedNet, Correction]:
    """The network with a correction that says something."""
    made = network(temperature)
    image, drawn = inputs(8, seed=3)
    output = made(image, drawn)
    assert output.prior is not None
    phi = pool(output.after).double().numpy()
    told = fit_correction(output.prior.double().numpy()[:, None], phi, [0] * 5 + [1] * 3)
    made.take(told)
    return made, told


def joined_by_a_copy() -> GuidedNet:
    """The corrected network with a copy that has a say."""
    made, told = corrected()
    torch.manual_seed(1)
    made.join(TimmStages("mobilenetv3_small_050").train())
    made.get_used_to_tuned(0.5, 2.0)
    made.take(told._replace(trust=np.array([told.trust[0], 0.7])))
    return made


def inputs(batch: int = 3, seed: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(batch, 3, SIDE, SIDE, generator=generator)
    return image, 0.2 * torch.rand(batch, 1, SIDE, SIDE, generator=generator)


def test_the_attention_has_mean_one_at_every_stage() -> None:
    output = network()(*inputs())
    assert [tuple(m.shape) for m in output.attention] == [(3, 1, s, s) for s in (8, 4, 2)]
    for attention in output.attention:
        torch.testing.assert_close(attention.mean(dim=(1, 2, 3)), torch.ones(3))
        assert (attention >= 0).all()


def test_the_attention_is_the_softmax_of_the_places_of_the_map() -> None:
    made, (image, drawn) = network(temperature=0.7), inputs(1)
    places = drawn[0, 0].double().numpy().reshape(8, 8, 8, 8).mean(axis=(1, 3))
    normal = inputs(6, seed=1)[1].double().numpy().reshape(6, 8, 8, 8, 8).mean(axis=(2, 4))
    raised = np.exp((places - normal.mean()) / (0.7 * normal.std(ddof=1)))
    expected = 64 * raised / raised.sum()
    np.testing.assert_allclose(made(image, drawn).attention[0][0, 0], expected, rtol=1e-4)


def test_the_attention_moves_to_the_bright_place_and_follows_it() -> None:
    made, (image, drawn) = network(), inputs(1)
    for row, column in ((0, 0), (1, 1), (0, 1)):
        lit = drawn.clone()
        lit[..., 32 * row : 32 * row + 32, 32 * column : 32 * column + 32] += 0.1
        for attention in made(image, lit).attention:
            quarters = torch.nn.functional.adaptive_avg_pool2d(attention[0, 0][None], 2)[0]
            assert quarters.flatten().argmax() == 2 * row + column
            assert quarters[row, column] > 3.5  # of at most 4: nearly all of the weight


def test_the_features_are_multiplied_by_the_attention_and_not_passed_on() -> None:
    made, (image, drawn) = network(), inputs()
    output = made(image, drawn)
    features = made.adn.features(image)
    for stride, before, after, m in zip(
        (8, 16, 32), output.before, output.after, output.attention, strict=True
    ):
        last = max(k for k, s in enumerate(made.adn.strides) if s == stride)
        assert torch.equal(before, features[last])
        assert torch.equal(after, before * m)


def test_without_a_limit_to_the_temperature_it_is_plain_pooling() -> None:
    image, drawn = inputs()
    plain, guided = network(math.inf)(image, drawn), network()(image, drawn)
    torch.testing.assert_close(pool(plain.after), pool(plain.before))
    assert not torch.allclose(pool(guided.after), pool(guided.before), rtol=0.01)


def test_a_constant_map_is_plain_pooling() -> None:
    image, _ = inputs()
    output = network()(image, torch.full((3, 1, SIDE, SIDE), 0.3))
    torch.testing.assert_close(pool(output.after), pool(output.before))


def test_the_logit_is_what_the_correction_says() -> None:
    made, told = corrected()
    output = made(*inputs())
    assert output.prior is not None
    expected = told(output.prior[:, None].double(), pool(output.after).double())
    np.testing.assert_allclose(output.adn[:, 0], expected, atol=1e-4)
    assert output.aan is None


def test_before_it_is_corrected_the_prior_alone_decides() -> None:
    output = network()(*inputs())
    assert output.prior is not None
    assert torch.equal(output.adn[:, 0], output.prior)


def test_the_evidence_of_the_places_adds_up_to_the_logit() -> None:
    made, told = corrected()
    output = made(*inputs())
    assert output.prior is not None
    evidence = made.evidence(output)
    assert evidence.shape == (3, 1, 8, 8)
    total = evidence.mean(dim=(1, 2, 3)) + made.trust * output.prior + made.bias
    torch.testing.assert_close(total, output.adn[:, 0], rtol=1e-4, atol=1e-4)
    assert np.abs(told.weight).max() > 0
    assert evidence.std(dim=(2, 3)).min() > 0


def test_a_fine_tuned_copy_adds_its_standardized_logit() -> None:
    made, (alone, told) = joined_by_a_copy(), corrected()
    assert made.tuned is not None
    image, drawn = inputs()
    output, without = made(image, drawn), alone(image, drawn)
    assert output.tuned is not None
    assert output.tuned.shape == (3, 1, SIDE // 32, SIDE // 32)
    e = (made.tuned(image)[:, 0] - 0.5) / 2.0
    torch.testing.assert_close(output.tuned.mean(dim=(1, 2, 3)), e)
    torch.testing.assert_close(output.adn, without.adn + 0.7 * e[:, None])
    evidence = made.evidence(output)
    assert output.prior is not None
    total = evidence.mean(dim=(1, 2, 3)) + made.trust * output.prior + made.bias
    torch.testing.assert_close(total, output.adn[:, 0], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(evidence, alone.evidence(without))
    made.take(told)  # of a correction that knows of no copy, none is left
    torch.testing.assert_close(made(image, drawn).adn, without.adn)


def test_a_copy_whose_logit_is_no_mean_over_the_places_is_refused() -> None:
    with pytest.raises(ValueError, match="VGG has no linear head on the channels' means"):
        network().join(VGG(16, hidden=8))


def test_a_place_without_attention_is_no_evidence() -> None:
    made, _ = corrected(temperature=0.01)
    image, drawn = inputs(1)
    drawn[..., :32, :32] += 0.8
    evidence = made.evidence(made(image, drawn))[0, 0]
    assert evidence[:4, :4].abs().max() > 1e-2
    assert evidence[4:, 4:].abs().max() < 1e-6


def test_a_place_without_attention_gives_no_evidence() -> None:
    made, _ = corrected(temperature=0.05)
    image, drawn = inputs(1)
    drawn[:, :, :32] = 0.0
    drawn[:, :, 32:] = 1.0
    evidence = made.evidence(made(image, drawn))[0, 0]
    assert evidence[:4].abs().max() < 1e-3 < 0.1 < evidence[4:].abs().max()


def test_an_image_gets_the_same_answer_alone_and_in_a_batch() -> None:
    made, _ = corrected()
    image, drawn = inputs(5)
    together = made(image, drawn).adn
    alone = torch.cat([made(image[[k]], drawn[[k]]).adn for k in range(5)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_it_stays_in_evaluation_mode_and_its_statistics_do_not_move() -> None:
    made = joined_by_a_copy()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    made.train()
    assert not any(module.training for module in made.modules())
    first = made(*inputs()).adn
    assert torch.equal(first, made(*inputs()).adn)
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())
    assert any("running_mean" in name for name in before)


def test_nothing_is_left_to_a_gradient() -> None:
    made = joined_by_a_copy()
    assert not any(p.requires_grad for p in made.parameters())
    assert not made(*inputs()).adn.requires_grad


def test_the_answer_changes_with_the_image_where_a_gradient_is_asked_for() -> None:
    """Class activation maps need it."""
    made, _ = corrected()
    image, drawn = inputs(1)
    made(image.requires_grad_(), drawn).adn.sum().backward()
    assert image.grad is not None
    assert image.grad.abs().max() > 0


def test_what_was_learned_survives_a_file(tmp_path: Path) -> None:
    made, _ = corrected()
    save_file(made.state_dict(), tmp_path / "network.safetensors")
    torch.manual_seed(99)
    other = GuidedNet(TimmStages("mobilenetv3_small_050"), MapPrior())
    image, drawn = inputs()
    assert not torch.equal(other(image, drawn).adn, made(image, drawn).adn)
    other.load_state_dict(load_file(tmp_path / "network.safetensors"))
    assert torch.equal(other(image, drawn).adn, made(image, drawn).adn)


def test_the_points_have_the_names_of_lea_net() -> None:
    made = network()
    assert made.points == (2, 3, 4)
    assert made.named_strengths() == {}
    assert [made.adn.strides[k] for k in made.stages] == [8, 16, 32]


def test_a_stride_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match=r"stride 8, 64; the classifier has 2,.*none of 64"):
        GuidedNet(TimmStages("mobilenetv3_small_050"), MapPrior(), (8, 64))


@pytest.mark.parametrize("temperature", [0.0, -0.5, math.nan])
def test_a_temperature_that_is_none_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match=rf"temperature {temperature}: give a number > 0"):
        network(temperature)
