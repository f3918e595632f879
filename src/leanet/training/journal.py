"""The journal of a training: one JSON line per epoch, appended as it happens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from leanet.files import write_text

Record = dict[str, Any]


def append(path: Path, record: Record) -> None:
    """Add one line."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def read(path: Path) -> list[Record]:
    """All complete lines; a line cut off by a kill is left out."""
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
        records.append(json.loads(line))
    return records


def rewind(path: Path, num_epochs: int) -> list[Record]:
    """Keep the first `num_epochs` records (what a checkpoint knows) and drop the rest."""
    records = read(path)[:num_epochs]
    write_text(path, "".join(json.dumps(record) + "\n" for record in records))
    return records
