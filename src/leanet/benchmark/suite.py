"""A suite: which methods, on which data sets, with which folds and seeds, as a YAML file says.

    name: quick
    about: what it is for, how long it takes, what to expect
    data:
      Potato: {path: plantvillage_potato, positives: 50, source: where a user gets it}
    options: {img_size: 128, folds: 5}           # those of `leanet fit` that all cells share
    seeds: [0]
    common: {epochs: 30, map_model: {base: 32}}  # options of every method that has them
    methods:
      ResNet18: {method: classifier}
      ResNet18 + ResNet AAN: {method: leanet, each: {attention_points: [[0], [1], [2], [3], [4]]}}
    baseline: ResNet18                           # paired differences are against this row
    published: leanet                            # table of published figures to print beside; cavga

A row with `each` is a group: one member for every value of that option (of several options: for
every combination), trained as rows of their own. The tables show the members, their mean, the one
that the held-out images of each fold choose, and, labelled as optimistic, the one that the test
images would. Shares in `keep_positive` are no alternatives but other data: they are compared share
by share, over the `draw`s of each.

Relative paths in `data` and `weights` begin at the folder of `--data_root`, or of the file. The
`map_source` of a LEA-Net row may be a YAML file with a map method and its options (relative to the
suite): its content becomes part of the row.

With `folds: 0` there is one trial for each seed, on the data sets' own split into training and test
part. With a list of baselines each row is compared with the last one above it.

    few: {labelled: [1, 3, 5, 10, 30], draws: 5}

makes a cell for each number of labelled defects and each draw of them; it learns from all normal
images of the fold's training part and from these defects, and is tested on all others. A data set
with `unseen: true` leaves out a kind of defect in each fold and tests on that alone. Instead of a
`path`, a data set may be `generated: {surface: leaf, severity: [4, 8]}`, drawn into the folder of
the benchmark.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from leanet.benchmark.data_sets import GENERATED, DataSet, Generated
from leanet.config import UsageError, from_dict, merged, nearest, to_dict
from leanet.methods import catalog
from leanet.methods.map_sources import map_method
from leanet.prepare import Options
from leanet.report.few_results import Plan, few_plan
from leanet.report.results import baselines_of, fold_numbers, members, read_published

KEYS = (
    "name", "about", "data", "options", "seeds", "few", "common", "methods", "baseline",
    "published",
)  # fmt: skip
DATA_KEYS = ("path", "generated", "positives", "normal", "unseen", "source")
ROW_KEYS = ("method", "preset", "each")


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the tables: a method with its options; `group` is the name without the member."""

    name: str
    group: str
    member: str  # "" for a row that is no member of a group
    method: str
    config: Any


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A benchmark, complete: every option has its value."""

    name: str
    about: str
    data: tuple[DataSet, ...]
    options: Options
    seeds: tuple[int, ...]
    few: Plan | None
    rows: tuple[Row, ...]
    baselines: tuple[str, ...]
    published: str | None


@dataclass(frozen=True, kw_only=True)
class Cell:
    """The smallest piece of work that is never done twice; `labelled` defects of a draw in suites
    with few of them, else None."""

    data: DataSet
    row: Row
    seed: int
    fold: int
    labelled: int | None = None
    draw: int = 0

    @property
    def folder(self) -> Path:
        """Where its results are, below the folder of the benchmark."""
        place = Path("cells") / slug(self.data.name) / slug(self.row.name)
        place = place / f"seed-{self.seed}" / f"fold-{self.fold}"
        if self.labelled is None:
            return place
        return place / f"k-{self.labelled}" / f"draw-{self.draw}"


def slug(name: str) -> str:
    """A name as part of a path.

    >>> slug("ResNet18 + ResNet AAN, A4")
    'resnet18-resnet-aan-a4'
    """
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")


def read_suite(file: Path, data_root: Path | None = None) -> Suite:
    """A suite from its file; relative paths of data are below `data_root`, or below the file, and
    so are those of weights, and those of map sources below the file, if something is there.

    Raises:
        ValueError: an unknown key, method, option, baseline or table, two names that would share a
            folder.
    """
    given = yaml.safe_load(file.read_text(encoding="utf-8"))
    if not isinstance(given, dict):
        raise UsageError(f"{file} is no suite: it holds no keys; needed are data and methods")
    _known(given, KEYS, str(file))
    for key in ("data", "methods"):
        if not isinstance(given.get(key), dict) or not given[key]:
            raise UsageError(f"{file} names no {key}")
    options = from_dict(Options, given.get("options") or {})
    if options.folds < 0 or options.folds == 1:
        raise UsageError(
            f"{file}: folds {options.folds}; a benchmark needs 2 folds or more, or 0, which is the "
            "data sets' own split into training and test part"
        )
    data = tuple(_data_set(str(k), v, data_root or file.parent) for k, v in given["data"].items())
    place = _Place(file.parent, data_root or file.parent)
    rows = _all_rows(given["methods"], given.get("common") or {}, place)
    _distinct([one.name for one in data])
    _distinct([row.name for row in rows])
    groups = dict.fromkeys([row.group for row in rows] + [row.name for row in rows])
    for name in (baselines := baselines_of(given)):
        if name not in groups:
            raise UsageError(f"{file}: baseline {name!r} is no row{nearest(str(name), groups)}")
    published = given.get("published")
    read_published(published)
    return Suite(
        name=str(given.get("name", file.stem)),
        about=str(given.get("about", "")),
        data=data,
        options=options,
        seeds=tuple(given.get("seeds") or (0,)),
        few=_few(given, [row.name for row in rows], data, options),
        rows=rows,
        baselines=baselines,
        published=published,
    )


def cells(suite: Suite) -> list[Cell]:
    """All cells, in an order in which an interrupted benchmark has whole folds of all rows, and
    whole draws of all data sets."""
    numbers: tuple[int | None, ...] = suite.few.labelled if suite.few else (None,)
    return [
        Cell(data=data, row=row, seed=seed, fold=fold, labelled=labelled, draw=draw)
        for draw in range(suite.few.draws if suite.few else 1)
        for seed in suite.seeds
        for data in suite.data
        for fold in fold_numbers(suite.options.folds)
        for labelled in numbers
        for row in suite.rows
    ]


def effective(suite: Suite, cell: Cell) -> dict[str, Any]:
    """Everything that the result of a cell depends on, as plain values."""
    more: dict[str, Any] = {}
    if cell.data.generated is not None:
        more["drawn"] = to_dict(cell.data.generated)
    if cell.labelled is not None:
        unseen = cell.data.unseen
        more["few"] = {"labelled": cell.labelled, "draw": cell.draw, "unseen": unseen}
    return {
        "method": cell.row.method,
        **to_dict(cell_options(suite, cell.data, cell.seed)),
        **to_dict(cell.row.config),
        "data": cell.data.path.name,
        "fold": cell.fold,
        **more,
    }


def cell_options(suite: Suite, data: DataSet, seed: int) -> Options:
    """The options of `leanet fit` for a data set and a seed."""
    return dataclasses.replace(
        suite.options, seed=seed, positives=data.positives, normal=data.normal
    )


class _Place(NamedTuple):
    """Where the relative paths of map sources and weights in the options of rows begin."""

    suite: Path
    weights: Path

    def found(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Options of a row with its map source and weights where they are."""
        values, source = dict(values), values.get("map_source")
        if source is not None:
            own = (self.suite / source).exists()
            values["map_source"] = source = str(self.suite / source if own else source)
            if Path(source).is_file():
                name, options = map_method(source)
                values["map_source"] = name
                values["map_options"] = merged(options, values.get("map_options") or {})
        if values.get("map_options"):
            values["map_options"] = self._weighed(values["map_options"])
        return self._weighed(values)

    def _weighed(self, options: Mapping[str, Any]) -> dict[str, Any]:
        file = self.weights / str(options.get("weights") or "")
        return {**options, "weights": str(file)} if file.is_file() else dict(options)


