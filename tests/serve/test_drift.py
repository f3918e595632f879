from __future__ import annotations

import json
import threading
from typing import Any

import numpy as np
import pytest
import torch

from leanet.inference.baseline import baseline_of, measured
from leanet.ops import light
from leanet.ops.familiar import summary
from leanet.ops.image_statistics import STATISTICS
from leanet.ops.maps import blur
from leanet.serve.drift import (
    LOOK_EVERY,
    SCORE,
    SHORT,
    VERDICTS,
    DriftMonitor,
    Row,
    statistics_of,
)

GENERATOR = torch.Generator().manual_seed(0)
RNG = np.random.default_rng(0)
THRESHOLD = 3.0


def pictures(num: int) -> torch.Tensor:
    """Pictures [num, 3, 12, 12] of a lamp that varies a little."""
    texture = torch.rand(num, 3, 12, 12, generator=GENERATOR)
    level = 0.05 * torch.randn(num, 1, 1, 1, generator=GENERATOR)
    return (0.4 + 0.3 * texture + level).clamp(0, 1)


def bytes_of(images: torch.Tensor) -> list[Any]:
    return list((images * 255).round().byte().permute(0, 2, 3, 1).numpy())


@pytest.fixture(scope="module")
def baseline() -> dict[str, Any]:
    scores = RNG.normal(size=150)
    known = {"source": "held-out", "normal": summary(scores), "all": summary([*scores, 4.0, 5.0])}
    made = baseline_of(measured([pictures(150)]), np.ones(150, dtype=bool), 12, known)
    assert made is not None
    return made


def feed(monitor: DriftMonitor, images: torch.Tensor, score: float | None = None) -> None:
    for picture in bytes_of(images):
        given = float(RNG.normal()) if score is None else score
        monitor.observe(picture, given, THRESHOLD)


def rows(num: int, *, shift: float = 0.0, anomalous: float = 0.0) -> list[Row]:
    """Figures of normal pictures, straight from their distribution; brightness is shifted."""
    drawn = RNG.normal(size=(num, len(STATISTICS)))
    drawn[:, 0] += shift
    bad = RNG.random(num) < anomalous
    return [Row(tuple(v), float(RNG.normal()), bool(b), False) for v, b in zip(drawn, bad,
            strict=True)]  # fmt: skip


def drawn_baseline(num: int = 500) -> dict[str, Any]:
    values = {name: RNG.normal(size=num) for name in STATISTICS}
    scores = summary(RNG.normal(size=num))
    made = baseline_of(
        values,
        np.ones(num, dtype=bool),
        12,
        {"source": "held-out", "normal": scores, "all": scores},
    )
    assert made is not None
    return made


def test_pictures_like_those_of_the_training_raise_nothing(baseline: dict[str, Any]) -> None:
    monitor = DriftMonitor(baseline)
    feed(monitor, pictures(210))
    assert monitor.alarms == {}
    assert monitor.share_unusual()[0] <= 5
    assert monitor.seen == 210
    assert len(monitor.rows) == 200


def test_no_false_alarm_in_thousands_of_pictures() -> None:
    monitor = DriftMonitor(drawn_baseline())
    for k, row in enumerate(rows(3_000)):
        monitor.rows.append(row)
        if k % (4 * LOOK_EVERY) == 0:
            monitor._look(None)
            assert monitor.alarms == {}


@pytest.mark.parametrize(
    ("name", "word"),
    [("brightness", "darker"), ("yellow", "yellower"), ("sharpness", "less sharp")],
)
def test_a_change_is_named_soon_and_in_words(
    baseline: dict[str, Any], name: str, word: str
) -> None:
    change = {
        "brightness": lambda image: light.exposure(image, 0.5),
        "yellow": lambda image: light.white_balance(image, 4000),
        "sharpness": lambda image: blur(image, 1.5),
    }[name]
    monitor = DriftMonitor(baseline, now=lambda: 1000.0)
    feed(monitor, pictures(60))
    assert monitor.alarms == {}
    feed(monitor, change(pictures(SHORT)))
    alarm = monitor.alarms[name]
    assert alarm.words.startswith(f"{word} than in training: ")
    assert alarm.since == 1000.0
    assert 60 < alarm.picture <= 60 + SHORT
    assert SCORE not in monitor.alarms


