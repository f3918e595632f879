from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from leanet.files import read_csv, write_csv
from leanet.report.benchmark import CLAIMED, notes, warnings, write_benchmark_report
from leanet.report.pixel_standings import ALL, claims, pixel_notes, pixel_tables, to_markdown
from leanet.report.results import Benchmark, read_benchmark, read_claims
from leanet.report.standings import tables

WriteBenchmark = Callable[..., Path]
FIGURES = ("auroc", "aupro", "threshold_paper", "iou_paper", "image_iou_paper", "oracle_iou")
CATEGORIES = sorted({data for data, _, _ in read_claims("cavga")} - {"average", "lag"})
SUITE: dict[str, Any] = {
    "options": {"folds": 0, "img_size": 256},
    "seeds": [0, 1, 2],
    "data": {"Bottle": {"path": "bottle"}, "metal_nut": {"path": "metal_nut"}},
    "methods": {
        "CAVGA-R_u": {"method": "colorizer"},
        "CAVGA-R_w": {"method": "colorizer"},
        "blind": {"method": "classifier"},
    },
    "baseline": "CAVGA-R_u",
    "published": "cavga",
}


def value(data: str, row: str, seed: str, name: str) -> float:
    """A pixel figure of a cell: any number, but always the same."""
    place = [ord(letter) for letter in f"{data}{row}{seed}{name}"]
    return float(np.random.default_rng(place).random())


def with_maps(folder: Path, *, grid: bool = True) -> Benchmark:
    """The benchmark with pixel figures in all rows but the blind one."""
    rows = read_csv(folder / "results.csv")
    for row in rows:
        row["balanced_accuracy"] = "0.75"
        if row["row"] != "blind":
            where = row["data"], row["row"], row["seed"]
            row |= {f"pixel_{name}": str(value(*where, name)) for name in FIGURES}
            row |= {"pixel_oracle_iou_grid": "0.6", "pixel_map_grid": "8"} if grid else {}
    write_csv(folder / "results.csv", rows)
    return read_benchmark(folder)


def values(data: str, row: str, name: str = "iou_paper") -> list[float]:
    return [value(data, row, seed, name) for seed in "012"]


def test_a_suite_on_the_own_split_has_a_trial_for_every_seed(
    write_benchmark: WriteBenchmark,
) -> None:
    benchmark = read_benchmark(write_benchmark("b", **SUITE))
    assert benchmark.trials == ((0, 0), (1, 0), (2, 0))
    assert benchmark.num_folds == 1


def test_every_row_with_maps_has_its_figures_and_no_other_row(
    write_benchmark: WriteBenchmark,
) -> None:
    found = pixel_tables(with_maps(write_benchmark("b", **SUITE)))
    assert list(found) == [ALL, "Bottle", "metal_nut"]
    table = found["Bottle"]
    assert list(table.columns.values()) == [
        "AUROC", "Mean accuracy", "Pixel AUROC", "AUPRO 0.3", "IoU paper", "Best IoU (oracle)",
        "IoU ceiling"]  # fmt: skip
    assert [line.name for line in table.lines] == ["CAVGA-R_u", "CAVGA-R_w"]
    figure = table.lines[1].figures["pixel_iou_paper"]
    assert figure.mean == pytest.approx(np.mean(values("Bottle", "CAVGA-R_w")))
    assert figure.sd == pytest.approx(np.std(values("Bottle", "CAVGA-R_w"), ddof=1))


def test_differences_on_one_data_set_are_paired_by_seed(write_benchmark: WriteBenchmark) -> None:
    baseline, line = pixel_tables(with_maps(write_benchmark("b", **SUITE)))["Bottle"].lines
    assert baseline.differences == {}
    ours, theirs = values("Bottle", "CAVGA-R_w"), values("Bottle", "CAVGA-R_u")
    found, expected = line.differences["pixel_iou_paper"], stats.ttest_rel(ours, theirs)
    assert found.mean == pytest.approx(np.mean(ours) - np.mean(theirs))
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()))
    assert "pixel_oracle_iou_grid" not in line.differences  # no merit of the row


def test_over_all_data_sets_each_counts_the_same_and_seeds_are_no_data_sets(
    write_benchmark: WriteBenchmark,
) -> None:
    line = pixel_tables(with_maps(write_benchmark("b", **SUITE)))[ALL].lines[1]
    ours = [np.mean(values(data, "CAVGA-R_w")) for data in SUITE["data"]]
    theirs = [np.mean(values(data, "CAVGA-R_u")) for data in SUITE["data"]]
    assert line.figures["pixel_iou_paper"].mean == pytest.approx(np.mean(ours))
    assert line.figures["pixel_iou_paper"].sd == pytest.approx(np.std(ours, ddof=1))
    found = line.differences["pixel_iou_paper"]
    assert (found.n, found.mean) == (2, pytest.approx(np.mean(ours) - np.mean(theirs)))
    assert found.p == pytest.approx(stats.ttest_rel(ours, theirs).pvalue)


def test_what_is_missing_is_said(write_benchmark: WriteBenchmark) -> None:
    folder = write_benchmark(
        "b",
        **SUITE,
        missing=lambda data, row, seed, _: (data, row, seed) == ("Bottle", "CAVGA-R_w", 1),
    )
    found = pixel_tables(with_maps(folder))
    assert [line.state for line in found["Bottle"].lines] == ["", "2 of 3 trials"]
    assert [line.state for line in found[ALL].lines] == ["", "1 of 2 data sets"]
    assert "CAVGA-R_w (2 of 3 trials)" in to_markdown(found["Bottle"])


