"""Drift beside a server: which baseline counts, what outlives a restart, what the page shows.

The baseline is that of the live model's run. For a run without one it is measured from the training
images, once, in the background, and kept in the server's state. After a change that was wanted (a
new lamp), somebody accepts the last pictures as the new baseline; that one then counts for every
model that looks at pictures of the same size, and its scores for the model that gave them.

    STATE/drift/last.json           the last pictures' figures, alarms, counts
    STATE/drift/accepted.json       the baseline that was accepted, by whom and when
    STATE/drift/measured-NAME.json  the baseline of a run that had none
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from leanet.files import read_json, write_json
from leanet.inference.baseline import baseline_from_files, read_baseline
from leanet.ops.image_statistics import STATISTICS
from leanet.serve.drift import SHORT, VERDICTS, WINDOW, DriftMonitor
from leanet.serve.drift_words import about, number
from leanet.serve.live import Live, Model
from leanet.serve.run_data import run_data

SAVE_EVERY: Final = 50  # pictures
NO_BASELINE: Final = (
    "no baseline: this run was trained before baselines were kept, and most of its training images "
    "are gone; accept the last pictures as the baseline, or train again"
)
MEASURING: Final = "the baseline is being measured from the training images"
_log = logging.getLogger("leanet.serve")


class Drift:
    """What a server knows of drift; follows the live model. Any thread may call."""

    def __init__(self, live: Live, state: Path, *, window: int = WINDOW) -> None:
        self.monitor = DriftMonitor(None, window=window)
        self.reason = NO_BASELINE
        self.origin: dict[str, Any] = {}  # where the baseline comes from, in words for the page
        self._live, self._folder = live, state / "drift"
        self._model: Model | None = None
        self._lock = threading.Lock()
        self._measuring = threading.Thread()

    def start(self) -> None:
        """Find the baseline and go on where an earlier server stopped."""
        self._follow()
        file = self._folder / "last.json"
        try:
            kept = dict(read_json(file)) if file.exists() else {}
            if kept.get("model") == self._live.model.name:
                self.monitor.restore(kept)
        except (ValueError, KeyError, TypeError):
            _log.warning("%s cannot be read; what it held of the last pictures is lost", file)

    def wait(self, seconds: float) -> None:
        """Until a baseline that is being measured is there, at most so long."""
        if self._measuring.is_alive():
            self._measuring.join(seconds)

    def observe(self, picture: NDArray[np.uint8], score: float | None) -> tuple[str, ...]:
        """Take note of a picture [S, S, 3] and its score; names the statistics in which it is
        unlike the training pictures. Never raises: drift must not cost a verdict."""
        try:
            model = self._follow()
            unusual = self.monitor.observe(picture, score, model.point.threshold)
            if self.monitor.seen % SAVE_EVERY == 0:
                self.save()
        except Exception:
            _log.exception("drift could not look at a picture")
            return ()
        return unusual

    def save(self) -> None:
        """Write down what has been seen, for the next start."""
        kept = {"model": self._live.model.name, **self.monitor.to_dict()}
        write_json(self._folder / "last.json", kept)

    def reset(self) -> None:
        """Forget the last pictures and the alarms, after a repair; the baseline stays."""
        self.monitor.reset()
        self.save()

    def accept(self, who: str) -> None:
        """Make the last pictures the baseline, after a change that was wanted.

        Raises:
            ValueError: there are too few of them, or nobody is named.
        """
        if not who.strip():
            raise ValueError("say who accepts the new baseline")
        model = self._follow()
        made = self.monitor.baseline_of_now(model.detector.img_size)
        at = datetime.now(UTC).isoformat(timespec="seconds")
        kept = {"model": model.name, "who": who.strip()[:80], "at": at, "baseline": made}
        write_json(self._folder / "accepted.json", kept)
        self._set(model)

    def give_up(self, who: str) -> None:
        """Go back from an accepted baseline to that of the training; `who` is for the log."""
        (self._folder / "accepted.json").unlink(missing_ok=True)
        _log.info("drift: %s went back to the baseline of the training", who)
        self._set(self._follow())

    def status(self) -> dict[str, Any]:
        """Everything that the page shows, as JSON."""
        model = self._follow()
        monitor = self.monitor
        unusual, num = monitor.share_unusual()
        anomalous, _ = monitor.share_anomalous()
        usual = monitor.usual_rate(model.point.threshold)
        baseline = monitor.baseline
        return {
            "model": model.name,
            "baseline": None if baseline is None else self.origin,
            "reason": self.reason if baseline is None else "",
            "window": monitor.window,
            "pictures": num,
            "seen": monitor.seen,
            "unusual": {
                "count": unusual,
                "usual": None if baseline is None else baseline["rate"],
                "from": "of pictures like those of the training at most",
            },
            "anomalous": {
                "count": anomalous,
                "usual": None if usual is None else usual.anomalous / max(usual.num, 1),
                "from": "" if usual is None else usual.source,
            },
            "alarms": [_alarm(name, alarm) for name, alarm in list(monitor.alarms.items())],
            "quantities": [self._quantity(name, v) for name, v in monitor.columns().items()],
        }

    def _quantity(self, name: str, values: NDArray[np.float64]) -> dict[str, Any]:
        """One chart: the last values against the band that holds 90 % of normal training ones."""
        known, said = self.monitor.known(name), about(name)
        recent = values[-SHORT:]
        there = values.size > 0 and not np.isnan(recent).any()
        now = float(np.median(recent)) if there else None
        quantiles = None if known is None else known["normal"]["quantiles"]
        return {
            "name": name,
            "title": said.title,
            "unit": said.unit,
            "now": now,
            "now_text": None if now is None else number(now),
            "usual": None if quantiles is None else quantiles["0.5"],
            "usual_text": None if quantiles is None else number(quantiles["0.5"]),
            "band": None if quantiles is None else [quantiles["0.05"], quantiles["0.95"]],
            "limits": None if known is None else known.get("limits"),
            "distance": self.monitor.distances.get(name),
            "alarm": name in self.monitor.alarms,
            "values": [None if np.isnan(v) else round(float(v), 6) for v in values],
        }

    def _follow(self) -> Model:
        """The live model; takes its baseline if it has just become it."""
        model = self._live.model
        if model is not self._model:
            with self._lock:
                if model is not self._model:
                    changed = self._model is None or self._model.run != model.run
                    self._model = model
                    if changed:  # not where only the threshold was set anew
                        self._set(model)
        return model

    def _set(self, model: Model) -> None:
        """Take the baseline that counts for a model."""
        found, origin = self._find(model)
        self.origin, self.reason = origin, NO_BASELINE
        self.monitor.adopt(found)
        if found is None:
            self.reason = MEASURING
            work = threading.Thread(target=self._measure, args=(model,), daemon=True)
            self._measuring = work
            work.start()

    def _find(self, model: Model) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        own = read_baseline(model.run)
        measured = self._folder / f"measured-{model.name}.json"
        if own is None and measured.exists():
            own = dict(read_json(measured))
        file = self._folder / "accepted.json"
        accepted = dict(read_json(file)) if file.exists() else {}
        if accepted and accepted["baseline"]["img_size"] == model.detector.img_size:
            found = dict(accepted["baseline"])
            if accepted["model"] != model.name:
                found["scores"] = None if own is None else own["scores"]
            origin = {"source": "accepted", "who": accepted["who"], "at": accepted["at"]}
            return found, {**origin, "images": _num(found)}
        return own, {} if own is None else {"source": "training", "images": _num(own)}

    def _measure(self, model: Model) -> None:
        """In the background: the baseline from the training images, if they are there."""
        try:
            samples = [one for one in run_data(model.run).samples if one.split != "test"]
            found = baseline_from_files(model.run, samples, model.detector.img_size)
        except (ValueError, OSError, KeyError) as error:
            _log.info("drift: no baseline of %s: %s", model.run, error)
            found = None
        if found is None:
            self.reason = NO_BASELINE
            return
        write_json(self._folder / f"measured-{model.name}.json", found)
        if self._model is not None and self._model.run == model.run:
            self.origin = {"source": "training", "images": _num(found)}
            self.monitor.take(found)


def _num(baseline: Mapping[str, Any]) -> int:
    return int(baseline["statistics"][next(iter(STATISTICS))]["normal"]["num"])


def _alarm(name: str, alarm: Any) -> dict[str, Any]:
    title = "verdicts" if name == VERDICTS else about(name).title
    since = datetime.fromtimestamp(alarm.since, UTC).isoformat(timespec="seconds")
    return {"name": name, "title": title, **alarm._asdict(), "since": since}
