from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from sklearn import metrics as sk

from leanet.ops.pixels import (
    PixelCounts,
    aupro,
    best_iou,
    edges_from,
    image_iou,
    iou_at,
    pixel_auroc,
    pixel_average_precision,
    pixel_confusion,
    pixel_f1,
)

Images = list[tuple[np.ndarray, np.ndarray]]


def toy_images(num: int = 12, side: int = 48, gain: float = 1.0) -> Images:
    """Smooth noise maps; every second image has two square defects, brighter by about `gain`."""
    rng = np.random.default_rng(num)
    images = []
    for i in range(num):
        mask = np.zeros((side, side), dtype=np.uint8)
        for _ in range(2 * (i % 2)):
            top, left, size = rng.integers(0, side - 14, 2).tolist() + [int(rng.integers(3, 14))]
            mask[top : top + size, left : left + size] = 255
        noise = gaussian_filter(rng.normal(size=(side, side)), 1) * 3
        images.append((np.exp(noise + gain * (mask > 0)).astype(np.float32), mask))
    return images


def count(images: Images, edges: np.ndarray) -> PixelCounts:
    counts = PixelCounts(edges)
    for anomaly_map, mask in images:
        counts.add(anomaly_map, mask)
    return counts


def pooled(images: Images) -> tuple[np.ndarray, np.ndarray]:
    score = np.concatenate([anomaly_map.ravel() for anomaly_map, _ in images])
    return np.concatenate([mask.ravel() > 0 for _, mask in images]), score.astype(np.float64)


def sampled_edges(images: Images) -> np.ndarray:
    return edges_from(np.random.default_rng(0).choice(pooled(images)[1], 5000))


def flood_fill_regions(mask: np.ndarray) -> list[set[tuple[int, int]]]:
    left = {(int(i), int(j)) for i, j in np.argwhere(mask)}
    regions = []
    while left:
        region, frontier = set(), [left.pop()]
        while frontier:
            i, j = frontier.pop()
            region.add((i, j))
            near = {(i + a, j + b) for a in (-1, 0, 1) for b in (-1, 0, 1)} & left
            left -= near
            frontier += near
        regions.append(region)
    return regions


def brute_force_aupro(images: Images, limit: float) -> float:
    """The definition, threshold by threshold over all distinct scores."""
    normal = np.concatenate([anomaly_map[mask == 0] for anomaly_map, mask in images])
    regions = [
        np.array([anomaly_map[pixel] for pixel in region])
        for anomaly_map, mask in images
        for region in flood_fill_regions(mask > 0)
    ]
    area, fpr, pro = 0.0, 0.0, 0.0
    for threshold in np.unique(pooled(images)[1])[::-1]:
        next_fpr = np.mean(normal >= threshold)
        next_pro = np.mean([np.mean(region >= threshold) for region in regions])
        if next_fpr >= limit:
            end = pro + (next_pro - pro) * (limit - fpr) / (next_fpr - fpr)
            return (area + (limit - fpr) * (pro + end) / 2) / limit
        area += (next_fpr - fpr) * (pro + next_pro) / 2
        fpr, pro = next_fpr, next_pro
    raise AssertionError("the curve never reached the limit")


def best_f1(label: np.ndarray, score: np.ndarray) -> float:
    precision, recall, _ = sk.precision_recall_curve(label, score)
    return float(np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12)))


@pytest.mark.parametrize("gain", [0.5, 2.0, 4.0])
def test_binned_figures_are_close_to_those_of_all_pixels(gain: float) -> None:
    images = toy_images(side=128, gain=gain)
    label, score = pooled(images)
    counts = count(images, sampled_edges(images))
    assert pixel_auroc(counts) == pytest.approx(sk.roc_auc_score(label, score), abs=1e-5)
    exact = sk.average_precision_score(label, score)
    assert pixel_average_precision(counts) == pytest.approx(exact, abs=1e-3)
    assert pixel_f1(counts) == pytest.approx(best_f1(label, score), abs=1e-3)


