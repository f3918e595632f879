"""The detection curve of a finished run: what it sees of discolorations that nobody trained it on.

Normal images that the final detector has not learned from are discolored in four directions at
seven severities, and as many are put under changed light as strong as those. Scores come from the
run's final detector at its own size. `detection_curve.csv` holds every point,
`detection_curve.json` the threshold and the severities of 50 % and 90 % recall,
`detection_curve.png` the picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from leanet.data.cache import images_in_unit_range
from leanet.data.images import read_image, resize_image
from leanet.data.scan import relative_name, scan
from leanet.files import read_csv, replacing, write_csv, write_json
from leanet.inference.detection_curve import ALL, FALSE_ALARMS, Curve, detection_curves
from leanet.methods.recipe import INFERENCE_BATCH, DetectorModule
from leanet.methods.store import load_detector
from leanet.ops.color import rgb_principal_components
from leanet.ops.color_shift import DIRECTIONS, SEVERITIES, color_shift
from leanet.ops.nuisance import nuisance
from leanet.prepare import FINAL, Tell
from leanet.progress import Progress
from leanet.records import NORMAL, Sample
from leanet.runtime import derived_seed, make_runtime

NAME = "detection_curve"
PER_POINT = 20  # anomalies of each direction and severity
COLORS = {"all": "black", "hue": "#0d6f80", "chroma": "#cc5a16", "lightness": "#64748a"}
COLORS["random"] = "#8a3ffc"


@dataclass(frozen=True, kw_only=True)
class DetectionOptions:
    """Options of a detection curve."""

    per_point: int = PER_POINT  # anomalies of each direction and severity
    normal: str | None = None  # name of the normal class in a folder-per-class layout
    seed: int = 0
    device: str = "auto"


@dataclass(frozen=True, kw_only=True)
class _Scored:
    """Scores of the nuisance negatives [M], and of the anomalies [N] with target and direction."""

    nuisance: list[float]
    anomalies: list[float]
    targets: list[float]
    directions: list[str]


def detection_curve(
    run: Path,
    data: Path,
    out: Path,
    options: DetectionOptions = DetectionOptions(),
    *,
    tell: Tell = print,
) -> tuple[Curve, ...]:
    """Measure the final detector of `run` on discolored normal images of `data`, into `out`.

    Anomalies whose severity is out of reach in their direction (gamut) are left out.

    Raises:
        ValueError: no run, no normal images, or a detector that gives no score.
    """
    if options.per_point < 1:
        raise ValueError(f"per_point {options.per_point}: give at least 1 anomaly per severity")
    runtime = make_runtime(options.device, "32-true", options.seed)
    detector = load_detector(run / FINAL, runtime.device).eval()
    if detector.classes and detector.normal is None:
        raise ValueError(f"{run} knows no normal class, so it gives no score of an anomaly")
    samples = _unseen(run, data, options.normal, tell)
    scored = _score(detector, samples, options, runtime.device)
    threshold, curves = detection_curves(
        scored.nuisance, scored.anomalies, scored.targets, scored.directions, seed=options.seed
    )
    _write(out, threshold, curves, scored, len(samples))
    tell(to_text(curves, len(scored.nuisance)))
    return curves


def to_text(curves: tuple[Curve, ...], num_nuisance: int) -> str:
    """The severities of 50 % and 90 % recall, a line per direction."""
    lines = [
        f"dE00 at which anomalies are found, where {1 - FALSE_ALARMS:.0%} of {num_nuisance} "
        "harmless changes of light pass"
    ]
    for curve in curves:
        parts = [
            f"{one.recall:.0%}: {one.severity:.1f} [{one.interval.low:.1f}, "
            f"{one.interval.high:.1f}]"
            for one in curve.reached
        ]
        lines.append(f"{curve.direction:<10} {'   '.join(parts)}")
    return "\n".join(lines)


def _unseen(run: Path, data: Path, normal: str | None, tell: Tell) -> list[Sample]:
    """The normal images that the final detector has not learned from; all, if there are none."""
    found = scan(data, normal=normal)
    normals = [sample for sample in found.samples if sample.label == NORMAL]
    rows = read_csv(run / "folds.csv")
    seen = {row["path"] for row in rows if (row["fold"], row["role"]) == (FINAL, "train")}
    unseen = [s for s in normals if relative_name(s.path, found.root) not in seen]
    if not unseen:
        tell("the run has learned from all of these normal images: the curve flatters it")
    return unseen or normals


@torch.inference_mode()
def _score(
    detector: DetectorModule,
    samples: list[Sample],
    options: DetectionOptions,
    device: torch.device,
) -> _Scored:
    """Discolor images in turn, and put as many under changed light."""
    images = _images(samples, detector.img_size)
    axes = rgb_principal_components(_batches(images))
    scored = _Scored(nuisance=[], anomalies=[], targets=[], directions=[])
    points = [(name, severity) for name in DIRECTIONS for severity in SEVERITIES]
    with Progress("detection curve", total=len(points)) as bar:
        for k, (name, severity) in enumerate(points):
            seed = derived_seed(options.seed, NAME, name, severity)
            generator = torch.Generator().manual_seed(seed)
            order = (torch.arange(options.per_point) + k * options.per_point) % len(images)
            image = images[order]
            made = color_shift(image, generator, severities=[severity], directions=[name])
            kept = made.told["gamut_limited"] == 0
            lit = nuisance(image, generator, severities=made.severity.tolist(), axes=axes)
            scored.nuisance.extend(_scores(detector, lit.image, device))
            if kept.any():
                scored.anomalies.extend(_scores(detector, made.image[kept], device))
            scored.targets.extend([severity] * int(kept.sum()))
            scored.directions.extend([name] * int(kept.sum()))
            bar.advance()
    return scored


def _images(samples: list[Sample], size: int) -> Tensor:
    pixels = np.stack([resize_image(read_image(sample.path), size) for sample in samples])
    return images_in_unit_range(torch.from_numpy(pixels).permute(0, 3, 1, 2))


def _scores(detector: DetectorModule, image: Tensor, device: torch.device) -> list[float]:
    return [float(s) for batch in _batches(image) for s in detector(batch.to(device)).score]


def _batches(image: Tensor) -> Iterator[Tensor]:
    return (image[k : k + INFERENCE_BATCH] for k in range(0, len(image), INFERENCE_BATCH))


def _write(
    out: Path, threshold: float, curves: tuple[Curve, ...], scored: _Scored, num_images: int
) -> None:
    rows: list[dict[str, Any]] = []
    for curve in curves:
        for point in curve.points:
            rows.append(
                {
                    "direction": curve.direction,
                    "severity": point.severity,
                    "recall": round(point.recall, 4),
                    "low": round(point.interval.low, 4),
                    "high": round(point.interval.high, 4),
                    "num": point.num,
                }
            )
    write_csv(out / f"{NAME}.csv", rows)
    reached = {
        curve.direction: {
            f"{one.recall:.0%}": {
                "dE00": _finite(one.severity),
                "interval": [_finite(end) for end in one.interval],
            }
            for one in curve.reached
        }
        for curve in curves
    }
    about = {
        "normal_images": num_images,
        "nuisances": len(scored.nuisance),
        "false_alarms": FALSE_ALARMS,
        "threshold": threshold,
        "reached": reached,
    }
    write_json(out / f"{NAME}.json", about)
    with replacing(out / f"{NAME}.png") as temporary:
        _picture(curves).savefig(temporary, format="png", dpi=150)


def _finite(value: float) -> float | None:
    """None where the recall is never reached: JSON has no infinity."""
    return value if np.isfinite(value) else None


def _picture(curves: tuple[Curve, ...]) -> Figure:
    """Recall against severity, a line per direction and a band around that of all."""
    figure = Figure(figsize=(6.0, 4.0), layout="constrained")
    axes = figure.subplots()
    for curve in curves:
        levels = [point.severity for point in curve.points]
        recall = [point.recall for point in curve.points]
        thick = 2.2 if curve.direction == ALL else 1.2
        axes.plot(
            levels,
            recall,
            "o-",
            ms=3,
            lw=thick,
            color=COLORS[curve.direction],
            label=curve.direction,
        )
        if curve.direction == ALL:
            low, high = zip(*(point.interval for point in curve.points), strict=True)
            axes.fill_between(levels, low, high, color=COLORS[ALL], alpha=0.12, lw=0)
    axes.set_xscale("log")
    axes.set_xticks(SEVERITIES, [f"{value:g}" for value in SEVERITIES])
    axes.minorticks_off()
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("severity (median dE00 over the core of the anomaly)")
    axes.set_ylabel(f"recall where {1 - FALSE_ALARMS:.0%} of harmless changes pass")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure
