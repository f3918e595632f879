from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import stats
from sklearn import metrics as sk
from sklearn.preprocessing import MinMaxScaler
from torch import Tensor

from leanet.data.cache import UnreadableImagesError
from leanet.data.images import read_image, read_mask, resize_image
from leanet.files import read_csv, read_json
from leanet.inference.evaluate import Evaluation, evaluate, to_json
from leanet.inference.evaluate_text import to_text
from leanet.inference.predict import predict
from leanet.ops.maps import resize
from leanet.ops.working_point import WorkingPoint
from leanet.records import ANOMALOUS, NORMAL, Prediction, Sample

CPU = torch.device("cpu")
SIDE = 16


class Reds:
    """Score: mean red in percent; map: 10 x red at the network's size; part: mean green."""

    img_size = SIDE

    def __call__(self, image: Tensor) -> Prediction:
        score = 100 * image[:, 0].mean(dim=(1, 2))
        return Prediction(score, 10 * image[:, :1], parts={"green": image[:, 1].mean(dim=(1, 2))})


class Classifier(Reds):
    """The same without a map."""

    def __call__(self, image: Tensor) -> Prediction:
        return super().__call__(image)._replace(map=None)


def sample(
    root: Path, name: str, *, seed: int, defect: int = 0, size: int = 24, masked: bool = True
) -> Sample:
    """Noise; anomalous with a square of `defect` pixels that is a little redder, with its mask."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 160, (size, size + 8, 3), dtype=np.uint8)
    mask = np.zeros((size, size + 8), dtype=np.uint8)
    top, left = rng.integers(0, size - defect, 2)
    mask[top : top + defect, left : left + defect] = 255
    pixels[..., 0] += (60 * (mask > 0)).astype(np.uint8)
    root.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(root / f"{name}.png")
    if not defect:
        return Sample(path=root / f"{name}.png", label=NORMAL, kind="good")
    Image.fromarray(mask).save(root / f"{name}_mask.png")
    where = root / f"{name}_mask.png" if masked else None
    return Sample(path=root / f"{name}.png", label=ANOMALOUS, kind="red", mask=where)


def toy(root: Path, normal: int = 12, anomalous: int = 6, **options: Any) -> list[Sample]:
    """Images of different sizes, normal ones first."""
    samples = [sample(root, f"n{k}", seed=k, size=20 + k) for k in range(normal)]
    return samples + [
        sample(root, f"a{k}", seed=100 + k, defect=7 + k, size=20 + 2 * k, **options)
        for k in range(anomalous)
    ]


def evaluated(samples: list[Sample], out: Path, detector: Any = None, **options: Any) -> Evaluation:
    options = {"threshold": 33.0, "tell": lambda _: None, **options}
    return evaluate(detector or Reds(), samples, out=out, device=CPU, **options)


def network_input(one: Sample) -> NDArray[np.float32]:
    return np.asarray(resize_image(read_image(one.path), SIDE) / 255, dtype=np.float32)


def image_scores(samples: list[Sample]) -> NDArray[np.float64]:
    return np.array([100 * network_input(one)[..., 0].mean(dtype=np.float64) for one in samples])


def labels(samples: list[Sample]) -> NDArray[np.int64]:
    return np.array([one.label for one in samples])


def all_pixels(samples: list[Sample]) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Truth and map of every pixel at the images' own resolution, with all maps in memory."""
    truth, values = [], []
    for one in samples:
        height, width = read_image(one.path).shape[:2]
        plane = torch.from_numpy(10 * network_input(one)[..., 0])
        values.append(resize(plane[None, None], (height, width)).numpy().ravel())
        truth.append(
            np.zeros(height * width, bool) if one.mask is None else read_mask(one.mask).ravel()
        )
    return np.concatenate(truth), np.concatenate(values)


# Image figures


