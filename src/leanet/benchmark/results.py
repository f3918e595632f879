"""What a benchmark has measured so far, as one table: a line for each output of each cell."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from leanet.benchmark.suite import Cell, Suite, cells
from leanet.files import read_csv, read_json, write_csv
from leanet.ops.metrics import average_precision
from leanet.trial import METRICS


def write_results(suite: Suite, out: Path) -> Path:
    """Gather all finished cells in `out/results.csv` and return its path.

    `held_out_ap` is the average precision on the part of the training images that was held out: by
    it, and never by the test images, may one row be preferred to another.
    """
    rows = [row for cell in cells(suite) for row in _rows(cell, out / cell.folder)]
    write_csv(out / "results.csv", rows)
    return out / "results.csv"


def _rows(cell: Cell, folder: Path) -> list[dict[str, Any]]:
    if not (folder / METRICS).exists():
        return []
    outcome = read_json(folder / METRICS)
    held_out = _held_out_ap(folder)
    trained_on = outcome["remarks"].get("trained_on", {})
    return [
        {
            "data": cell.data.name,
            "row": cell.row.name,
            "group": cell.row.group,
            "member": cell.row.member,
            "method": cell.row.method,
            "seed": cell.seed,
            "fold": cell.fold,
            "output": output,
            "held_out_ap": held_out[output],
            **metrics,
            **{f"num_train_{kind}": number for kind, number in trained_on.items()},
            "epochs": outcome["epochs"],
            "seconds": outcome["seconds"],
            "parameters": outcome["parameters"],
        }
        for output, metrics in outcome["metrics"].items()
    ]


def _held_out_ap(folder: Path) -> dict[str, float]:
    """By output, from the images that the cell held out of its training part."""
    held = [row for row in read_csv(folder / "predictions.csv") if row["role"] == "held_out"]
    labels = [int(row["label"]) for row in held]
    by_output: dict[str, float] = defaultdict(lambda: float("nan"))
    for output in held[0] if held and 0 < sum(labels) < len(labels) else ():
        if output not in {"path", "role", "label", "kind", "verdict", "threshold"}:
            by_output[output] = average_precision(labels, [float(row[output]) for row in held])
    return by_output
