"""Which pictures a model has learned from: their scores flatter, and their labels are not new."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from leanet.records import NORMAL
from leanet.serve.entries import Label
from leanet.serve.kept import digest
from leanet.serve.run_data import run_data

WORD_OF = {NORMAL: "ok"}  # the label that says the same; every other is ng


class NewLabels(NamedTuple):
    """Labels that a model has not learned from, in all and by word."""

    total: int
    by: dict[str, int]


class Learned:
    """The training pictures of runs, by the sha256 of their bytes. Any thread may call; the first
    call for a run reads all its files."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._names: dict[tuple[Path, float], str] = {}  # (path, changed at) -> sha256
        self._paths: dict[str, Path] = {}
        self._of: dict[Path, dict[str, Label]] = {}

    def of(self, run: Path) -> Mapping[str, Label]:
        """What the model of a run was told of each picture; {} where its pictures are gone."""
        with self._lock:
            if run not in self._of:
                self._of[run] = self._read(run)
            return self._of[run]

    def kinds(self, run: Path) -> set[str]:
        """The types of defects among them."""
        return {label.kind for label in self.of(run).values() if label.label == "ng" and label.kind}

    def path_of(self, image: str) -> Path | None:
        """A file of a training picture of any run asked for so far."""
        return self._paths.get(image)

    def new(self, run: Path, labels: Mapping[str, Label]) -> NewLabels:
        """The labels ok and ng that say something else than the model was told, or more."""
        told, by = self.of(run), dict[str, int]()
        for image, label in labels.items():
            if label.label in ("ok", "ng") and not _same(label, told.get(image)):
                by[label.label] = by.get(label.label, 0) + 1
        return NewLabels(sum(by.values()), by)

    def _read(self, run: Path) -> dict[str, Label]:
        try:
            samples = run_data(run).samples
        except (ValueError, OSError):  # its pictures are gone, and nothing can be told
            return {}
        found = {}
        for sample in samples:
            if sample.path.is_file():
                name = self._name(sample.path)
                found[name] = Label(WORD_OF.get(sample.label, "ng"), sample.kind)
                self._paths[name] = sample.path
        return found

    def _name(self, path: Path) -> str:
        key = path, path.stat().st_mtime
        if key not in self._names:
            self._names[key] = digest(path)
        return self._names[key]


def _same(label: Label, told: Label | None) -> bool:
    return told is not None and label.label == told.label and label.kind in ("", told.kind)
