from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis as scipy_mahalanobis
from torch import Tensor

from leanet.ops.gaussian import PlaceMoments, mahalanobis, whitening

IMAGES, DIMS, PLACES = 12, 5, 9


def descriptions(images: int = IMAGES, seed: int = 0) -> Tensor:
    """[B, d, P], far from 0, another mean and covariance at every place."""
    draw = torch.Generator().manual_seed(seed)
    shape = torch.randn(PLACES, DIMS, DIMS, generator=torch.Generator().manual_seed(9))
    noise = torch.randn(PLACES, DIMS, images, generator=draw)
    center = torch.linspace(20, 60, PLACES * DIMS).view(PLACES, DIMS, 1)
    return (shape @ noise + center).permute(2, 1, 0)


def moments(images: Tensor, sizes: list[int], most_bytes: int = 1 << 30) -> PlaceMoments:
    added = PlaceMoments(PLACES, DIMS, most_bytes=most_bytes)
    for batch in images.split(sizes):
        added.add(batch)
    return added


def covariances(images: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    at_place = images.permute(2, 1, 0).double().numpy()
    return np.stack([np.cov(one) for one in at_place])


@pytest.mark.parametrize(("most_bytes", "tolerance"), [(1 << 30, 1e-5), (0, 1e-3)])
def test_the_whitening_is_that_of_numpys_covariance(most_bytes: int, tolerance: float) -> None:
    images = descriptions()
    found = moments(images, [5, 4, 3], most_bytes).gaussians(0.01)
    inverse = np.linalg.inv(covariances(images) + 0.01 * np.eye(DIMS))
    np.testing.assert_allclose(found.mean, images.double().mean(dim=0).T, rtol=1e-6)
    got = (found.whitening.mT @ found.whitening).numpy()
    np.testing.assert_allclose(got, inverse, rtol=tolerance, atol=tolerance * np.abs(inverse).max())
    assert found.whitening.triu(diagonal=1).abs().max() == 0


def test_sums_that_take_too_much_memory_are_float32() -> None:
    needed = 8 * PLACES * DIMS**2
    assert PlaceMoments(PLACES, DIMS, most_bytes=needed).dtype == torch.float64
    assert PlaceMoments(PLACES, DIMS, most_bytes=needed - 1).dtype == torch.float32


def test_the_batches_do_not_matter() -> None:
    images = descriptions()
    first, second = (moments(images, sizes).gaussians(0.1) for sizes in ([12], [1, 1, 9, 1]))
    torch.testing.assert_close(first, second, rtol=1e-6, atol=1e-6)


def test_the_blocks_that_are_factored_together_do_not_matter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = moments(descriptions(), [12]).gaussians(0.1)
    monkeypatch.setattr("leanet.ops.gaussian.BLOCK_BYTES", 8 * DIMS**2 * 4)  # 4 places
    torch.testing.assert_close(moments(descriptions(), [12]).gaussians(0.1), expected)


def test_fewer_images_than_channels_are_enough() -> None:
    images = descriptions(3)
    found = moments(images, [3]).gaussians(0.01)
    assert mahalanobis(images, *found).isfinite().all()


def test_the_distance_is_that_of_scipy() -> None:
    images, new = descriptions(), descriptions(4, seed=1)
    got = mahalanobis(new, *moments(images, [12]).gaussians(0.01))
    assert got.shape == (4, PLACES)
    inverse = np.linalg.inv(covariances(images) + 0.01 * np.eye(DIMS))
    mean = images.double().mean(dim=0).numpy()
    for image in range(4):
        for place in range(PLACES):
            one = new[image, :, place].double().numpy()
            expected = scipy_mahalanobis(one, mean[:, place], inverse[place])
            assert got[image, place].item() == pytest.approx(expected, rel=1e-4)


def test_whitened_descriptions_have_the_identity_as_covariance() -> None:
    covariance = torch.from_numpy(covariances(descriptions()))
    matrix = whitening(covariance, 1e-12)
    got = matrix @ covariance @ matrix.mT
    torch.testing.assert_close(got, torch.eye(DIMS).double().expand_as(got), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("images", "ridge"), [(1, 0.01), (5, 0.0)])
def test_too_little_to_take_a_covariance_from_is_refused(images: int, ridge: float) -> None:
    with pytest.raises(ValueError, match=rf"{images} images and ridge {ridge}"):
        moments(descriptions(images), [images]).gaussians(ridge)
