"""One trial: train a method on one part of a data set, score another, write down what came out."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leanet.data.scan import relative_name
from leanet.files import write_csv, write_json
from leanet.inference.gallery import save_gallery, save_maps
from leanet.methods import catalog
from leanet.methods.map_models import MAPS
from leanet.methods.recipe import Experience, HeldOut, Material, Scores, Trained, score_images
from leanet.methods.store import save_detector
from leanet.ops.metrics import Threshold, choose_threshold, confusion_at, f1, image_metrics
from leanet.prepare import Tell
from leanet.records import ANOMALOUS, Fold
from leanet.runtime import Runtime
from leanet.training.loop import forget

METRICS = "metrics.json"  # the last file of a trial: it is finished where this one is


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What stays the same over the trials of a run."""

    method: str
    config: Any
    material: Material
    root: Path  # of the paths in predictions.csv
    runtime: Runtime
    tell: Tell


def run_trial(
    bench: Bench,
    fold: Fold,
    folder: Path,
    experience: Experience | None = None,
    *,
    pictures: bool = True,
) -> None:
    """Train and test one fold into `folder`, unless an earlier run has finished it.

    `pictures` keeps maps, gallery and weights, which take most of the space.
    """
    if (folder / METRICS).exists():
        _tidy(folder)  # a kill may have come just before that
        bench.tell(f"{fold.name}: finished before")
        return
    started = time.monotonic()
    data, train = bench.material, catalog.find(bench.method).train
    trained = train(bench.config, fold, data, folder, bench.runtime, experience)
    trained.detector.eval()
    test = score_images(trained.detector, data.images, fold.test)
    thresholds = _thresholds(trained.held_out, data)
    parts = [("test", HeldOut(fold.test, test))]
    if experience is None:
        parts.append(("held_out", trained.held_out))
    limit = thresholds["score"].value
    write_csv(folder / "predictions.csv", _rows(bench, parts, limit))
    if pictures:
        wrong = _wrong(fold, test, limit, data)
        save_maps(trained.detector, data, fold.test, folder / "maps")
        save_gallery(trained.detector, data, fold.test, test, wrong, folder, bench.root)
        save_detector(folder, bench.method, bench.config, trained.detector)
    outcome = _outcome(fold, test, thresholds, trained, data)
    outcome["seconds"] = round(time.monotonic() - started, 1)
    write_json(folder / METRICS, outcome)
    _tidy(folder)
    bench.tell(_line(fold, outcome))


def _tidy(folder: Path) -> None:
    """Remove what only an unfinished trial needs."""
    forget(folder)
    (folder / MAPS).unlink(missing_ok=True)


def _thresholds(held_out: HeldOut, data: Material) -> dict[str, Threshold]:
    labels = [data.labels[i] for i in held_out.indices]
    return {name: choose_threshold(labels, s) for name, s in held_out.scores.items()}


def _wrong(fold: Fold, test: Scores, limit: float, data: Material) -> list[int]:
    pairs = zip(fold.test, test["score"], strict=True) if fold.test else ()
    return [i for i, score in pairs if (score >= limit) != (data.labels[i] == ANOMALOUS)]


def _outcome(
    fold: Fold, test: Scores, thresholds: dict[str, Threshold], trained: Trained, data: Material
) -> dict[str, Any]:
    labels = [data.labels[i] for i in fold.test]
    metrics = {}
    for name in thresholds if fold.test else ():
        metrics[name] = image_metrics(labels, test[name], thresholds[name].value)
        if name in trained.detector.logits:
            metrics[name]["f1_at_half"] = f1(confusion_at(labels, test[name], 0.0))
    return {
        "fold": fold.name,
        "epochs": trained.epochs,
        "parameters": sum(p.numel() for p in trained.detector.network.parameters()),
        "threshold": {name: t._asdict() for name, t in thresholds.items()},
        "metrics": metrics,
        "remarks": trained.remarks,
        "map_unit": trained.detector.map_unit,
        "map_top": trained.detector.map_top,
    }


def _rows(bench: Bench, parts: list[tuple[str, HeldOut]], threshold: float) -> list[dict[str, Any]]:
    rows = []
    for role, (indices, scores) in parts:
        for k, index in enumerate(indices):
            sample = bench.material.samples[index]
            row = {
                "path": relative_name(sample.path, bench.root),
                "role": role,
                "label": sample.label,
                "kind": sample.kind,
                "verdict": "anomalous" if scores["score"][k] >= threshold else "normal",
                "threshold": threshold,
            }
            rows.append(row | {name: values[k] for name, values in scores.items()})
    return rows


def _line(fold: Fold, outcome: dict[str, Any]) -> str:
    metrics = outcome["metrics"].get("score")
    text = f"{fold.name}: {outcome['seconds']:.0f} s, best after {outcome['epochs']} epochs"
    if metrics:
        text += f", AUROC {metrics['auroc']:.3f}, F1 {metrics['f1']:.3f}"
    return text
