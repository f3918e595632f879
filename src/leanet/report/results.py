"""A benchmark folder as records: what `leanet benchmark` wrote, read for the report and nothing
else; and the published figures that a suite asks for.

An *entry* is what a suite lists under one name: a method. Its *members* are the rows that `each`
makes of it, a network for every attention point or draw, say. Where `each` varies `keep_positive`,
the data differ and not the method, so every share of the anomalous images makes an entry of its
own.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from leanet.config import nearest
from leanet.files import read_csv, read_json

Trial = tuple[int, int]  # seed and fold
Figures = Mapping[str, float]  # of one output of one cell: figures of merit, counts, seconds, ...

PUBLISHED = Path(__file__).parent / "published"
SOURCES = {
    "leanet": "Katafuchi & Tokunaga, arXiv 2109.05493, Tables 3 and 5 to 8: F1 of the anomalous "
    "class at p = 0.5, mean and SD over five folds at 256 px; of five attention points the one "
    "with the best test F1"
}
CLAIMS = {
    "cavga": "what the paper (Venkataramanan et al., arXiv 1911.08616) is said to report on MVTec "
    "AD and LAG: recalled, checked against nothing, and nothing that ours has to reach"
}
SCORE, ADN = "score", "adn"  # outputs: the one that decides, the classifier's
CLASSES = "classes"  # the output of a classifier of several classes: which of them
SHARE = "keep_positive"
_NAMES = {"data", "row", "group", "member", "method", "output"}


class Member(NamedTuple):
    """One of the rows that `each` makes of an entry: its name and the options it stands for."""

    name: str
    options: dict[str, Any]


class Published(NamedTuple):
    """A printed figure: F1 with SD over folds, the member it belongs to ("" for none), millions of
    parameters, number of the table."""

    mean: float
    sd: float
    member: str
    params_m: float
    table: str


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A method of the suite; `rows` are the names in results.csv, `members` what differs."""

    name: str
    rows: tuple[str, ...]
    members: tuple[Member, ...]
    share: float | None = None  # of the anomalous training images; None = not varied
    baseline: tuple[str, ...] = ()  # rows to compare with; () = none

    @property
    def title(self) -> str:
        """The name, with the share where that varies."""
        return self.name if self.share is None else f"{self.name}, {100 * self.share:g} % kept"


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A benchmark folder. `cells` holds what is finished: (data, row) -> output -> trial."""

    folder: Path
    name: str
    about: str
    suite_text: str
    sources: Mapping[str, str]  # data set -> where one gets it
    trials: tuple[Trial, ...]  # all that there should be
    entries: tuple[Entry, ...]
    cells: Mapping[tuple[str, str], Mapping[str, Mapping[Trial, Figures]]]
    published: Mapping[tuple[str, str], Published]  # (data, entry)
    published_source: str
    claims: Mapping[tuple[str, str, str], float]  # (data, row, figure), unverified
    claims_source: str
    environment: Mapping[str, Any]

    @property
    def num_folds(self) -> int:
        """Folds of one seed."""
        return len({fold for _, fold in self.trials})

    def outputs(self, data: str, rows: Sequence[str]) -> tuple[str, ...]:
        """The outputs of some rows, the one that the literature reports first: the classifier's.

        "score" is left out where it is one of the others under another name. Where several
        classes are told apart, these come first.
        """
        found = dict.fromkeys(o for row in rows for o in self.cells.get((data, row), {}))
        if CLASSES in found:
            return tuple(sorted(found, key=lambda o: o != CLASSES))
        if len(found) < 2:
            return tuple(found) or (SCORE,)
        return tuple(sorted((o for o in found if o != SCORE), key=lambda o: o != ADN))

    def trials_of(self, data: str, row: str, output: str | None = None) -> Mapping[Trial, Figures]:
        """The finished trials of a row; without an output of any one that all trials have."""
        outputs = self.cells.get((data, row), {})
        if output is None:
            output = CLASSES if CLASSES in outputs else SCORE
        return outputs.get(output, {})


def members(each: Mapping[str, Sequence[Any]]) -> tuple[Member, ...]:
    """Every combination of the values of some options, the last option changing fastest.

    Raises:
        ValueError: no options, or one that has no list of different values.

    >>> [member.name for member in members({"attention_points": [[0], [3]], "draw": [0, 1]})]
    ['A1, draw 0', 'A1, draw 1', 'A4, draw 0', 'A4, draw 1']
    """
    for option, values in each.items() if isinstance(each, Mapping) else ():
        if not isinstance(values, list) or not values or len(values) > len(set(map(str, values))):
            raise ValueError(f"`each` takes lists of different values, and {option} has {values!r}")
    if not isinstance(each, Mapping) or not each:
        raise ValueError(f"`each` takes options with a list of values each, got {each!r}")
    combinations = itertools.product(*each.values())
    chosen = [dict(zip(each, values, strict=True)) for values in combinations]
    return tuple(Member(", ".join(map(_label, c, c.values())), c) for c in chosen)


def _label(option: str, value: Any) -> str:
    if option == "attention_points":
        return "+".join(f"A{point + 1}" for point in value) or "none"
    return f"{option} {value}"


def fold_numbers(folds: int) -> range:
    """The folds of a suite; one where it takes the data sets' own split (`folds: 0`)."""
    return range(max(folds, 1))


