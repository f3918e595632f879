"""The correction against scikit-learn, against its own objective by autograd, and its promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import softplus

from leanet.ops.correction import FLAT, TRUST, Correction, cross_corrected, fit_correction
from leanet.records import ANOMALOUS

FloatArray = NDArray[np.float64]
Images = tuple[FloatArray, FloatArray, NDArray[np.int64]]


def images(normal: int = 30, defects: int = 5, *, width: int = 6, parts: int = 1) -> Images:
    """Prior scores [N, K], features [N, D] and labels [N]; the normal images come first."""
    rng = np.random.default_rng(7)
    label = np.repeat([0, 1], [normal, defects])
    z = rng.normal(size=(len(label), parts)) + 1.5 * label[:, None]
    phi = rng.normal(size=(len(label), width)) * rng.uniform(0.5, 2, width) + 3
    phi[:, 0] += label
    return z, phi, label


def standard(told: Correction, phi: FloatArray) -> FloatArray:
    result: FloatArray = (phi - told.mean) / told.spread
    return result


@pytest.mark.parametrize("strength", [0.03, 0.3, 3.0])
def test_without_a_prior_it_is_the_logistic_regression_of_scikit_learn(strength: float) -> None:
    z, phi, label = images()
    told = fit_correction(0 * z, phi, label, strength=strength)
    inputs = (phi - phi[label == 0].mean(0)) / phi[label == 0].std(0) / np.sqrt(phi.shape[1])
    weights = np.where(label == ANOMALOUS, 1.0, label.sum() / (label == 0).sum())
    other = LogisticRegression(C=1 / strength, tol=1e-10, max_iter=10_000)
    other.fit(inputs, label, sample_weight=weights)
    np.testing.assert_allclose(told.weight, other.coef_[0], atol=1e-5)
    assert told.bias == pytest.approx(float(other.intercept_[0]), abs=1e-5)
    np.testing.assert_allclose(told(0 * z, phi), other.decision_function(inputs), atol=1e-5)


@pytest.mark.parametrize("defects", [1, 3, 30])
@pytest.mark.parametrize(("parts", "factor"), [(1, 1), (3, 1), (1, -3), (2, -3)])
def test_the_gradient_of_the_documented_objective_is_zero(
    defects: int, parts: int, factor: float
) -> None:
    """But for that of a factor at its bound."""
    z, phi, label = images(defects=defects, parts=parts)
    z[:, -1] *= factor
    told = fit_correction(z, phi, label, strength=0.3)
    trust, weight, bias = (
        torch.tensor(value, dtype=torch.float64, requires_grad=True)
        for value in (told.trust, told.weight, told.bias)
    )
    log_odds = torch.tensor(z) @ trust + torch.tensor(standard(told, phi)) @ weight + bias
    num_normal = len(label) - defects
    loss = softplus(-log_odds[num_normal:]).sum()
    loss = loss + defects / num_normal * softplus(log_odds[:num_normal]).sum()
    loss = (
        loss
        + 0.3 / 2 * weight.square().sum()
        + TRUST / 2 * (trust - torch.eye(1, parts)[0]).square().sum()
    )
    gradients = torch.autograd.grad(loss, (trust, weight, bias))
    free = torch.tensor(told.trust > 0)
    assert all(float(g.abs().sum()) < 1e-4 for g in (gradients[0][free], *gradients[1:]))
    assert (gradients[0][~free] >= 0).all()  # at the bound, going on would mean a factor below 0


def test_a_prior_that_is_wrong_is_ignored_but_never_turned_round() -> None:
    z, phi, label = images(defects=30)
    told = fit_correction(np.concatenate([z, -3 * z], axis=1), phi, label)
    assert told.trust[0] > 0
    assert told.trust[1] == 0
    np.testing.assert_allclose(
        told(np.concatenate([z, -3 * z], axis=1), phi),
        told(np.concatenate([z, 9 * z], axis=1), phi),
    )


def test_the_order_of_the_images_does_not_matter() -> None:
    z, phi, label = images()
    order = np.random.default_rng(0).permutation(len(label))
    one = fit_correction(z, phi, label)
    other = fit_correction(z[order], phi[order], label[order])
    np.testing.assert_allclose(one(z, phi), other(z, phi), atol=1e-5)


def test_both_classes_weigh_as_much_however_many_normal_images_there_are() -> None:
    z, phi, label = images()
    again = np.concatenate([np.arange(len(label)), np.flatnonzero(label == 0)])
    one, other = fit_correction(z, phi, label), fit_correction(z[again], phi[again], label[again])
    np.testing.assert_allclose(one(z, phi), other(z, phi), atol=1e-5)


@pytest.mark.parametrize("parts", [1, 2])
def test_without_defects_the_prior_alone_decides(parts: int) -> None:
    z, phi, label = images(defects=0, parts=parts)
    told = fit_correction(z, phi, label)
    np.testing.assert_array_equal(told(z, phi), z[:, 0])


def test_what_the_prior_explains_teaches_nothing() -> None:
    z, phi, label = images()
    explained = np.where(label == ANOMALOUS, 20.0, -20.0)[:, None]
    surprised = fit_correction(0 * z, phi, label)
    told = fit_correction(explained, phi, label)
    assert np.linalg.norm(told.weight) < 0.01 * np.linalg.norm(surprised.weight)
    assert told.trust[0] == pytest.approx(1, abs=0.01)


def test_one_defect_moves_the_answer_and_thirty_move_it_further() -> None:
    rng = np.random.default_rng(3)
    z, phi = 0.1 * rng.normal(size=(60, 1)), rng.normal(size=(60, 6))
    label = np.repeat([0, 1], 30)
    phi[30:, 0] += 4  # the map has missed the defects, the first feature has not
    unseen_by_the_map = np.eye(6)[[0]] * 4
    moved = []
    for k in (0, 1, 5, 30):
        chosen = slice(0, 30 + k)
        told = fit_correction(z[chosen], phi[chosen], label[chosen])
        moved.append(float(told([[0.0]], unseen_by_the_map)[0]))
    assert moved == sorted(moved)
    assert 0 == moved[0] < moved[1] < moved[3] / 2


def test_more_strength_asks_for_more_evidence() -> None:
    z, phi, label = images()
    sizes = [
        float(np.linalg.norm(fit_correction(z, phi, label, strength=s).weight))
        for s in (0.03, 0.3, 3.0, 3e6)
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 1e-5


def test_the_unit_of_the_features_does_not_matter() -> None:
    z, phi, label = images()
    one, other = fit_correction(z, phi, label), fit_correction(z, 1e-4 * phi - 7, label)
    np.testing.assert_allclose(one(z, phi), other(z, 1e-4 * phi - 7), atol=1e-4)


def test_strength_means_the_same_for_features_that_are_given_twice() -> None:
    z, phi, label = images()
    twice = np.concatenate([phi, phi], axis=1)
    one, other = fit_correction(z, phi, label), fit_correction(z, twice, label)
    np.testing.assert_allclose(one(z, phi), other(z, twice), atol=1e-4)


def test_a_feature_that_hardly_varies_counts_as_varying_by_a_share_of_the_others() -> None:
    z, phi, label = images()
    phi[:, 2] = 5.0
    told = fit_correction(z, phi, label)
    spread = phi[label == 0].std(axis=0)
    expected = np.maximum(spread, FLAT * spread.mean()) * np.sqrt(phi.shape[1])
    np.testing.assert_allclose(told.spread, expected)
    assert expected[2] > 100 * spread[2]
    assert told.weight[2] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("num_normal", [1, 3])
def test_equal_normal_images_still_give_numbers_in_single_precision(num_normal: int) -> None:
    z, phi, label = images(normal=num_normal, defects=2)
    phi[:num_normal] = phi[0]
    told = fit_correction(z, phi, label)
    inputs = (torch.tensor(phi) - torch.tensor(told.mean)).float() / torch.tensor(told.spread)
    log_odds = inputs.float() @ torch.tensor(told.weight).float()
    assert torch.isfinite(log_odds).all()
    assert np.abs(told.weight).max() > 1e-3


@pytest.mark.parametrize("changed", range(3))
def test_values_that_cannot_be_are_refused(changed: int) -> None:
    z, phi, label = images()
    broken = z.copy(), phi.copy(), label.copy()
    broken[changed][0] = 2 if changed == 2 else np.nan
    with pytest.raises(ValueError, match=r"labels must be 0 or 1|not all finite"):
        fit_correction(*broken)


def test_arguments_that_do_not_fit_are_refused() -> None:
    z, phi, label = images()
    with pytest.raises(ValueError, match=r"\[N, K\].*got \(34, 1\), \(35, 6\) and \(35,\)"):
        fit_correction(z[1:], phi, label)
    with pytest.raises(ValueError, match=r"\(35,\), \(35, 6\)"):
        fit_correction(z[:, 0], phi, label)
    with pytest.raises(ValueError, match="at least one 0"):
        fit_correction(z, phi, np.ones_like(label))
    with pytest.raises(ValueError, match="strength must be > 0, got 0"):
        fit_correction(z, phi, label, strength=0)


# --- scores by corrections that have not seen the image -----------------------------------------


PARTS = [[*range(k, 30, 5), 30 + k] for k in range(5)]  # six normal images and a defect each


@pytest.mark.parametrize("image", [3, 31])
def test_an_image_does_not_change_the_correction_that_judges_it(image: int) -> None:
    """Its score is then linear in its own features, which a fit to them would not be."""
    z, phi, label = images()
    scores = []
    for step in range(3):
        moved = phi.copy()
        moved[image] += 2.0 * step
        scores.append(cross_corrected(z, moved, label, PARTS)[image])
    assert scores[2] - scores[1] == pytest.approx(scores[1] - scores[0], abs=1e-9)
    assert scores[1] != scores[0]


@pytest.mark.parametrize(("judged", "same", "other"), [(3, 8, 9), (30, 31, 32)])
def test_images_of_its_part_do_not_either_and_those_of_others_do(
    judged: int, same: int, other: int
) -> None:
    z, phi, label = images()
    parts = [[*range(k, 30, 5)] for k in range(5)]
    parts[0] += [30, 31]
    parts[1] += [32, 33, 34]
    before = cross_corrected(z, phi, label, parts)[judged]
    for index, changes in ((same, False), (other, True)):
        moved = phi.copy()
        moved[index] += 5
        assert (cross_corrected(z, moved, label, parts)[judged] != before) == changes


def test_a_single_defect_has_no_score_and_all_normal_images_have_one() -> None:
    z, phi, label = images(defects=1)
    parts = [[*range(k, 30, 5)] for k in range(5)]
    parts[4].append(30)
    scores = cross_corrected(z, phi, label, parts)
    assert np.isnan(scores).tolist() == [False] * 30 + [True]


def test_defects_of_one_part_have_no_score() -> None:
    z, phi, label = images(defects=2)
    together = [[*range(15), 30, 31], [*range(15, 30)]]
    apart = [[*range(15), 30], [*range(15, 30), 31]]
    assert np.isnan(cross_corrected(z, phi, label, together)).nonzero()[0].tolist() == [30, 31]
    assert np.isfinite(cross_corrected(z, phi, label, apart)).all()


def test_normal_images_of_one_part_have_no_score() -> None:
    z, phi, label = images(defects=2)
    scores = cross_corrected(z, phi, label, [[*range(30), 30], [31]])
    assert np.isnan(scores).tolist() == [True] * 30 + [False] * 2


def test_without_defects_the_scores_are_those_of_the_prior() -> None:
    z, phi, label = images(defects=0)
    parts = [list(range(10)), list(range(10, 30))]
    np.testing.assert_array_equal(cross_corrected(z, phi, label, parts), z[:, 0])


def test_scores_of_left_out_normal_images_are_those_of_new_ones() -> None:
    """Where there are more features than images a fit flatters its own normal images."""
    rng = np.random.default_rng(1)
    z, phi = np.zeros((545, 1)), rng.normal(size=(545, 200))
    label = np.repeat([0, 1, 0], [40, 5, 500])
    mine, new = slice(0, 45), slice(45, 545)
    parts = [list(range(k, 45, 5)) for k in range(5)]
    told = fit_correction(z[mine], phi[mine], label[mine], strength=0.03)
    left_out = cross_corrected(z[mine], phi[mine], label[mine], parts, strength=0.03)
    of_new, flattered = told(z[new], phi[new]).mean(), told(z[:40], phi[:40]).mean()
    assert flattered < of_new - 0.3
    assert left_out[:40].mean() > of_new - 0.05  # with fewer images, rather too careful


@pytest.mark.parametrize("parts", [[[0, 1]], [[0, 1, 2], [2, 3]], [[0, 1], [2, 4]]])
def test_parts_that_do_not_cover_the_images_once_are_refused(parts: list[list[int]]) -> None:
    z, phi, label = images(normal=3, defects=1)
    with pytest.raises(ValueError, match="each of the 4 images once"):
        cross_corrected(z, phi, label, parts)
