from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from leanet.cli import main
from leanet.files import read_csv, read_json, write_json
from leanet.inference import cam_view
from leanet.ops.stats import mcnemar
from leanet.report.compare import Comparison, compare_runs, figures_of
from leanet.report.compare_figures import color_of, comparison_curves, difference_chart
from leanet.report.compare_page import explanations, write_comparison
from leanet.report.compare_text import csv_rows, noise_text, plan_text, to_text, verdict_text
from leanet.report.run import Run, read_run

WriteRun = Callable[..., Path]
ReadPage = Callable[[Path], Any]
Runs = Callable[..., list[Path]]


@pytest.fixture
def runs(write_classes: WriteRun) -> Runs:
    """runs(none=(skill, draws), se=(skill, draws), **fields of ToyClasses) -> their folders."""

    def write(**given: Any) -> list[Path]:
        variants = {key: given.pop(key) for key in list(given) if key in ("none", "se", "cbam")}
        options = given.pop("options", {})
        return [
            write_classes(
                f"{name}-{draw}",
                skill=skill,
                luck=1000 * len(name) + draw,
                options=tuple({"attention": name, "draw": draw, **options.get(name, {})}.items()),
                **given,
            )
            for name, (skill, draws) in variants.items()
            for draw in draws
        ]

    return write


def rightness(folder: Path) -> dict[str, bool]:
    return {image.path: not image.wrong for image in read_run(folder).named}


def test_the_difference_is_that_of_paired_draws_with_its_t_test(runs: Runs) -> None:
    folders = runs(none=(1.0, range(4)), se=(1.4, range(4)))
    row = compare_runs(folders).rows[1]
    each = [np.mean(list(rightness(folder).values())) for folder in folders]
    expected = stats.ttest_rel(each[4:], each[:4])
    assert row.contrast is not None
    assert row.contrast.over_draws.mean == pytest.approx(np.mean(each[4:]) - np.mean(each[:4]))
    assert row.contrast.over_draws.p == pytest.approx(expected.pvalue)
    assert row.contrast.p_holm == row.contrast.over_draws.p
    assert row.of_repeats == pytest.approx(np.subtract(each[4:], each[:4]))


def test_a_much_better_method_is_called_better_and_an_equal_one_not(runs: Runs) -> None:
    folders = runs(none=(1.0, range(4)), se=(1.0, range(4)), cbam=(6.0, range(4)), images=60)
    comparison = compare_runs(folders)
    verdicts = [verdict_text(comparison, row) for row in comparison.rows]
    assert verdicts[0] == "baseline"
    assert verdicts[1].startswith("not distinguishable (90 images: could have seen about 13 po")
    assert verdicts[2] == "better"


def test_single_runs_get_mcnemar_and_no_verdict_on_the_method(runs: Runs) -> None:
    folders = runs(none=(1.0, [0]), se=(4.0, [0]))
    comparison = compare_runs(folders)
    plain, se = map(rightness, folders)
    (duel,) = comparison.duels
    assert duel.test == mcnemar(list(se.values()), [plain[path] for path in se])
    assert (duel.variant, duel.repeat) == ("se", "seed 0, draw 0")
    assert verdict_text(comparison, comparison.rows[1]).startswith("not tested")
    assert f"won {duel.test.only_a}, lost {duel.test.only_b}" in to_text(comparison)


def test_images_of_one_group_are_resampled_together(runs: Runs) -> None:
    comparison = compare_runs(runs(none=(1.0, [0]), se=(1.0, [0]), groups=13))
    assert (comparison.num_images, comparison.num_groups) == (60, 13)
    assert "60 test images in 13 groups" in to_text(comparison)


def test_figures_are_of_all_test_images_together(runs: Runs) -> None:
    folder = runs(none=(1.0, [0]), folds=3)[0]
    run = read_run(folder)
    figures = figures_of(run, ["accuracy", "macro_f1", "auroc"])
    assert figures["accuracy"] == pytest.approx(np.mean([not i.wrong for i in run.named]))
    assert math.isnan(figures["auroc"])


