from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leanet.files import read_json, write_json
from leanet.report.page import result_text, write_report
from leanet.report.pixels import pixel_tables, pixel_text
from leanet.report.run import read_run

WriteRun = Callable[..., Path]


def pixels(**changes: float) -> dict[str, float]:
    """Pixel figures as a trial writes them."""
    figures = {"auroc": 0.9, "aupro": 0.6, "average_precision": 0.3, "oracle_iou": 0.4}
    figures |= {"best_f1": 0.5, "best_iou": 0.35, "num_images": 9, "num_anomalous": 3}
    figures |= {"num_regions": 4, "threshold_paper": 0.5, "iou_paper": 0.2, "image_iou_paper": 0.1}
    figures |= {"f1_paper": 0.3, "threshold_honest": 0.62, "iou_honest": 0.3}
    figures |= {"image_iou_honest": 0.25, "f1_honest": 0.3, "map_grid": 8, "oracle_iou_grid": 0.55}
    return {**figures, **changes}


def with_pixels(run: Path, **by_part: dict[str, float]) -> Path:
    """The run with these figures in its parts, "-" in their names written as "_"."""
    for part, figures in by_part.items():
        file = run / part.replace("_", "-") / "metrics.json"
        write_json(file, {**read_json(file), "pixels": figures})
    return run


def test_the_figures_of_the_folds_have_mean_and_sd(write_run: WriteRun) -> None:
    run = with_pixels(write_run("run"), fold_0=pixels(), fold_1=pixels(iou_paper=0.4, auroc=0.8))
    (table,) = pixel_tables(read_run(run))
    rows = {row.title: row for row in table.rows}
    assert list(rows) == [
        "AUROC",
        "AUPRO 0.3",
        "IoU paper",
        "IoU honest",
        "Best IoU (oracle)",
        "IoU ceiling 8 × 8",
    ]
    assert rows["IoU paper"].figure == pytest.approx((0.3, 0.02**0.5))
    assert rows["IoU honest"].per_image.mean == pytest.approx(0.25)
    assert rows["IoU honest"].note == "map ≥ 0.620"
    assert (table.num_images, table.num_anomalous) == (18, 6)


def test_a_part_without_masks_does_not_count(write_run: WriteRun) -> None:
    run = with_pixels(write_run("run"), fold_1=pixels())
    (table,) = pixel_tables(read_run(run))
    assert table.rows[0].figure.mean == 0.9
    assert table.num_images == 9


def test_the_final_detector_has_a_table_of_its_own_beside_the_folds(write_run: WriteRun) -> None:
    run = with_pixels(write_run("run", final_tested=True), fold_0=pixels(), final=pixels(auroc=0.7))
    folds, final = pixel_tables(read_run(run))
    assert (folds.rows[0].figure.mean, final.rows[0].figure.mean) == (0.9, 0.7)
    assert final.title == "Pixels, the final detector on the data set's own test part"


def test_without_folds_the_final_detector_is_the_run(write_run: WriteRun) -> None:
    run = with_pixels(write_run("run", folds=0, final_tested=True), final=pixels())
    (table,) = pixel_tables(read_run(run))
    assert (table.title, table.num_images) == ("Pixels", 9)
    assert math.isnan(table.rows[0].figure.sd)


def test_a_map_without_named_thresholds_has_no_mean_over_images(write_run: WriteRun) -> None:
    named = ("paper", "honest", "grid")
    plain = {key: v for key, v in pixels().items() if not key.endswith(named)}
    run = with_pixels(write_run("run"), fold_0=plain, fold_1=plain)
    (table,) = pixel_tables(read_run(run))
    assert [row.title for row in table.rows] == ["AUROC", "AUPRO 0.3", "Best IoU (oracle)"]
    assert not table.has_means


def test_the_page_and_the_terminal_show_the_figures(write_run: WriteRun) -> None:
    run = write_run("run", final_tested=True)
    with_pixels(run, fold_0=pixels(), fold_1=pixels(iou_paper=0.4), final=pixels())
    page = write_report(run).read_text()
    assert page.count("Mean over images") == 2
    for text in ("<h3>Pixels</h3>", "0.300 ± 0.141", "IoU ceiling 8 × 8", "the 6 anomalous ones"):
        assert text in page
    text = pixel_text(read_run(run))
    assert text in result_text(run)
    assert text.startswith(
        "pixels    AUROC 0.900 ± 0.000, AUPRO 0.3 0.600 ± 0.000, IoU paper 0.300"
    )
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("earlier", [{}, {"pixels": None}])
def test_a_run_without_pixel_figures_shows_none(
    write_run: WriteRun, earlier: dict[str, Any]
) -> None:
    run = write_run("run")
    for file in run.glob("*/metrics.json"):
        file.write_text(json.dumps(read_json(file) | earlier))
    assert pixel_tables(read_run(run)) == ()
    assert pixel_text(read_run(run)) == ""


def test_what_lies_outside_the_maps_is_told(write_run: WriteRun) -> None:
    cropped = pixels(num_outside=1, num_regions_outside=2)
    run = with_pixels(write_run("run"), fold_0=cropped, fold_1=cropped)
    (table,) = pixel_tables(read_run(run))
    assert "4 marked regions lie there, and 2 anomalous images have no other." in table.outside
    (plain,) = pixel_tables(read_run(with_pixels(write_run("plain"), fold_0=pixels())))
    assert plain.outside == ""
