from __future__ import annotations

from pathlib import Path
from typing import Any

from leanet.files import write_csv, write_json
from leanet.inference.held_scores import read_held_scores


def row(path: str, role: str, label: int | str, score: float | str) -> dict[str, Any]:
    return {"path": path, "role": role, "label": label, "score": score}


def write(run: Path, part: str, rows: list[dict[str, Any]], **facts: Any) -> None:
    write_csv(run / part / "predictions.csv", rows)
    write_json(run / part / "metrics.json", {"threshold": {"score": {}}, "remarks": {}} | facts)


def write_folds(run: Path) -> None:
    tested = {"a": "fold-0", "b": "fold-1", "c": "fold-0", "d": "fold-1"}
    rows = [
        {"path": path, "fold": fold, "role": "test" if own == fold else "train"}
        for fold in ("fold-0", "fold-1")
        for path, own in tested.items()
    ]
    final = [{"path": path, "fold": "final", "role": "train"} for path in tested]
    write_csv(run / "folds.csv", [*rows, *final])


def test_with_folds_they_are_those_that_the_final_threshold_came_from(tmp_path: Path) -> None:
    write_folds(tmp_path)
    found = [("a", 0, 0.5), ("b", 1, 2.5), ("c", 0, 1.0), ("d", 1, 2.0)]
    rows = [row(path, "cross_validation", label, score) for path, label, score in found]
    write(tmp_path, "final", [row("t", "test", 1, 99.0), *rows])
    held = read_held_scores(tmp_path, 2)
    assert held.source == "cross-validation"
    assert held.label.tolist() == [0, 1, 0, 1]
    assert held.score.tolist() == [0.5, 2.5, 1.0, 2.0]
    assert held.part[0] == held.part[2] != held.part[1] == held.part[3]
    assert (held.num_normal, held.num_anomalous) == (2, 2)


def test_an_older_run_has_those_of_its_folds_unless_they_were_fused(tmp_path: Path) -> None:
    write_folds(tmp_path)
    write(tmp_path, "final", [row("t", "test", 1, 99.0)])
    write(tmp_path, "fold-0", [row("a", "test", 0, 0.5), row("b", "held_out", 1, 9.0)])
    write(tmp_path, "fold-1", [row("d", "test", 1, 2.0)])
    assert read_held_scores(tmp_path, 2).score.tolist() == [0.5, 2.0]
    write(tmp_path, "final", [], threshold={"score": {}, "fused": {}, "adn": {}})
    assert len(read_held_scores(tmp_path, 2).label) == 0


def test_without_folds_they_are_the_held_out_ones_in_five_parts(tmp_path: Path) -> None:
    rows = [row(str(k), "held_out", k % 2, float(k)) for k in range(20)]
    write(tmp_path, "final", [*rows, row("t", "test", 1, 99.0)])
    held = read_held_scores(tmp_path, 0)
    assert held.source == "held-out"
    assert held.score.tolist() == [float(k) for k in range(20)]
    for part in range(5):
        assert sorted(held.label[held.part == part].tolist()) == [0, 0, 1, 1]


def test_scores_of_training_images_are_called_that(tmp_path: Path) -> None:
    rows = [row("a", "held_out", 0, 1.0)]
    write(tmp_path, "final", rows, remarks={"threshold_in_sample": True})
    assert read_held_scores(tmp_path, 0).source == "training"


def test_rows_without_a_score_and_runs_without_rows_give_nothing(tmp_path: Path) -> None:
    assert len(read_held_scores(tmp_path, 0).label) == 0  # as of the original programs
    write(tmp_path, "final", [row("a", "held_out", "", ""), row("b", "held_out", 1, 2.0)])
    assert read_held_scores(tmp_path, 0).label.tolist() == [1]
