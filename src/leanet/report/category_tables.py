"""Runs on many data sets as tables: a row for each method, preset and backbone, a column for each
category of MVTec AD in the usual order, and one table for each figure of merit.

Cells are means over seeds. A category that was not run is empty, and Avg is there only where all
fifteen are. Other data sets stand in tables of their own. Published figures stand below ours, each
with the protocol that it was made by, which is none that ours follow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from leanet.files import read_csv
from leanet.ops.stats import MeanSD, mean_sd
from leanet.report.results import PUBLISHED
from leanet.report.run import Part, Run, read_run

MVTEC: Final = (
    "carpet", "grid", "leather", "tile", "wood", "bottle", "cable", "capsule", "hazelnut",
    "metal_nut", "pill", "screw", "toothbrush", "transistor", "zipper",
)  # fmt: skip
AVERAGE: Final = "average"
FIGURES: Final = {  # name -> title
    "image_auroc": "Image AUROC",
    "pixel_auroc": "Pixel AUROC",
    "pixel_f1": "Pixel F1, best threshold (oracle)",
    "pixel_f1_honest": "Pixel F1, held-out threshold",
    "aupro": "AUPRO@0.3",
}
_OF_PIXELS: Final = {  # name -> as in metrics.json
    "pixel_auroc": "auroc",
    "pixel_f1": "best_f1",
    "pixel_f1_honest": "f1_honest",
    "aupro": "aupro",
}
PROTOCOLS: Final = {  # of published figures
    "oracle": "official CFA: the best epoch on the test images, for each figure anew, and in rows "
    "marked ++ also the better of two inputs for each category; a double oracle",
    "stopped": "anomalib's CFA: one seed, stopped at the best pixel AUROC of the test images",
    "medical": "official ADFA: mean of probably three seeds, on a split that is not published",
}
_NONE: Final = MeanSD(math.nan, math.nan)
Naming = Callable[[Mapping[str, Any]], str]  # options of a run -> preset, and what differs from it


class Line(NamedTuple):
    """A row of a table: its name, where it comes from ("" for ours, else a key of `PROTOCOLS`), how
    many seeds its cells have, and the cells by data set."""

    name: str
    protocol: str
    seeds: str
    cells: Mapping[str, MeanSD]


@dataclass(frozen=True, kw_only=True)
class CategoryTable:
    """One figure of merit: the columns in order, and the rows, ours first."""

    figure: str
    columns: tuple[str, ...]
    lines: tuple[Line, ...]

    @property
    def title(self) -> str:
        """The name of the figure."""
        return FIGURES[self.figure]

    @property
    def of_mvtec(self) -> bool:
        """Whether the columns are the categories of MVTec AD."""
        return AVERAGE in self.columns


Rows = dict[str, dict[str, dict[int, Run]]]  # name of a row -> data set -> seed -> run


def category_tables(folders: Sequence[Path], naming: Naming) -> list[CategoryTable]:
    """The tables of some finished runs, MVTec AD first; a figure that no run has gets none.

    Raises:
        ValueError: no runs, one that is unfinished or tells several classes apart, or two with the
            same options, data set and seed.
    """
    if not folders:
        raise ValueError("which runs? give the folders of one or more")
    rows: Rows = {}
    for run in [read_run(folder) for folder in dict.fromkeys(map(Path.resolve, folders))]:
        _add(rows, run, naming)
    others = dict.fromkeys(d for cells in rows.values() for d in cells if d not in MVTEC)
    wanted: list[tuple[str, ...]] = []
    if any(data in MVTEC for cells in rows.values() for data in cells):
        wanted.append((AVERAGE, *MVTEC))
    if others:
        wanted.append(tuple(others))
    made = [_table(rows, figure, columns) for columns in wanted for figure in FIGURES]
    return [one for one in made if any(not line.protocol for line in one.lines)]


def category_of(run: Run) -> str:
    """The data set of a run, as the columns are called: the name of its folder."""
    return run.data_name.casefold().replace(" ", "_").replace("-", "_")


def _add(rows: Rows, run: Run, naming: Naming) -> None:
    if not run.tested_parts or "score" not in run.tested_parts[0].metrics:
        raise ValueError(f"{run.folder} has no scores of test images; leave it out of the tables")
    words = (run.card["method"], naming(run.config), _backbone(run.config))
    seeds = rows.setdefault(", ".join(filter(None, words)), {}).setdefault(category_of(run), {})
    seed = int(run.config.get("seed", 0))
    if seed in seeds:
        raise ValueError(
            f"{seeds[seed].folder} and {run.folder} are runs of the same options on data of the "
            f"same name with the same seed ({seed}); leave one of them out"
        )
    seeds[seed] = run


def _backbone(config: Mapping[str, Any]) -> str:
    return str(config.get("backbone") or config.get("adn") or "")


def _table(rows: Rows, figure: str, columns: tuple[str, ...]) -> CategoryTable:
    ours = [_line(name, found, figure, columns) for name, found in rows.items()]
    lines = [line for line in ours if line is not None]
    return CategoryTable(
        figure=figure, columns=columns, lines=(*lines, *_published(figure, columns))
    )


def _line(
    name: str, found: Mapping[str, Mapping[int, Run]], figure: str, columns: Sequence[str]
) -> Line | None:
    """A row of ours; None if it has nothing in these columns."""
    values = {
        data: {seed: figure_of(run, figure) for seed, run in runs.items()}
        for data, runs in found.items()
        if data in columns
    }
    cells = {data: mean_sd(list(seeds.values())) for data, seeds in values.items()}
    if all(math.isnan(cell.mean) for cell in cells.values()):
        return None
    if AVERAGE in columns:
        cells[AVERAGE] = _average(values)
    counts = sorted({len(seeds) for seeds in values.values()})
    return Line(name, "", " to ".join(map(str, dict.fromkeys((counts[0], counts[-1])))), cells)


def _average(values: Mapping[str, Mapping[int, float]]) -> MeanSD:
    """Over all categories: mean and SD of the averages of those seeds that all categories have, or
    else the mean of their means."""
    if any(data not in values for data in MVTEC):
        return _NONE
    means = [mean_sd(list(values[data].values())).mean for data in MVTEC]
    seeds = set.intersection(*(set(values[data]) for data in MVTEC))
    if not seeds:
        return MeanSD(mean_sd(means).mean, math.nan)
    return mean_sd([mean_sd([values[d][seed] for d in MVTEC]).mean for seed in sorted(seeds)])


def figure_of(run: Run, figure: str) -> float:
    """A figure of a run: the mean over its folds, where it has folds; nan where it is not known."""
    return mean_sd([_of_part(part, figure) for part in run.tested_parts]).mean


def _of_part(part: Part, figure: str) -> float:
    if figure in _OF_PIXELS:
        return part.pixels.get(_OF_PIXELS[figure], math.nan)
    return part.metrics["score"]["auroc"]


def _published(figure: str, columns: Sequence[str]) -> list[Line]:
    lines: dict[str, Line] = {}
    for row in read_csv(PUBLISHED / "adfa.csv"):
        if row["figure"] == figure and row["data"] in columns:
            line = lines.setdefault(row["row"], Line(row["row"], row["protocol"], "", {}))
            cells = {**line.cells, row["data"]: MeanSD(float(row["value"]), math.nan)}
            lines[row["row"]] = line._replace(cells=cells)
    return list(lines.values())
