"""What a comparison ends with: compare.html to read, comparison.csv to compute with, and
comparison.json with everything. All three say the same and come from the files of the runs alone.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from PIL import Image

from leanet.files import read_json, write_csv, write_json, write_text
from leanet.report import details, pictures
from leanet.report.class_figures import confusion_chart
from leanet.report.compare import Comparison, Row, compare_runs
from leanet.report.compare_figures import color_of, comparison_curves, difference_chart
from leanet.report.compare_text import (
    ABOUT_DUELS,
    ABOUT_VERDICT,
    csv_rows,
    noise_text,
    plan_text,
    to_json,
    verdict_text,
)
from leanet.report.run import Run
from leanet.report.template import MINUS, render_template
from leanet.report.variants import differing_keys, shown

EXPLANATIONS = "explanations"  # the folder of a run that `leanet explain` writes
MOST_EXPLAINED = 12  # images
EXPLAINED_WIDTH = 640  # pixels, of a picture in the page
MOST_DUELS = 12  # shown without a click


class Pictured(NamedTuple):
    """One image as the variants explain it: name, and a data URI for each variant ("" if none)."""

    name: str
    uris: tuple[str, ...]


def write_comparison(runs: Sequence[Path], out: Path) -> Comparison:
    """Compare runs and write compare.html, comparison.csv and comparison.json into a folder.

    Raises:
        ValueError: runs that cannot be compared (`variants.read_variants`).
    """
    comparison = compare_runs(runs)
    write_csv(out / "comparison.csv", csv_rows(comparison))
    write_json(out / "comparison.json", to_json(comparison))
    write_text(out / "compare.html", render(comparison))
    return comparison


def render(comparison: Comparison) -> str:
    """The page as text."""
    explained = explanations(comparison)
    several = [len(row.shared) > 1 for row in comparison.rows[1:]]
    return render_template(
        "compare.html",
        comparison=comparison,
        rows=comparison.rows,
        baseline=comparison.baseline,
        verdict=_verdict(comparison),
        facts=_facts(comparison),
        words={row.variant.name: verdict_text(comparison, row) for row in comparison.rows},
        colors=[color_of(k) for k in range(len(comparison.rows))],
        differences=Markup(difference_chart(comparison)),
        curves=[Markup(svg) for svg in comparison_curves(comparison)],
        matrices=_matrices(comparison),
        explained=explained,
        explain_commands="" if explained else _explain_commands(comparison),
        options=_options(comparison),
        few_duels=not all(several) and len(comparison.duels) <= MOST_DUELS,
        noise=re.sub(r"(?<!\w)-(?=\d)", MINUS, noise_text(comparison)),
        plan=plan_text(comparison),
        about_verdict=ABOUT_VERDICT,
        about_duels=ABOUT_DUELS,
        duration=details.duration,
    )


def explanations(comparison: Comparison) -> list[Pictured]:
    """The panels that `leanet explain` drew of the same images, for the first run of each variant;
    only images that two variants or more have."""
    found = [panels(_first(row).folder / EXPLANATIONS) for row in comparison.rows]
    images = sorted({image for one in found for image in one})
    shared = [image for image in images if sum(image in one for one in found) > 1]
    return [
        Pictured(
            "/".join(image.parts[-2:]),
            tuple(_picture(one[image]) if image in one else "" for one in found),
        )
        for image in shared[:MOST_EXPLAINED]
    ]


def panels(folder: Path) -> dict[Path, Path]:
    """Image -> the panel of its class activation maps, from a folder of `leanet explain`."""
    facts = folder / "cams.json"
    if not facts.exists():
        return {}
    images = read_json(facts)["images"]
    listed = {Path(one["path"]).resolve(): folder / one["panel"] for one in images}
    return {image: panel for image, panel in listed.items() if panel.exists()}


def _first(row: Row) -> Run:
    return next(iter(row.variant.runs.values()))


def _picture(file: Path) -> str:
    with Image.open(file) as opened:
        picture = opened.convert("RGB")
    picture.thumbnail((EXPLAINED_WIDTH, 2 * EXPLAINED_WIDTH), Image.Resampling.LANCZOS)
    return pictures.jpeg_uri(np.asarray(picture))


def _verdict(comparison: Comparison) -> str:
    """How many differences there are, in one sentence."""
    judged = {row.variant.name: row.contrast.verdict for row in comparison.rows if row.contrast}
    baseline = comparison.baseline.variant.name
    told = [
        f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} {word} than {baseline}"
        for word in ("better", "worse")
        if (names := [name for name, verdict in judged.items() if verdict == word])
    ]
    if told:
        return "; ".join(told)
    if all(verdict == "not tested" for verdict in judged.values()):
        return f"One run each: whether a method is better than {baseline} cannot be said"
    return f"No difference to {baseline} is shown"


def _facts(comparison: Comparison) -> dict[str, str]:
    """Name -> value, for the head of the page."""
    first = _first(comparison.baseline)
    num_runs = sum(len(row.variant.runs) for row in comparison.rows)
    grouped = comparison.num_groups < comparison.num_images
    return {
        "Data": first.data_name,
        "Test images": f"{comparison.num_images}"
        + (f" in {comparison.num_groups} groups" if grouped else ""),
        "Tested on": f"{len(first.folds)} folds" if first.folds else "kept images",
        "Classes": str(len(comparison.classes)) if comparison.classes else "normal, anomalous",
        "Variants": str(len(comparison.rows)),
        "Runs": str(num_runs),
        "Baseline": comparison.baseline.variant.name,
    }


def _matrices(comparison: Comparison) -> list[tuple[str, int, Markup]]:
    """(variant, runs, SVG); [] without classes."""
    return [
        (
            row.variant.name,
            len(row.variant.runs),
            Markup(confusion_chart(row.counts, comparison.classes, f"confusion-{k}")),
        )
        for k, row in enumerate(comparison.rows)
        if row.counts is not None
    ]


def _options(comparison: Comparison) -> list[tuple[str, list[str]]]:
    """(key, its value in every variant) of the options in which the variants differ."""
    variants = [row.variant for row in comparison.rows]
    keys = differing_keys([variant.options for variant in variants])
    return [(key, [shown(variant, key) for variant in variants]) for key in keys]


def _explain_commands(comparison: Comparison) -> str:
    data = str(_first(comparison.baseline).config["data"])
    runs = [_first(row) for row in comparison.rows]
    wrong = [i.path for i in runs[0].named if i.wrong] + [i.path for i in runs[0].tested if i.wrong]
    image = wrong[0] if wrong else "IMAGE"
    return "\n".join(
        shlex.join(["leanet", "explain", str(run.folder), str(Path(data) / image)]) for run in runs
    )
