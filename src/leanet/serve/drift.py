"""Drift: are the pictures of today still like those that the model has learned from?

An alarm here is no defect and never changes a verdict: it says that the lamp, the camera or the
parts have changed, so that the verdicts deserve less trust. Two questions are asked:

*This picture*: in which statistics does it lie outside the limits of the training pictures? The
baseline says how often a picture like those does (`rate`, over all statistics together).

*The last pictures*: the last `SHORT` and the last `window` of them are compared with the baseline
by the distance of Kolmogorov and Smirnov, each statistic and the scores, against the normal and
against all training pictures, of which the nearer counts: a line with fewer defects than the data
set has not drifted. The alarm is raised where the distance is at least `LEAST_DISTANCE`, so that it
matters, and more than chance makes it with a probability of `ALPHA`. At one look in `LOOK_EVERY`
pictures, two windows and ten quantities, that is at most one false alarm in 250,000 pictures by the
sum of all looks, if pictures are drawn like the training pictures and independently; pictures of
one lot that are alike make it more. It is taken back when the distance has fallen below
`CALM` times its limit, so that it does not flicker.

Scores of held-out images are a baseline where the model itself gave them. After cross-validation
other models did, one per fold, each on a scale of its own: then the first `window` scores since the
last reset are what later ones are compared with.

The share of anomalous verdicts is compared with the share before the window, or, as long as that
is short, with what the threshold gives on held-out training images: two intervals of
`RATE_LEVEL` that do not meet are an alarm.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from leanet.data.cache import images_in_unit_range
from leanet.inference.baseline import FEWEST, baseline_of
from leanet.ops.familiar import (
    Shares,
    chance_distance,
    distance,
    share_from,
    shares_of,
    summary,
)
from leanet.ops.image_statistics import STATISTICS, image_statistics
from leanet.ops.stats import clopper_pearson
from leanet.serve.drift_words import in_words, rate_in_words

WINDOW: Final = 200
SHORT: Final = 25
LOOK_EVERY: Final = 5
ALPHA: Final = 1e-6
LEAST_DISTANCE: Final = 0.3
CALM: Final = 0.7
RATE_LEVEL: Final = 0.999
FEWEST_BEFORE: Final = 200  # verdicts before the window that say what is usual
SCORE, VERDICTS = "score", "verdicts"
FOLDS: Final = "cross-validation"  # where scores of a baseline come from
QUANTITIES: Final = (*STATISTICS, SCORE)


class Row(NamedTuple):
    """What is kept of a picture: its statistics in the order of `STATISTICS`, its score, whether it
    was judged anomalous, and whether it was unlike the training ones."""

    values: tuple[float, ...]
    score: float | None
    anomalous: bool
    unusual: bool


class Alarm(NamedTuple):
    """An alarm: since when (seconds since 1970), at which picture, how far, and in words."""

    since: float
    picture: int
    distance: float
    words: str


class Usual(NamedTuple):
    """Anomalous verdicts among so many pictures, and in words which."""

    anomalous: int
    num: int
    source: str


class DriftMonitor:
    """Watches pictures against a baseline, in bounded memory; safe to use from several threads.

    Args:
        baseline: contents of baseline.json; None: nothing can be said, and status says so.
        window: so many pictures are kept.
        now: the clock, in seconds since 1970.
    """

    def __init__(
        self,
        baseline: Mapping[str, Any] | None,
        *,
        window: int = WINDOW,
        now: Callable[[], float] = time.time,
    ) -> None:
        if window < SHORT:
            raise ValueError(f"window {window}: give at least {SHORT} pictures")
        self.baseline, self.window, self._now = baseline, window, now
        self.rows: deque[Row] = deque(maxlen=window)
        self.alarms: dict[str, Alarm] = {}
        self.distances: dict[str, float] = {}
        self.seen = 0  # pictures since the last reset
        self.before = [0, 0]  # anomalous ones, and all, of those that have left the window
        self.first: list[float] = []  # the first scores since the last reset, one window
        self._shares: dict[str, list[Shares]] = {}  # of normal and of all pictures, by quantity
        self._lock = threading.RLock()

    def observe(
        self, picture: NDArray[np.uint8], score: float | None, threshold: float | None = None
    ) -> tuple[str, ...]:
        """Take note of a picture [S, S, 3] and its score; names the statistics in which it is
        unlike the training pictures."""
        return self.note(statistics_of(picture), score, threshold)

    def note(
        self, values: Mapping[str, float], score: float | None, threshold: float | None = None
    ) -> tuple[str, ...]:
        """As `observe`, of a picture whose statistics are known."""
        unusual = self.outside(values)
        anomalous = score is not None and threshold is not None and score >= threshold
        row = Row(tuple(values.values()), score, anomalous, bool(unusual))
        with self._lock:
            if len(self.rows) == self.window:
                self.before[0] += self.rows[0].anomalous
                self.before[1] += 1
            self.rows.append(row)
            self.seen += 1
            if score is not None and len(self.first) < self.window:
                self.first.append(score)
            if self.seen % LOOK_EVERY == 0:
                self._look(threshold)
        return unusual

    def outside(self, values: Mapping[str, float]) -> tuple[str, ...]:
        """The statistics that lie outside the limits of the baseline; () without one."""
        if self.baseline is None:
            return ()
        limits = {n: one["limits"] for n, one in self.baseline["statistics"].items()}
        return tuple(n for n in limits if not limits[n][0] <= values[n] <= limits[n][1])

    def reset(self) -> None:
        """Forget the last pictures and all alarms, after the lamp was repaired; the baseline
        stays."""
        with self._lock:
            self.rows.clear()
            self.alarms, self.distances = {}, {}
            self.seen, self.before, self.first = 0, [0, 0], []
            self._shares = {}

    def adopt(self, baseline: Mapping[str, Any] | None) -> None:
        """Compare with another baseline from now on; the last pictures are forgotten."""
        with self._lock:
            self.baseline = baseline
            self.reset()

    def take(self, baseline: Mapping[str, Any]) -> None:
        """Compare with a baseline that was not there before; the last pictures count."""
        with self._lock:
            self.baseline, self._shares = baseline, {}

    def baseline_of_now(self, img_size: int) -> dict[str, Any]:
        """The last pictures as a baseline.

        Raises:
            ValueError: there are too few of them.
        """
        with self._lock:
            rows = list(self.rows)
        if len(rows) < self.window // 2:
            raise ValueError(
                f"a new baseline needs the last {self.window // 2} pictures at least, and only "
                f"{len(rows)} have come since the last reset"
            )
        table = np.array([row.values for row in rows])
        values = {name: table[:, k] for k, name in enumerate(STATISTICS)}
        normal = np.array([not row.anomalous for row in rows])
        if normal.sum() < FEWEST:
            raise ValueError(
                f"only {normal.sum()} of the last pictures were judged normal; a new baseline "
                f"needs {FEWEST} at least"
            )
        scored = np.array([row.score for row in rows], dtype=np.float64)  # None is nan
        scores = None
        if not np.isnan(scored).any():
            scores = {"source": "line", "normal": summary(scored[normal]), "all": summary(scored)}
        made = baseline_of(values, normal, img_size, scores)
        assert made is not None
        return made

    def columns(self) -> dict[str, NDArray[np.float64]]:
        """The quantities of the last pictures, oldest first, by name."""
        with self._lock:
            rows = list(self.rows)
        listed = [(*row.values, row.score) for row in rows]  # a score that is None becomes nan
        table = np.array(listed, dtype=np.float64).reshape(-1, len(QUANTITIES))
        return {name: table[:, k] for k, name in enumerate(QUANTITIES)}

    def known(self, name: str) -> Mapping[str, Any] | None:
        """What a quantity is compared with: summaries `normal` and `all`; None where nothing is
        known (yet)."""
        if self.baseline is None:
            return None
        if name != SCORE:
            return dict(self.baseline["statistics"][name])
        found = self.baseline["scores"]
        if found is not None and found["source"] != FOLDS:
            return dict(found)
        if len(self.first) < self.window:
            return None
        own = summary(self.first)
        return {"source": "line", "normal": own, "all": own}

    def to_dict(self) -> dict[str, Any]:
        """JSON of what has been seen, for `restore`."""
        with self._lock:
            return {
                "rows": [row._asdict() for row in self.rows],
                "alarms": {name: alarm._asdict() for name, alarm in self.alarms.items()},
                "distances": dict(self.distances),
                "seen": self.seen,
                "before": list(self.before),
                "first": list(self.first),
            }

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Go on from what `to_dict` gave."""
        with self._lock:
            rows = [Row(**{**row, "values": tuple(row["values"])}) for row in kept["rows"]]
            self.rows = deque(rows, maxlen=self.window)
            self.alarms = {name: Alarm(**alarm) for name, alarm in kept["alarms"].items()}
            self.distances = dict(kept["distances"])
            self.seen, self.before = int(kept["seen"]), list(kept["before"])
            self.first = list(kept["first"])

    def share_anomalous(self) -> tuple[int, int]:
        """How many of the last pictures were judged anomalous, and how many there are."""
        with self._lock:
            return sum(row.anomalous for row in self.rows), len(self.rows)

    def share_unusual(self) -> tuple[int, int]:
        """How many of the last pictures were unlike the training ones, and how many there are."""
        with self._lock:
            return sum(row.unusual for row in self.rows), len(self.rows)

    def _look(self, threshold: float | None) -> None:
        if self.baseline is None:
            return
        for name, values in self.columns().items():
            known = self.known(name)
            if known is None or np.isnan(values).any():
                self.alarms.pop(name, None)
                continue
            self._judge(name, values, known)
        self._judge_rate(threshold)

    def _judge(self, name: str, values: NDArray[np.float64], known: Mapping[str, Any]) -> None:
        """Raise, keep or take back the alarm of one quantity."""
        if name not in self._shares:
            self._shares[name] = [shares_of(known[part]) for part in ("normal", "all")]
        found = [_compared(values[-num:], self._shares[name]) for num in (SHORT, self.window)]
        worst = max(found, key=lambda one: one.distance / one.limit)
        self.distances[name] = worst.distance
        share = worst.distance / worst.limit
        if share < (CALM if name in self.alarms else 1.0):
            self.alarms.pop(name, None)
        else:
            self._raise(name, worst.distance, in_words(name, worst.values, known["normal"]))

    def _judge_rate(self, threshold: float | None) -> None:
        count, num = self.share_anomalous()
        usual = self.usual_rate(threshold)
        if usual is None or num < SHORT:
            self.alarms.pop(VERDICTS, None)
            return
        level = 0.95 if VERDICTS in self.alarms else RATE_LEVEL
        now, then = (
            clopper_pearson(count, num, level),
            clopper_pearson(usual.anomalous, usual.num, level),
        )
        if now.high < then.low or now.low > then.high:
            difference = abs(count / num - usual.anomalous / usual.num)
            self._raise(VERDICTS, difference, rate_in_words((count, num), usual))
        else:
            self.alarms.pop(VERDICTS, None)

    def usual_rate(self, threshold: float | None) -> Usual | None:
        """Anomalous verdicts and pictures that say what is usual: before the window, or as long as
        that is short, the held-out images of the training; None where neither is known."""
        if self.before[1] >= FEWEST_BEFORE:
            return Usual(self.before[0], self.before[1], "before them")
        known = None if self.baseline is None else self.baseline["scores"]
        if known is None or threshold is None:
            return None
        num = int(known["all"]["num"])
        anomalous = round(num * share_from(threshold, shares_of(known["all"])))
        return Usual(anomalous, num, "of all training images")

    def _raise(self, name: str, size: float, words: str) -> None:
        old = self.alarms.get(name)
        since, picture = (old.since, old.picture) if old else (self._now(), self.seen)
        self.alarms[name] = Alarm(since, picture, size, words)


def statistics_of(picture: NDArray[np.uint8]) -> dict[str, float]:
    """The statistics of a picture [S, S, 3]."""
    planes = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None]
    with torch.inference_mode():
        found = image_statistics(images_in_unit_range(planes))
    return {name: float(found[name]) for name in STATISTICS}


class _Compared(NamedTuple):
    distance: float
    limit: float
    values: NDArray[np.float64]


def _compared(values: NDArray[np.float64], known: list[Shares]) -> _Compared:
    """The distance of some values to the nearer of the normal and all training pictures."""
    nearest, num = min((distance(values, one), one.num) for one in known)
    limit = max(LEAST_DISTANCE, chance_distance(values.size, num, ALPHA))
    return _Compared(nearest, min(limit, 1.0), values)
