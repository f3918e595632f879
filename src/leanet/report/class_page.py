"""The page of a run of several classes, beside that of normal and anomalous images (`page.py`)."""

from __future__ import annotations

import json
import math
from typing import Any

from markupsafe import Markup

from leanet.ops.stats import MeanSD
from leanet.report import class_figures, details, figures, tables
from leanet.report.class_gallery import MOST_LISTED, class_cards, misclassified
from leanet.report.classes import (
    COLUMNS,
    MOST_CONFUSIONS,
    ClassSummary,
    accuracy_interval,
    notices,
    short,
    summarize_classes,
)
from leanet.report.run import Run
from leanet.report.template import number, render_template
from leanet.report.working_point import working_point
from leanet.version import __version__


def render_classes(run: Run) -> str:
    """The page as text."""
    summary = summarize_classes(run)
    wrong = misclassified(run.named)
    return render_template(
        "classes.html",
        run=run,
        summary=summary,
        columns=COLUMNS,
        facts=_facts(run, summary),
        tiles=_tiles(summary),
        warnings=[*notices(summary), *_about_scores(run)],
        worth_knowing=details.worth_knowing(run),
        matrix=Markup(class_figures.confusion_chart(summary.counts, summary.classes)),
        confused=summary.confused[:MOST_CONFUSIONS],
        cards=class_cards(run),
        wrong=wrong[:MOST_LISTED],
        num_wrong=len(wrong),
        short=short,
        point=working_point(run),
        **_charts(run),
        **_details(run),
    )


def _facts(run: Run, summary: ClassSummary) -> dict[str, str]:
    """Name -> value, for the head of the page."""
    card, environment = run.card, run.environment
    side, normal = card["img_size"], card.get("normal")
    found = {
        "Method": str(card["method"]),
        "Network": " + ".join(_network(run)),
        "Classes": str(len(summary.classes)),
        "Normal": f"“{normal}”" if normal else "not named",
        "Size": f"{side} × {side} px",
        "Tested on": f"{len(run.folds)} folds" if run.folds else f"{len(run.named)} images",
        "Device": environment["gpu"] or f"CPU, {environment['threads']} threads",
        "Time": details.duration(run.seconds),
        "Date": f"{run.finished:%Y-%m-%d}",
        "Version": f"leanet {environment['packages'].get('leanet') or __version__}",
    }
    return {name: value for name, value in found.items() if value}


def _network(run: Run) -> list[str]:
    """The backbone and what is attached to it."""
    named = [str(run.config.get(key) or "") for key in ("adn", "attention")]
    return [name for name in named if name not in ("", "none")]


def _tiles(summary: ClassSummary) -> list[tuple[str, str, str]]:
    """(name, value, note) of the most important figures."""
    if not summary.num_images:
        return []
    low, high = accuracy_interval(summary)
    share = tables.percent(summary.num_right, summary.num_images)
    interval = f"95 % interval {100 * low:.0f} to {100 * high:.0f} %"
    counted = f"{summary.num_right} of {summary.num_images}; {interval}"
    chance = number(1 / len(summary.classes))
    even = number(math.log(len(summary.classes)))
    return [
        ("Accuracy", share, counted),
        ("Majority class", number(summary.figures["majority"].mean), "accuracy of no effort"),
        _tile(summary, "balanced_accuracy", f"guessing {chance}"),
        _tile(summary, "macro_f1", "mean F1 of the classes"),
        _tile(summary, "nll", f"knowing nothing {even}"),
        _tile(summary, "ece", "0 = honest probabilities"),
    ]


def _tile(summary: ClassSummary, name: str, note: str) -> tuple[str, str, str]:
    figure: MeanSD = summary.figures[name]
    spread = "" if math.isnan(figure.sd) else f"± {number(figure.sd)}; "
    return COLUMNS[name], number(figure.mean), spread + note


def _about_scores(run: Run) -> list[str]:
    """What limits the scores, where one of the classes is normal."""
    return details.warnings(run, tables.summarize(run)) if run.tested else []


def _charts(run: Run) -> dict[str, Any]:
    scored = [*figures.ranking_curves(run), *figures.score_histograms(run)]
    return {
        "curves": [Markup(svg) for svg in class_figures.learning_curves(run)],
        "scored": [Markup(svg) for svg in scored],
        "has_steps": any(class_figures.rate_steps(p.journal) for p in (*run.folds, run.final)),
    }


def _details(run: Run) -> dict[str, Any]:
    parts = (*run.folds, run.final)
    remarks = {part.name: dict(part.remarks) for part in parts if part.remarks}
    return {
        "parts": parts,
        "score_rows": tables.summarize(run).rows if run.tested else (),
        "working_point": details.working_point(run) if run.final.thresholds else "",
        "remarks": json.dumps(remarks, indent=2) if remarks else "",
        "command": details.command(run),
        "environment": json.dumps(run.environment, indent=2),
    }
