"""From a detector to a file that answers alike, or to no file.

A file is written beside its place, opened in the program that is to run it, compared with the
detector on real and drawn images, and only then moved there.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from leanet.data.generated import sha256_of
from leanet.inference.engines import OPEN
from leanet.inference.export_files import NAMES, OPSET, traced, write
from leanet.inference.export_graph import (
    Format,
    Graph,
    facts_of,
    outputs_of,
    point_facts,
    vector_images,
)
from leanet.inference.export_images import shown_images
from leanet.inference.parity import Parity, check_vectors, compare
from leanet.ops.working_point import point_of

EXPORTS, INT8_FILE = "export", "model-int8.onnx"  # the folder in a run, its file of 8 bits
_RECORDED = ("leanet", "weights_sha256", "threshold", "review", "calibrated")


class Written(NamedTuple):
    """The file that is opened, and what card.json says about it."""

    file: Path
    record: dict[str, Any]


class Made(NamedTuple):
    """A file in a folder of work, the graph in it, its facts, and how far its answers are from the
    detector's over which images."""

    file: Path
    graph: Graph
    facts: dict[str, Any]
    parity: Parity
    source: str


def outdated(card: Mapping[str, Any]) -> list[str]:
    """The exports of a run that hold another working point inside than its card does now."""
    now = point_facts(point_of(card))
    records: Mapping[str, Any] = card.get("exports") or {}
    return [name for name, one in records.items() if any(one.get(k) != now[k] for k in now)]


def export_detector(
    detector: Any, run: Path, card: Mapping[str, Any], kind: Format, out: Path, weights: Path
) -> Written:
    """Write the detector of a run, whose weights are in the file `weights`, into the folder `out`.

    Raises:
        ValueError: it cannot be exported, or the file gives other answers: then there is no file.
    """
    with work_in(out) as work:
        made = make(detector, run, card, kind, work, weights)
        move(work, out, NAMES[kind])
    file = out / made.file.name
    record = record_of(file, run, made.facts, sum((out / n).stat().st_size for n in NAMES[kind]))
    record["parity"] = {"of": made.source, **made.parity.to_dict()}
    return Written(file, record if kind == "torch" else {**record, "opset": OPSET})


def make(
    detector: Any, run: Path, card: Mapping[str, Any], kind: Format, work: Path, weights: Path
) -> Made:
    """Write a detector into a folder of work, and check it; errors as `export_detector`."""
    point = point_of(card)
    graph = Graph(detector, point)
    known = outputs_of(graph, vector_images(detector.img_size))
    facts = facts_of(detector, card, point, sha256_of(weights), known)
    file = write(traced(graph, detector.img_size), kind, work, facts)
    return Made(file, graph, facts, *checked(graph, file, kind, run))


@contextmanager
def work_in(out: Path) -> Iterator[Path]:
    """A folder of work on the disk of the folder `out`, which is made."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=out) as work:
        yield Path(work)


def move(work: Path, out: Path, names: Sequence[str]) -> None:
    """Put finished files in their place."""
    for name in names:
        (work / name).replace(out / name)


def record_of(file: Path, run: Path, facts: Mapping[str, Any], size: int) -> dict[str, Any]:
    """What card.json says of any file."""
    return {
        "file": place_of(file, run),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "bytes": size,
        **{key: facts[key] for key in _RECORDED},
    }


def checked(graph: Graph, file: Path, kind: str, run: Path) -> tuple[Parity, str]:
    """How far a file's answers are from the graph's, and over which images.

    Raises:
        ValueError: too far.
    """
    session = OPEN[kind](file)
    check_vectors(session, file.name)
    shown = shown_images(run, session.facts["img_size"])
    parity = compare(graph, session, shown.image, graph.point.threshold)
    if not parity.holds():
        raise ValueError(
            "the exported file answers otherwise than the detector, so it was not kept: "
            f"{parity}; allowed are 1e-4 of scores (relative to max(1, |score|)), 1e-3 of single "
            "scores, 0.1 % of the pixels of maps and no other verdict. Please report this with the "
            "versions in environment.json"
        )
    return parity, shown.source


def place_of(file: Path, run: Path) -> str:
    """Where a file is, relative to the run if it lies in it."""
    file, run = file.resolve(), run.resolve()
    return file.relative_to(run).as_posix() if file.is_relative_to(run) else str(file)


def refuse_earlier_export(kind: str, out: Path, *, int8: bool, data: bool, overwrite: bool) -> None:
    """Refuse impossible options, and to replace an earlier file without leave.

    Raises:
        ValueError: an unknown format; 8 bits in another format than onnx, or without data, or data
            without 8 bits; the file is there.
    """
    if kind not in NAMES:
        raise ValueError(f"unknown format {kind!r}; allowed: {', '.join(NAMES)}")
    if int8 != data or (int8 and kind != "onnx"):
        raise ValueError(
            "8 bits come as ONNX and with labelled images that say what they cost: give both "
            "--int8 and --data DATA, with --format onnx, or neither"
        )
    file = out / (INT8_FILE if int8 else NAMES[kind][-1])
    if file.exists() and not overwrite:
        raise ValueError(f"{file} is there; use --overwrite to replace it, or another --out")


def describe(written: Written) -> str:
    """What was written, in two lines."""
    parity = Parity(**{k: v for k, v in written.record["parity"].items() if k != "of"})
    return (
        f"wrote {written.file} ({written.record['bytes'] / 1e6:.1f} MB)\n"
        f"parity: {parity} ({written.record['parity']['of']})"
    )
