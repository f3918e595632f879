"""Watching a folder: every new image file is judged once, for as long as the watch runs.

A file is looked at when its size and time of change have stood still for `settle` seconds, so that
one that a camera is still writing waits; one that cannot be decoded then is tried again for
`patience` seconds, and gets an error file after that. What has been judged is known by the verdict
files (`leanet.serve.verdict_files`), so a watch that was stopped or killed goes on where it was.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from leanet.data.cache import READER_THREADS
from leanet.data.images import IMAGE_SUFFIXES, UnreadableImageError, decode_image, write_image
from leanet.data.scan import SKIPPED_NAMES
from leanet.files import sweep
from leanet.inference.baseline import read_baseline
from leanet.inference.heatmap import MAP_TOP, overlay
from leanet.serve.drift import DriftMonitor
from leanet.serve.live import Judgement, Model, judge_pictures, shown
from leanet.serve.verdict_files import Stamp, VerdictFiles, place_of, stamp_of

Tell = Callable[[str], None]
BATCH: Final = 8
PATIENCE: Final = 30.0  # seconds for a file that stands still and cannot be decoded
UNREADABLE: Final = "unreadable"


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How often to look, how long a file must stand still, how long a bad one is tried, in seconds,
    and whether to end when all files have been seen to."""

    interval: float = 1.0
    settle: float = 2.0
    patience: float = PATIENCE
    once: bool = False

    def __post_init__(self) -> None:
        if not (0 < self.interval < float("inf") and 0 <= self.settle < float("inf")):
            raise ValueError(
                f"interval must be positive and settle at least 0 seconds, not {self.interval} and "
                f"{self.settle}"
            )


@dataclass
class _Waiting:
    """A file that may still be written: as it was seen last, since when, when to try it next."""

    stamp: Stamp
    since: float
    next_try: float


class _Read(NamedTuple):
    """A file that was decoded: its bytes, size (height, width), and picture [S, S, 3]."""

    file: str
    stamp: Stamp
    data: bytes
    size: tuple[int, int]
    picture: NDArray[np.uint8]


class _Job(NamedTuple):
    """What is to be written: of which file, under which name, unusual in which statistics."""

    read: _Read
    judgement: Judgement
    name: str
    unusual: tuple[str, ...]