def test_runs_of_normal_and_anomalous_are_compared_by_their_verdicts(write_run: WriteRun) -> None:
    folders = [write_run("plain", method="classifier", shift=0.5), write_run("lea", shift=5.0)]
    comparison = compare_runs(folders)
    assert list(comparison.titles)[:2] == ["accuracy", "auroc"]
    assert [row.variant.name for row in comparison.rows] == ["classifier", "leanet"]
    right = [not image.wrong for image in read_run(folders[1]).tested]
    assert comparison.rows[1].figures["accuracy"].mean == pytest.approx(np.mean(right))
    lea, plain = (read_run(folder) for folder in folders[::-1])
    expected = mean_auroc(lea) - mean_auroc(plain)
    assert comparison.rows[1].differences["auroc"].mean == pytest.approx(expected)


def mean_auroc(run: Run) -> float:
    return float(np.mean([part.metrics["score"]["auroc"] for part in run.folds]))


def test_other_draws_of_the_baseline_are_the_noise_floor(runs: Runs) -> None:
    comparison = compare_runs(runs(none=(1.0, range(6)), se=(1.0, range(3))))
    assert comparison.noise.pair is not None
    difference, interval = comparison.noise.pair
    accuracy = [np.mean(list(rightness(r.folder).values())) for r in baseline_runs(comparison)]
    assert difference.mean == pytest.approx(np.mean(accuracy[3:]) - np.mean(accuracy[:3]))
    assert interval.low < 0 < interval.high
    assert comparison.noise.largest == pytest.approx(max(accuracy) - min(accuracy))
    assert "Its 3 other runs" in noise_text(comparison)


def baseline_runs(comparison: Comparison) -> Iterable[Run]:
    return comparison.baseline.variant.runs.values()


def test_one_run_of_the_baseline_leaves_the_noise_unknown(runs: Runs) -> None:
    comparison = compare_runs(runs(none=(1.0, [0]), se=(1.0, [0])))
    assert comparison.noise.pair is None
    assert "is unknown" in noise_text(comparison)


def test_draws_that_only_one_method_has_are_told_and_left_out(runs: Runs) -> None:
    comparison = compare_runs(runs(none=(1.0, range(2)), se=(1.0, range(4))))
    assert comparison.rows[1].shared == (("0", "0"), ("0", "1"))
    assert any("2 of 4 runs of se have no run" in text for text in comparison.warnings)


def test_other_epochs_and_other_places_are_told_loudly(runs: Runs, read_page: ReadPage) -> None:
    options = {"se": {"epochs": 90, "data": "else/where"}}
    folders = runs(none=(1.0, [0]), se=(1.0, [0]), options=options)
    unfair, moved = compare_runs(folders).warnings
    assert unfair.startswith("NOT A FAIR COMPARISON")
    assert "epochs 90 (baseline: 6)" in unfair
    assert "else/where" in moved
    out = folders[0] / "comparison"
    assert unfair in to_text(write_comparison(folders, out))
    page = read_page(out / "compare.html")
    assert unfair in page.text
    assert "differs in epochs" in page.text


def test_the_planning_line_is_that_of_the_test_images(runs: Runs) -> None:
    text = plan_text(compare_runs(runs(none=(1.0, [0]), se=(1.0, [0]), images=76)))
    assert "8, 12 or 14 points on 114 images" in text
    assert "4.4 points need 403, 808 or 1214 images" in text


