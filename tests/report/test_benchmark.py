from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leanet.files import read_csv, write_csv
from leanet.report.benchmark import honest, notes, verdict, warnings, write_benchmark_report
from leanet.report.results import read_benchmark
from leanet.report.standings import tables

WriteBenchmark = Callable[..., Path]
ReadPage = Callable[[Path], Any]
CAAN = "ResNet18 + ResNet-based CAAN"
EVIL = '"><img src=x onerror=alert(1)>&$'
BEFORE = {"suite.yaml", "environment.json", "results.csv"}
AFTER = {"report.html", "table.md", "table.csv"}
KEPT = {"data", "row", "group", "member", "method", "seed", "fold", "held_out_ap", "seconds"}


def told(folder: Path) -> tuple[str, list[str], str]:
    """(verdict, warnings, notes) of a benchmark."""
    read = read_benchmark(folder)
    made = tables(read)
    return verdict(made), warnings(made), " ".join(notes(read, made))


def test_it_ends_with_a_page_and_two_tables(write_benchmark: WriteBenchmark) -> None:
    folder = write_benchmark("b")
    assert write_benchmark_report(folder) == folder / "report.html"
    assert {file.name for file in folder.iterdir()} - BEFORE == AFTER
    assert {row["kind"] for row in read_csv(folder / "table.csv")} == {
        "single", "member", "mean", "chosen", "oracle"}  # fmt: skip
    assert (folder / "table.md").read_text().startswith("## toy suite\n\ntwo ways to use a map\n")