def test_image_figures_agree_with_scikit_learn(tmp_path: Path) -> None:
    samples = toy(tmp_path)
    true, score = labels(samples), image_scores(samples)
    threshold = float(np.median(score))
    figures = evaluated(samples, tmp_path / "out", threshold=threshold).image["score"]
    alarm = score >= threshold
    assert figures["auroc"] == pytest.approx(sk.roc_auc_score(true, score))
    assert figures["average_precision"] == pytest.approx(sk.average_precision_score(true, score))
    assert figures["f1"] == pytest.approx(sk.f1_score(true, alarm))
    assert figures["escapes"] == pytest.approx(1 - sk.recall_score(true, alarm))
    assert figures["overkill"] == pytest.approx(alarm[true == NORMAL].mean())
    assert 0 < figures["overkill"] < 1


def test_a_part_is_judged_by_its_own_threshold(tmp_path: Path) -> None:
    samples = toy(tmp_path)
    green = np.array([network_input(one)[..., 1].mean() for one in samples])
    threshold = float(np.median(green))
    found = evaluated(samples, tmp_path / "out", part_thresholds={"green": threshold})
    assert set(found.image) == set(found.interval) == {"score", "green"}
    assert found.image["green"]["f1"] == pytest.approx(
        sk.f1_score(labels(samples), green >= threshold)
    )


def test_a_review_zone_is_judged_by_who_is_seen_and_who_slips_past(tmp_path: Path) -> None:
    samples = toy(tmp_path)
    score = np.array([100 * network_input(one)[..., 0].mean() for one in samples])
    true, (low, high) = labels(samples), np.quantile(score, [0.3, 0.7])
    found = evaluated(samples, tmp_path / "out", review=(float(low), float(high))).review
    inside = (score >= low) & (score < high)
    assert found is not None
    assert found["normal"]["count"] == np.sum(inside & (true == NORMAL))
    assert found["anomalous"]["count"] == np.sum(inside & (true == ANOMALOUS))
    assert found["escapes"]["count"] == np.sum((score < low) & (true == ANOMALOUS))
    assert found["overkill"]["count"] == np.sum((score >= high) & (true == NORMAL))
    stored = read_json(tmp_path / "out" / "metrics.json")["review"]
    assert stored["normal"]["total"] == found["normal"]["total"] == np.sum(true == NORMAL)


def test_an_unknown_part_is_named_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no score called blue; it gives score, green"):
        evaluated(toy(tmp_path, 2, 2), tmp_path / "out", part_thresholds={"blue": 0.5})


def test_the_intervals_of_escapes_and_overkill_are_exact(tmp_path: Path) -> None:
    samples = toy(tmp_path)
    found = evaluated(samples, tmp_path / "out", threshold=float(np.median(image_scores(samples))))
    figures, interval = found.image["score"], found.interval["score"]
    for name, count, total in (("escapes", "fn", 6), ("overkill", "fp", 12)):
        exact = stats.binomtest(int(figures[count]), total).proportion_ci(0.95, "exact")
        assert interval[name] == pytest.approx((exact.low, exact.high))


def test_the_interval_of_auroc_is_seeded_and_holds_the_estimate(tmp_path: Path) -> None:
    samples = toy(tmp_path)
    samples += [replace(samples[k], label=1 - samples[k].label) for k in (0, 1, 13)]
    first, again, other = (
        evaluated(samples, tmp_path / f"out{k}", seed=seed) for k, seed in enumerate((1, 1, 2))
    )
    low, high = first.interval["score"]["auroc"]
    assert low < first.image["score"]["auroc"] < high <= 1
    assert again.interval == first.interval
    assert other.interval["score"]["auroc"] != first.interval["score"]["auroc"]


def test_scores_are_those_of_predict_whatever_the_batch(tmp_path: Path) -> None:
    samples = toy(tmp_path)
    evaluated(samples, tmp_path / "out", batch_size=5)
    rows = read_csv(tmp_path / "out" / "predictions.csv")
    columns = ["path", "label", "kind", "score", "verdict", "threshold", "green"]
    assert list(rows[0]) == columns
    paths = [one.path for one in samples]
    at = WorkingPoint(33.0)
    given = predict(Reds(), paths, point=at, out=tmp_path / "p", device=CPU, heatmaps=False)
    for row, one, judged in zip(rows, samples, given, strict=True):
        assert (Path(row["path"]), int(row["label"]), row["kind"]) == (
            one.path,
            one.label,
            one.kind,
        )
        assert float(row["score"]) == pytest.approx(judged.score, abs=1e-5)
        assert row["verdict"] == judged.verdict


