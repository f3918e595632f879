"""The journal of a training: one JSON line per epoch, appended as it happens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from leanet.files import read_json_lines, write_text

Record = dict[str, Any]


def append(path: Path, record: Record) -> None:
    """Add one line."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def read(path: Path) -> list[Record]:
    """All complete lines; a line cut off by a kill is left out."""
    return read_json_lines(path)


def rewind(path: Path, num_epochs: int) -> list[Record]:
    """Keep the first `num_epochs` records (what a checkpoint knows) and drop the rest."""
    records = read(path)[:num_epochs]
    write_text(path, "".join(json.dumps(record) + "\n" for record in records))
    return records