def _all_rows(
    methods: Mapping[str, Any], common: Mapping[str, Any], place: _Place
) -> tuple[Row, ...]:
    used = [catalog.find(str(_part(name, spec, "method"))) for name, spec in methods.items()]
    options = {field for recipe in used for field in recipe.config.__dataclass_fields__}
    for key in common:
        if key not in options:
            raise UsageError(f"common: no method here has an option {key!r}{nearest(key, options)}")
    named = ((str(name), spec) for name, spec in methods.items())
    return tuple(row for name, spec in named for row in _rows(name, spec, common, place))


def _rows(
    name: str, spec: Mapping[str, Any], common: Mapping[str, Any], place: _Place
) -> list[Row]:
    """The row of this name, or one for every member that `each` makes."""
    method = str(_part(name, spec, "method"))
    recipe = catalog.find(method)
    known = recipe.config.__dataclass_fields__
    own = {key: value for key, value in spec.items() if key not in ROW_KEYS}
    for key in own:
        if key not in known:
            raise UsageError(
                f"row {name!r}: unknown key {key!r}{nearest(str(key), (*ROW_KEYS, *known))}; "
                f"allowed: {', '.join(ROW_KEYS)} and the options of `leanet fit {method}`"
            )
    preset = spec.get("preset")
    if preset is not None and preset not in recipe.presets:
        raise UsageError(
            f"row {name!r}: {method} has no preset {preset!r}{nearest(str(preset), recipe.presets)}"
        )
    shared = {key: value for key, value in common.items() if key in known}
    base = merged(merged(recipe.presets[preset] if preset else {}, shared), own)
    if spec.get("each") is None:
        config = from_dict(recipe.config, place.found(base))
        return [Row(name=name, group=name, member="", method=method, config=config)]
    return [
        Row(
            name=f"{name}, {member.name}",
            group=name,
            member=member.name,
            method=method,
            config=from_dict(recipe.config, place.found(merged(base, member.options))),
        )
        for member in members(spec["each"])
    ]