@pytest.mark.parametrize(
    ("figure", "reference"),
    [
        (pixel_auroc, sk.roc_auc_score),
        (pixel_average_precision, sk.average_precision_score),
        (pixel_f1, best_f1),
    ],
)
def test_figures_are_exact_for_scores_rounded_down_to_their_edge(
    figure: Callable[[PixelCounts], float], reference: Callable[..., float]
) -> None:
    images = toy_images()
    edges = np.quantile(pooled(images)[1], [0.2, 0.5, 0.7, 0.9, 0.97])
    label, score = pooled(images)
    rounded = np.searchsorted(edges, score, side="right")
    assert figure(count(images, edges)) == pytest.approx(reference(label, rounded), abs=1e-12)


def test_aupro_is_exact_with_an_edge_at_every_score() -> None:
    images = toy_images(num=4, side=24)
    counts = count(images, np.unique(pooled(images)[1]))
    for limit in (0.05, 0.3, 1.0):
        expected = brute_force_aupro(images, limit)
        assert aupro(counts, limit) == pytest.approx(expected, abs=1e-12)


def test_aupro_with_sampled_edges_is_close_to_brute_force() -> None:
    images = toy_images(num=6, side=32, gain=2.0)
    counts = count(images, sampled_edges(images))
    assert aupro(counts) == pytest.approx(brute_force_aupro(images, 0.3), abs=1e-4)


def test_aupro_weighs_regions_equally_whatever_their_size() -> None:
    mask = np.zeros((20, 20), dtype=bool)
    mask[:10, :10] = mask[15, 15] = True
    found_large_only = np.where(mask, 1.0, 0.0)
    found_large_only[15, 15] = -1.0
    counts = count([(found_large_only, mask)], np.array([0.0, 0.5]))
    # Half of the overlap at FPR 0; the other half comes only below every normal pixel, at FPR 1.
    assert counts.num_regions == 2
    assert aupro(counts) == pytest.approx(0.5)


def test_diagonal_neighbors_belong_to_one_region() -> None:
    mask = np.eye(5)
    assert count([(np.ones((5, 5)), mask)], np.array([0.5])).num_regions == 1


def test_counts_at_a_threshold_given_beforehand_are_exact() -> None:
    images, threshold = toy_images(), 1.2345678
    label, score = pooled(images)
    edges = edges_from(score[:100], 20, thresholds=[threshold])
    counts = count(images, edges)
    verdict = score >= threshold
    tn, fp, fn, tp = sk.confusion_matrix(label, verdict).ravel()
    assert pixel_confusion(counts, threshold) == (tn, fp, fn, tp)
    assert pixel_f1(counts, threshold) == pytest.approx(sk.f1_score(label, verdict))
    assert iou_at(counts, threshold) == pytest.approx(sk.jaccard_score(label, verdict))
    with pytest.raises(ValueError, match="edges_from"):
        iou_at(counts, 1.2345)


def test_iou_pools_pixels_and_not_images() -> None:
    # (TP, FP, FN) = (1, 0, 1) and (0, 2, 0): 1/4 pooled
    counts = PixelCounts([0.5])
    counts.add([[1.0, 0.0]], [[1, 1]])
    counts.add([[1.0, 1.0]], [[0, 0]])
    assert iou_at(counts, 0.5) == 0.25


def test_the_best_iou_is_that_of_the_best_of_all_thresholds() -> None:
    images = toy_images()
    label, score = pooled(images)
    edges = np.quantile(score, np.linspace(0.01, 0.99, 40))
    expected = max(sk.jaccard_score(label, score >= edge) for edge in edges)
    assert best_iou(count(images, edges)) == pytest.approx(expected)
    assert math.isnan(best_iou(PixelCounts([0.5])))


def test_the_iou_of_an_image_compares_in_double_precision() -> None:
    anomaly_map, mask = np.full((2, 2), 0.5, dtype=np.float32), np.ones((2, 2))
    assert image_iou(anomaly_map, mask, 0.5) == 1.0
    assert image_iou(anomaly_map, mask, float(np.nextafter(0.5, 1))) == 0.0
    assert math.isnan(image_iou(anomaly_map, np.zeros((2, 2)), 0.9))


