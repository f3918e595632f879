"""A benchmark with few labelled defects as records: the arms that its suite names, and every figure
by data set, number of labelled defects k, and trial.

    few:
      labelled: [1, 3, 5, 10, 30]
      draws: 1
      arms: {Plain: [Plain, score], Map only: [LEA-Net, map], Default: [LEA-Net, score]}
      default: Default
      rivals: [Plain, Map only]

An *arm* is one output of one row: a LEA-Net row has several. Without `arms` every row is one, with
its score. A *trial* is a seed, a draw of the k defects, and a fold: all arms of a trial have
learned from the same images and are tested on the same others, so that trials make pairs.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from leanet.config import UsageError, nearest
from leanet.files import read_csv
from leanet.report.results import SCORE, Benchmark, Figures, read_benchmark

KEYS = ("labelled", "draws", "arms", "default", "rivals")
MAP = "map"  # the output that has seen no label


class FewTrial(NamedTuple):
    """What makes a pair: arms differ in it by nothing but themselves."""

    seed: int
    draw: int
    fold: int


class Arm(NamedTuple):
    """One output of one row of the suite, under the name that the tables have."""

    name: str
    row: str
    output: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The key `few` of a suite, complete."""

    labelled: tuple[int, ...]  # k, ascending
    draws: int
    arms: tuple[Arm, ...]
    default: str | None  # the arm that has to prove itself; None where nothing is to be proved
    rivals: tuple[str, ...]  # the arms that it has to stand up to

    @property
    def others(self) -> tuple[str, ...]:
        """The arms that are neither: candidates and ablations."""
        known = {self.default, *self.rivals}
        return tuple(arm.name for arm in self.arms if arm.name not in known)

    @property
    def map_only(self) -> str | None:
        """The first rival that is a map's own score."""
        outputs = {arm.name: arm.output for arm in self.arms}
        return next((name for name in self.rivals if outputs[name] == MAP), None)


@dataclass(frozen=True, kw_only=True)
class FewDefects:
    """A benchmark folder with few labelled defects; `cells` holds what is finished."""

    benchmark: Benchmark
    plan: Plan
    trials: tuple[FewTrial, ...]  # of a data set and k: all that there should be
    unseen: frozenset[str]  # data sets whose tested kinds of defects were in no training part
    cells: Mapping[tuple[str, int, str], Mapping[FewTrial, Figures]]  # (data, k, arm) -> trial

    @property
    def data(self) -> tuple[str, ...]:
        """The data sets, in the order of the suite."""
        return tuple(self.benchmark.sources)

    @property
    def seen(self) -> tuple[str, ...]:
        """The data sets whose kinds of defects may all be in the training part."""
        return tuple(name for name in self.data if name not in self.unseen)

    def trials_of(self, data: str, k: int, arm: str) -> Mapping[FewTrial, Figures]:
        """The finished trials of an arm."""
        return self.cells.get((data, k, arm), {})

    def any_trials(self, data: str, k: int) -> frozenset[FewTrial]:
        """The trials that some arm has finished."""
        return frozenset(t for arm in self.plan.arms for t in self.trials_of(data, k, arm.name))

    def labelled_of(self, data: str) -> tuple[int, ...]:
        """The k that a data set has defects enough for, as far as can be seen. Trials are run one
        after the other with all their k, so a k is out of reach if no arm has it though two trials
        were begun."""
        by_k = {k: self.any_trials(data, k) for k in self.plan.labelled}
        begun = {trial for found in by_k.values() for trial in found}
        return tuple(k for k in self.plan.labelled if by_k[k] or len(begun) < 2)

    def num_missing(self, data: str, arms: Collection[str]) -> int:
        """Trials that some of these arms lack: of each k those that another arm has, and at every k
        in reach those after the last that was begun. What no arm has before that was out of reach,
        as a k may be in some folds."""
        reach = self.labelled_of(data)
        by_k = {k: self.any_trials(data, k) for k in reach}
        begun = [any(trial in found for found in by_k.values()) for trial in self.trials]
        waiting = begun[::-1].index(True) if any(begun) else len(begun)
        lacking = [len(by_k[k]) - len(self.trials_of(data, k, arm)) for k in reach for arm in arms]
        return sum(lacking) + waiting * len(reach) * len(arms)


