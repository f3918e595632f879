"""The report of a run: one self-contained HTML page, written from the files of the run folder.

Nothing in the page comes from elsewhere: style sheet, charts (SVG) and pictures (data URIs) are
inside it, and a content security policy forbids the rest, scripts included. All names are escaped.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from markupsafe import Markup

from leanet.files import write_text
from leanet.ops.point_words import RULES
from leanet.ops.stats import MeanSD, clopper_pearson
from leanet.records import ANOMALOUS
from leanet.report import adfa_figures, cavga_figures, details, figures, gallery, pictures, tables
from leanet.report.class_page import render_classes
from leanet.report.classes import class_text, summarize_classes
from leanet.report.pixels import pixel_tables, pixel_text
from leanet.report.run import Run, count, read_run
from leanet.report.template import number, render_template, typeset
from leanet.report.working_point import working_point
from leanet.version import __version__


def write_report(run: Path, *, baseline: Path | None = None) -> Path:
    """Write `report.html` into a run folder and return its path.

    With `baseline`, another run on the same folds, the page compares the two fold by fold.

    Raises:
        ValueError: a folder holds no finished run, or the folds of the two runs differ.
    """
    page = run / "report.html"
    write_text(page, render(read_run(run), None if baseline is None else read_run(baseline)))
    return page


def render(run: Run, baseline: Run | None = None) -> str:
    """The page as text."""
    if run.classes:
        return _of_classes(run, baseline)
    summary = tables.summarize(run)
    return render_template(
        "page.html",
        run=run,
        summary=summary,
        columns=_columns(summary),
        pixels=pixel_tables(run),
        compared=tables.COLUMNS,
        explained=tables.explained(run),
        warnings=details.warnings(run, summary),
        worth_knowing=details.worth_knowing(run),
        facts=_facts(run),
        tiles=_tiles(summary),
        charts=_charts(run),
        training=_training(run),
        point=working_point(run),
        kinds=tables.by_kind(run.tested),
        errors=sorted((i for i in run.tested if i.wrong), key=lambda i: -abs(i.margin)),
        **_comparison(run, baseline),
        **_pictures(run),
        **_details(run),
    )


def result_text(run: Path) -> str:
    """The figures of a run folder for a terminal, at most 100 characters wide."""
    read = read_run(run)
    if read.classes:
        return class_text(summarize_classes(read))
    figures = tables.to_text(tables.summarize(read))
    return "\n".join(filter(None, (figures, pixel_text(read))))


def _of_classes(run: Run, baseline: Run | None) -> str:
    if baseline is not None:
        raise ValueError(
            f"{run.folder} tells several classes apart; compare such runs with "
            f"`leanet compare {baseline.folder} {run.folder}`"
        )
    return render_classes(run)


def _columns(summary: tables.Summary) -> dict[str, str]:
    """The columns of the table of results that hold a figure in some row."""
    return {
        name: title
        for name, title in tables.COLUMNS.items()
        if any(not math.isnan(row.figures[name].mean) for row in summary.rows)
    }


def _facts(run: Run) -> dict[str, str]:
    """Name -> value, for the head of the page."""
    card, environment = run.card, run.environment
    trained_with = environment["packages"].get("leanet") or __version__
    side = card["img_size"]
    return {
        "Method": card["method"],
        "Images": f"{card['num_normal']} normal, {card['num_anomalous']} anomalous",
        "Size": f"{side} × {side} px",
        "Tested on": f"{len(run.folds)} folds" if run.folds else _kept(run),
        "Device": environment["gpu"] or f"CPU, {environment['threads']} threads",
        "Time": details.duration(run.seconds),
        "Date": f"{run.finished:%Y-%m-%d}",
        "Version": f"leanet {trained_with}",
    }


def _kept(run: Run) -> str:
    return f"{len(run.final.tested)} images kept from training" if run.final.tested else "nothing"


def _tiles(summary: tables.Summary) -> list[tuple[str, str, str]]:
    """(name, value, note) of the most important figures."""
    if not summary.rows:
        return []
    figures, counts = summary.rows[0].figures, summary.confusion
    return [
        _share_tile("Defects found", counts.tp, counts.tp + counts.fn),
        _share_tile("False alarms", counts.fp, counts.fp + counts.tn),
        _figure_tile("AUROC", figures["auroc"], "chance 0.500"),
        _figure_tile(
            "F1", figures["f1"], f"all-positive {number(figures['all_positive_f1'].mean)}"
        ),
    ]


def _share_tile(name: str, part: int, whole: int) -> tuple[str, str, str]:
    if not whole:
        return name, number(None), "no such test images"
    low, high = clopper_pearson(part, whole)
    note = f"{part} of {whole}; 95 % interval {100 * low:.0f} to {100 * high:.0f} %"
    return name, tables.percent(part, whole), note


def _figure_tile(name: str, figure: MeanSD, reference: str) -> tuple[str, str, str]:
    spread = "" if math.isnan(figure.sd) else f"± {number(figure.sd)}; "
    return name, number(figure.mean), spread + reference


def _charts(run: Run) -> dict[str, list[Markup]]:
    drawn = {
        "ranking": figures.ranking_curves(run),
        "scores": figures.score_histograms(run),
    }
    return {name: [Markup(svg) for svg in svgs] for name, svgs in drawn.items()}


def _training(run: Run) -> list[cavga_figures.Chart]:
    """Charts of the trainings, each with a sentence where it needs one."""
    if cavga_figures.has_adversary(run):
        charts = cavga_figures.training_charts(run)
    elif adfa_figures.has_bank(run):
        charts = adfa_figures.training_charts(run)
    else:
        charts = [cavga_figures.Chart(svg, "") for svg in figures.loss_curves(run)]
    return [chart._replace(svg=Markup(chart.svg)) for chart in charts]


def _comparison(run: Run, baseline: Run | None) -> dict[str, Any]:
    if baseline is None:
        return {"baseline": None, "paired": [], "in_words": ""}
    rows = tables.compare(run, baseline)
    in_words = typeset(tables.in_words(rows[0]))
    return {"baseline": baseline, "paired": rows, "in_words": in_words}


def _pictures(run: Run) -> dict[str, Any]:
    shown = gallery.load_shown(run)
    chosen = gallery.choose(shown)
    divisors = [
        p.remarks["map_scale"]["divisor"] for p in run.tested_parts if "map_scale" in p.remarks
    ]
    s = sum(divisors) / len(divisors) if divisors else None
    top = max(gallery.map_top(run, shown), s or 0.0)  # s of the folds lies on the scale
    low, ends = gallery.map_low(run), gallery.scales(shown)
    top = top if top > low else low + 1.0
    return {
        "cards": gallery.cards(chosen, top, low, ends),
        "typical": gallery.typical(shown, top, low),
        "examples": gallery.examples(run, shown, top, low, ends),
        "has_maps": any("map" in s.arrays for s in shown),
        "has_grids": gallery.has_grids(chosen),
        "has_masks": gallery.has_masks(chosen),
        "has_border": any(s.border for s in shown),
        "ends": ends,
        "map_low": low,
        "map_top": top,
        "map_digits": gallery.map_digits(top),
        "map_unit": gallery.map_unit(run),
        "map_divisor": s,
        "map_marks": _marks(run, s, low, top),
        "num_wrong_shown": sum(s.image.wrong for s in chosen),
        "gradients": {
            "map": Markup(pictures.gradient(pictures.MAP_COLORS)),
            "attention": Markup(pictures.gradient(pictures.ATTENTION_COLORS)),
            "features": Markup(pictures.gradient(pictures.FEATURE_COLORS)),
            "evidence": Markup(pictures.gradient(pictures.SIGNED_COLORS)),
        },
    }


def _marks(run: Run, divisor: float | None, low: float, top: float) -> list[tuple[float, str]]:
    """Places on the scale of the maps, in percent, with what is there: s, or where the working
    points of the final detector's map lie."""
    points = {} if divisor is None else {"s": divisor}
    points |= run.card.get("map_thresholds") or {}
    inside = {name: value for name, value in points.items() if low <= value <= top}
    return [(100 * (value - low) / (top - low), name) for name, value in inside.items()]


def _details(run: Run) -> dict[str, Any]:
    return {
        "gate": details.gate_rows(run),
        "parts": (*run.folds, run.final),
        "sizes": details.sizes(run),
        "rules": RULES,
        "working_point": details.working_point(run),
        "command": details.command(run),
        "environment": json.dumps(run.environment, indent=2),
        "num_test": count(run.tested),
        "ANOMALOUS": ANOMALOUS,
    }
