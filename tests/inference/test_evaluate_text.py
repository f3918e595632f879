from __future__ import annotations

import math
from typing import Any

from leanet.inference.evaluate import Evaluation
from leanet.inference.evaluate_text import to_text
from leanet.ops.stats import Interval


def report(**changes: Any) -> Evaluation:
    """50 defects, 3 of them missed, 152 good images, 4 of them rejected."""
    nan = math.nan
    figures = {
        "auroc": 0.973,
        "average_precision": 0.95,
        "f1": 2 * 47 / (2 * 47 + 4 + 3),
        "recall": 47 / 50,
        "precision": 47 / 51,
        "escapes": 3 / 50,
        "overkill": 4 / 152,
        "balanced_accuracy": (47 / 50 + 148 / 152) / 2,
        "all_positive_f1": 100 / 252,
        "threshold": 0.5,
        "num_normal": 152.0,
        "num_anomalous": 50.0,
        "fn": 3.0,
        "fp": 4.0,
    }
    interval = {
        "auroc": Interval(0.95, 0.991),
        "escapes": Interval(0.01255, 0.16548),
        "overkill": Interval(0.0072, 0.066),
    }
    pixel = dict.fromkeys(("auroc", "aupro", "average_precision", "best_f1", "best_iou"), nan)
    pixel |= {"num_images": 190.0, "num_regions": 61.0}
    options: dict[str, Any] = {"image": {"score": figures}, "interval": {"score": interval}}
    options |= {"pixel": pixel, "num_unmasked": 12, "unreadable": ()}
    return Evaluation(**{**options, **changes})


def test_the_text_says_in_plain_words_what_is_missed_and_rejected() -> None:
    lines = to_text(report()).splitlines()
    assert "misses 3 of 50 defects (6 %, 95 % interval 1-17 %)" in lines
    assert "rejects 4 of 152 good images (3 %, 95 % interval 1-7 %)" in lines
    assert "AUROC 0.973 (95 % interval 0.950-0.991)" in lines
    assert "F1 0.931; calling everything anomalous gives 0.397" in lines
    assert "left out 12 anomalous images without a mask" in lines


def test_a_review_zone_is_told_and_shares_of_nothing_are_left_out() -> None:
    seen = {"count": 5, "total": 50, "low": 0.0333, "high": 0.2181}
    nobody = {"count": 0, "total": 0, "low": 0.0, "high": 1.0}
    zone = {"normal": nobody, "anomalous": seen, "escapes": seen, "overkill": nobody}
    text = to_text(report(review=zone))
    assert "review: a person looks at 5 of 50 defects (10 %, 95 % interval 3-22 %)" in text
    assert "review: 5 of 50 defects lie below the zone (10 %, " in text
    assert "of 0 good images" not in text


def test_the_tables_are_aligned_and_show_the_undefined_as_a_dash() -> None:
    lines = to_text(report()).splitlines()
    heads = [k for k, line in enumerate(lines) if line.startswith(("images", "pixels"))]
    assert len(heads) == 2
    for head in heads:
        assert len(lines[head]) == len(lines[head + 1])
    assert lines[heads[1] + 1].split() == ["map", "-", "-", "-", "-", "-"]
    assert "nan" not in to_text(report())


def test_a_map_with_named_thresholds_has_a_table_of_overlaps_with_both_ceilings() -> None:
    pixel = dict.fromkeys(("auroc", "aupro", "average_precision", "best_f1", "best_iou"), 0.5)
    pixel |= {"num_images": 190.0, "num_regions": 61.0, "num_anomalous": 38.0}
    pixel |= {"threshold_paper": 0.5, "iou_paper": 0.21, "image_iou_paper": 0.17, "f1_paper": 0.3}
    pixel |= {"oracle_iou": 0.24}
    lines = to_text(report(pixel=pixel)).splitlines()
    head = next(k for k, line in enumerate(lines) if line.startswith("overlap"))
    assert lines[head].split("  ")[0] == "overlap on 38 anomalous images"
    assert lines[head + 1].split() == ["paper", "0.210", "0.170", "0.300", "0.500"]
    assert lines[head + 2].split() == ["best", "(oracle)", "0.240", "-", "-", "-"]
    pixel |= {"map_grid": 8.0, "oracle_iou_grid": 0.55}
    assert "ceiling, 8 x 8 map" in to_text(report(pixel=pixel))


def test_a_map_without_named_thresholds_has_no_table_of_overlaps() -> None:
    assert "overlap" not in to_text(report())


def test_transductive_figures_stand_under_that_word() -> None:
    figures = {"accuracy_normal": 0.75, "accuracy_anomalous": 0.5, "mean_accuracy": 0.625}
    figures |= {"low": 0.031, "high": 0.127}
    assert "transductive" not in to_text(report())
    lines = to_text(report(transductive=figures)).splitlines()
    head = next(k for k, line in enumerate(lines) if line.startswith("transductive"))
    assert lines[head + 1].split()[-3:] == ["0.625", "0.750", "0.500"]
    assert (
        "transductive: the scale is 0 at 0.031 and 1 at 0.127, the ends of this very" in lines[-1]
    )


def test_regions_that_the_map_does_not_cover_are_told() -> None:
    pixel = {**(report().pixel or {}), "num_outside": 2.0, "num_regions_outside": 5.0}
    told = "left out 5 marked regions that the map does not cover; 2 anomalous images have no other"
    assert told in to_text(report(pixel=pixel)).splitlines()
    assert "does not cover" not in to_text(report())


def test_thresholds_in_any_unit_can_be_read() -> None:
    for value, text in ((0.000123456, "0.000123"), (54321.6, "54322"), (0.5, "0.500")):
        changed = report()
        figures = {**changed.image["score"], "threshold": value}
        line = next(
            row for row in to_text(report(image={"score": figures})).splitlines() if "score" in row
        )
        assert line.split()[-1] == text