class Watch:
    """Judges the files of a folder; `run` until it is stopped, then `counts` says how many got
    which verdict (normal, anomalous, review, unreadable; of a run without a normal class the
    predicted ones).

    Raises ValueError for a folder that is not there, or that holds or is `out`, or pictures to be
    moved by a run without verdicts.
    """

    def __init__(
        self, model: Model, files: VerdictFiles, pace: Pace, tell: Tell = lambda text: None
    ) -> None:
        _check(model, files)
        self.model, self.files, self.pace, self.counts = model, files, pace, Counter[str]()
        self._tell, self._stop = tell, threading.Event()
        self._waiting: dict[str, _Waiting] = {}
        self._done: dict[str, Stamp] = {}
        self._drift = DriftMonitor(read_baseline(model.run))
        self._told: set[str] = set()

    def stop(self) -> None:
        """Let `run` end after the pictures at hand."""
        self._stop.set()

    def run(self) -> None:
        """Judge what is there and what comes, until `stop`, or once.

        Raises:
            OSError: `out` cannot be written.
        """
        sweep(self.files.out)
        pause = min(self.pace.interval, self.pace.settle or self.pace.interval)
        with ThreadPoolExecutor(READER_THREADS) as pool:
            while not self._stop.is_set():
                ready = self._look()
                for start in range(0, len(ready), BATCH):
                    if not self._stop.is_set():
                        self._judge(ready[start : start + BATCH], pool)
                if self.pace.once and not self._waiting:
                    return
                if not ready:
                    self._stop.wait(pause if self.pace.once else self.pace.interval)

    def _look(self) -> list[str]:
        """The files that are ready to be judged, the oldest first."""
        now = time.monotonic()
        seen = dict(image_files(self.files.folder, self.files.out))
        for known in (self._waiting, self._done):
            for file in known.keys() - seen.keys():
                del known[file]
        ready: list[str] = []
        for file, stamp in sorted(seen.items(), key=lambda one: (one[1].mtime_ns, one[0])):
            if self._done.get(file) == stamp:
                continue
            waiting = self._waiting.get(file)
            if waiting is None or waiting.stamp != stamp:
                if self._is_settled(file, stamp):
                    continue
                waiting = _Waiting(stamp, now, now + self.pace.settle)
                self._waiting[file] = waiting
            if now >= waiting.next_try:
                ready.append(file)
        return ready

    def _is_settled(self, file: str, stamp: Stamp) -> bool:
        try:
            settled = self.files.settled(file, stamp)
        except FileNotFoundError:
            return True  # gone meanwhile
        if settled:
            self._finished(file, stamp)
        return settled

    def _judge(self, names: Sequence[str], pool: ThreadPoolExecutor) -> None:
        """Judge some files together and write what came out."""
        read = [one for one in pool.map(self._read, names) if one is not None]
        judged = list(zip(read, self._judged(read), strict=True)) if read else []
        for one, result in judged:
            if isinstance(result, str):
                self._give_up(one.file, one.stamp, result)
        jobs = [self._job(one, result) for one, result in judged if isinstance(result, Judgement)]
        for job, words in zip(jobs, pool.map(self._write, jobs), strict=True):
            self.counts[_counted_as(job.judgement)] += 1
            self._finished(job.read.file, job.read.stamp)
            self._tell(words)
        self._tell_drift()

    def _read(self, file: str) -> _Read | None:
        """None for a file that is gone, was changed meanwhile, or cannot be decoded (yet)."""
        path, waiting = self.files.folder / file, self._waiting[file]
        try:
            data = path.read_bytes()
            if stamp_of(path) != waiting.stamp:
                return None  # seen as a change at the next look
            image = decode_image(data, str(path))
        except FileNotFoundError:
            return None
        except (UnreadableImageError, OSError) as error:
            self._bad(file, waiting, getattr(error, "reason", str(error)))
            return None
        picture = shown(self.model, image)
        return _Read(file, waiting.stamp, data, (image.shape[0], image.shape[1]), picture)

    def _bad(self, file: str, waiting: _Waiting, reason: str) -> None:
        now = time.monotonic()
        patience = 0.0 if self.pace.once else self.pace.patience
        if now - waiting.since >= self.pace.settle + patience:
            self._give_up(file, waiting.stamp, reason)
        else:
            waiting.next_try = now + self.pace.interval

    def _give_up(self, file: str, stamp: Stamp, reason: str) -> None:
        self.files.fail(file, stamp, reason, _now())
        self.counts[UNREADABLE] += 1
        self._finished(file, stamp)
        self._tell(f"{UNREADABLE}  {file}: {reason}")

    def _judged(self, read: Sequence[_Read]) -> list[Judgement | str]:
        """A judgement each, or why there is none: one picture does not spoil the others."""
        try:
            return [*judge_pictures(self.model, [one.picture for one in read])]
        except ValueError as error:
            if len(read) == 1:
                return [str(error)]
            return [result for one in read for result in self._judged([one])]

    def _job(self, one: _Read, judgement: Judgement) -> _Job:
        unusual = self._drift.observe(one.picture, judgement.score, self.model.point.threshold)
        return _Job(one, judgement, self.files.free_name(one.file), unusual)

    def _write(self, job: _Job) -> str:
        """Overlay, verdict, move; the line to tell."""
        one, judgement, name, unusual = job
        drawn = self._draw(name, one, judgement)
        verdict = {
            "file": one.file,
            **one.stamp._asdict(),
            "sha256": hashlib.sha256(one.data).hexdigest(),
            "height": one.size[0],
            "width": one.size[1],
            "run": str(self.model.run),
            "score": judgement.score,
            "threshold": self.model.point.threshold,
            "verdict": judgement.verdict,
            "review": judgement.review,
            "probability": judgement.probability,
            "predicted": judgement.predicted or None,
            "parts": judgement.parts,
            "unusual": unusual,
            "overlay": drawn,
            "judged_at": _now(),
        }
        self.files.commit(name, verdict, place_of(verdict))
        score = "" if judgement.score is None else f"  {judgement.score:.4g}"
        return f"{_counted_as(judgement)}{score}  {one.file}"

    def _draw(self, name: str, one: _Read, judgement: Judgement) -> str | None:
        """The place of the overlay below `out`; None of a model without maps."""
        if judgement.map is None:
            return None
        card, detector = self.model.card, self.model.detector
        picture = overlay(
            decode_image(one.data, one.file),
            judgement.map,
            top=card.get("map_top") or MAP_TOP,
            low=getattr(detector, "map_low", None) or card.get("map_low") or 0.0,
            border=int(card.get("map_border") or 0),
        )
        place = self.files.overlay(name)
        write_image(self.files.out / place, picture)
        return place

    def _tell_drift(self) -> None:
        """Say once when the pictures have changed."""
        for name, alarm in self._drift.alarms.items():
            if name not in self._told:
                self._tell(f"the pictures have changed (no defect): {alarm.words}")
        self._told = set(self._drift.alarms)

    def _finished(self, file: str, stamp: Stamp) -> None:
        self._waiting.pop(file, None)
        self._done[file] = stamp


def image_files(folder: Path, out: Path) -> Iterator[tuple[str, Stamp]]:
    """The visible image files of a folder at any depth but those of `out`, by their place below it,
    with slashes; links to folders are not followed."""
    left_out = out.resolve()
    for place, folders, names in os.walk(folder):
        folders[:] = [n for n in folders if _visible(n) and Path(place, n).resolve() != left_out]
        for name in names:
            if _visible(name) and Path(name).suffix.lower() in IMAGE_SUFFIXES:
                path = Path(place, name)
                try:
                    yield path.relative_to(folder).as_posix(), stamp_of(path)
                except FileNotFoundError:
                    continue  # gone meanwhile


def in_words(counts: Counter[str]) -> str:
    """How many pictures got which verdict.

    >>> in_words(Counter(normal=3, anomalous=1))
    '4 pictures: 3 normal, 1 anomalous'
    """
    listed = ", ".join(f"{count} {name}" for name, count in counts.most_common())
    return f"{counts.total()} pictures" + (f": {listed}" if listed else "")


def _counted_as(judgement: Judgement) -> str:
    if judgement.verdict is None:
        return judgement.predicted
    return "review" if judgement.review else judgement.verdict


def _check(model: Model, files: VerdictFiles) -> None:
    folder, out = files.folder.resolve(), files.out.resolve()
    if not folder.is_dir():
        raise ValueError(f"{files.folder} is no folder; give the one in which images appear")
    if folder == out:
        raise ValueError(f"--out is the watched folder itself; give another than {files.out}")
    if files.move and model.point.threshold is None:
        raise ValueError(
            f"{model.run} knows no normal class, so it gives no verdicts to sort by; leave out "
            "--move"
        )


def _visible(name: str) -> bool:
    return not name.startswith(".") and name.casefold() not in SKIPPED_NAMES


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
