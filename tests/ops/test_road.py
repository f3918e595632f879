from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.sparse.linalg import spsolve
from torch import Tensor

from leanet.ops.road import impute


def pictures(num: int = 2, side: int = 16, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(num, 3, side, side, generator=generator)


def removed(share: float, num: int = 2, side: int = 16, seed: int = 1) -> Tensor:
    values = torch.rand(num, 1, side, side, generator=torch.Generator().manual_seed(seed))
    return values < values.flatten(1).quantile(share, dim=1).view(-1, 1, 1, 1)


def solved_one_by_one(plane: np.ndarray, gone: np.ndarray) -> np.ndarray:
    """The definition, one equation per pixel, by SciPy's direct sparse solver."""
    height, width = plane.shape
    matrix, right = sparse.lil_matrix((plane.size, plane.size)), np.zeros(plane.size)
    for i in range(height):
        for k in range(width):
            row = i * width + k
            matrix[row, row] = 1.0
            if not gone[i, k]:
                right[row] = plane[i, k]
                continue
            near = {
                (i + a, k + b): 1 / 12 if a and b else 1 / 6
                for a in (-1, 0, 1)
                for b in (-1, 0, 1)
                if (a or b) and 0 <= i + a < height and 0 <= k + b < width
            }
            for (y, x), weight in near.items():
                matrix[row, y * width + x] = -weight / sum(near.values())
    return np.asarray(spsolve(matrix.tocsr(), right)).reshape(plane.shape)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_solution_is_that_of_a_direct_sparse_solver(share: float) -> None:
    images, gone = pictures(), removed(share)
    filled = impute(images, gone, noise=0)
    for b in range(2):
        for c in range(3):
            exact = solved_one_by_one(images[b, c].numpy(), gone[b, 0].numpy())
            assert np.abs(filled[b, c].numpy() - exact).max() < 1e-5


def test_a_large_hole_at_the_border_is_solved_as_well() -> None:
    images, gone = pictures(1, 20), torch.zeros(1, 1, 20, 20, dtype=torch.bool)
    gone[..., :14, 3:] = True
    exact = solved_one_by_one(images[0, 0].numpy(), gone[0, 0].numpy())
    assert np.abs(impute(images, gone, noise=0)[0, 0].numpy() - exact).max() < 1e-5


def test_sides_that_are_odd_and_unequal_are_solved_as_well() -> None:
    image, gone = torch.rand(1, 1, 7, 11, generator=torch.Generator().manual_seed(3)), None
    gone = torch.rand(1, 1, 7, 11, generator=torch.Generator().manual_seed(4)) < 0.6
    exact = solved_one_by_one(image[0, 0].numpy(), gone[0, 0].numpy())
    assert np.abs(impute(image, gone, noise=0)[0, 0].numpy() - exact).max() < 1e-5


def test_kept_pixels_stay_as_they_are_to_the_bit() -> None:
    images, gone = pictures(), removed(0.5)
    filled = impute(images, gone, generator=torch.Generator().manual_seed(0))
    kept = ~gone.expand_as(images)
    assert torch.equal(filled[kept], images[kept])


def test_an_image_is_filled_in_as_it_is_alone() -> None:
    images, gone = pictures(3), removed(0.7, 3)
    together = impute(images, gone, noise=0)
    alone = torch.cat([impute(images[k : k + 1], gone[k : k + 1], noise=0) for k in range(3)])
    assert torch.equal(together, alone)


def test_noise_is_small_repeatable_and_only_on_removed_pixels() -> None:
    images, gone = pictures(), removed(0.5)
    smooth = impute(images, gone, noise=0)
    noisy = [impute(images, gone, generator=torch.Generator().manual_seed(5)) for _ in range(2)]
    assert torch.equal(noisy[0], noisy[1])
    added = (noisy[0] - smooth)[gone.expand_as(images)]
    assert added.std().item() == pytest.approx(0.01, rel=0.1)


def test_a_flat_image_stays_flat() -> None:
    flat = torch.full((1, 3, 16, 16), 0.3)
    assert torch.allclose(impute(flat, removed(0.9, 1), noise=0), flat, atol=1e-6)


def test_a_hole_with_nothing_but_black_around_it_becomes_black() -> None:
    image, gone = torch.zeros(1, 1, 32, 32), torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    image[..., 18:, 18:] = 1.0
    gone[..., :16, :16] = True  # a slice of a head has such corners; the first guess is not black
    assert torch.allclose(impute(image, gone, noise=0), image, atol=1e-6)


def test_nothing_removed_is_the_image_itself() -> None:
    gone = torch.zeros(2, 1, 16, 16, dtype=torch.bool)
    assert torch.equal(impute(pictures(), gone, noise=0), pictures())


def test_the_inputs_are_not_changed() -> None:
    images, gone = pictures(), removed(0.5)
    impute(images, gone, noise=0)
    assert torch.equal(images, pictures())
    assert torch.equal(gone, removed(0.5))


def test_an_image_of_which_nothing_is_kept_is_refused() -> None:
    gone = removed(0.5)
    gone[1] = True
    with pytest.raises(ValueError, match="keep at least one pixel"):
        impute(pictures(), gone, noise=0)


def test_noise_without_a_generator_other_shapes_and_too_few_iterations_are_refused() -> None:
    with pytest.raises(ValueError, match="give one, or noise=0"):
        impute(pictures(), removed(0.5))
    with pytest.raises(ValueError, match=r"not \[2, 3, 16, 16\] and torch.float32"):
        impute(pictures(), removed(0.5).float(), noise=0)
    with pytest.raises(ValueError, match="did not converge in 1 iterations"):
        impute(pictures(), removed(0.9), noise=0, max_iterations=1)
