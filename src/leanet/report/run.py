"""A run folder as records: what `leanet fit` wrote, read for the report and nothing else.

A *part* of a run is one training with its test images: a cross-validation fold, or the final
detector. Figures of merit are those of the folds where there are folds, else those of the final
detector on the test images that were kept from it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any

import yaml

from leanet.files import read_csv, read_json, read_json_lines
from leanet.records import ANOMALOUS, NORMAL, PROBABILITY

FINAL = "final"
Record = dict[str, Any]  # one epoch of a journal
_FACTS = frozenset(  # no scores
    {"path", "role", "label", "kind", "verdict", "threshold", "true", "predicted"}
)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One test image: what it is, and how the detector that had not seen it judged it."""

    path: str
    fold: str
    label: int
    kind: str
    alarm: bool  # called anomalous
    threshold: float
    scores: Mapping[str, float]  # by output; "score" is the one that decides

    @property
    def outcome(self) -> str:
        """found, passed, escape (a defect that passes) or false alarm."""
        if self.label == ANOMALOUS:
            return "found" if self.alarm else "escape"
        return "false alarm" if self.alarm else "passed"

    @property
    def wrong(self) -> bool:
        """Whether verdict and label differ."""
        return self.alarm != (self.label == ANOMALOUS)

    @property
    def margin(self) -> float:
        """How far the score lies above the threshold of its fold."""
        return self.scores["score"] - self.threshold


@dataclass(frozen=True, kw_only=True)
class Named:
    """One test image of a classifier of several classes: its class, and the one it was given."""

    path: str
    fold: str
    true: str
    predicted: str
    probs: Mapping[str, float]  # by class, in the order of the classes

    @property
    def wrong(self) -> bool:
        """Whether it was given another class than its own."""
        return self.true != self.predicted

    @property
    def confidence(self) -> float:
        """Probability of the class that it was given."""
        return self.probs[self.predicted]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One training of a run: a fold or the final detector."""

    name: str
    folder: Path
    tested: tuple[Trial, ...]  # () where no class is known to be normal
    thresholds: Mapping[str, Mapping[str, Any]]  # by output: value, rule, num_normal, num_anomalous
    metrics: Mapping[str, Mapping[str, float]]  # by output; {} without test images
    remarks: Mapping[str, Any]
    epochs: int
    seconds: float
    journal: tuple[Record, ...]
    parameters: float  # nan where an early run did not count them
    named: tuple[Named, ...] = ()  # the test images of a classifier of several classes
    pixels: Mapping[str, float] = field(default_factory=dict)  # {} without masks or maps
    map_thresholds: Mapping[str, float] = field(default_factory=dict)  # working points of the map
    map_low: float = math.nan  # median of held-out normal pixels; nan where it is not known
    map_border: int = 0  # px at each side that the map does not cover


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run."""

    folder: Path
    config: Mapping[str, Any]
    config_text: str
    environment: Mapping[str, Any]
    card: Mapping[str, Any]
    folds: tuple[Part, ...]  # () without cross-validation
    final: Part
    roles: Mapping[str, Mapping[str, frozenset[str]]]  # part -> "train" and "test" -> paths

    @property
    def tested_parts(self) -> tuple[Part, ...]:
        """The parts that the figures of merit come from; () when nothing was tested."""
        return self.folds or ((self.final,) if self.final.tested or self.final.named else ())

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that it tells apart, in their order; () for normal and anomalous."""
        return tuple(self.card.get("classes") or ())

    @property
    def named(self) -> tuple[Named, ...]:
        """All test images of a classifier of several classes; () of any other."""
        return tuple(image for part in self.tested_parts for image in part.named)

    @property
    def tested(self) -> tuple[Trial, ...]:
        """All test images of these parts."""
        return tuple(image for part in self.tested_parts for image in part.tested)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs, the one that decides first; () where nothing is known to be normal.

        "score" is left out when another output is the score, as in a fused detector.
        """
        names, decides = list(self.final.thresholds), self.decides
        if not names:
            return ()
        others = [name for name in names if name not in ("score", decides)]
        return (decides, *others)

    @property
    def is_guided(self) -> bool:
        """Whether this is a LEA-Net with guided attention."""
        return "correction" in self.final.remarks

    @property
    def decides(self) -> str:
        """The output whose value is the score; "score" when there is no other."""
        thresholds = self.final.thresholds  # none where no class is known to be normal
        for name in thresholds:
            same = all(image.scores[name] == image.scores["score"] for image in self.tested)
            if name != "score" and same and thresholds[name] == thresholds["score"]:
                return name
        return "score"

    @property
    def data_name(self) -> str:
        """Last part of the data set's path."""
        return PurePath(str(self.config["data"])).name or str(self.config["data"])

    @property
    def map_model_journals(self) -> list[list[Record]]:
        """Journals of the map models, in no particular order."""
        files = sorted(self.folder.glob("map_models/*/journal.jsonl"))
        return [read_json_lines(file) for file in files]

    @property
    def finished(self) -> datetime:
        """When the run was concluded, in UTC: the date of results.csv or of card.json, which later
        commands change."""
        files = [self.folder / name for name in ("card.json", "results.csv")]
        return datetime.fromtimestamp(min(f.stat().st_mtime for f in files if f.exists()), UTC)

    @property
    def seconds(self) -> float:
        """Training and testing of all parts together."""
        return sum(part.seconds for part in (*self.folds, self.final))