def test_a_slow_change_of_one_sd_is_found_by_the_long_window() -> None:
    monitor = DriftMonitor(drawn_baseline())
    for k, row in enumerate(rows(200, shift=1.0)):
        monitor.rows.append(row)
        if k == SHORT:
            monitor._look(None)
            assert monitor.alarms == {}
    monitor._look(None)
    assert set(monitor.alarms) == {"brightness"}


def test_an_alarm_stays_until_the_distance_is_clearly_smaller() -> None:
    """Between the two limits it neither begins nor ends."""
    known = drawn_baseline()
    loud, between, calm = (DriftMonitor(known) for _ in range(3))
    loud.rows.extend(rows(200, shift=1.2))
    loud._look(None)
    since = loud.alarms["brightness"].since
    middle = rows(200, shift=0.68)
    for monitor in (loud, between):
        monitor.rows.extend(middle)
        monitor._look(None)
    assert 0.2 < loud.distances["brightness"] < 0.3
    assert loud.alarms["brightness"].since == since
    assert between.alarms == {}
    loud.rows.extend(rows(200))
    loud._look(None)
    assert loud.alarms == calm.alarms == {}


def test_fewer_defects_than_in_the_data_set_are_no_drift() -> None:
    """Training pictures of two kinds; the line shows the normal kind only, or the same mixture."""
    values = {name: RNG.normal(size=300) for name in STATISTICS}
    values["brightness"][200:] += 6
    normal = np.arange(300) < 200
    for share in (0.0, 1 / 3):
        monitor = DriftMonitor(baseline_of(values, normal, 12, None))
        for row in rows(200):
            shifted = (row.values[0] + 6 * (RNG.random() < share), *row.values[1:])
            monitor.rows.append(row._replace(values=shifted))
        monitor._look(None)
        assert monitor.alarms == {}


def test_a_single_strange_picture_is_named_and_raises_no_alarm(baseline: dict[str, Any]) -> None:
    monitor = DriftMonitor(baseline)
    feed(monitor, pictures(40))
    white = np.full((12, 12, 3), 255, dtype=np.uint8)
    assert {"brightness", "white"} <= set(monitor.observe(white, 0.0, THRESHOLD))
    assert monitor.share_unusual()[0] >= 1
    assert monitor.alarms == {}


def test_scores_are_compared_too(baseline: dict[str, Any]) -> None:
    monitor = DriftMonitor(baseline)
    feed(monitor, pictures(30), score=2.9)
    assert set(monitor.alarms) == {SCORE}
    assert monitor.alarms[SCORE].words.startswith("higher scores than in training: 2.9 against")


def test_scores_of_other_models_are_no_baseline(baseline: dict[str, Any]) -> None:
    """After cross-validation the first pictures are."""
    scores = {**baseline["scores"], "source": "cross-validation"}
    monitor = DriftMonitor({**baseline, "scores": scores})
    feed(monitor, pictures(200), score=2.9)
    assert monitor.alarms == {}
    feed(monitor, pictures(25), score=-1.0)
    assert set(monitor.alarms) == {SCORE}


def test_pictures_without_scores_are_watched(baseline: dict[str, Any]) -> None:
    monitor = DriftMonitor(baseline)
    for picture in bytes_of(light.exposure(pictures(30), 0.5)):
        monitor.observe(picture, None)
    assert "brightness" in monitor.alarms
    assert SCORE not in monitor.distances


