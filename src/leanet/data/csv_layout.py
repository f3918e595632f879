"""Samples from a table: one row per image, and groups from a table beside the images.

The table of samples has the columns `path` and `label`, optionally `type`, `mask`, `group` and
`split`, in any order; paths are relative to the table's folder. `groups.csv`, at the top of an
image folder of any layout, has `file` (relative path) and `group`; its further columns are left
alone.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Final, TypeVar

from leanet.config import nearest
from leanet.data.images import IMAGE_SUFFIXES
from leanet.data.layouts import SPLIT_FOLDERS
from leanet.files import read_csv
from leanet.records import ANOMALOUS, NORMAL, Sample

REQUIRED: Final = ("path", "label")
OPTIONAL: Final = ("type", "mask", "group", "split")
GROUPS_FILE: Final = "groups.csv"
LABELS: Final = {
    "0": NORMAL,
    "normal": NORMAL,
    "good": NORMAL,
    "negative": NORMAL,
    "1": ANOMALOUS,
    "anomalous": ANOMALOUS,
    "bad": ANOMALOUS,
    "positive": ANOMALOUS,
}
_LISTED: Final = 10
_Value = TypeVar("_Value")


def read_table(path: Path) -> list[Sample]:
    """The samples of a CSV file, in its order.

    Raises `ValueError` for unknown columns or values (naming the row, counted as a spreadsheet
    does: the header is row 1), paths that occur twice, other file types, and missing files.
    """
    rows = _rows(path)
    unknown = [name for name in rows[0] if name not in REQUIRED + OPTIONAL] if rows else []
    if unknown:
        hints = ", ".join(f"{name!r}{nearest(name, REQUIRED + OPTIONAL)}" for name in unknown)
        raise ValueError(
            f"{path} has unknown columns: {hints}.\n"
            f"Allowed are path and label, and optionally {', '.join(OPTIONAL)}."
        )
    _require(path, rows, REQUIRED)
    samples = [_sample(path, number, row) for number, row in enumerate(rows, start=2)]
    _refuse_repeated(path, [sample.path for sample in samples])
    _refuse_missing(path, samples)
    return samples


def with_groups(root: Path, samples: Sequence[Sample], table: Path | None = None) -> list[Sample]:
    """The samples with the groups of `table`, or of `root/groups.csv` if there is such a file.

    Images that the table does not name keep no group. Raises `ValueError` if it lacks the columns
    `file` and `group`, or names none of the images.
    """
    path = table or root / GROUPS_FILE
    if table is None and not path.is_file():
        return list(samples)
    rows = _rows(path)
    _require(path, rows, ("file", "group"))
    groups = {PurePath(row["file"]).as_posix(): row["group"].strip() for row in rows}
    names = [sample.path.relative_to(root).as_posix() for sample in samples]
    if not any(name in groups for name in names):
        raise ValueError(
            f"{path} names none of the {len(names)} images; its column file holds paths relative "
            f"to {root}, such as {names[0] if names else 'Negative/001.png'}"
        )
    return [
        replace(sample, group=groups.get(name) or None)
        for name, sample in zip(names, samples, strict=True)
    ]


def _rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file, each with one cell per column."""
    try:
        rows = read_csv(path)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no CSV file in UTF-8: {error}") from error
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise ValueError(f"{path}, row {number}: more or fewer cells than the header has")
    return rows


def _require(path: Path, rows: Sequence[Mapping[str, str]], columns: Iterable[str]) -> None:
    if not rows:
        raise ValueError(f"{path} has no rows; it needs a header with {', '.join(columns)}")
    missing = [name for name in columns if name not in rows[0]]
    if missing:
        raise ValueError(
            f"{path} lacks the column {' and '.join(missing)}; found: {', '.join(rows[0])} "
            "(columns are separated by commas)"
        )


def _sample(table: Path, number: int, row: Mapping[str, str]) -> Sample:
    cells = {name: row.get(name, "").strip() for name in REQUIRED + OPTIONAL}
    where = f"{table}, row {number}"
    if PurePath(cells["path"]).suffix.lower() not in IMAGE_SUFFIXES:
        allowed = ", ".join(sorted(IMAGE_SUFFIXES))
        raise ValueError(f"{where}: path {cells['path']!r} is no image; allowed: {allowed}")
    return Sample(
        path=table.parent / cells["path"],
        label=_one_of(where, "label", cells["label"], LABELS),
        kind=cells["type"],
        mask=table.parent / cells["mask"] if cells["mask"] else None,
        group=cells["group"] or None,
        split=_one_of(where, "split", cells["split"], SPLIT_FOLDERS) if cells["split"] else None,
    )


def _one_of(where: str, column: str, value: str, allowed: Mapping[str, _Value]) -> _Value:
    if value.lower() not in allowed:
        words = ", ".join(allowed)
        raise ValueError(f"{where}: {column} is {value!r}; allowed are {words}")
    return allowed[value.lower()]


def _refuse_repeated(table: Path, paths: Sequence[Path]) -> None:
    first_row: dict[Path, int] = {}
    for number, path in enumerate(paths, start=2):
        if path in first_row:
            raise ValueError(
                f"{table} names {path.name} in row {first_row[path]} and again in row {number}"
            )
        first_row[path] = number


def _refuse_missing(table: Path, samples: Iterable[Sample]) -> None:
    wanted = [path for sample in samples for path in (sample.path, sample.mask) if path is not None]
    missing = [path.relative_to(table.parent).as_posix() for path in wanted if not path.is_file()]
    if missing:
        more = f" and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
        raise ValueError(
            f"{table} names {len(missing)} files that do not exist: "
            f"{', '.join(missing[:_LISTED])}{more}.\n"
            f"Paths are relative to the table's folder {table.parent}."
        )