def test_one_data_set_has_no_table_of_all_and_none_without_maps_has_any(
    write_benchmark: WriteBenchmark,
) -> None:
    one = SUITE | {"data": {"Bottle": {"path": "bottle"}}}
    assert list(pixel_tables(with_maps(write_benchmark("b", **one)))) == ["Bottle"]
    plain = read_benchmark(write_benchmark("c", **SUITE))
    assert pixel_tables(plain) == {}
    assert claims(plain, {}) == []


# Unverified claims


def test_claims_stand_beside_ours_by_data_set_and_row(write_benchmark: WriteBenchmark) -> None:
    benchmark = with_maps(write_benchmark("b", **SUITE))
    found = claims(benchmark, pixel_tables(benchmark))
    assert {(c.data, c.row, c.claimed) for c in found} == {
        ("Bottle", "CAVGA-R_u", 0.34), ("Bottle", "CAVGA-R_w", 0.39),
        ("metal_nut", "CAVGA-R_u", 0.45), ("metal_nut", "CAVGA-R_w", 0.46)}  # fmt: skip
    assert {c.ceiling for c in found} == {0.6}
    assert found[0].ours.mean == pytest.approx(np.mean(values("Bottle", "CAVGA-R_u")))


def test_the_claimed_mean_needs_all_its_data_sets(write_benchmark: WriteBenchmark) -> None:
    data = {name: {"path": name} for name in CATEGORIES}
    benchmark = with_maps(write_benchmark("b", **SUITE | {"data": data}))
    found = claims(benchmark, pixel_tables(benchmark))
    mean = {(c.row, c.figure): c.claimed for c in found if c.data == ALL}
    assert mean["CAVGA-R_u", "IoU paper"] == 0.47
    assert mean["CAVGA-R_w", "Pixel AUROC"] == 0.93
    assert mean["CAVGA-R_u", "Mean accuracy"] == 0.82


def test_the_claimed_means_are_those_of_the_claims_of_the_data_sets() -> None:
    claimed = read_claims("cavga")
    assert len(CATEGORIES) == 15
    for row in ("D_u", "R_u", "D_w", "R_w"):
        own = [claimed[data, row, "pixel_iou_paper"] for data in CATEGORIES]
        assert np.mean(own) == pytest.approx(claimed["average", row, "pixel_iou_paper"], abs=0.006)


def test_claims_are_printed_under_their_heading_and_nowhere_else(
    write_benchmark: WriteBenchmark,
) -> None:
    folder = write_benchmark("b", **SUITE | {"data": {"hazelnut": {"path": "hazelnut"}}})
    with_maps(folder)
    page = write_benchmark_report(folder).read_text()
    table = (folder / "table.md").read_text()
    for text in (page, table):
        before, _, after = text.partition(CLAIMED)
        assert "0.510" not in before
        assert "0.510" in after
        assert "checked against nothing" in after
    assert "0.51" not in (folder / "table.csv").read_text()


def test_without_the_asking_no_claim_is_printed(write_benchmark: WriteBenchmark) -> None:
    folder = write_benchmark("b", **SUITE | {"published": None})
    benchmark = with_maps(folder)
    assert claims(benchmark, pixel_tables(benchmark)) == []


# Page and files


def test_the_page_and_the_files_hold_the_figures(write_benchmark: WriteBenchmark) -> None:
    folder = write_benchmark("b", **SUITE)
    line = pixel_tables(with_maps(folder))[ALL].lines[1]
    page = write_benchmark_report(folder).read_text()
    expected = f"{line.figures['pixel_auroc'].mean:.3f} ± {line.figures['pixel_auroc'].sd:.3f}"
    assert expected in page
    assert expected in (folder / "table.md").read_text()
    rows = read_csv(folder / "table.csv")
    (own,) = [r for r in rows if (r["data"], r["entry"]) == ("metal_nut", "CAVGA-R_w")]
    mean = np.mean(values("metal_nut", "CAVGA-R_w", "auroc"))
    assert float(own["pixel_auroc_mean"]) == pytest.approx(mean)
    assert "own split × 3 seeds" in page
    assert "paired by seed" in page
    assert "corrected resampled" not in page


def test_with_folds_the_differences_are_paired_by_fold_and_seed(
    write_benchmark: WriteBenchmark,
) -> None:
    folder = write_benchmark("b", **SUITE | {"options": {"folds": 4}})
    benchmark = with_maps(folder, grid=False)
    found = pixel_tables(benchmark)
    told = " ".join([*notes(benchmark, tables(benchmark)), *pixel_notes(benchmark, found)])
    assert "paired by fold and seed; over all data sets" in told
    assert "corrected resampled t test" in told
    assert "IoU ceiling" not in found["Bottle"].columns.values()


def test_rows_that_were_tested_on_other_images_are_a_warning(
    write_benchmark: WriteBenchmark,
) -> None:
    fewer = lambda data, row, seed, fold, output, column: (  # noqa: E731
        8.0 if (data, row, column) == ("Bottle", "CAVGA-R_w", "num_anomalous") else None
    )
    alike = read_benchmark(write_benchmark("a", **SUITE))
    unlike = read_benchmark(write_benchmark("b", **SUITE, figure=fewer))
    assert warnings(tables(alike)) == []
    (told,) = warnings(tables(unlike))
    assert told.startswith("Bottle: not all rows were tested on equally many images")
