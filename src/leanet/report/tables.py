"""Tables of a run: figures of merit as mean and SD over folds, and paired comparisons.

A mean over folds hides how far the folds lie apart, so its SD (ddof = 1) stands beside it, and
beside F1 the F1 of calling every image anomalous. Two runs on the same folds are compared fold by
fold: differences of pairs are less noisy than the difference of two means, and their interval is
the corrected resampled t interval (`leanet.ops.stats`), since folds share training images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from leanet.ops.metrics import Confusion
from leanet.ops.stats import (
    Interval,
    MeanSD,
    PairedDifference,
    clopper_pearson,
    mean_sd,
    paired_difference,
)
from leanet.report.run import Part, Run, Trial, count, read_run

COLUMNS = {
    "auroc": "AUROC",
    "average_precision": "AP",
    "f1": "F1",
    "all_positive_f1": "F1 all-positive",
    "f1_at_half": "F1 at p = 0.5",
    "recall": "Recall",
    "overkill": "False alarms",
    "balanced_accuracy": "Balanced acc.",
}
COMPARED = ("auroc", "average_precision", "f1")
EXPLAINED = {
    "score": "the detector's score",
    "fused": "weighted sum of the other outputs, weights from held-out images",
    "adn": "the classifier, its features steered by the attention",
    "aan": "the attention network's own head: it sees the map only",
    "map": "what the anomaly map alone says: knows normal images only",
    "tuned": "a fine-tuned copy of the classifier alone, without a map",
    "normalized": "the score from 0 to 1: 0.5 is the 0.99 quantile of held-out normal images",
    "classifier": "logit of anomalous, learned from a few labeled images",
}
GUIDED = (
    "the map's own score, corrected by features of the places that the map points at, and by the "
    "fine-tuned copy where there is one"
)
_SUMMARY_WIDTHS = (9, 15)  # of the label and of each column, in characters
_PAIRED_WIDTHS = (13, 17)
WHOLE_FROM = 1000.0  # from here on quantities are told as whole numbers
MOST_DECIMALS = 6  # smaller ones have an exponent
_IN_TERMINAL = ("auroc", "average_precision", "f1", "f1_at_half", "recall", "overkill")


def explained(run: Run) -> dict[str, str]:
    """What each output of this run is."""
    return EXPLAINED | ({"adn": GUIDED} if run.is_guided else {})


class OutputRow(NamedTuple):
    """One output of a detector: its figures of merit by name, and whether it is the score."""

    output: str
    decides: bool
    figures: dict[str, MeanSD]


class KindRow(NamedTuple):
    """A kind of image (class or defect type), how many there were, how many raised an alarm."""

    kind: str
    label: int
    images: int
    alarms: int
    share: float
    interval: Interval  # exact, 95 %


class PairedRow(NamedTuple):
    """One figure of two runs on the same folds; `difference` is run minus baseline."""

    output: str
    metric: str
    run: MeanSD
    baseline: MeanSD
    difference: PairedDifference


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The result of a run in figures."""

    method: str
    data: str
    num_folds: int  # 0: no cross-validation
    num_normal: int  # test images
    num_anomalous: int
    rows: tuple[OutputRow, ...]  # the deciding output first; () when nothing was tested
    final_rows: tuple[OutputRow, ...]  # beside the folds: the final detector on its own test part
    confusion: Confusion  # all test images together, each at the threshold of its fold
    threshold: Mapping[str, Any]  # of the final detector

    @property
    def verdict(self) -> str:
        """The result in one sentence."""
        tn, fp, fn, tp = self.confusion
        if not self.rows:
            return "Nothing was tested: no image was kept for it."
        found = f"Finds {percent(tp, tp + fn)} of the defects" if tp + fn else ""
        alarms = f"{percent(fp, tn + fp)} false alarms" if tn + fp else ""
        return " at ".join(filter(None, (found, alarms))) + f" ({self.how_tested})"

    @property
    def how_tested(self) -> str:
        """Where the figures come from."""
        if self.num_folds:
            return f"cross-validated, {self.num_folds} folds"
        return "test images kept from training" if self.rows else "not tested"