def _part(name: str, spec: Any, key: str) -> Any:
    if not isinstance(spec, Mapping) or key not in spec:
        raise UsageError(f"row {name!r} names no {key}; allowed: {', '.join(catalog.METHODS)}")
    return spec[key]


def _distinct(names: Sequence[str]) -> None:
    places: dict[str, str] = {}
    for name in names:
        if slug(name) in places:
            raise UsageError(
                f"{places[slug(name)]!r} and {name!r} would both be kept in {slug(name)!r}; "
                "rename one of them"
            )
        places[slug(name)] = name


def _data_set(name: str, spec: Mapping[str, Any], root: Path) -> DataSet:
    _known(spec, DATA_KEYS, f"data set {name}")
    if ("path" in spec) == (GENERATED in spec):
        raise UsageError(
            f"data set {name} has no path, or one beside {GENERATED}; give one of them"
        )
    generated, unseen = spec.get(GENERATED), spec.get("unseen", False)
    if not isinstance(unseen, bool):
        raise UsageError(f"data set {name}: unseen is true or false, got {unseen!r}")
    return DataSet(
        name=name,
        path=root / spec["path"] if generated is None else Path(GENERATED) / slug(name),
        positives=spec.get("positives"),
        normal=None if spec.get("normal") is None else str(spec["normal"]),  # 3 is a class, too
        source=spec.get("source", ""),
        generated=None if generated is None else from_dict(Generated, generated),
        unseen=unseen,
    )


def _few(
    given: Mapping[str, Any], rows: Sequence[str], data: Sequence[DataSet], options: Options
) -> Plan | None:
    if given.get("few") is None:
        if unseen := [one.name for one in data if one.unseen]:
            raise UsageError(f"data set {unseen[0]}: unseen takes a suite with the key few")
        return None
    if options.folds < 2:
        raise UsageError(f"few takes 2 folds or more, got {options.folds}; give folds: 5")
    return few_plan(given["few"], rows)


def _known(given: Mapping[str, Any], allowed: tuple[str, ...], where: str) -> None:
    for key in given:
        if key not in allowed:
            raise UsageError(
                f"{where}: unknown key {key!r}{nearest(str(key), allowed)}; "
                f"allowed: {', '.join(allowed)}"
            )
