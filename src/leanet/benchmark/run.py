"""Run a suite: what is not finished yet, then results.csv and the page.

A benchmark that was killed goes on when the same command is given again. Nothing that is finished
is done twice: not a cell, not a map model.
"""

from __future__ import annotations

import itertools
import shutil
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from leanet.benchmark.cell import (
    MapJob,
    fold_of,
    is_finished,
    map_jobs,
    need_of,
    open_data,
    run_cell,
    run_map_job,
)
from leanet.benchmark.results import write_results
from leanet.benchmark.suite import Cell, Suite, cells
from leanet.benchmark.workers import Workers, each
from leanet.data.few import TooFewDefectsError
from leanet.files import sweep, write_json, write_text
from leanet.prepare import Tell
from leanet.progress import Progress
from leanet.runtime import environment


def benchmark(
    suite: Suite,
    text: str,
    out: Path,
    *,
    workers: Workers | None = None,
    overwrite: bool = False,
    tell: Tell = print,
) -> Path:
    """Run a suite, given also as the `text` of its file, into a folder; returns results.csv.

    A cell that fails does not stop the others.

    Raises:
        ValueError: data that cannot be used, a folder that holds something else, cells that were
            finished with other options, or, at the end, the cells that failed and why.
    """
    workers = workers or Workers()
    _open(out, text, overwrite=overwrite)
    needs = dict.fromkeys(need_of(row) for row in suite.rows)
    for seed, data, need in itertools.product(suite.seeds, suite.data, needs):
        opened = open_data(suite, data, seed, out, need)
        write_json(out / "environment.json", environment(opened.runtime))
    every = possible(suite, out, tell)
    todo = [cell for cell in every if not is_finished(suite, cell, out)]
    tell(f"{suite.name}: {len(every)} cells, {len(every) - len(todo)} of them finished before")
    failed = _train_maps(suite, todo, out, workers, tell)
    failed += _run_cells(suite, todo, out, workers, tell)
    results = write_results(suite, out)
    if failed:
        listed = "\n".join(failed[:10])
        raise ValueError(
            f"{len(failed)} tasks failed; {results} holds the others. The same command tries them "
            f"again.\n{listed}"
        )
    return results


def possible(suite: Suite, out: Path, tell: Tell) -> list[Cell]:
    """The cells for which a data set has defects enough; says once of each number of labelled
    defects why some are not made."""
    verdicts: dict[tuple[str, int, int, int | None, int], str] = {}
    missing: dict[tuple[str, int | None], list[str]] = defaultdict(list)
    made = []
    for cell in cells(suite):
        key = cell.data.name, cell.seed, cell.fold, cell.labelled, cell.draw
        if key not in verdicts:
            verdicts[key] = _why_not(suite, cell, out)
        if verdicts[key]:
            missing[cell.data.name, cell.labelled].append(verdicts[key])
        else:
            made.append(cell)
    for (name, _), reasons in missing.items():
        tell(f"{name}: {len(reasons)} cells are not made: {reasons[0]}")
    return made


def _why_not(suite: Suite, cell: Cell, out: Path) -> str:
    """What a cell lacks; "" where nothing is missing."""
    try:
        fold_of(cell, open_data(suite, cell.data, cell.seed, out, need_of(cell.row)))
    except TooFewDefectsError as error:
        return str(error)
    return ""


def _open(out: Path, text: str, *, overwrite: bool) -> None:
    file = out / "suite.yaml"
    if out.exists() and any(out.iterdir()):
        if not file.exists():
            raise ValueError(f"{out} exists and is no benchmark of leanet; give another --out")
        if overwrite:
            shutil.rmtree(out)
        else:
            sweep(out)
    write_text(file, text)


def _train_maps(
    suite: Suite, todo: Sequence[Cell], out: Path, workers: Workers, tell: Tell
) -> list[str]:
    jobs = map_jobs(suite, list(todo), out)
    failed = []
    with Progress("map models", total=len(jobs)) as bar:
        for job, error in each(partial(_map_task, suite, out), jobs, workers):
            bar.advance()
            if error is not None:
                failed.append(f"a map model of {job.cell.folder}: {error}")
                tell(failed[-1])
    return failed


def _run_cells(
    suite: Suite, todo: Sequence[Cell], out: Path, workers: Workers, tell: Tell
) -> list[str]:
    failed = []
    with Progress("cells", total=len(todo)) as bar:
        for cell, error in each(partial(_cell_task, suite, out), list(todo), workers):
            bar.advance(note=cell.row.name)
            if error is not None:
                failed.append(f"{cell.folder}: {error}")
                tell(failed[-1])
    return failed


def _map_task(suite: Suite, out: Path, job: MapJob) -> None:
    run_map_job(suite, job, out)


def _cell_task(suite: Suite, out: Path, cell: Cell) -> None:
    run_cell(suite, cell, out)
