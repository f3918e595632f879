"""What a reader needs to judge a run and to repeat it: warnings, provenance, the command."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from leanet.config import flat
from leanet.ops.point_words import RULES, rule_in_words, source_in_words
from leanet.ops.stats import clopper_pearson
from leanet.report.run import Part, Run
from leanet.report.tables import Summary, number

SIZES = {  # remark -> what it is
    "channels": "Channels",
    "places": "Places",
    "candidates": "Candidates",
    "bank_rows": "Entries of the bank",
    "bank_mb": "Bank, MB",
    "covariance_mb": "Covariances, MB",
    "coreset_memory_mb": "To choose the bank, MB",
    "coreset_disk_mb": "On the disk meanwhile, MB",
    "peak_memory_mb": "Peak memory of the process, MB",
    "peak_gpu_memory_mb": "Peak memory on the GPU, MB",
}
FEW_ANOMALOUS = 20  # test images below which recall is called uncertain


def warnings(run: Run, summary: Summary) -> list[str]:
    """What limits the figures of this run, one sentence or two each."""
    found = [*_about_figures(summary), *_about_thresholds(run)]
    if any(part.remarks.get("map_mode") == "in_sample" for part in run.tested_parts):
        found.append(
            "Training maps were drawn by models that had seen the images (in_sample): maps of new "
            "normal images are brighter than those the classifier learned from."
        )
    flat = sorted({name for part in run.folds or (run.final,) for name in _flat(part)})
    if flat:
        found.append(
            f"The attention is nearly constant at {', '.join(flat)}: it hardly steers the "
            "classifier. See the attention view."
        )
    return found


def worth_knowing(run: Run) -> list[str]:
    """What the trainings told about themselves, one sentence each: where maps came from, how they
    shift on unseen images, and every notice once, with the trainings that gave it."""
    parts = (*run.folds, run.final)
    told = list(dict.fromkeys(str(p.remarks.get("map_source") or "") for p in parts))
    found = [f"The maps come from {source}." for source in told if source]
    shifts = [p.remarks["map_shift"] for p in parts if p.remarks.get("map_shift") is not None]
    if shifts:
        found.append(
            f"Maps of unseen normal images are {number(sum(shifts) / len(shifts), digits=2)} times "
            "as bright as those of the normal images learned from (high quantiles)."
        )
    return found + _notices(parts)


def working_point(run: Run) -> str:
    """Where the threshold of the final detector comes from."""
    threshold = run.card["threshold"]
    if threshold["rule"] == "value":
        return rule_in_words(threshold)
    if threshold.get("source"):
        return f"{rule_in_words(threshold)} on {source_in_words(threshold)}"
    images = f"{threshold['num_normal']} normal and {threshold['num_anomalous']} anomalous images"
    if run.folds:
        source = f"the cross-validation scores of {images}"
    elif run.final.remarks.get("threshold_in_sample"):
        source = f"the training scores of {images}"
    else:
        source = f"{images} held out from training"
    return f"{RULES[threshold['rule']]} on {source}"


def gate_rows(run: Run) -> list[dict[str, Any]]:
    """Strength, mean and spatial SD of the attention, per part and point."""
    return [
        {"part": part.name, "point": point, "flat": point in _flat(part), **values}
        for part in (*run.folds, run.final)
        for point, values in part.remarks.get("gate", {}).items()
    ]


def sizes(run: Run) -> list[tuple[str, list[str]]]:
    """What the trainings wrote down of sizes and memory: a title, and a figure per part, "" where
    there is none."""
    parts = (*run.folds, run.final)
    return [
        (title, ["" if name not in p.remarks else f"{p.remarks[name]:,.6g}" for p in parts])
        for name, title in SIZES.items()
        if any(name in part.remarks for part in parts)
    ]


def duration(seconds: float) -> str:
    """Seconds in words.

    >>> duration(42), duration(200), duration(7300)
    ('42 s', '3 min', '2.0 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def command(run: Run) -> str:
    """The command line that repeats the run, with every option, for a POSIX shell."""
    config = dict(run.config)
    method, data = config.pop("method"), config.pop("data")
    head = shlex.join(["leanet", "fit", str(method), str(data)])
    return " \\\n  ".join([head, *(shlex.join(words) for words in _flags(config))])


def _about_figures(summary: Summary) -> Iterator[str]:
    if not summary.rows:
        return
    figures = summary.rows[0].figures
    auroc, f1, reference = (figures[name] for name in ("auroc", "f1", "all_positive_f1"))
    if auroc.mean - (0 if math.isnan(auroc.sd) else auroc.sd) <= 0.5:
        yield (
            f"The ranking is hardly better than chance: AUROC {number(auroc.mean)}, where guessing "
            "gives 0.500."
        )
    if f1.mean <= reference.mean:
        yield (
            f"F1 {number(f1.mean)} is not above {number(reference.mean)}, which calling every "
            "image anomalous would reach."
        )
    counts = summary.confusion
    anomalous = counts.tp + counts.fn
    if 0 < anomalous < FEW_ANOMALOUS:
        low, high = clopper_pearson(counts.tp, anomalous)
        yield (
            f"Only {anomalous} anomalous test images: the share found may lie anywhere between "
            f"{100 * low:.0f} % and {100 * high:.0f} % (95 % interval)."
        )


def _about_thresholds(run: Run) -> Iterator[str]:
    parts = run.tested_parts
    if any(part.remarks.get("threshold_in_sample") for part in parts):
        yield "Thresholds were taken from training scores, as too few images could be held out."
    rules = [part.thresholds["score"]["rule"] for part in parts]
    if "quantile" in rules:
        yield (
            f"In {rules.count('quantile')} of {len(rules)} trainings the threshold is a high "
            "quantile of held-out normal scores: too few anomalous images were held out to find "
            "the best F1."
        )


def _notices(parts: Sequence[Part]) -> list[str]:
    """Equal ones once, the figures in them apart: those of the first are shown."""
    first: dict[str, str] = {}
    given: dict[str, list[str]] = {}
    for part in parts:
        for notice in part.remarks.get("notices", ()):
            kind = re.sub(r"\d[\d.]*(e[-+]?\d+)?", "#", notice)
            first.setdefault(kind, notice)
            given.setdefault(kind, []).append(part.name)
    sentences = []
    for kind, notice in first.items():
        where = "" if len(given[kind]) == len(parts) else f" ({', '.join(given[kind])})"
        sentences.append(f"{notice[:1].upper()}{notice[1:]}{where}.")
    return sentences


def _flat(part: Part) -> list[str]:
    return list(part.remarks.get("flat_attention", ()))


def _flags(config: Mapping[str, Any]) -> Iterator[list[str]]:
    for name, value in flat(config).items():
        if value is not None:
            values = value if isinstance(value, list) else [value]
            yield [f"--{name}", *(_word(one) for one in values)]


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