@pytest.mark.parametrize(("normal", "anomalous"), [(4, 0), (0, 4)])
def test_with_one_class_what_is_undefined_is_nan(
    tmp_path: Path, normal: int, anomalous: int
) -> None:
    found = evaluated(toy(tmp_path, normal, anomalous), tmp_path / "out")
    figures, interval = found.image["score"], found.interval["score"]
    absent, present = ("escapes", "overkill") if normal else ("overkill", "escapes")
    assert math.isnan(figures["auroc"])
    assert math.isnan(figures[absent])
    assert all(math.isnan(end) for end in (*interval["auroc"], *interval[absent]))
    assert 0 <= interval[present].low <= figures[present] <= interval[present].high <= 1


# Transductive figures


def test_the_transductive_score_is_the_score_between_the_ends_of_the_test_set(
    tmp_path: Path,
) -> None:
    samples = toy(tmp_path)
    true, score = labels(samples), image_scores(samples)
    found = evaluated(samples, tmp_path / "out", transductive=True)
    scaled = MinMaxScaler().fit_transform(score[:, None])[:, 0]
    rows = read_csv(tmp_path / "out" / "predictions.csv")
    assert [float(row["transductive"]) for row in rows] == pytest.approx(scaled.tolist(), abs=1e-5)
    assert found.transductive is not None
    expected = sk.balanced_accuracy_score(true, scaled > 0.5)
    assert found.transductive["mean_accuracy"] == pytest.approx(expected)
    assert found.transductive["accuracy_normal"] == (scaled[true == NORMAL] <= 0.5).mean()
    assert found.transductive["accuracy_anomalous"] == (scaled[true == ANOMALOUS] > 0.5).mean()
    assert to_json(found)["transductive"] == found.transductive


def test_nothing_is_transductive_unless_asked_for(tmp_path: Path) -> None:
    samples = toy(tmp_path, 3, 3)
    plain, asked = (
        evaluated(samples, tmp_path / name, transductive=name == "asked")
        for name in ("plain", "asked")
    )
    assert plain.transductive is None
    assert "transductive" not in read_csv(tmp_path / "plain" / "predictions.csv")[0]
    assert plain == replace(asked, transductive=None)


def test_what_cannot_be_scaled_by_the_test_set_is_refused_before_a_file_is_written(
    tmp_path: Path,
) -> None:
    one, twin = toy(tmp_path, 1, 0)[0], sample(tmp_path, "twin", seed=0, size=20)
    for samples, said in (([one], "got 1 image"), ([one, twin], "got 2 equal scores")):
        with pytest.raises(ValueError, match=said):
            evaluated(samples, tmp_path / "out", transductive=True)
    with pytest.raises(ValueError, match="knows no normal class"):
        evaluated(toy(tmp_path), tmp_path / "out", transductive=True, threshold=None)
    assert not (tmp_path / "out").exists()


# Pixel figures


def test_the_detectors_own_thresholds_are_judged_on_anomalous_images(tmp_path: Path) -> None:
    samples = toy(tmp_path)
    detector = Reds()
    detector.map_thresholds, detector.map_grid = {"paper": 6.03}, 4  # type: ignore[attr-defined]
    found = evaluated(samples, tmp_path / "out", detector).pixel
    true, value = all_pixels([one for one in samples if one.label == ANOMALOUS])
    assert found is not None
    assert found["iou_paper"] == pytest.approx(sk.jaccard_score(true, value >= 6.03))
    ious = []
    for one in samples[12:]:
        truth, values = all_pixels([one])
        ious.append(sk.jaccard_score(truth, values >= 6.03))
    assert found["image_iou_paper"] == pytest.approx(np.mean(ious))
    assert found["iou_paper"] <= found["oracle_iou"]
    assert 0 < found["oracle_iou_grid"] < 1
    assert "iou" not in found


