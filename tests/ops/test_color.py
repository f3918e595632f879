from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage.color import deltaE_ciede2000, lab2rgb, rgb2lab
from torch import Tensor

from leanet.ops import color
from leanet.ops.color import delta_e_2000, lab_to_rgb, rgb_to_lab

# Sharma, Wu and Dalal (2005), table 1: L1 a1 b1 L2 a2 b2 dE00, two pairs in a line with |.
SHARMA_TEXT = """
50 2.6772 -79.7751 50 0 -82.7485 2.0425 | 50 3.1571 -77.2803 50 0 -82.7485 2.8615
50 2.8361 -74.02 50 0 -82.7485 3.4412 | 50 -1.3802 -84.2814 50 0 -82.7485 1
50 -1.1848 -84.8006 50 0 -82.7485 1 | 50 -0.9009 -85.5211 50 0 -82.7485 1
50 0 0 50 -1 2 2.3669 | 50 -1 2 50 0 0 2.3669
50 2.49 -0.001 50 -2.49 0.0009 7.1792 | 50 2.49 -0.001 50 -2.49 0.001 7.1792
50 2.49 -0.001 50 -2.49 0.0011 7.2195 | 50 2.49 -0.001 50 -2.49 0.0012 7.2195
50 -0.001 2.49 50 0.0009 -2.49 4.8045 | 50 -0.001 2.49 50 0.001 -2.49 4.8045
50 -0.001 2.49 50 0.0011 -2.49 4.7461 | 50 2.5 0 50 0 -2.5 4.3065
50 2.5 0 73 25 -18 27.1492 | 50 2.5 0 61 -5 29 22.8977
50 2.5 0 56 -27 -3 31.903 | 50 2.5 0 58 24 15 19.4535
50 2.5 0 50 3.1736 0.5854 1 | 50 2.5 0 50 3.2972 0 1
50 2.5 0 50 1.8634 0.5757 1 | 50 2.5 0 50 3.2592 0.335 1
60.2574 -34.0099 36.2677 60.4626 -34.1751 39.4387 1.2644
63.0109 -31.0961 -5.8663 62.8187 -29.7946 -4.0864 1.263
61.2901 3.7196 -5.3901 61.4292 2.248 -4.962 1.8731
35.0831 -44.1164 3.7933 35.0232 -40.0716 1.5901 1.8645
22.7233 20.0904 -46.694 23.0331 14.973 -42.5619 2.0373
36.4612 47.858 18.3852 36.2715 50.5065 21.2231 1.4146
90.8027 -2.0831 1.441 91.1528 -1.6435 0.0447 1.4441
90.9257 -0.5406 -0.9208 88.6381 -0.8985 -0.7239 1.5381
6.7747 -0.2908 -2.4247 5.8714 -0.0985 -2.2286 0.6377
2.0776 0.0795 -1.135 0.9033 -0.0636 -0.5514 0.9082
"""
SHARMA = torch.tensor(
    [float(v) for v in SHARMA_TEXT.replace("|", "").split()], dtype=torch.float64
).view(34, 7)
WITHOUT_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def as_pixels(colors: Tensor) -> Tensor:
    """[N, 3] -> [1, 3, 1, N]."""
    return colors.T[None, :, None, :]


def as_numpy(image: Tensor) -> NDArray[np.float64]:
    """[B, 3, H, W] -> [B, H, W, 3] in float64."""
    return image.detach().movedim(-3, -1).double().numpy()


def reference(lab1: Tensor, lab2: Tensor) -> Tensor:
    """scikit-image's float64 difference, [B, 1, H, W]."""
    difference = deltaE_ciede2000(as_numpy(lab1), as_numpy(lab2))  # type: ignore[no-untyped-call]
    return torch.from_numpy(difference).unsqueeze(1)


def assert_agrees(lab1: Tensor, lab2: Tensor, *, atol: float, rtol: float = 0) -> None:
    found, expected = delta_e_2000(lab1, lab2).double(), reference(lab1, lab2)
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)