def read_run(folder: Path) -> Run:
    """Read a run folder.

    Raises:
        ValueError: no run folder, or one whose training has not been finished.
    """
    if not (folder / "config.yaml").exists():
        raise ValueError(
            f"{folder} is no run folder (it has no config.yaml); `leanet fit` makes one"
        )
    if not (folder / "card.json").exists():
        raise ValueError(f"{folder} is not finished; complete it with `leanet fit ... --resume`")
    text = (folder / "config.yaml").read_text(encoding="utf-8")
    roles = _roles(read_csv(folder / "folds.csv"))
    return Run(
        folder=folder,
        config=yaml.safe_load(text),
        config_text=text,
        environment=read_json(folder / "environment.json"),
        card=read_json(folder / "card.json"),
        folds=tuple(_part(folder / name) for name in roles if name != FINAL),
        final=_part(folder / FINAL),
        roles=roles,
    )


def count(images: Sequence[Trial]) -> tuple[int, int]:
    """(normal, anomalous) images."""
    return (
        sum(image.label == NORMAL for image in images),
        sum(image.label == ANOMALOUS for image in images),
    )


def _roles(rows: Sequence[Mapping[str, str]]) -> dict[str, dict[str, frozenset[str]]]:
    paths: dict[str, dict[str, set[str]]] = defaultdict(lambda: {"train": set(), "test": set()})
    for row in rows:
        paths[row["fold"]][row["role"]].add(row["path"])
    return {
        name: {role: frozenset(members) for role, members in sides.items()}
        for name, sides in paths.items()
    }


def _part(folder: Path) -> Part:
    outcome = read_json(folder / "metrics.json")
    rows = [row for row in read_csv(folder / "predictions.csv") if row["role"] == "test"]
    return Part(
        name=folder.name,
        folder=folder,
        tested=tuple(_tested(row, folder.name) for row in rows if row["verdict"]),
        named=tuple(_named(row, folder.name) for row in rows if row.get("predicted")),
        thresholds=outcome["threshold"],
        metrics=outcome["metrics"],
        remarks=outcome["remarks"],
        epochs=outcome["epochs"],
        seconds=outcome["seconds"],
        journal=tuple(read_json_lines(folder / "journal.jsonl")),
        parameters=outcome.get("parameters", math.nan),
        pixels=outcome.get("pixels") or {},
        map_thresholds=outcome.get("map_thresholds") or {},
        map_low=math.nan if outcome.get("map_low") is None else outcome["map_low"],
        map_border=outcome.get("map_border", 0),
    )


def _tested(row: Mapping[str, str], fold: str) -> Trial:
    columns = [name for name in row if name not in _FACTS and not _is_probability(name, row)]
    return Trial(
        path=row["path"],
        fold=fold,
        label=int(row["label"]),
        kind=row["kind"],
        alarm=row["verdict"] == "anomalous",
        threshold=float(row["threshold"]),
        scores={name: float(row[name]) for name in columns},
    )


def _named(row: Mapping[str, str], fold: str) -> Named:
    probs = {
        name.removeprefix(PROBABILITY): float(value)
        for name, value in row.items()
        if _is_probability(name, row)
    }
    return Named(
        path=row["path"], fold=fold, true=row["true"], predicted=row["predicted"], probs=probs
    )


def _is_probability(column: str, row: Mapping[str, str]) -> bool:
    return "predicted" in row and column.startswith(PROBABILITY)