def test_pixel_figures_agree_with_scikit_learn_at_the_resolution_of_the_masks(
    tmp_path: Path,
) -> None:
    samples = toy(tmp_path)
    found = evaluated(samples, tmp_path / "out", map_threshold=6.03)
    true, value = all_pixels(samples)
    assert found.pixel is not None
    assert found.pixel["auroc"] == pytest.approx(sk.roc_auc_score(true, value), abs=1e-4)
    expected = sk.average_precision_score(true, value)
    assert found.pixel["average_precision"] == pytest.approx(expected, abs=1e-3)
    assert found.pixel["f1"] == pytest.approx(sk.f1_score(true, value >= 6.03))
    assert found.pixel["iou"] == pytest.approx(sk.jaccard_score(true, value >= 6.03))
    assert (found.pixel["num_images"], found.pixel["num_regions"]) == (18, 6)


def test_the_best_f1_and_iou_are_those_of_the_best_of_all_thresholds(tmp_path: Path) -> None:
    samples = toy(tmp_path, 3, 3)
    found = evaluated(samples, tmp_path / "out")
    true, value = all_pixels(samples)
    assert found.pixel is not None
    levels = np.unique(value)
    hits = np.array([(true & (value >= level)).sum() for level in levels])
    alarms = np.array([(value >= level).sum() for level in levels])
    best_f1 = (2 * hits / (alarms + true.sum())).max()
    best_iou = (hits / (alarms + true.sum() - hits)).max()
    assert found.pixel["best_f1"] == pytest.approx(best_f1, abs=1e-3)
    assert found.pixel["best_iou"] == pytest.approx(best_iou, abs=1e-3)
    assert not {"f1", "iou", "threshold"} & set(found.pixel)


