"""A comparison in words and rows: for the terminal, for comparison.csv and comparison.json."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from leanet.ops.comparing import OPEN, UNTESTED
from leanet.report.compare import SMALL, Comparison, Duel, Plan, Row, repeat_name
from leanet.report.tables import number, signed, spread
from leanet.report.variants import REPEATS

ABOUT_DUELS = (
    "McNemar's exact test judges two given sets of weights on these very images, as to decide "
    "which one to ship. It says nothing about the methods: with two equal methods it fires in "
    "2 to 41 % of simulated comparisons, depending on how much their runs differ. It needs at "
    "least 6 images that only one of the two got right to reach p < 0.05."
)
ABOUT_VERDICT = (
    "Better or worse is said only if the two-level bootstrap interval (images and repeats drawn "
    "with replacement, 10,000 times) excludes 0 and the paired t test over repeats, after Holm's "
    "correction for all variants, has p < 0.05."
)
_WIDTHS = (22, 17, 11, 19, 9)


def verdict_text(comparison: Comparison, row: Row) -> str:
    """The verdict on a variant, and what could have been seen where nothing was."""
    if row.contrast is None:
        return "baseline"
    word = row.contrast.verdict
    if word == UNTESTED:
        return "not tested: one repeat each (fit more with --draw 1, --draw 2, ...)"
    if word != OPEN:
        return word
    size = comparison.could_have_seen
    seen = "nothing" if math.isnan(size) else f"about {100 * size:.0f} points"
    return f"{word} ({comparison.num_images} images: could have seen {seen})"


def plan_text(comparison: Comparison) -> str:
    """What single runs can show on so many images, and what a small difference needs."""
    plans = comparison.plans
    shares = _listed([f"{100 * plan.discordant:.0f}" for plan in plans])
    needed = _listed([f"{plan.images_for_small:.0f}" for plan in plans])
    return (
        f"At 80 % power McNemar's test sees {_listed(list(map(_detectable, plans)))} points on "
        f"{comparison.num_images} images when only one of two runs is right on {shares} % of them; "
        f"{100 * SMALL:.1f} points need {needed} images."
    )


def noise_text(comparison: Comparison) -> str:
    """How far runs of the baseline lie apart, that is: what is nothing."""
    noise, name = comparison.noise, comparison.baseline.variant.name
    if math.isnan(noise.largest):
        return f"{name} has one run: how far two runs of one method lie apart is unknown."
    num = len(comparison.baseline.variant.runs)
    text = (
        f"{num} runs of {name} alone lie up to {100 * noise.largest:.1f} points apart (SD "
        f"{100 * noise.accuracy.sd:.1f})."
    )
    if noise.pair is None:
        return text
    difference, interval = noise.pair
    return (
        f"{text} Its {difference.n} other runs differ from as many of its own by "
        f"{signed(difference.mean)} ({signed(interval.low)} to {signed(interval.high)}), which is "
        "chance."
    )


def to_text(comparison: Comparison) -> str:
    """The comparison for a terminal, at most 100 characters wide but for verdicts and warnings."""
    title = f"{comparison.num_images} test images"
    if comparison.num_groups < comparison.num_images:
        title += f" in {comparison.num_groups} groups"
    head = ("", "accuracy", "difference", "two-level interval", "Holm p")
    lines = [f"{title}; differences to {comparison.baseline.variant.name}", _line(head)]
    for row in comparison.rows:
        name = f"{row.variant.name[:18]} ({len(row.variant.runs)})"
        cells = [name, spread(row.figures["accuracy"], missing="-")]
        if row.contrast:
            low, high = row.contrast.interval
            cells += [
                signed(row.contrast.over_draws.mean),
                f"{signed(low)} to {signed(high)}",
                number(row.contrast.p_holm, missing="-"),
            ]
        lines.append(f"{_line(cells)}  {verdict_text(comparison, row).partition(' (')[0]}")
    duels = [
        f"{duel.variant}, {duel.repeat}: won {duel.test.only_a}, lost {duel.test.only_b}, McNemar "
        f"p = {number(duel.test.p)}"
        for duel in comparison.duels
    ]
    several = any(len(row.shared) > 1 for row in comparison.rows[1:])
    told = [*comparison.warnings, noise_text(comparison), plan_text(comparison)]
    return "\n".join([*lines, "", *([] if several else duels), *told])


def csv_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """A row for every variant, figures in full precision, empty where undefined."""
    return [_csv_row(comparison, row) for row in comparison.rows]


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Everything but the counts of the pictures; null where undefined."""
    noise, baseline = comparison.noise, comparison.baseline.variant
    pair = noise.pair and {
        "difference": noise.pair[0]._asdict(),
        "interval": noise.pair[1]._asdict(),
    }
    value = {
        "baseline": baseline.name,
        "num_images": comparison.num_images,
        "num_groups": comparison.num_groups,
        "classes": comparison.classes,
        "repeats": REPEATS,
        "warnings": comparison.warnings,
        "variants": [
            {
                **row,
                "runs": {repeat_name(r): str(run.folder) for r, run in one.variant.runs.items()},
                "options": dict(one.variant.options),
                "confusion": None if one.counts is None else one.counts.tolist(),
            }
            for row, one in zip(csv_rows(comparison), comparison.rows, strict=True)
        ],
        "mcnemar": list(map(_duel_row, comparison.duels)),
        "plan": [plan._asdict() for plan in comparison.plans],
        "noise_floor": {**noise.accuracy._asdict(), "largest": noise.largest, "pair": pair},
    }
    return dict(_without_nan(value))


def _duel_row(duel: Duel) -> dict[str, Any]:
    won, lost, p = duel.test
    return {"variant": duel.variant, "repeat": duel.repeat, "won": won, "lost": lost, "p": p}


def _csv_row(comparison: Comparison, row: Row) -> dict[str, Any]:
    found: dict[str, Any] = {"variant": row.variant.name, "num_runs": len(row.variant.runs)}
    for name, figure in row.figures.items():
        found |= {f"{name}_mean": figure.mean, f"{name}_sd": figure.sd}
    contrast = row.contrast
    found |= {
        "num_shared": len(row.shared) if contrast else "",
        "difference": contrast.over_draws.mean if contrast else "",
        "difference_sd": contrast.over_draws.sd if contrast else "",
        "interval_low": contrast.interval.low if contrast else "",
        "interval_high": contrast.interval.high if contrast else "",
        "p": contrast.over_draws.p if contrast else "",
        "p_holm": contrast.p_holm if contrast else "",
    }
    for name in (name for name in row.figures if name != "accuracy"):
        found[f"{name}_difference"] = row.differences[name].mean if contrast else ""
    found |= {
        "verdict": verdict_text(comparison, row),
        "unfair": " ".join(row.unfair),
        "parameters": row.parameters,
        "seconds": row.seconds.mean,
        "epochs": row.epochs.mean,
        "folders": row.variant.run_names,
    }
    return {key: "" if _is_nan(value) else value for key, value in found.items()}


def _detectable(plan: Plan) -> str:
    return "no" if math.isnan(plan.detectable) else f"{100 * plan.detectable:.0f}"


def _listed(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"


def _line(cells: Any) -> str:
    padded = [f"{cell:>{width}}" for cell, width in zip(cells[1:], _WIDTHS[1:], strict=False)]
    return (f"{cells[0]:<{_WIDTHS[0]}}" + "".join(padded)).ljust(sum(_WIDTHS))


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(inner) for inner in value]
    return None if _is_nan(value) or value == "" else value
