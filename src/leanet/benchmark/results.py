"""What a benchmark has measured so far, as one table: a line for each output of each cell."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from leanet.benchmark.suite import Cell, Suite, cells
from leanet.files import read_csv, read_json, write_csv
from leanet.ops.metrics import average_precision
from leanet.records import PROBABILITY
from leanet.report.results import CLASSES
from leanet.trial import METRICS, pixel_columns

PREDICTIONS = "predictions.csv"
FACTS = frozenset(  # columns that are no output
    {"path", "role", "label", "kind", "verdict", "threshold", "true", "predicted"}
)


def write_results(suite: Suite, out: Path) -> Path:
    """Gather all finished cells in `out/results.csv` and return its path.

    `held_out_ap` is the average precision on the part of the training images that was held out (of
    the output "classes" the accuracy there): by it, and never by the test images, may one row be
    preferred to another.
    """
    rows = [row for cell in cells(suite) for row in _rows(cell, out / cell.folder)]
    write_csv(out / "results.csv", rows)
    return out / "results.csv"


def _rows(cell: Cell, folder: Path) -> list[dict[str, Any]]:
    if not (folder / METRICS).exists():
        return []
    outcome = read_json(folder / METRICS)
    held_out = _held_out_ap(folder)
    sizes = _sizes(folder, outcome)
    return [
        {
            "data": cell.data.name,
            "row": cell.row.name,
            "group": cell.row.group,
            "member": cell.row.member,
            "method": cell.row.method,
            "seed": cell.seed,
            "fold": cell.fold,
            **_few(cell),
            "output": output,
            "held_out_ap": held_out[output],
            **metrics,
            **sizes,
            **pixel_columns(outcome),
            "epochs": outcome["epochs"],
            "seconds": outcome["seconds"],
            "parameters": outcome["parameters"],
        }
        for output, metrics in outcome["metrics"].items()
    ]


def _few(cell: Cell) -> dict[str, Any]:
    """The coordinates of a cell with few defects; empty for others."""
    if cell.labelled is None:
        return {"labelled": "", "draw": "", "unseen": ""}
    return {"labelled": cell.labelled, "draw": cell.draw, "unseen": int(cell.data.unseen)}


def _sizes(folder: Path, outcome: dict[str, Any]) -> dict[str, int]:
    """How many images it was trained on: by label, or, of several classes, with those of the
    test."""
    trained_on = outcome["remarks"].get("trained_on", {})
    if CLASSES not in outcome["metrics"]:
        return {f"num_train_{kind}": number for kind, number in trained_on.items()}
    tested = [row for row in read_csv(folder / PREDICTIONS) if row["role"] == "test"]
    return {"num_test": len(tested), "num_train": sum(trained_on.values())}


def _held_out_ap(folder: Path) -> dict[str, float]:
    """By output, from the images that the cell held out of its training part."""
    held = [row for row in read_csv(folder / PREDICTIONS) if row["role"] == "held_out"]
    by_output: dict[str, float] = defaultdict(lambda: float("nan"))
    if held and "predicted" in held[0]:
        by_output[CLASSES] = sum(row["true"] == row["predicted"] for row in held) / len(held)
    scored = [row for row in held if row["verdict"]]  # none where no class is the normal one
    labels = [int(row["label"]) for row in scored]
    for output in scored[0] if 0 < sum(labels) < len(labels) else ():
        if output not in FACTS and not output.startswith(PROBABILITY):
            by_output[output] = average_precision(labels, [float(row[output]) for row in scored])
    return by_output