def test_the_files_say_the_same_as_the_comparison(runs: Runs, tmp_path: Path) -> None:
    folders = runs(none=(1.0, range(2)), se=(3.0, range(2)), normal="healthy")
    comparison = write_comparison(folders, tmp_path / "out")
    rows = read_csv(tmp_path / "out" / "comparison.csv")
    assert [row["variant"] for row in rows] == ["plain", "se"]
    assert rows[0]["difference"] == ""
    assert float(rows[1]["difference"]) == comparison.rows[1].contrast.over_draws.mean  # type: ignore[union-attr]
    assert rows[1]["folders"] == "se-0, se-1"
    assert list(rows[0]) == list(csv_rows(comparison)[1])
    told = read_json(tmp_path / "out" / "comparison.json")
    assert told["variants"][1]["runs"]["seed 0, draw 1"] == str(folders[3])
    assert np.sum(told["variants"][0]["confusion"]) == 2 * comparison.num_images
    assert told["mcnemar"][0]["won"] == comparison.duels[0].test.only_a
    assert "NaN" not in json.dumps(told)


def test_the_page_stands_alone_and_names_are_only_text(
    write_classes: WriteRun, read_page: ReadPage, tmp_path: Path
) -> None:
    evil = '"><img src=x onerror=alert(1)>&$'
    folders = [
        write_classes(f"r{k}", classes=("ok", evil), luck=k, options=(("attention", name),))
        for k, name in enumerate(("none", evil))
    ]
    write_comparison(folders, tmp_path / "out")
    page = read_page(tmp_path / "out" / "compare.html")
    assert page.count("img") == page.count("script") == page.count("link") == 0
    assert "onerror" not in {name for _, attributes in page.tags for name in attributes}
    assert evil in page.text


def test_the_same_runs_give_the_same_page(runs: Runs, tmp_path: Path) -> None:
    folders = runs(none=(1.0, range(2)), se=(3.0, range(2)))
    for name in ("a", "b"):
        write_comparison(folders, tmp_path / name)
    for file in ("compare.html", "comparison.csv", "comparison.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_all_variants_share_one_chart_per_quantity(runs: Runs) -> None:
    comparison = compare_runs(runs(none=(1.0, range(2)), se=(1.0, range(2))))
    charts = comparison_curves(comparison)
    assert len(charts) == 4
    assert all(color_of(k) in chart for k in range(2) for chart in charts)
    assert "points" in difference_chart(comparison)


def test_panels_of_the_same_image_stand_side_by_side(
    runs: Runs, read_page: ReadPage, tmp_path: Path
) -> None:
    folders = runs(none=(1.0, [0]), se=(1.0, [0]))
    write_comparison(folders, tmp_path / "out")
    assert "leanet explain" in read_page(tmp_path / "out" / "compare.html").text
    for k, folder in enumerate(folders):
        images = [tmp_path / "leaves" / "a" / "1.png", tmp_path / f"only-{k}" / "2.png"]
        explain(folder / "explanations", images)
    (shared,) = explanations(compare_runs(folders))
    assert shared.name == "a/1.png"  # 2.png has one name in two places: two images
    assert len(shared.uris) == 2
    write_comparison(folders, tmp_path / "out")
    assert read_page(tmp_path / "out" / "compare.html").count("img") == 2


def explain(folder: Path, images: list[Path]) -> None:
    """Leave what `leanet explain` leaves of these images."""
    for image in images:
        (folder / "panels").mkdir(parents=True, exist_ok=True)
        Image.new("RGBA", (900, 30)).save(folder / "panels" / image.name)
    told = [{"path": str(image), "panel": f"panels/{image.name}"} for image in images]
    write_json(folder / "cams.json", {"images": told})


def test_the_files_of_explain_are_the_ones_that_are_looked_for() -> None:
    source = inspect.getsource(cam_view)
    assert cam_view.FACTS == "cams.json"
    assert '"panel"' in source
    assert '"images"' in source


def test_the_verb_prints_the_table_and_writes_beside_the_first_run(
    runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = runs(none=(1.0, [0]), se=(1.0, [0]))
    assert main(["compare", *map(str, folders)]) == 0
    told = capsys.readouterr().out
    page = folders[0] / "comparison" / "compare.html"
    assert "differences to plain" in told
    assert told.endswith(f"page: {page}\n")
    assert page.exists()


def test_a_single_run_is_refused_on_the_command_line(
    runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(runs(none=(1.0, [0]))[0])]) == 2
    assert "nothing to compare" in capsys.readouterr().err