def test_the_page_stands_alone(write_benchmark: WriteBenchmark, read_page: ReadPage) -> None:
    page = read_page(write_benchmark_report(write_benchmark("b")))
    assert not {"script", "link", "iframe", "img"} & {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        for name, value in attributes.items():
            if name in ("src", "href", "xlink:href"):
                assert (value or "").startswith("#")
            assert not name.startswith("on")
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", page.source))
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert "nan" not in re.sub(r"Retina|leanet|unfinished", "", page.text)


def test_page_and_markdown_say_the_same(
    write_benchmark: WriteBenchmark, read_page: ReadPage
) -> None:
    folder = write_benchmark("b")
    page, markdown = read_page(write_benchmark_report(folder)), (folder / "table.md").read_text()
    for row in read_csv(folder / "table.csv"):
        figure = f"{float(row['auroc_mean']):.3f} ± {float(row['auroc_sd']):.3f}"
        assert figure in markdown
        assert figure in page.text
    for text in (*told(folder)[1], told(folder)[0]):
        assert text in page.text
        assert text in markdown


def test_names_from_files_are_only_ever_text(
    write_benchmark: WriteBenchmark, read_page: ReadPage
) -> None:
    methods = {EVIL: {"method": "classifier"}, f"{EVIL} 2": {"method": "leanet"}}
    data = {EVIL: {"path": "p", "source": EVIL}}
    keys: dict[str, Any] = {"methods": methods, "data": data, "baseline": EVIL, "about": EVIL}
    page = read_page(write_benchmark_report(write_benchmark("b", **keys)))
    assert page.text.count(EVIL) > 5
    assert all(tag != "img" for tag, _ in page.tags)


def test_an_overview_joins_several_data_sets(
    write_benchmark: WriteBenchmark, read_page: ReadPage
) -> None:
    one = read_page(write_benchmark_report(write_benchmark("b")))
    data = {"Potato": {"path": "a"}, "Retina": {"path": "b"}}
    two = read_page(write_benchmark_report(write_benchmark("c", data=data)))
    sections = [[a["id"] for tag, a in page.tags if tag == "section"] for page in (one, two)]
    assert sections == [["verdict", "data-0", "notes"],
                        ["verdict", "overview", "data-0", "data-1", "notes"]]  # fmt: skip


def test_missing_cells_are_announced(write_benchmark: WriteBenchmark, read_page: ReadPage) -> None:
    folder = write_benchmark("b", missing=lambda data, row, seed, fold: row.endswith("A5"))
    page = read_page(write_benchmark_report(folder))
    assert "Potato: 5 of 25 cells are missing" in page.text
    assert "20 of 25" in page.text
    assert "no trials" in page.text
    assert told(write_benchmark("whole"))[1] == []


def test_nothing_finished_is_a_page_too(
    write_benchmark: WriteBenchmark, read_page: ReadPage
) -> None:
    folder = write_benchmark("b", missing=lambda *_: True)
    page = read_page(write_benchmark_report(folder))
    assert "Nothing is compared" in page.text
    assert "0 of 25" in page.text


def test_the_verdict_counts_what_holds_after_correction(write_benchmark: WriteBenchmark) -> None:
    def clear(data: str, row: str, seed: int, fold: int, output: str, column: str) -> float | None:
        if column not in ("f1_at_half", "f1", "auroc", "average_precision"):
            return None
        gain = 0.3 if row == "better" and output == "adn" else 0.0
        return 0.5 + gain + 0.0001 * ((fold * 7 + len(column) + len(row)) % 5)

    methods = {"plain": {"method": "classifier"}, "better": {"method": "leanet"}}
    text, _, _ = told(write_benchmark("b", methods=methods, baseline="plain", figure=clear))
    assert text == (
        "3 of the 12 differences to the baseline are significant at 5 % after Holm's correction: "
        "3 up, 0 down."
    )
    text, _, _ = told(write_benchmark("c"))
    assert re.match(r"None of the \d+ differences", text)


def test_the_notes_say_when_a_choice_had_more_tries_than_the_baseline(
    write_benchmark: WriteBenchmark,
) -> None:
    each = {"attention_points": [[0], [3], [4]]}
    methods = {"ResNet18": {"method": "classifier", "each": {"draw": [0, 1, 2]}},
               CAAN: {"method": "leanet", "each": each}}  # fmt: skip
    unequal = told(write_benchmark("b"))[2]
    assert f"chosen rows of {CAAN} had 3 members to choose from, the baseline one" in unequal
    assert "Not like with like" not in told(write_benchmark("c", methods=methods))[2]


def test_the_notes_name_the_number_of_comparisons_and_the_source(
    write_benchmark: WriteBenchmark,
) -> None:
    folder = write_benchmark("b")
    (made,) = tables(read_benchmark(folder))
    text = told(folder)[2]
    assert f"Comparisons: {made.num_comparisons} on Potato." in text
    assert "Nadeau & Bengio" in text
    assert "arXiv 2109.05493" in text
    bare = told(write_benchmark("c", published=None, baseline=None))[2]
    assert "arXiv" not in bare
    assert "Nadeau" not in bare


def test_the_same_files_give_the_same_bytes(write_benchmark: WriteBenchmark) -> None:
    folder = write_benchmark("b")
    write_benchmark_report(folder)
    before = [(folder / name).read_bytes() for name in AFTER]
    write_benchmark_report(folder)
    assert [(folder / name).read_bytes() for name in AFTER] == before


def test_a_suite_with_few_defects_has_a_page_of_its_own(write_few: WriteBenchmark) -> None:
    told: list[str] = []
    folder = write_few("b", data={"Leaf": {"path": "leaf"}})
    assert write_benchmark_report(folder, told.append) == folder / "report.html"
    made = {file.name for file in folder.iterdir()} - BEFORE
    assert made == {"report.html", "few_defects.md", "few_defects.csv"}
    assert len(told) == 1
    assert told[0].startswith("Default is nowhere worse than the best rival")


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no benchmark"):
        write_benchmark_report(tmp_path)


def write_class_results(folder: Path, *, score: bool) -> Path:
    """Give a benchmark the results of several classes: every other row, or all, in place of F1."""
    rows = [row for row in read_csv(folder / "results.csv") if row["output"] == "score"]
    made = []
    for k, row in enumerate(rows):
        facts = {key: row[key] for key in row if key in KEPT}
        gain = 0.02 * (row["row"] != "ResNet18") + 0.001 * (k % 5)
        figures = {"accuracy": 0.8 + gain, "balanced_accuracy": 0.78, "macro_f1": 0.77,
                   "nll": 0.5, "ece": 0.1, "majority": 0.383, "num_test": 30,
                   "num_train": 90, "parameters": 11_000_000}  # fmt: skip
        made.append(facts | {"output": "classes"} | figures)
        if score:
            made.append(row)
    write_csv(folder / "results.csv", made)
    return folder


@pytest.mark.parametrize("score", [False, True])
def test_several_classes_have_columns_of_their_own(
    score: bool, write_benchmark: WriteBenchmark, read_page: ReadPage
) -> None:
    folder = write_class_results(write_benchmark("b", published=None), score=score)
    page = read_page(write_benchmark_report(folder))
    text = (folder / "table.md").read_text()
    assert "Macro F1" in page.text
    assert "Accuracy of naming the most frequent class: 0.383" in page.text
    assert "| ResNet18 | classes | 0.802 ± 0.002 |" in text
    assert ("AUROC" in text) == score
    assert "differences to the baseline" in told(folder)[0]


def test_the_accuracy_of_several_classes_is_compared_with_the_baseline(
    write_benchmark: WriteBenchmark,
) -> None:
    folder = write_class_results(write_benchmark("b", published=None), score=False)
    (table,) = tables(read_benchmark(folder))
    (line,) = (line for line in table.main if line.name == "ResNet18 (4ch input)")
    difference = line.compared["accuracy"].difference
    assert difference.mean == pytest.approx(0.02)
    assert table.headline == "accuracy"
    assert table.by_class
    assert honest([line]).figures["accuracy"].mean == pytest.approx(0.822)