def test_the_sum_of_counts_is_the_count_of_all_images() -> None:
    images = toy_images()
    edges = sampled_edges(images)
    total, parts = count(images, edges), count(images[:5], edges) + count(images[5:], edges)
    assert parts.normal.tolist() == total.normal.tolist()
    assert parts.anomalous.tolist() == total.anomalous.tolist()
    assert parts.overlap == pytest.approx(total.overlap)
    assert parts.num_regions == total.num_regions
    with pytest.raises(ValueError, match="same edges"):
        PixelCounts([0.5]) + PixelCounts([0.6])


def test_pixels_outside_the_valid_area_are_left_out() -> None:
    anomaly_map, mask = toy_images(num=2)[1]
    valid = np.zeros_like(mask)
    valid[4:40, 4:40] = 1
    inside, cropped = PixelCounts([0.5, 1.0, 2.0]), PixelCounts([0.5, 1.0, 2.0])
    inside.add(np.where(valid, anomaly_map, np.nan), mask, valid)
    cropped.add(anomaly_map[4:40, 4:40], mask[4:40, 4:40])
    assert inside.normal.sum() + inside.anomalous.sum() == 36 * 36
    assert inside.normal.tolist() == cropped.normal.tolist()
    assert inside.overlap.tolist() == cropped.overlap.tolist()


def test_memory_does_not_grow_with_the_images() -> None:
    counts = PixelCounts([0.5, 1.0])
    for anomaly_map, mask in toy_images():
        counts.add(anomaly_map, mask)
        assert counts.normal.size == counts.anomalous.size == counts.overlap.size == 3
    assert counts.normal.sum() + counts.anomalous.sum() == 12 * 48 * 48
    assert counts.overlap.sum() == pytest.approx(counts.num_regions)


def test_figures_of_one_class_are_nan() -> None:
    normal, anomalous = PixelCounts([0.5]), PixelCounts([0.5])
    normal.add(np.eye(4), np.zeros((4, 4)))
    anomalous.add(np.eye(4), np.ones((4, 4)))
    for counts in (normal, anomalous, PixelCounts([0.5])):
        assert math.isnan(pixel_auroc(counts))
        assert math.isnan(pixel_average_precision(counts))
        assert math.isnan(aupro(counts))
    assert math.isnan(pixel_f1(normal))
    assert math.isnan(pixel_f1(normal, 0.5))
    assert math.isnan(iou_at(PixelCounts([0.5]), 0.5))


def test_edges_cover_ties_and_leave_room_above_the_sample() -> None:
    edges = edges_from([0.0] * 50 + [1.0, 3.0], 100, thresholds=[9.0])
    assert np.all(np.diff(edges) > 0)
    assert (edges[0], edges[-2], edges[-1]) == (0.0, 6.0, 9.0)
    assert edges_from([2.0, 2.0]).tolist() == [2.0]


def test_what_cannot_be_counted_is_refused() -> None:
    counts = PixelCounts([0.5])
    with pytest.raises(ValueError, match="shape"):
        counts.add(np.zeros((4, 4)), np.zeros((4, 5)))
    with pytest.raises(ValueError, match="shape"):
        counts.add(np.zeros((1, 4, 4)), np.zeros((1, 4, 4)))
    with pytest.raises(ValueError, match="NaN"):
        counts.add(np.full((4, 4), np.nan), np.zeros((4, 4)))
    for edges in ([], [1.0, 1.0], [2.0, 1.0], [np.nan], [[1.0]]):
        with pytest.raises(ValueError, match="increasing"):
            PixelCounts(edges)
    for sample, bins in (([], 10), ([np.inf], 10), ([1.0], 1)):
        with pytest.raises(ValueError):
            edges_from(sample, bins)
    for limit in (0.0, 1.5):
        with pytest.raises(ValueError, match="limit"):
            aupro(counts, limit)