def summarize(run: Path | Run) -> Summary:
    """The figures of a run folder. Raises ValueError for a folder that holds no finished run."""
    run = run if isinstance(run, Run) else read_run(run)
    num_normal, num_anomalous = count(run.tested)
    return Summary(
        method=str(run.card["method"]),
        data=run.data_name,
        num_folds=len(run.folds),
        num_normal=num_normal,
        num_anomalous=num_anomalous,
        rows=_rows(run, run.tested_parts),
        final_rows=_rows(run, (run.final,)) if run.folds and run.final.tested else (),
        confusion=_confusion(run.tested),
        threshold=run.card["threshold"],
    )


def compare(run: Path | Run, baseline: Path | Run) -> list[PairedRow]:
    """Every output of `run` against the score of `baseline`, paired by fold.

    Raises:
        ValueError: one of them has no folds, or a fold tests other images in the two runs.
    """
    run = run if isinstance(run, Run) else read_run(run)
    baseline = baseline if isinstance(baseline, Run) else read_run(baseline)
    _require_same_folds(run, baseline)
    shares = [len(sides["test"]) / len(sides["train"]) for sides in _fold_roles(run).values()]
    share = mean_sd(shares).mean  # n_test / n_train
    rows = []
    for output in run.outputs:
        for metric in COMPARED:
            ours = [part.metrics[output][metric] for part in run.folds]
            theirs = [part.metrics["score"][metric] for part in baseline.folds]
            difference = paired_difference(ours, theirs, test_share=share)
            rows.append(PairedRow(output, metric, mean_sd(ours), mean_sd(theirs), difference))
    return rows


def in_words(row: PairedRow) -> str:
    """One sentence about a paired difference."""
    difference = row.difference
    text = f"{COLUMNS[row.metric]} differs by {signed(difference.mean)}"
    if math.isnan(difference.low):
        return f"{text}; too few folds have it for an interval."
    text += f" (95 % interval {signed(difference.low)} to {signed(difference.high)}): "
    if difference.low > 0:
        return f"{text}better than the baseline."
    if difference.high < 0:
        return f"{text}worse than the baseline."
    return f"{text}the {difference.n} folds show no difference from the baseline."


def by_kind(images: Sequence[Trial]) -> list[KindRow]:
    """Alarms per label and kind, anomalous kinds first."""
    groups = sorted({(-image.label, image.kind) for image in images})
    rows = []
    for negated, kind in groups:
        group = [image for image in images if (image.label, image.kind) == (-negated, kind)]
        alarms = sum(image.alarm for image in group)
        interval = clopper_pearson(alarms, len(group))
        rows.append(KindRow(kind, -negated, len(group), alarms, alarms / len(group), interval))
    return rows


def to_text(summary: Summary) -> str:
    """The figures for a terminal, at most 100 characters wide."""
    title = (
        f"{summary.method} on {summary.data}: {summary.num_normal} normal and "
        f"{summary.num_anomalous} anomalous test images, {summary.how_tested}"
    )
    if not summary.rows:
        return f"{title}\n{summary.verdict} Use --folds 5 to cross-validate."
    lines = [title, _line(_SUMMARY_WIDTHS, "", [COLUMNS[name] for name in _IN_TERMINAL])]
    for row in summary.rows:
        cells = [spread(row.figures[name], missing="-") for name in _IN_TERMINAL]
        lines.append(_line(_SUMMARY_WIDTHS, row.output + " *" * row.decides, cells))
    reference = spread(summary.rows[0].figures["all_positive_f1"])
    lines.append(f"* decides; mean ± SD over folds; calling everything anomalous: F1 {reference}")
    if not summary.num_folds:
        lines[-1] = lines[-1].replace("; mean ± SD over folds", "")
    return "\n".join([*lines, summary.verdict])


def paired_text(rows: Sequence[PairedRow]) -> str:
    """The comparison for a terminal, at most 100 characters wide."""
    head = ("run", "baseline", "difference", "95 % interval", "p")
    lines = [_line(_PAIRED_WIDTHS, "", head)]
    for row in rows:
        low_high = f"{signed(row.difference.low)} to {signed(row.difference.high)}"
        cells = [
            spread(row.run, missing="-"),
            spread(row.baseline, missing="-"),
            signed(row.difference.mean),
            low_high,
            number(row.difference.p, missing="-"),
        ]
        lines.append(_line(_PAIRED_WIDTHS, f"{row.output} {COLUMNS[row.metric]}", cells))
    return "\n".join(lines)