def read_few(folder: Path) -> FewDefects | None:
    """The records of a benchmark folder, finished or not; None where its suite has no key `few`.

    Raises:
        ValueError: the folder holds no benchmark, or `few` names what is not there.
    """
    benchmark = read_benchmark(folder)
    suite = yaml.safe_load(benchmark.suite_text)
    if suite.get("few") is None:
        return None
    plan = few_plan(suite["few"], [row for entry in benchmark.entries for row in entry.rows])
    trials = [
        FewTrial(seed, draw, fold) for draw in range(plan.draws) for seed, fold in benchmark.trials
    ]
    return FewDefects(
        benchmark=benchmark,
        plan=plan,
        trials=tuple(trials),
        unseen=frozenset(str(n) for n, spec in suite["data"].items() if spec.get("unseen")),
        cells=_cells(folder / "results.csv", plan.arms),
    )


def few_plan(few: Any, rows: Sequence[str]) -> Plan:
    """The key `few` of a suite with these rows, checked.

    Raises:
        ValueError: an unknown key, arm or row, or numbers that are none.

    >>> few_plan({"labelled": [3, 1]}, ["Plain"]).labelled
    (1, 3)
    """
    if not isinstance(few, Mapping):
        raise UsageError(f"few: takes the keys {', '.join(KEYS)}, got {few!r}")
    for key in few:
        if key not in KEYS:
            hint = nearest(str(key), KEYS)
            raise UsageError(f"few: unknown key {key!r}{hint}; allowed: {', '.join(KEYS)}")
    arms = _arms(few.get("arms"), rows)
    default, rivals = few.get("default"), few.get("rivals") or []
    if not isinstance(rivals, list):
        raise UsageError(f"few: rivals takes a list of arms, got {rivals!r}")
    for name in ([] if default is None else [default]) + rivals:
        if name not in (known := [arm.name for arm in arms]):
            hint = nearest(str(name), known)
            raise UsageError(f"few: {name!r} is no arm{hint}; allowed: {', '.join(known)}")
    if default in rivals:
        raise UsageError(f"few: {default!r} cannot be its own rival; take it out of rivals")
    if rivals and default is None:
        raise UsageError("few: rivals of what? name the arm that has to stand up to them: default")
    return Plan(
        labelled=_labelled(few.get("labelled")),
        draws=_draws(few.get("draws", 1)),
        arms=arms,
        default=default,
        rivals=tuple(dict.fromkeys(rivals)),
    )


def _labelled(given: Any) -> tuple[int, ...]:
    numbers = given if isinstance(given, list) else []
    if not numbers or any(type(k) is not int or k < 1 for k in numbers):
        raise UsageError(
            f"few: labelled takes a list of numbers of defects from 1 on, such as [1, 3, 5], got "
            f"{given!r}"
        )
    return tuple(sorted(set(numbers)))


def _draws(given: Any) -> int:
    if type(given) is not int or given < 1:
        raise UsageError(f"few: draws takes a whole number from 1 on, got {given!r}")
    return given


def _arms(given: Any, rows: Sequence[str]) -> tuple[Arm, ...]:
    if given is None:
        return tuple(Arm(row, row, SCORE) for row in rows)
    if not isinstance(given, Mapping) or not given:
        raise UsageError(f"few: arms takes NAME: [ROW, OUTPUT] for each, got {given!r}")
    found = []
    for name, spec in given.items():
        if not isinstance(spec, list) or len(spec) != 2:
            raise UsageError(f"few: arm {name!r} takes [ROW, OUTPUT], got {spec!r}")
        row, output = map(str, spec)
        if row not in rows:
            raise UsageError(
                f"few: arm {name!r} is of row {row!r}, which is none{nearest(row, rows)}; "
                f"allowed: {', '.join(rows)}"
            )
        found.append(Arm(str(name), row, output))
    return tuple(found)


def _cells(
    file: Path, arms: Sequence[Arm]
) -> dict[tuple[str, int, str], dict[FewTrial, dict[str, float]]]:
    names: dict[tuple[str, str], list[str]] = {}
    for arm in arms:
        names.setdefault((arm.row, arm.output), []).append(arm.name)
    cells: dict[tuple[str, int, str], dict[FewTrial, dict[str, float]]] = {}
    for row in read_csv(file):
        for name in names.get((row["row"], row["output"]), ()):
            trial = FewTrial(int(row["seed"]), int(row["draw"]), int(row["fold"]))
            cell = cells.setdefault((row["data"], int(row["labelled"]), name), {})
            cell[trial] = {key: _figure(value) for key, value in row.items()}
    return cells


def _figure(value: str) -> float:
    """A figure; nan for a word and for nothing."""
    try:
        return float(value)
    except ValueError:
        return math.nan
