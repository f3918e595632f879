from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sklearn.metrics import average_precision_score

from leanet.benchmark.results import write_results
from leanet.benchmark.suite import Cell, cells, read_suite
from leanet.files import read_csv, write_csv, write_json

WriteSuite = Callable[..., Path]
HELD_OUT = [(0, -1.5), (1, 0.2), (0, 0.7), (1, 2.5)]  # label, score


def finish(cell: Cell, out: Path, held_out: list[tuple[int, float]] = HELD_OUT) -> None:
    """Leave the files of a finished cell."""
    outputs = ("score", "adn") if cell.row.method == "leanet" else ("score",)
    outcome: dict[str, Any] = {
        "metrics": {output: {"auroc": 0.25 + cell.fold / 8, "f1": 0.5} for output in outputs},
        "remarks": {"trained_on": {"normal": 9, "anomalous": 3}},
        "epochs": 4,
        "seconds": 1.5,
        "parameters": 1000,
    }
    rows = [("test", 1, 0.9), *(("held_out", *one) for one in held_out)]
    write_json(out / cell.folder / "metrics.json", outcome)
    write_csv(
        out / cell.folder / "predictions.csv",
        [
            {"path": f"{i}.png", "role": role, "label": label, "kind": "", "verdict": "normal",
             "threshold": 0.0, **dict.fromkeys(outputs, score), "adn": -score}
            for i, (role, label, score) in enumerate(rows)
        ],
    )  # fmt: skip


def test_there_is_a_line_for_every_output_of_every_cell(
    tmp_path: Path, write_suite: WriteSuite
) -> None:
    suite = read_suite(write_suite(seeds=[3, 5]))
    for cell in cells(suite):
        finish(cell, tmp_path)
    rows = read_csv(write_results(suite, tmp_path))
    assert len(rows) == 2 * 2 * (1 + 2 * 2)  # seeds, folds, outputs of the three rows
    first, member = rows[0], rows[2]
    assert (first["data"], first["row"], first["group"], first["member"]) == (
        "Toy", "plain", "plain", "")  # fmt: skip
    assert (member["row"], member["group"], member["member"]) == ("steered, A2", "steered", "A2")
    assert (member["method"], member["output"], member["seed"]) == ("leanet", "adn", "3")
    assert (first["num_train_normal"], first["num_train_anomalous"]) == ("9", "3")
    assert {row["fold"]: row["auroc"] for row in rows} == {"0": "0.25", "1": "0.375"}


def test_few_defects_have_their_coordinates_and_others_none(
    tmp_path: Path, write_suite: WriteSuite, toy: Path
) -> None:
    data = {"Toy": {"path": str(toy)}, "New": {"path": str(toy), "unseen": True}}
    few = read_suite(write_suite(data=data, few={"labelled": [1, 5], "draws": 2}))
    for name, suite in (("few", few), ("other", read_suite(write_suite()))):
        for cell in cells(suite):
            finish(cell, tmp_path / name)
    columns = "data", "labelled", "draw", "unseen"
    rows = read_csv(write_results(few, tmp_path / "few"))
    assert {tuple(row[name] for name in columns) for row in rows} == {
        (name, k, draw, unseen) for name, unseen in (("Toy", "0"), ("New", "1"))
        for k in "15" for draw in "01"}  # fmt: skip
    (other,) = {
        tuple(row[name] for name in columns)
        for row in read_csv(write_results(read_suite(write_suite()), tmp_path / "other"))
    }
    assert other == ("Toy", "", "", "")


def test_the_held_out_images_alone_make_the_held_out_figure(
    tmp_path: Path, write_suite: WriteSuite
) -> None:
    suite = read_suite(write_suite())
    for cell in cells(suite):
        finish(cell, tmp_path)
    by_output = {row["output"]: row for row in read_csv(write_results(suite, tmp_path))}
    labels, scores = [label for label, _ in HELD_OUT], [score for _, score in HELD_OUT]
    for output, sign in (("score", 1), ("adn", -1)):
        expected = average_precision_score(labels, [sign * score for score in scores])
        assert float(by_output[output]["held_out_ap"]) == pytest.approx(expected)


@pytest.mark.parametrize("held_out", [[], [(0, 0.1), (0, 0.3)]])
def test_without_both_classes_held_out_there_is_no_such_figure(
    held_out: list[tuple[int, float]], tmp_path: Path, write_suite: WriteSuite
) -> None:
    suite = read_suite(write_suite())
    finish(cells(suite)[0], tmp_path, held_out)
    (row,) = read_csv(write_results(suite, tmp_path))
    assert math.isnan(float(row["held_out_ap"]))


def test_what_is_not_finished_is_not_there(tmp_path: Path, write_suite: WriteSuite) -> None:
    suite = read_suite(write_suite())
    assert read_csv(write_results(suite, tmp_path)) == []
    cell = cells(suite)[1]
    finish(cell, tmp_path)
    (tmp_path / cells(suite)[2].folder).mkdir(parents=True)
    rows = read_csv(write_results(suite, tmp_path))
    assert {(row["row"], row["fold"]) for row in rows} == {(cell.row.name, str(cell.fold))}


def finish_classes(cell: Cell, out: Path, *, normal: bool) -> None:
    """Leave the files of a finished cell of three classes, one of them normal or none."""
    outcome: dict[str, Any] = {
        "metrics": {"classes": {"accuracy": 0.75, "balanced_accuracy": 0.7, "macro_f1": 0.65}},
        "remarks": {"trained_on": {"a": 4, "b": 5, "normal": 3}},
        "epochs": 4,
        "seconds": 1.5,
        "parameters": 1000,
    }
    if normal:
        outcome["metrics"] = {"score": {"auroc": 0.5}, **outcome["metrics"]}
    held_out = [("a", "a", 0.9), ("b", "a", 0.8), ("normal", "normal", 0.1), ("a", "b", 0.7)]
    write_json(out / cell.folder / "metrics.json", outcome)
    write_csv(
        out / cell.folder / "predictions.csv",
        [
            {"path": f"{i}.png", "role": role, "label": int(true != "normal") if normal else "",
             "kind": true, "verdict": "anomalous" if normal else "", "true": true,
             "predicted": predicted, "score": score if normal else "", "p_a": 0.3}
            for i, (role, true, predicted, score) in enumerate(
                [("test", "a", "b", 0.5)] * 6 + [("held_out", *one) for one in held_out])
        ],
    )  # fmt: skip


@pytest.mark.parametrize("normal", [False, True])
def test_cells_of_several_classes_have_a_line_of_their_own(
    normal: bool, tmp_path: Path, write_suite: WriteSuite
) -> None:
    suite = read_suite(write_suite())
    for cell in cells(suite):
        finish_classes(cell, tmp_path, normal=normal)
    rows = read_csv(write_results(suite, tmp_path))
    of_classes = [row for row in rows if row["output"] == "classes"]
    assert len(of_classes) == len(cells(suite))
    first = of_classes[0]
    assert (first["accuracy"], first["balanced_accuracy"], first["macro_f1"]) == (
        "0.75", "0.7", "0.65")  # fmt: skip
    assert float(first["held_out_ap"]) == 0.5
    assert (first["num_train"], first["num_test"]) == ("12", "6")
    scores = [float(row["held_out_ap"]) for row in rows if row["output"] == "score"]
    assert scores == [1.0] * (len(cells(suite)) if normal else 0)
    assert not any(name.startswith("p_") for name in rows[0])
