from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from leanet.files import read_csv, write_csv
from leanet.ops.stats import MeanSD
from leanet.report.run import read_run
from leanet.report.tables import (
    COLUMNS,
    brief,
    by_kind,
    compare,
    in_words,
    number,
    paired_text,
    percent,
    quantity,
    signed,
    spread,
    summarize,
    to_text,
)

WriteRun = Callable[..., Path]


def fold_metric(run: Path, output: str, metric: str) -> list[float]:
    files = sorted(run.glob("fold-*/metrics.json"))
    return [json.loads(file.read_text())["metrics"][output][metric] for file in files]


def test_figures_are_mean_and_sample_sd_over_folds(write_run: WriteRun) -> None:
    run = write_run("run", folds=3, shift=1.0)
    for row in summarize(run).rows:
        for name in set(COLUMNS) - {"f1_at_half"}:
            values = fold_metric(run, row.output, name)
            assert row.figures[name].mean == pytest.approx(statistics.mean(values))
            assert row.figures[name].sd == pytest.approx(statistics.stdev(values))


def test_the_deciding_output_stands_first_and_score_does_not_repeat_it(write_run: WriteRun) -> None:
    rows = summarize(write_run("run")).rows
    assert [(row.output, row.decides) for row in rows] == [
        ("fused", True), ("adn", False), ("aan", False), ("map", False)]  # fmt: skip


def test_a_detector_with_one_output_has_one_row_named_score(write_run: WriteRun) -> None:
    rows = summarize(write_run("run", method="classifier")).rows
    assert [(row.output, row.decides) for row in rows] == [("score", True)]


def test_f1_at_half_is_missing_where_an_output_is_no_logit(write_run: WriteRun) -> None:
    fused, adn = summarize(write_run("run")).rows[:2]
    assert math.isnan(fused.figures["f1_at_half"].mean)
    assert 0 <= adn.figures["f1_at_half"].mean <= 1


def test_the_confusion_counts_every_test_image_at_the_threshold_of_its_fold(
    write_run: WriteRun,
) -> None:
    run = write_run("run", shift=0.5)
    counts = [[0, 0], [0, 0]]
    for file in run.glob("fold-*/predictions.csv"):
        for row in read_csv(file):
            counts[int(row["label"])][float(row["score"]) >= float(row["threshold"])] += 1
    confusion = summarize(run).confusion
    assert [[confusion.tn, confusion.fp], [confusion.fn, confusion.tp]] == counts
    assert sum(confusion) == 18


def test_the_verdict_states_shares_of_these_counts(write_run: WriteRun) -> None:
    summary = summarize(write_run("run", shift=1.0))
    tn, fp, fn, tp = summary.confusion
    assert summary.verdict == (
        f"Finds {100 * tp / (tp + fn):.0f} % of the defects at {100 * fp / (fp + tn):.0f} % "
        "false alarms (cross-validated, 2 folds)"
    )


def test_without_folds_the_final_detector_is_judged_and_no_sd_is_printed(
    write_run: WriteRun,
) -> None:
    summary = summarize(write_run("run", folds=0, final_tested=True))
    assert summary.num_folds == 0
    assert (summary.num_normal, summary.num_anomalous) == (4, 2)
    assert all(math.isnan(figure.sd) for figure in summary.rows[0].figures.values())
    assert "SD" not in to_text(summary)


def test_without_test_images_the_text_says_so_and_how_to_get_some(write_run: WriteRun) -> None:
    summary = summarize(write_run("run", folds=0))
    assert summary.rows == ()
    assert "Nothing was tested" in to_text(summary)
    assert "--folds" in to_text(summary)


def test_a_test_part_beside_the_folds_is_reported_apart(write_run: WriteRun) -> None:
    run = write_run("run", folds=2, final_tested=True, shift=1.0)
    summary = summarize(run)
    final = json.loads((run / "final" / "metrics.json").read_text())["metrics"]
    assert summary.final_rows[0].figures["auroc"].mean == final["fused"]["auroc"]
    assert summary.rows[0].figures["auroc"].mean != final["fused"]["auroc"]