def baselines_of(suite: Mapping[str, Any]) -> tuple[str, ...]:
    """The rows that others are compared with: `baseline` is one name, a list of names, or none."""
    given = suite.get("baseline")
    return tuple(given) if isinstance(given, list) else () if given is None else (given,)


def read_published(name: str | None) -> dict[tuple[str, str], Published]:
    """A table of published figures, by data set and row; {} for None.

    Raises:
        ValueError: there is no such table.
    """
    if name is None or name in CLAIMS:
        return {}
    if name not in SOURCES:
        known = (*SOURCES, *CLAIMS)
        raise ValueError(
            f"published {name!r}: there is no such table{nearest(name, known)}; "
            f"allowed: {', '.join(known)}"
        )
    return {
        (row["data"], row["row"]): Published(
            float(row["f1_mean"]),
            float(row["f1_sd"]),
            row["member"],
            float(row["params_m"]),
            row["table"],
        )
        for row in read_csv(PUBLISHED / f"{name}.csv")
    }


def read_claims(name: str | None) -> dict[tuple[str, str, str], float]:
    """Unverified figures by data set ("average": the mean of all), row and figure; {} where the
    table of this name has been verified, or there is none."""
    if name not in CLAIMS:
        return {}
    rows = read_csv(PUBLISHED / f"{name}.csv")
    return {(row["data"], row["row"], row["figure"]): float(row["value"]) for row in rows}


def read_benchmark(folder: Path) -> Benchmark:
    """All that the report needs of a benchmark, finished or not.

    Raises:
        ValueError: the folder holds no benchmark.
    """
    files = {name: folder / name for name in ("suite.yaml", "results.csv", "environment.json")}
    missing = [name for name, file in files.items() if not file.exists()]
    if missing:
        raise ValueError(f"{folder} holds no benchmark: it lacks {', '.join(missing)}")
    text = files["suite.yaml"].read_text(encoding="utf-8")
    suite = yaml.safe_load(text)
    published = suite.get("published")
    seeds = suite.get("seeds") or (0,)
    return Benchmark(
        folder=folder,
        name=str(suite.get("name", folder.name)),
        about=str(suite.get("about", "")),
        suite_text=text,
        sources={str(name): str(spec.get("source", "")) for name, spec in suite["data"].items()},
        trials=tuple(
            (seed, fold)
            for seed in seeds
            for fold in fold_numbers(suite["options"].get("folds", 0))
        ),
        entries=_entries(suite),
        cells=_cells(files["results.csv"]),
        published=read_published(published),
        published_source=SOURCES.get(published, ""),
        claims=read_claims(published),
        claims_source=CLAIMS.get(published, ""),
        environment=read_json(files["environment.json"]),
    )


def _entries(suite: Mapping[str, Any]) -> tuple[Entry, ...]:
    """The entries, each with its baseline: the last one that stands above it in the suite."""
    names = baselines_of(suite)
    listed = [entry for name, spec in suite["methods"].items() for entry in _split(str(name), spec)]
    found: list[Entry] = []
    current = names[0] if names else None
    for entry in listed:
        if entry.name in names:
            current = entry.name
        baseline = _rows_of(listed, current, entry.share)
        found.append(dataclasses.replace(entry, baseline=baseline))
        current = next((row for row in entry.rows if row in names), current)
    return tuple(found)


def _split(name: str, spec: Mapping[str, Any]) -> list[Entry]:
    """The entries of one name: one, or one for every share of the anomalous images."""
    if spec.get("each") is None:
        return [Entry(name=name, rows=(name,), members=(Member("", {}),))]
    by_share: dict[float | None, list[Member]] = {}
    for member in members(spec["each"]):
        by_share.setdefault(member.options.get(SHARE), []).append(member)
    return [
        Entry(
            name=name,
            rows=tuple(f"{name}, {member.name}" for member in some),
            members=tuple(some),
            share=share,
        )
        for share, some in by_share.items()
    ]


def _rows_of(entries: Sequence[Entry], name: str | None, share: float | None) -> tuple[str, ...]:
    """The rows of a baseline, at this share of the anomalous images where it has that."""
    named = [entry for entry in entries if entry.name == name]
    fitting = [entry for entry in named if entry.share == share] or named[:1]
    if fitting:
        return fitting[0].rows
    return (name,) if any(name in entry.rows for entry in entries) and name is not None else ()


def _cells(file: Path) -> dict[tuple[str, str], dict[str, dict[Trial, Figures]]]:
    cells: dict[tuple[str, str], dict[str, dict[Trial, Figures]]] = {}
    for row in read_csv(file):
        outputs = cells.setdefault((row["data"], row["row"]), {})
        trial = int(row["seed"]), int(row["fold"])
        figures = {key: float(value or math.nan) for key, value in row.items() if key not in _NAMES}
        outputs.setdefault(row["output"], {})[trial] = figures
    return cells