def number(value: float | None, *, digits: int = 3, missing: str = "–") -> str:
    """A figure with three decimals; an en dash where there is none.

    >>> number(0.94771), number(float("nan")), number(None)
    ('0.948', '–', '–')
    """
    if value is None or math.isnan(value):
        return missing
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def quantity(value: float) -> str:
    """A score, threshold or distance: three decimals, in small ones three digits, in large ones
    whole numbers.

    >>> quantity(12.3456), quantity(0.012345), quantity(1.234e-6), quantity(12345.6)
    ('12.346', '0.0123', '1.23e-06', '12346')
    """
    size = abs(value)
    if size >= WHOLE_FROM:
        return f"{value:.0f}"
    if size >= 0.1 or not size or math.isnan(size):
        return number(value)
    decimals = 2 - math.floor(math.log10(size))
    return f"{value:.{decimals}f}" if decimals <= MOST_DECIMALS else f"{value:.2e}"


def brief(value: float) -> str:
    """The end of a scale: three digits.

    >>> brief(1413.2), brief(0.034278), brief(30.0)
    ('1410', '0.0343', '30')
    """
    return f"{float(f'{value:.3g}'):g}"


def signed(value: float, *, missing: str = "–") -> str:
    """A difference with three decimals and its sign.

    >>> signed(0.0123), signed(-0.5), signed(0.0)
    ('+0.012', '-0.500', '0.000')
    """
    text = number(value, missing=missing)
    return f"+{text}" if value > 0 and float(text) else text


def spread(figure: MeanSD, *, missing: str = "–") -> str:
    """Mean ± SD; the mean alone where there is no SD.

    >>> spread(MeanSD(0.9, 0.05)), spread(MeanSD(0.9, float("nan")))
    ('0.900 ± 0.050', '0.900')
    """
    mean = number(figure.mean, missing=missing)
    return mean if math.isnan(figure.sd) else f"{mean} ± {number(figure.sd)}"


def percent(part: int, whole: int) -> str:
    """A share in percent, whole numbers; never rounded to 0 or 100 unless it is.

    >>> percent(47, 50), percent(999, 1000), percent(1, 1000), percent(0, 7)
    ('94 %', '> 99 %', '< 1 %', '0 %')
    """
    if 0 < part < whole:
        share = 100 * part / whole
        if share < 0.5:
            return "< 1 %"
        return "> 99 %" if share >= 99.5 else f"{share:.0f} %"
    return "100 %" if whole and part == whole else "0 %"


def _rows(run: Run, parts: Sequence[Part]) -> tuple[OutputRow, ...]:
    if not parts:
        return ()
    return tuple(
        OutputRow(
            output,
            output == run.decides,
            {
                name: mean_sd([part.metrics[output].get(name, math.nan) for part in parts])
                for name in COLUMNS
            },
        )
        for output in run.outputs
    )


def _confusion(images: Sequence[Trial]) -> Confusion:
    outcomes = [image.outcome for image in images]
    return Confusion(*map(outcomes.count, ("passed", "false alarm", "escape", "found")))


def _fold_roles(run: Run) -> dict[str, Mapping[str, frozenset[str]]]:
    return {part.name: run.roles[part.name] for part in run.folds}


def _require_same_folds(run: Run, baseline: Run) -> None:
    ours, theirs = _fold_roles(run), _fold_roles(baseline)
    advice = "fit both on the same data with equal --folds, --seed and --positives"
    if not ours or ours.keys() != theirs.keys():
        raise ValueError(
            f"{run.folder} has {len(ours)} folds and the baseline {baseline.folder} {len(theirs)}; "
            f"a paired comparison needs the same ones: {advice}"
        )
    for name, sides in ours.items():
        only = sorted(sides["test"] ^ theirs[name]["test"])
        if only:
            raise ValueError(
                f"{name} tests other images in {run.folder} than in the baseline "
                f"{baseline.folder} ({len(only)} of them in one run only, "
                f"e.g. {only[0]});\n{advice}"
            )


def _line(widths: tuple[int, int], label: str, cells: Sequence[str]) -> str:
    return f"{label:<{widths[0]}}" + "".join(f"{cell:>{widths[1]}}" for cell in cells)