def test_an_unfinished_or_foreign_folder_is_refused(write_run: WriteRun, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no run folder"):
        summarize(tmp_path)
    run = write_run("run")
    (run / "card.json").unlink()
    with pytest.raises(ValueError, match="--resume"):
        summarize(run)


def test_pairs_are_compared_with_the_corrected_variance(write_run: WriteRun) -> None:
    ours = write_run("ours", folds=3, shift=2.0)
    theirs = write_run("theirs", folds=3, shift=1.0, seed=1, method="classifier")
    for row in compare(ours, theirs):
        a = np.array(fold_metric(ours, row.output, row.metric))
        b = np.array(fold_metric(theirs, "score", row.metric))
        error = (a - b).std(ddof=1) * math.sqrt(1 / 3 + 6 / 12)  # 6 test, 12 training images
        low, high = (a - b).mean() + stats.t.ppf([0.025, 0.975], 2) * error
        assert row.difference[:1] == pytest.approx(((a - b).mean(),))
        assert (row.difference.low, row.difference.high) == pytest.approx((low, high))
        assert row.run.mean == pytest.approx(a.mean())
        assert row.baseline.mean == pytest.approx(b.mean())


def test_a_run_does_not_differ_from_itself(write_run: WriteRun) -> None:
    run = write_run("run", method="classifier")
    assert {(row.difference.mean, row.difference.p) for row in compare(run, run)} == {(0.0, 1.0)}


def test_runs_with_other_folds_are_refused_with_the_reason(write_run: WriteRun) -> None:
    run = write_run("two", folds=2)
    with pytest.raises(ValueError, match=r"2 folds and the baseline .* 3"):
        compare(run, write_run("three", folds=3))
    with pytest.raises(ValueError, match="fold-0 tests other images"):
        compare(run, write_run("other", names="pic"))
    with pytest.raises(ValueError, match="0 folds"):
        compare(write_run("none", folds=0), write_run("too", folds=0))


def test_equal_counts_of_other_images_are_refused_too(write_run: WriteRun) -> None:
    run, other = write_run("run"), write_run("other")
    rows = read_csv(other / "folds.csv")
    swap = {"good/img00.png": "good/img01.png", "good/img01.png": "good/img00.png"}
    for row in rows:
        row["path"] = swap.get(row["path"], row["path"])
    write_csv(other / "folds.csv", rows)
    with pytest.raises(ValueError, match=r"2 of them in one run only, e.g. good/img00.png"):
        compare(run, other)


def test_shares_by_kind_agree_with_counting(write_run: WriteRun) -> None:
    images = read_run(write_run("run", shift=1.0)).tested
    scratch, good = by_kind(images)
    assert (scratch.kind, scratch.images, good.kind, good.images) == ("scratch", 6, "good", 12)
    assert scratch.alarms == sum(i.alarm for i in images if i.kind == "scratch")
    exact = stats.binomtest(good.alarms, 12).proportion_ci(method="exact")
    assert good.interval == pytest.approx((exact.low, exact.high))


def test_text_fits_a_terminal_of_100_columns(write_run: WriteRun) -> None:
    run = write_run("run", shift=-3.0)
    paired = paired_text(compare(run, write_run("b", shift=3.0)))
    lines = [*to_text(summarize(run)).splitlines(), *paired.splitlines()]
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(0.1, 0.2, "better"), (-0.2, -0.1, "worse"), (-0.1, 0.2, "no difference")],
)
def test_a_difference_is_called_one_only_when_its_interval_excludes_zero(
    write_run: WriteRun, low: float, high: float, words: str
) -> None:
    row = compare(write_run("a"), write_run("b"))[0]
    row = row._replace(difference=row.difference._replace(low=low, high=high))
    assert words in in_words(row)


def test_figures_are_printed_with_three_decimals_and_missing_ones_as_a_dash() -> None:
    assert number(0.12345) == "0.123"
    assert number(-0.0001) == "0.000"
    assert number(math.nan) == "–"
    assert signed(0.0001) == "0.000"
    assert signed(0.25) == "+0.250"
    assert spread(MeanSD(0.5, math.nan)) == "0.500"
    assert (percent(1, 3), percent(0, 0)) == ("33 %", "0 %")


@pytest.mark.parametrize(
    ("value", "text"),
    [(12.3456, "12.346"), (0.0123456, "0.0123"), (0.000012345, "1.23e-05"), (-0.05, "-0.0500"),
     (98765.4, "98765"), (0.0, "0.000"), (math.nan, "–")],
)  # fmt: skip
def test_quantities_can_be_read_however_small_or_large(value: float, text: str) -> None:
    assert quantity(value) == text


def test_ends_of_scales_have_three_digits() -> None:
    assert [brief(value) for value in (0.0, 1413.2, 0.034278, 30.0)] == [
        "0",
        "1410",
        "0.0343",
        "30",
    ]
