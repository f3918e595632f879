from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from leanet.files import write_text
from leanet.report import adfa_figures, page
from leanet.report.cavga_figures import Chart
from leanet.report.run import read_run

WriteRun = Callable[..., Path]
ENTRIES = ("train_loss", "val_loss", "kl_weight", "max_score", "cmax", "effective",
           "negative_share", "radius")  # fmt: skip


def with_journal(run: Path, *entries: str) -> Path:
    """The run, whose parts have a journal of these entries."""
    for part in run.glob("*/metrics.json"):
        lines = [
            {"epoch": e, "lr": 1e-3, **dict.fromkeys(entries, 1e4 / (e + 1))} for e in range(4)
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        write_text(part.with_name("journal.jsonl"), text)
    return run


def test_every_entry_of_the_journal_has_a_chart_and_a_sentence(write_run: WriteRun) -> None:
    run = read_run(with_journal(write_run("run", method="classifier"), *ENTRIES))
    assert {line.key for plot in adfa_figures.PLOTS for line in plot.lines} == set(ENTRIES)
    charts = adfa_figures.training_charts(run)
    assert len(charts) == len(adfa_figures.PLOTS)
    assert all(chart.says.endswith(".") for chart in charts)
    ids = [found for chart in charts for found in re.findall(r'\bid="([^"]+)"', chart.svg)]
    assert len(ids) == len(set(ids)) > 0
    for chart in charts:
        ElementTree.fromstring(chart.svg.replace("xlink:href", "href"))


def test_the_page_takes_them_for_runs_with_a_bank_alone(
    write_run: WriteRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adfa_figures, "training_charts", lambda _: [Chart("", "of a bank")])
    soft = with_journal(write_run("soft", method="classifier"), "train_loss", "effective")
    plain = with_journal(write_run("plain", method="classifier"), "train_loss")
    assert [chart.says for chart in page._training(read_run(soft))] == ["of a bank"]
    assert [chart.says for chart in page._training(read_run(plain))] == [""]