def test_aupro_is_the_area_under_mean_overlap_up_to_three_tenths(tmp_path: Path) -> None:
    samples = toy(tmp_path)
    found = evaluated(samples, tmp_path / "out")
    normal = np.concatenate([v[~t] for t, v in (all_pixels([one]) for one in samples)])
    defects = [v[t] for t, v in (all_pixels([one]) for one in samples) if t.any()]
    levels = np.sort(normal)[::-1][:: max(1, normal.size // 3000)]
    rate = np.array([(normal >= level).mean() for level in levels])
    overlap = np.array([np.mean([(d >= level).mean() for d in defects]) for level in levels])
    grid = np.linspace(0, 0.3, 3001)
    expected = np.interp(grid, rate, overlap).mean()
    assert found.pixel is not None
    assert found.pixel["aupro"] == pytest.approx(expected, abs=3e-3)


def test_anomalous_images_without_a_mask_are_left_out_of_pixel_figures_and_counted(
    tmp_path: Path,
) -> None:
    masked = toy(tmp_path)
    unmasked = [sample(tmp_path, f"u{k}", seed=k, defect=9, masked=False) for k in range(3)]
    with_them = evaluated(masked + unmasked, tmp_path / "a")
    without = evaluated(masked, tmp_path / "b")
    assert with_them.pixel is not None
    assert without.pixel is not None
    assert with_them.num_unmasked == 3
    assert with_them.pixel["num_images"] == without.pixel["num_images"]
    assert with_them.pixel["auroc"] == pytest.approx(without.pixel["auroc"], abs=1e-4)
    assert with_them.image["score"]["num_anomalous"] == 9


def test_pixel_figures_do_not_depend_on_the_order_of_the_images(tmp_path: Path) -> None:
    samples = toy(tmp_path, 50, 6)
    first = evaluated(samples, tmp_path / "a")
    shuffled = [samples[k] for k in np.random.default_rng(0).permutation(len(samples))]
    second = evaluated(shuffled, tmp_path / "b")
    assert first.pixel is not None
    assert second.pixel == pytest.approx(first.pixel, abs=1e-3)


def test_without_masks_there_are_no_pixel_figures(tmp_path: Path) -> None:
    found = evaluated(toy(tmp_path, masked=False), tmp_path / "out")
    assert (found.pixel, found.num_unmasked) == (None, 0)


def test_without_maps_there_are_no_pixel_figures_and_that_is_said(tmp_path: Path) -> None:
    told: list[str] = []
    found = evaluated(toy(tmp_path), tmp_path / "out", Classifier(), tell=told.append)
    assert found.pixel is None
    assert told == ["this detector draws no maps, so there are no pixel figures"]


def test_a_mask_of_another_size_is_an_error_that_names_both(tmp_path: Path) -> None:
    one = sample(tmp_path, "a", seed=0, defect=5)
    assert one.mask is not None
    Image.new("L", (9, 7), 255).save(one.mask)
    with pytest.raises(ValueError, match=r"a_mask\.png is 9x7 pixels and its image 32x24"):
        evaluated([*toy(tmp_path, 2, 1), one], tmp_path / "out")


# Bad files, earlier results, output


def test_unreadable_images_and_masks_are_all_named(tmp_path: Path) -> None:
    samples = toy(tmp_path, 4, 4)
    mask = samples[-1].mask
    assert mask is not None
    for path in (samples[0].path, mask):
        path.write_bytes(b"no image")
    with pytest.raises(UnreadableImagesError) as caught:
        evaluated(samples, tmp_path / "out")
    assert {error.path for error in caught.value.errors} == {samples[0].path, mask}
    assert not (tmp_path / "out").exists()


def test_with_skip_bad_the_rest_counts_and_labels_stay_with_their_images(tmp_path: Path) -> None:
    samples = toy(tmp_path, 6, 6)
    mask = samples[-1].mask
    assert mask is not None
    for path in (samples[0].path, samples[7].path, mask):
        path.write_bytes(b"no image")
    told: list[str] = []
    found = evaluated(samples, tmp_path / "out", skip_bad=True, tell=told.append)
    left = [one for k, one in enumerate(samples) if k not in (0, 7)]
    assert found.image["score"]["auroc"] == pytest.approx(
        sk.roc_auc_score(labels(left), image_scores(left))
    )
    assert found.pixel is not None
    assert (found.pixel["num_images"], found.num_unmasked) == (9, 1)
    assert set(found.unreadable) == {samples[0].path, samples[7].path, mask}
    assert len(told) == 1
    assert "left out 3 unreadable" in told[0]


def test_no_samples_or_none_that_can_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no readable image"):
        evaluated([], tmp_path / "out")
    samples = toy(tmp_path, 1, 0)
    samples[0].path.write_bytes(b"no image")
    with pytest.raises(ValueError, match="no readable image"):
        evaluated(samples, tmp_path / "out", skip_bad=True)


def test_earlier_results_are_replaced_only_when_asked(tmp_path: Path) -> None:
    samples = toy(tmp_path, 2, 2)
    evaluated(samples, tmp_path / "out")
    with pytest.raises(ValueError, match="--overwrite"):
        evaluated(samples, tmp_path / "out")
    evaluated(samples[:3], tmp_path / "out", overwrite=True)
    assert len(read_csv(tmp_path / "out" / "predictions.csv")) == 3


def test_metrics_json_is_strict_json_with_null_for_the_undefined(tmp_path: Path) -> None:
    def refuse(word: str) -> None:
        raise AssertionError(word)

    found = evaluated(toy(tmp_path, 3, 0), tmp_path / "out")
    text = (tmp_path / "out" / "metrics.json").read_text(encoding="utf-8")
    stored = json.loads(text, parse_constant=refuse)
    assert stored == to_json(found)
    assert stored["image"]["score"]["auroc"] is None
    assert stored["interval"]["score"]["escapes"] == [None, None]
    assert stored["image"]["score"]["overkill"] == found.image["score"]["overkill"]


def test_the_text_of_one_class_says_what_cannot_be_known(tmp_path: Path) -> None:
    good = to_text(evaluated(toy(tmp_path, 3, 0), tmp_path / "a"))
    assert "rejects" in good
    assert "misses" not in good
    assert "without anomalous images the ranking is undefined (-)" in good
    bad = to_text(evaluated(toy(tmp_path, 0, 3), tmp_path / "b"))
    assert "misses" in bad
    assert "rejects" not in bad
    assert "nan" not in good + bad