def test_more_verdicts_than_before_are_an_alarm_and_so_are_none() -> None:
    for before, after, word in ((0.02, 0.3, "more"), (0.3, 0.0, "fewer")):
        monitor = DriftMonitor(drawn_baseline())
        monitor.rows.extend(rows(200, anomalous=after))
        monitor.before = [round(1000 * before), 1000]
        monitor._look(THRESHOLD)
        words = monitor.alarms[VERDICTS].words
        assert words.startswith(f"{word} pictures are judged anomalous: ")
        assert words.endswith("before them")
        monitor.rows.extend(rows(200, anomalous=before))
        monitor._look(THRESHOLD)
        assert monitor.alarms == {}


def test_as_long_as_little_was_seen_the_training_says_what_is_usual() -> None:
    monitor = DriftMonitor(drawn_baseline())
    usual = monitor.usual_rate(1.0)
    assert usual is not None
    assert usual.anomalous / usual.num == pytest.approx(0.16, abs=0.05)
    assert monitor.usual_rate(None) is None
    monitor.before = [10, 400]
    assert monitor.usual_rate(1.0) == (10, 400, "before them")


def test_verdicts_that_leave_the_window_are_counted(baseline: dict[str, Any]) -> None:
    monitor = DriftMonitor(baseline, window=SHORT)
    feed(monitor, pictures(10), score=9.0)
    feed(monitor, pictures(SHORT), score=0.0)
    assert monitor.before == [10, 10]
    assert monitor.share_anomalous() == (0, SHORT)


def test_without_a_baseline_nothing_is_said() -> None:
    monitor = DriftMonitor(None)
    feed(monitor, pictures(60))
    assert monitor.alarms == {}
    assert monitor.outside(statistics_of(bytes_of(pictures(1))[0])) == ()
    assert monitor.known("brightness") is None
    assert monitor.usual_rate(1.0) is None


def test_after_a_reset_it_begins_anew_with_the_same_baseline(baseline: dict[str, Any]) -> None:
    monitor = DriftMonitor(baseline)
    feed(monitor, light.exposure(pictures(40), 0.5))
    assert monitor.alarms
    monitor.reset()
    assert (monitor.alarms, monitor.seen, len(monitor.rows)) == ({}, 0, 0)
    assert monitor.baseline is baseline


def test_the_last_pictures_can_become_the_baseline(baseline: dict[str, Any]) -> None:
    monitor = DriftMonitor(baseline)
    feed(monitor, light.exposure(pictures(99), 0.5))
    with pytest.raises(ValueError, match="needs the last 100 pictures"):
        monitor.baseline_of_now(12)
    feed(monitor, light.exposure(pictures(11), 0.5))
    monitor.adopt(monitor.baseline_of_now(12))
    feed(monitor, light.exposure(pictures(40), 0.5))
    assert monitor.alarms == {}
    known = monitor.known(SCORE)
    assert known is not None
    assert known["source"] == "line"


def test_a_baseline_needs_pictures_that_were_judged_normal(baseline: dict[str, Any]) -> None:
    monitor = DriftMonitor(baseline)
    feed(monitor, pictures(100), score=9.0)
    with pytest.raises(ValueError, match="only 0 of the last pictures were judged normal"):
        monitor.baseline_of_now(12)


def test_what_was_seen_survives_as_json(baseline: dict[str, Any]) -> None:
    monitor, again = DriftMonitor(baseline), DriftMonitor(baseline)
    feed(monitor, light.exposure(pictures(40), 0.5))
    again.restore(json.loads(json.dumps(monitor.to_dict())))
    assert again.to_dict() == monitor.to_dict()
    assert again.alarms["brightness"].since == monitor.alarms["brightness"].since


def test_several_threads_may_observe(baseline: dict[str, Any]) -> None:
    monitor, images = DriftMonitor(baseline, window=50), pictures(40)
    threads = [threading.Thread(target=feed, args=(monitor, images)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert monitor.seen == 160
    assert monitor.before[1] == 110


def test_a_window_that_is_too_short_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 25"):
        DriftMonitor(None, window=10)
