from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leanet import line
from leanet.files import read_csv, read_json, write_csv, write_json
from leanet.inference.threshold import first_point
from leanet.report.page import write_report
from leanet.report.run import read_run
from leanet.report.working_point import working_point

WriteRun = Callable[..., Path]


def with_point(run: Path) -> Path:
    """As `fit` leaves a run today: held-out scores on the scale of the final detector."""
    tested = [row for k in range(2) for row in read_csv(run / f"fold-{k}" / "predictions.csv")]
    rows = [row | {"role": "cross_validation"} for row in tested]
    spread = np.linspace(-1, 1, len(rows))  # more than the toy run's 18 images
    more = [
        row | {"score": float(row["score"]) + shift, "path": row["path"]}
        for row, shift in zip(rows, spread, strict=True)
    ]
    write_csv(run / "final" / "predictions.csv", [*rows, *more])
    card = read_json(run / "card.json")
    write_json(run / "card.json", card | first_point(run, card))
    return run


def point(run: Path) -> dict[str, Any]:
    shown = working_point(read_run(run))
    assert shown is not None
    return shown


@pytest.fixture
def run(write_run: WriteRun) -> Path:
    return with_point(write_run("run", shift=1.0))


def test_the_page_shows_scores_zone_figures_and_reliability(run: Path) -> None:
    line.threshold(run, max_miss=0.1, review={"max_miss": 0}, tell=lambda _: None)
    page = write_report(run).read_text(encoding="utf-8")
    section = page[page.index('<section id="working-point">') :]
    section = section[: section.index("</section>")]
    assert section.count('<svg class="chart"') == 2
    for told in (
        "at most 10\N{NO-BREAK SPACE}% of the defects missed",
        "A person looks at scores from",
        "Set by <code>leanet threshold</code>",
        "Escapes past review",
        "1 of 12",
        "held-out scores",
        "Expected calibration error",
        "to promise it takes 36 defects",
    ):
        assert told in section, told
    assert "{" not in section.replace("{}", "").split("<svg")[0]


def test_the_first_sentence_of_the_page_is_of_the_threshold_in_the_card(run: Path) -> None:
    line.threshold(run, value=0.123456, tell=lambda _: None)
    page = write_report(run).read_text(encoding="utf-8")
    assert "<strong>0.123</strong>: set by hand." in page


def test_setting_the_threshold_writes_the_report_anew_where_there_is_one(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line.threshold(run, value=1.0, tell=lambda _: None)
    assert not (run / "report.html").exists()
    written: list[Path] = []
    monkeypatch.setattr(line, "write_report", written.append)
    (run / "report.html").touch()
    line.threshold(run, tell=lambda _: None)  # shows it only
    assert written == []
    line.threshold(run, value=2.0, tell=lambda _: None)
    assert written == [run]


def test_the_date_of_a_run_is_not_that_of_its_working_point(run: Path) -> None:
    import os

    write_csv(run / "results.csv", [{"fold": "final"}])
    os.utime(run / "results.csv", (1e9, 1e9))
    assert read_run(run).finished.year == 2001


def test_what_a_card_does_not_hold_is_not_shown(run: Path, write_run: WriteRun) -> None:
    assert point(run)["rows"]
    line.threshold(run, calibration="none", tell=lambda _: None)
    shown = point(run)
    assert (shown["calibration"], shown["reliability"], shown["review"]) == (None, None, None)
    assert len(shown["charts"]) == 1
    assert len(shown["rows"]) == 2
    assert working_point(read_run(write_run("older"))) is None


def test_scores_of_an_older_run_are_those_of_its_folds_unless_they_were_fused(
    write_run: WriteRun,
) -> None:
    source = (("threshold", {"value": 1.0, "rule": "f1", "source": "cross-validation",
                             "num_normal": 12, "num_anomalous": 6}),)  # fmt: skip
    plain = write_run("plain", method="classifier", card=source)
    assert point(plain)["has_scores"]
    assert not point(write_run("fused", card=source))["has_scores"]


def test_training_scores_are_warned_of(write_run: WriteRun) -> None:
    card = {"value": 1.0, "rule": "quantile", "source": "training", "num_normal": 9,
            "num_anomalous": 0, "escapes": None, "overkill": None}  # fmt: skip
    run = write_run("run", folds=0, card=(("threshold", card),))
    (told,) = point(run)["cautions"]
    assert "expect false alarms" in told
    assert "working-point" in write_report(run).read_text(encoding="utf-8")