def random_lab(*shape: int, seed: int = 0) -> Tensor:
    """Uniform in L 0..100 and a, b -120..120, [*shape with 3 inserted before H, W]."""
    generator = torch.Generator().manual_seed(seed)
    unit = torch.rand(*shape[:-2], 3, *shape[-2:], generator=generator, dtype=torch.float64)
    low = torch.tensor([0.0, -120.0, -120.0], dtype=torch.float64).view(3, 1, 1)
    return low + unit * torch.tensor([100.0, 240.0, 240.0], dtype=torch.float64).view(3, 1, 1)


def photo_like(seed: int, side: int = 64) -> Tensor:
    """Smooth color fields with a dark border, flat grey, black and white, RGB float64."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(2, 3, 5, 5, generator=generator, dtype=torch.float64)
    image = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1)
    image[:, :, :4] = 0.0
    image[:, :, 4:8] = 1.0
    image[:, :, 8:12] = image[:, :1, 8:12]
    return (image * 255).round() / 255


def polar(lightness: float, chroma: float, degrees: float) -> list[float]:
    angle = np.deg2rad(degrees)
    return [lightness, chroma * float(np.cos(angle)), chroma * float(np.sin(angle))]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=WITHOUT_CUDA)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 5.1e-5), (torch.float32, 2e-4)])
def test_published_pairs_agree_in_both_directions(
    device: str, dtype: torch.dtype, tolerance: float
) -> None:
    table = SHARMA.to(device, dtype)
    first, second = as_pixels(table[:, :3]), as_pixels(table[:, 3:6])
    for pair in ((first, second), (second, first)):
        found = delta_e_2000(*pair).flatten().double().cpu()
        torch.testing.assert_close(found, SHARMA[:, 6], rtol=0, atol=tolerance)


def test_random_pairs_agree_with_scikit_image() -> None:
    lab1, lab2 = random_lab(2, 150, 150, seed=1), random_lab(2, 150, 150, seed=2)
    assert_agrees(lab1, lab2, atol=1e-9)


@pytest.mark.parametrize("step", [1e-6, 1e-3, 0.1, 3.0])
def test_close_pairs_agree_with_scikit_image(step: float) -> None:
    lab1 = random_lab(1, 80, 80, seed=3)
    lab2 = lab1 + step * random_lab(1, 80, 80, seed=4) / 100
    assert_agrees(lab1, lab2, rtol=1e-7, atol=1e-12)


def test_pairs_with_a_grey_agree_with_scikit_image() -> None:
    vivid, grey = random_lab(1, 40, 40, seed=5), random_lab(1, 40, 40, seed=6)
    grey[:, 1:] = 0
    for lab1, lab2 in ((vivid, grey), (grey, vivid), (grey, grey.flip(-1))):
        assert_agrees(lab1, lab2, atol=1e-9)


def test_pairs_across_hue_0_and_near_opposite_hues_agree_with_scikit_image() -> None:
    hues = [0.0, 0.01, 45.0, 89.9, 135.0, 179.99, 200.0, 274.0, 276.0, 315.0, 359.99]
    turns = [-179.99, -179.0, -2.5, -0.03, 0.03, 2.5, 89.0, 179.0, 179.99]  # mean never exactly 0
    chromas = [0.5, 20.0, 90.0]
    pairs = [
        polar(50, c1, hue) + polar(60, c2, hue + turn)
        for hue, turn, c1, c2 in product(hues, turns, chromas, chromas)
    ]
    table = torch.tensor(pairs, dtype=torch.float64)
    assert_agrees(as_pixels(table[:, :3]), as_pixels(table[:, 3:]), atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exactly_opposite_hues_take_the_mean_of_both_angles(dtype: torch.dtype) -> None:
    lab1 = as_pixels(torch.tensor([[50.0, 30, 40], [50.0, -30, 40], [50.0, 25, 0]], dtype=dtype))
    lab2 = lab1 * torch.tensor([1.0, -1.0, -1.0], dtype=dtype).view(3, 1, 1)
    assert_agrees(lab1, lab2, atol=1e-4)


def test_order_of_the_pair_does_not_matter() -> None:
    lab1, lab2 = random_lab(1, 100, 100, seed=7), random_lab(1, 100, 100, seed=8)
    torch.testing.assert_close(
        delta_e_2000(lab1, lab2), delta_e_2000(lab2, lab1), rtol=0, atol=1e-11
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_identical_colors_are_exactly_zero_apart_with_zero_gradient(dtype: torch.dtype) -> None:
    colors = torch.cat([SHARMA[:, :3], torch.tensor([[0.0, 0, 0], [100.0, 0, 0]])]).to(dtype)
    lab1 = as_pixels(colors).requires_grad_()
    lab2 = as_pixels(colors.clone()).requires_grad_()
    distance = delta_e_2000(lab1, lab2)
    assert torch.equal(distance, torch.zeros_like(distance))
    for gradient in torch.autograd.grad(distance.sum(), (lab1, lab2)):
        assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradient_is_finite_at_every_kink(dtype: torch.dtype) -> None:
    spots = [[50.0, 0, 0], [50.0, 1e-7, 0], [30.0, 0, -60], [30.0, 0, 60], [70.0, 40, 0]]
    spots += [[70.0, -40, 0], [70.0, -40, 1e-9], [50.0, 2.49, -0.001], [50.0, -2.49, 0.001]]
    spots += [[0.0, 0, 0], [100.0, 0, 0], [50.0, 1e-4, -1e-4]]
    pairs = torch.tensor([a + b for a, b in product(spots, spots)], dtype=dtype)
    lab1 = as_pixels(pairs[:, :3]).requires_grad_()
    lab2 = as_pixels(pairs[:, 3:]).requires_grad_()
    gradients = torch.autograd.grad(delta_e_2000(lab1, lab2).sum(), (lab1, lab2))
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_gradient_of_a_grey_pulls_on_lightness_only() -> None:
    grey = as_pixels(torch.tensor([[40.0, 0, 0]], dtype=torch.float64)).requires_grad_()
    blue = as_pixels(torch.tensor([[50.0, 5.0, -60]], dtype=torch.float64))
    (gradient,) = torch.autograd.grad(delta_e_2000(grey, blue).sum(), grey)
    assert gradient[0, 0].item() < 0
    assert gradient[0, 1:].abs().max().item() < 1e-9


def test_gradient_agrees_with_finite_differences_also_across_hue_0() -> None:
    table = SHARMA[[0, 4, 15, 16, 17, 18, 19, 24, 25, 26, 27, 28, 29]]
    wrap = torch.tensor([polar(50, 40, 359) + polar(55, 35, 2)], dtype=torch.float64)
    pairs = torch.cat([table[:, :6], wrap])
    lab1 = as_pixels(pairs[:, :3]).requires_grad_()
    lab2 = as_pixels(pairs[:, 3:]).requires_grad_()
    assert torch.autograd.gradcheck(delta_e_2000, (lab1, lab2), eps=1e-6, atol=1e-5)


def test_float32_images_are_within_a_thousandth_of_float64() -> None:
    for shift in (0.0, 0.002, 0.05):
        rgb1 = photo_like(9)
        rgb2 = (rgb1 + shift * (photo_like(10) - 0.5)).clamp(0, 1)
        found = delta_e_2000(rgb_to_lab(rgb1.float()), rgb_to_lab(rgb2.float()))
        exact1, exact2 = (torch.from_numpy(rgb2lab(as_numpy(rgb))) for rgb in (rgb1, rgb2))
        expected = reference(exact1.movedim(-1, 1), exact2.movedim(-1, 1))
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("pixels", [1, 7, 40, 64, 200, 10**6])
def test_chunks_give_the_map_of_the_whole(pixels: int) -> None:
    lab1, lab2 = random_lab(2, 3, 5, 8, seed=11), random_lab(2, 3, 5, 8, seed=12)
    chunked = color._ciede2000_chunked(lab1, lab2, pixels)
    assert chunked.shape == (2, 3, 1, 5, 8)
    torch.testing.assert_close(chunked, color._ciede2000(lab1, lab2), rtol=0, atol=1e-11)


def test_large_batches_are_chunked_with_equal_values_and_gradients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lab1, lab2 = random_lab(3, 16, 16, seed=13).requires_grad_(), random_lab(3, 16, 16, seed=14)
    whole = delta_e_2000(lab1, lab2)
    (expected,) = torch.autograd.grad(whole.sum(), lab1)
    monkeypatch.setattr(color, "_CHUNK_PIXELS", 100)
    sizes: list[int] = []
    formula = color._ciede2000

    def spy(first: Tensor, second: Tensor) -> Tensor:
        sizes.append(first[:, 0].numel())
        return formula(first, second)

    monkeypatch.setattr(color, "_ciede2000", spy)
    parts = delta_e_2000(lab1, lab2)
    assert len(sizes) > 3
    assert max(sizes) <= 100
    assert sum(sizes) == 3 * 16 * 16
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-11)
    torch.testing.assert_close(torch.autograd.grad(parts.sum(), lab1)[0], expected)


def test_memory_layout_does_not_matter_and_inputs_are_untouched() -> None:
    lab1, lab2 = random_lab(2, 12, 10, seed=15), random_lab(2, 12, 10, seed=16)
    kept1, kept2 = lab1.clone(), lab2.clone()
    expected = delta_e_2000(lab1, lab2)
    last = torch.channels_last
    turned1, turned2 = lab1.transpose(-1, -2), lab2.transpose(-1, -2)
    layouts = [
        delta_e_2000(lab1.contiguous(memory_format=last), lab2.contiguous(memory_format=last)),
        delta_e_2000(turned1, turned2).transpose(-1, -2),
        color._ciede2000_chunked(turned1, turned2, 17).transpose(-1, -2),
        delta_e_2000(lab1.repeat_interleave(2, -1)[..., ::2], lab2),
        torch.stack([delta_e_2000(lab1[0], lab2[0]), delta_e_2000(lab1[1], lab2[1])]),
    ]
    for found in layouts:
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)
    assert torch.equal(lab1, kept1)
    assert torch.equal(lab2, kept2)


def test_empty_batches_give_empty_maps() -> None:
    assert delta_e_2000(torch.zeros(0, 3, 4, 4), torch.zeros(0, 3, 4, 4)).shape == (0, 1, 4, 4)


def test_exported_difference_equals_eager_for_another_batch_size() -> None:
    class Difference(torch.nn.Module):
        def forward(self, rgb1: Tensor, rgb2: Tensor) -> Tensor:
            return delta_e_2000(rgb_to_lab(rgb1), rgb_to_lab(rgb2))

    example = (photo_like(1, 16).float(), photo_like(2, 16).float())
    batch = {0: torch.export.Dim("batch")}
    program = torch.export.export(Difference(), example, dynamic_shapes=(batch, batch)).module()
    rgb1, rgb2 = (photo_like(seed, 16).float().repeat(3, 1, 1, 1) for seed in (3, 4))
    torch.testing.assert_close(program(rgb1, rgb2), Difference()(rgb1, rgb2))


@pytest.mark.parametrize(
    ("lab1", "lab2", "message"),
    [
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 5), "same shape and dtype"),
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4).double(), "same shape and dtype"),
        (torch.zeros(2, 4, 4, 3), torch.zeros(2, 4, 4, 3), r"lab1 has shape \[2, 4, 4, 3\]"),
        (torch.zeros(3, 4), torch.zeros(3, 4), r"\[\.\.\., 3, H, W\]"),
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4).byte(), "lab2 is torch.uint8"),
    ],
)
def test_wrong_pairs_are_refused(lab1: Tensor, lab2: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        delta_e_2000(lab1, lab2)


def gamut_grid() -> Tensor:
    """All sRGB colors on a grid of 18 levels, with the corners and steps around the thresholds."""
    levels = torch.cat([torch.linspace(0, 1, 16), torch.tensor([0.04, 0.041])]).double()
    return as_pixels(torch.cartesian_prod(levels, levels, levels))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-4)])
def test_lab_of_the_whole_gamut_agrees_with_scikit_image(
    dtype: torch.dtype, tolerance: float
) -> None:
    rgb = gamut_grid()
    found = as_numpy(rgb_to_lab(rgb.to(dtype)))
    np.testing.assert_allclose(found, rgb2lab(as_numpy(rgb)), rtol=0, atol=tolerance)


def test_rgb_of_lab_agrees_with_scikit_image_and_is_clipped() -> None:
    lab = random_lab(1, 60, 60, seed=17)
    lab[:, 2].clamp_(max=2 * (lab[:, 0].min().item() + 16) / 1.16)  # scikit-image bends Z < 0
    found = as_numpy(lab_to_rgb(lab))
    np.testing.assert_allclose(found, lab2rgb(as_numpy(lab)), rtol=0, atol=1e-9)
    assert found.min() == 0
    assert found.max() == 1


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-5), (torch.float32, 2e-5)])
def test_round_trip_restores_rgb(dtype: torch.dtype, tolerance: float) -> None:
    rgb = gamut_grid().to(dtype)
    torch.testing.assert_close(lab_to_rgb(rgb_to_lab(rgb)), rgb, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_from_below_black_to_white(dtype: torch.dtype) -> None:
    rgb = torch.cat([gamut_grid() - 0.1, gamut_grid()]).to(dtype).requires_grad_()
    lab = rgb_to_lab(rgb)
    assert torch.isfinite(torch.autograd.grad(lab.sum(), rgb)[0]).all()
    lab = lab.detach().requires_grad_()
    assert torch.isfinite(torch.autograd.grad(lab_to_rgb(lab).sum(), lab)[0]).all()


def test_conversions_pass_gradcheck_inside_the_gamut() -> None:
    rgb = as_pixels(torch.tensor([[0.2, 0.5, 0.8], [0.02, 0.03, 0.01], [0.6, 0.3, 0.1]]).double())
    assert torch.autograd.gradcheck(rgb_to_lab, (rgb.requires_grad_(),))
    lab = rgb_to_lab(rgb.detach()).requires_grad_()
    assert torch.autograd.gradcheck(lab_to_rgb, (lab,))


@pytest.mark.parametrize("convert", [rgb_to_lab, lab_to_rgb])
def test_conversions_refuse_other_shapes_and_dtypes(convert: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(ValueError, match=r"\[\.\.\., 3, H, W\]"):
        convert(torch.zeros(1, 1, 4, 4))
    with pytest.raises(ValueError, match="float32 or float64"):
        convert(torch.zeros(1, 3, 4, 4).half())


def test_components_agree_with_numpy_over_uneven_batches() -> None:
    images = photo_like(20).repeat(3, 1, 1, 1)
    images[2:] = photo_like(21).repeat(2, 1, 1, 1) * 0.5
    values, vectors = color.rgb_principal_components(iter((images[:1], images[1:4], images[4:])))
    covariance = np.cov(images.movedim(1, 0).reshape(3, -1).numpy())
    expected_values, expected_vectors = np.linalg.eigh(covariance)
    np.testing.assert_allclose(values.numpy(), expected_values[::-1], rtol=1e-9)
    overlap = np.abs(np.sum(vectors.numpy() * expected_vectors[:, ::-1], axis=0))
    np.testing.assert_allclose(overlap, 1, rtol=1e-9)
    assert (vectors.gather(0, vectors.abs().argmax(0, keepdim=True)) > 0).all()


def test_grey_images_have_no_negative_eigenvalue() -> None:
    for seed in range(10):
        grey = photo_like(seed)[:, :1].expand(-1, 3, -1, -1)
        values, vectors = color.rgb_principal_components([grey])
        assert values.min() >= 0
        assert values[1:].max() < 1e-12
        torch.testing.assert_close(vectors[:, 0], torch.full((3,), 3**-0.5).double())


@pytest.mark.parametrize("form", ["variance", "std"])
def test_fancy_pca_adds_the_weighted_components(form: color.PcaForm) -> None:
    rgb = photo_like(23).float() * 0.4 + 0.3
    values, vectors = color.rgb_principal_components([rgb])
    alpha = torch.tensor([[0.1, -0.2, 0.3], [0.0, 0.5, -2.0]])
    found = color.fancy_pca(rgb, values, vectors, alpha=alpha, form=form)
    for image, result, weights in zip(rgb, found, alpha, strict=True):
        scale = values if form == "variance" else values.sqrt()
        shift = torch.stack([weights[i] * scale[i] * vectors[:, i] for i in range(3)]).sum(0)
        expected = (image.double() + shift[:, None, None]).clamp(0, 1)
        torch.testing.assert_close(result.double(), expected, rtol=0, atol=1e-6)
    assert found.dtype == torch.float32


def test_fancy_pca_stays_in_range_and_leaves_its_input() -> None:
    rgb = photo_like(24)
    kept = rgb.clone()
    alpha = torch.tensor([[9.0, 0, 0], [-9.0, 0, 0]])
    found = color.fancy_pca(rgb, torch.ones(3), torch.eye(3), alpha=alpha)
    assert torch.equal(rgb, kept)
    assert found[0, 0].eq(1).all()
    assert found[1, 0].eq(0).all()
    torch.testing.assert_close(found[:, 1:], rgb[:, 1:])


@pytest.mark.parametrize("form", ["variance", "std"])
def test_shift_predicts_the_spread_of_many_draws(form: color.PcaForm) -> None:
    values, vectors = color.rgb_principal_components([photo_like(25)])
    alpha = 0.1 * torch.randn(20_000, 3, generator=torch.Generator().manual_seed(0))
    grey = torch.full((20_000, 3, 1, 1), 0.5)
    drawn = 255 * color.fancy_pca(grey, values, vectors, alpha=alpha, form=form).flatten(1).std(0)
    expected = color.fancy_pca_shift(values, vectors, sigma=0.1, form=form)
    torch.testing.assert_close(drawn.double(), expected, rtol=0.03, atol=0)


def test_fancy_pca_refuses_what_does_not_fit() -> None:
    rgb, values, vectors = torch.zeros(2, 3, 4, 4), torch.ones(3), torch.eye(3)
    with pytest.raises(ValueError, match=r"\[B, 3\]"):
        color.fancy_pca(rgb, values, vectors, alpha=torch.zeros(1, 3))
    with pytest.raises(ValueError, match="'variance' or 'std'"):
        color.fancy_pca_shift(values, vectors, form="sqrt")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="0 pixels"):
        color.rgb_principal_components([])
    with pytest.raises(ValueError, match=r"\[1, 1, 4, 4\]"):
        color.rgb_principal_components([torch.zeros(1, 1, 4, 4)])


class Difference(torch.nn.Module):
    def forward(self, lab1: Tensor, lab2: Tensor) -> Tensor:
        return delta_e_2000(lab1, lab2)


def test_an_exported_graph_gives_the_same_differences() -> None:
    """Also at grey, of one color, at opposite and at right-angled hues."""
    generator = torch.Generator().manual_seed(0)
    lab1, lab2 = (100 * torch.rand(2, 2, 3, 8, 8, generator=generator) - 30).unbind()
    lab2[0, :, 0] = lab1[0, :, 0]
    lab1[0, 1:, 1] = 0
    lab2[0, 1:, 2] = -lab1[0, 1:, 2]
    lab1[0, 1:, 3], lab2[0, 1:, 3] = 0, 0
    lab1[0, 1, 4], lab2[0, 2, 4] = 0, 0
    lab2[0, 1, 5], lab2[0, 2, 5] = lab1[0, 2, 5], -lab1[0, 1, 5]
    program = torch.export.export(Difference(), (lab1, lab2)).module()
    torch.testing.assert_close(program(lab1, lab2), delta_e_2000(lab1, lab2), rtol=2e-6, atol=2e-6)
