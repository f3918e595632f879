"""The data set of a retraining: the images of the run, and those that people have labeled since.

A label on an image of the run replaces what the run says of it; the same bytes are one image,
wherever they lie; `unsure` is left out unless the run has a label of its own. Images of the run
keep their group and their place in train or test, new ones train.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from leanet.data.class_list import class_of
from leanet.files import write_csv
from leanet.records import ANOMALOUS, NORMAL, Sample
from leanet.serve.entries import Label

FOLDS: Final = 3  # where the run had none: without folds nothing could be compared honestly
LEAST: Final = 2  # images of a new class


class TrainingSet(NamedTuple):
    """What to train on, with the names (sha256) of the images, how many labels are new images and
    how many changed the label of an image of the run, and what was left out, in words."""

    samples: tuple[Sample, ...]
    names: tuple[str, ...]
    num_new: int
    num_changed: int
    notices: tuple[str, ...]


class Classes(NamedTuple):
    """The classes of a run, () for normal and anomalous, and the normal one if there is one."""

    names: tuple[str, ...] = ()
    normal: str | None = None


def merge(
    samples: Sequence[Sample],
    names: Sequence[str],
    labels: Mapping[str, Label],
    file_of: Callable[[str], Path | None],
    classes: Classes,
) -> TrainingSet:
    """The samples of a run, whose names (sha256) are given in their order, with the labels by
    name; `file_of` gives the file of a new image, None if it is gone."""
    usual = _usual_kind(samples)
    notices: Counter[str] = Counter()
    told = {}
    for name, label in labels.items():
        meaning = _meaning(label, classes, usual)
        if isinstance(meaning, str):
            notices[meaning] += 1
        elif meaning is not None:
            told[name] = meaning
    kept: dict[str, Sample] = {}
    num_changed = 0
    for name, sample in zip(names, samples, strict=True):
        if name in kept:
            notices["copy of another image of the run"] += 1
            continue
        kept[name] = _relabeled(sample, told[name]) if name in told else sample
        num_changed += kept[name] != sample
    split = "train" if any(sample.split for sample in samples) else None
    num_known = len(kept)
    for name in sorted(told.keys() - kept.keys()):
        path = file_of(name)
        if path is None:
            notices["labeled, but its file is gone"] += 1
            continue
        value, kind = told[name]
        kept[name] = Sample(path=path, label=value, kind=kind, split=split)
    if classes.names:
        _drop_rare(kept, list(kept)[num_known:], classes, notices)
    return TrainingSet(
        samples=tuple(kept.values()),
        names=tuple(kept),
        num_new=len(kept) - num_known,
        num_changed=num_changed,
        notices=tuple(f"{count} left out: {why}" for why, count in notices.items()),
    )


def possible_folds(samples: Sequence[Sample], wanted: int, *, by_kind: bool) -> int:
    """As many folds as wanted (0 or 1: `FOLDS`) or as the rarest label, or class, has groups; 0
    where there would be fewer than two."""
    train = [sample for sample in samples if sample.split != "test"]
    groups: dict[Any, set[Any]] = {} if by_kind else {NORMAL: set(), ANOMALOUS: set()}
    for index, sample in enumerate(train):
        key = class_of(sample) if by_kind else sample.label
        groups.setdefault(key, set()).add(sample.group or index)
    least = min((len(found) for found in groups.values()), default=0)
    num = min(wanted if wanted > 1 else FOLDS, least)
    return num if num > 1 else 0


def options_for(config: Mapping[str, Any], samples: Sequence[Sample], classes: Classes) -> Any:
    """The configuration of a run (method and options by name) for training it anew on a table of
    such samples: all of them are meant, and what the run drew or split is in the table."""
    own = int(config["folds"])
    folds = possible_folds(samples, own, by_kind=bool(classes.names))
    changed: dict[str, Any] = {"folds": folds, "positives": None, "normal": None}
    if folds:
        changed["test_fraction"] = None
    if classes.names and "classes" in config:
        changed["classes"] = "kinds"
    if config.get("weak_test_split"):
        changed["weak_test_split"] = False
    return {name: value for name, value in {**config, **changed}.items() if name != "data"}


def write_table(path: Path, samples: Sequence[Sample]) -> None:
    """The samples as a table that `leanet fit` reads, with absolute paths."""
    rows = [
        {
            "path": sample.path.absolute(),
            "label": sample.label,
            "type": sample.kind,
            "mask": "" if sample.mask is None else sample.mask.absolute(),
            "group": sample.group or "",
            "split": sample.split or "",
        }
        for sample in samples
    ]
    write_csv(path, rows)


def _usual_kind(samples: Sequence[Sample]) -> str:
    """What most normal images of the run are called."""
    kinds = Counter(sample.kind for sample in samples if sample.label == NORMAL)
    return kinds.most_common(1)[0][0] if kinds else ""


def _meaning(label: Label, classes: Classes, usual: str) -> tuple[int, str] | str | None:
    """Label and kind of a sample; None: says nothing; a text: why it cannot be used."""
    if label.label not in ("ok", "ng"):
        return None
    if not classes.names:
        return (NORMAL, usual) if label.label == "ok" else (ANOMALOUS, label.kind)
    if label.label == "ok":
        if classes.normal is None:
            return "ok, but no class of this run is the normal one; label it ng with its class"
        return NORMAL, classes.normal
    others = [name for name in classes.names if name != classes.normal]
    kind = label.kind or (others[0] if len(others) == 1 else "")
    if not kind:
        return "ng without its class"
    if kind == classes.normal:
        return f"ng, but of the normal class {kind}"
    return (NORMAL if classes.normal is None else ANOMALOUS), kind


def _relabeled(sample: Sample, told: tuple[int, str]) -> Sample:
    """A defect of which no type was said keeps the one it had; what is good has no mask."""
    label, kind = told
    if label == sample.label and not kind:
        kind = sample.kind
    mask = sample.mask if label == sample.label == ANOMALOUS else None
    return dataclasses.replace(sample, label=label, kind=kind, mask=mask)


def _drop_rare(
    kept: dict[str, Sample], new: Sequence[str], classes: Classes, notices: Counter[str]
) -> None:
    """Take out new images of a new class with too few of them to train and to test."""
    counts = Counter(class_of(kept[name]) for name in new)
    for name in new:
        kind = class_of(kept[name])
        if kind not in classes.names and counts[kind] < LEAST:
            notices[f"the new class {kind} needs {LEAST} images or more"] += 1
            del kept[name]
