"""Attention transfer against numbers by hand, numpy and finite differences."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from leanet.ops.transfer import attention_vector, map_transfer_loss, transfer_loss


def features(*shape: int, seed: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def vector(values: np.ndarray) -> np.ndarray:
    """The same in numpy, of one image [C, h, w]."""
    q = (values**2).mean(axis=0).ravel()
    out: np.ndarray = q / np.sqrt((q**2).sum())
    return out


def test_two_positions_by_hand() -> None:
    """Mean squares 1.5 and 2 make the vector (0.6, 0.8)."""
    x = torch.tensor([[[[1.0, 2.0]], [[math.sqrt(2), 0.0]]]])  # [1, 2, 1, 2]
    torch.testing.assert_close(attention_vector(x), torch.tensor([[0.6, 0.8]]))


def test_the_vector_is_that_of_numpy_for_every_image_alone() -> None:
    x = features(3, 5, 4, 2)
    expected = np.stack([vector(image) for image in x.numpy()])
    np.testing.assert_allclose(attention_vector(x).numpy(), expected)


def test_the_size_of_the_features_does_not_count() -> None:
    x = features(2, 4, 3, 3)
    torch.testing.assert_close(attention_vector(x), attention_vector(7 * x))


def test_the_loss_sums_the_stages_and_means_over_the_positions() -> None:
    student = [features(2, 4, 3, 3), features(2, 8, 2, 2, seed=4)]
    teacher = [features(2, 5, 3, 3, seed=5), features(2, 8, 2, 2, seed=6)]
    terms = [
        np.mean([(vector(a) - vector(b)) ** 2 for a, b in zip(s.numpy(), t.numpy(), strict=True)])
        for s, t in zip(student, teacher, strict=True)
    ]
    loss = transfer_loss(student, teacher, beta=10.0)
    assert math.isclose(loss.item(), 10 * sum(terms), rel_tol=1e-9)
    assert math.isclose(transfer_loss(student, teacher).item(), 1000 * sum(terms), rel_tol=1e-9)


def test_a_network_that_looks_where_the_teacher_looks_loses_nothing() -> None:
    x = [features(2, 4, 4, 4)]
    assert transfer_loss([3 * x[0]], x).item() < 1e-12
    assert transfer_loss([x[0].flip(3)], x).item() > 1


@pytest.mark.parametrize("swapped", [False, True])
def test_different_grids_meet_on_the_smaller(swapped: bool) -> None:
    small, large = features(1, 3, 2, 2), features(1, 6, 4, 4, seed=4)
    pooled = (large.numpy()[0] ** 2).mean(0).reshape(2, 2, 2, 2).mean((1, 3)).ravel()
    expected = np.mean((vector(small.numpy()[0]) - pooled / np.linalg.norm(pooled)) ** 2)
    pair = ([large], [small]) if swapped else ([small], [large])
    assert math.isclose(transfer_loss(*pair, beta=1.0).item(), expected, rel_tol=1e-9)


def test_only_the_student_learns() -> None:
    student, teacher = features(2, 3, 2, 2).requires_grad_(), features(2, 3, 2, 2, seed=5)
    teacher.requires_grad_()
    transfer_loss([student], [teacher]).backward()
    assert student.grad is not None
    assert student.grad.abs().max() > 0
    assert teacher.grad is None


def test_the_slope_is_that_of_finite_differences() -> None:
    student = features(2, 3, 3, 2).requires_grad_()
    teacher, anomaly_map = features(2, 4, 2, 2, seed=5), features(2, 1, 6, 4, seed=6).abs()
    assert torch.autograd.gradcheck(attention_vector, (student,))
    assert torch.autograd.gradcheck(lambda s: transfer_loss([s], [teacher], 2.0), (student,))
    assert torch.autograd.gradcheck(lambda s: map_transfer_loss([s], anomaly_map, 2.0), (student,))


def test_features_of_16_bits_are_compared_in_32() -> None:
    x = features(1, 2, 2, 2).bfloat16()
    assert attention_vector(x).dtype == torch.float32
    torch.testing.assert_close(attention_vector(x), attention_vector(x.float()))


def test_dead_features_have_a_finite_slope() -> None:
    student = torch.zeros(1, 3, 2, 2, requires_grad=True)
    transfer_loss([student], [torch.rand(1, 3, 2, 2)]).backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_a_map_teaches_where_it_is_high() -> None:
    """Its values stand for the mean squares: sqrt of the map is a feature that follows it."""
    anomaly_map = features(2, 1, 4, 4).abs()
    assert map_transfer_loss([anomaly_map.sqrt()], anomaly_map).item() < 1e-9
    assert map_transfer_loss([anomaly_map.flip(3)], anomaly_map).item() > 1


def test_images_with_an_empty_map_leave_the_mean() -> None:
    student, anomaly_map = features(3, 4, 2, 2), features(3, 1, 8, 8, seed=4).abs()
    anomaly_map[1] = 0
    kept = [0, 2]
    expected = map_transfer_loss([student[kept]], anomaly_map[kept])
    torch.testing.assert_close(map_transfer_loss([student], anomaly_map), expected)
    student.requires_grad_()
    nothing = map_transfer_loss([student], torch.zeros_like(anomaly_map))
    nothing.backward()
    assert nothing.item() == 0
    assert student.grad is not None
    assert student.grad.abs().max() == 0


def test_stages_that_do_not_pair_up_are_refused() -> None:
    x = features(1, 2, 2, 2)
    with pytest.raises(ValueError, match=r"1 stages of the student and 2 of the teacher"):
        transfer_loss([x], [x, x])
    with pytest.raises(ValueError, match="at least one"):
        transfer_loss([], [])
    with pytest.raises(ValueError, match="0 stages"):
        map_transfer_loss([], x)
