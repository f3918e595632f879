"""One trial: train a method on one part of a data set, score another, write down what came out."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leanet.data.class_list import class_numbers, class_of
from leanet.data.scan import relative_name
from leanet.files import write_csv, write_json
from leanet.inference.class_tables import probabilities, write_class_tables
from leanet.inference.fold_figures import judge_fold
from leanet.inference.gallery import save_gallery, save_maps
from leanet.methods import catalog
from leanet.methods.extra import FILES as EXTRA_FILES
from leanet.methods.map_models import MAPS
from leanet.methods.recipe import Experience, HeldOut, Material, Scores, Trained
from leanet.methods.store import save_detector
from leanet.ops.covered import in_words
from leanet.ops.metrics import Threshold, choose_threshold, confusion_at, f1, image_metrics
from leanet.prepare import Tell
from leanet.progress import say_once
from leanet.records import ANOMALOUS, PROBABILITY, Fold, Sample
from leanet.runtime import Runtime
from leanet.training.loop import forget

IN_SAMPLE = (
    "no images could be held out, so thresholds come from training images and are too low: expect "
    "false alarms"
)
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
    if trained.remarks.get("threshold_in_sample"):
        bench.tell(f"{fold.name}: {IN_SAMPLE}")
    _tell_border(trained)
    test, pixels = judge_fold(
        trained.detector,
        data,
        fold.test,
        seed=bench.runtime.seed,
        tell=bench.tell,
    )
    thresholds = trained.thresholds or _thresholds(trained.held_out, data)
    parts = [("test", HeldOut(fold.test, test))]
    # fusion gives the scores of the folds another scale: these are what decides is taken from
    parts.append(("held_out" if experience is None else "cross_validation", trained.held_out))
    limit = thresholds["score"].value if thresholds else None
    write_csv(folder / "predictions.csv", _rows(bench, parts, limit))
    if pictures:
        wrong = _wrong(fold, test, limit, data)
        save_maps(trained.detector, data, fold.test, folder / "maps")
        save_gallery(trained.detector, data, fold.test, test, wrong, folder, bench.root)
        save_detector(folder, bench.method, bench.config, trained.detector)
    outcome = _outcome(fold, test, thresholds, trained, data)
    if data.classes and fold.test:
        true = class_numbers([data.samples[i] for i in fold.test], data.classes)
        outcome["metrics"]["classes"] = write_class_tables(
            folder, data.classes, true, probabilities(test, data.classes)
        )
    outcome["pixels"] = pixels
    outcome["seconds"] = round(time.monotonic() - started, 1)
    write_json(folder / METRICS, outcome)
    _tidy(folder)
    bench.tell(_line(fold, outcome))


def _tell_border(trained: Trained) -> None:
    """Say once what the map does not cover, and add it to the remarks, unless the method has said
    it of the maps that it was given."""
    if trained.detector.map_border and "map_source" not in trained.remarks:
        told = in_words(trained.detector.img_size, trained.detector.map_border)
        trained.remarks["notices"] = [*trained.remarks.get("notices", ()), told]
        say_once(told)


def pixel_columns(outcome: Mapping[str, Any]) -> dict[str, float]:
    """The pixel figures of a trial's `metrics.json` as columns `pixel_...` of a table of results;
    {} where there are none."""
    return {f"pixel_{name}": value for name, value in (outcome.get("pixels") or {}).items()}


def _tidy(folder: Path) -> None:
    """Remove what only an unfinished trial needs."""
    forget(folder)
    for name in (MAPS, *EXTRA_FILES):
        for place in (folder / name, *folder.glob(f"*/{name}")):  # also of the variants tried
            if place.is_dir():
                shutil.rmtree(place)
            place.unlink(missing_ok=True)


def _thresholds(held_out: HeldOut, data: Material) -> dict[str, Threshold]:
    """Of every output but the probabilities of classes; {} where no class is the normal one."""
    if data.classes and data.normal is None:
        return {}
    labels = [data.labels[i] for i in held_out.indices]
    scores = {n: s for n, s in held_out.scores.items() if n not in _columns(data)}
    return {name: choose_threshold(labels, s) for name, s in scores.items()}


def _columns(data: Material) -> dict[str, str]:
    """Output -> class, of the probabilities."""
    return {f"{PROBABILITY}{name}": name for name in data.classes}


def _wrong(fold: Fold, test: Scores, limit: float | None, data: Material) -> list[int]:
    if data.classes:
        named = [(i, _predicted(test, k, data)) for k, i in enumerate(fold.test)]
        return [i for i, predicted in named if predicted != class_of(data.samples[i])]
    assert limit is not None
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
        "map_thresholds": dict(trained.detector.map_thresholds),
        "map_low": trained.detector.map_low,
        "map_border": trained.detector.map_border,
    }


def _predicted(scores: Scores, k: int, data: Material) -> str:
    """The most probable class of the k-th image, the first of equals."""
    columns = _columns(data)
    return columns[max(columns, key=lambda column: scores[column][k])]


def _rows(
    bench: Bench, parts: list[tuple[str, HeldOut]], threshold: float | None
) -> list[dict[str, Any]]:
    data, rows = bench.material, []
    for role, (indices, scores) in parts:
        for k, index in enumerate(indices):
            row = {"path": relative_name(data.samples[index].path, bench.root), "role": role}
            row |= _judged(data.samples[index], scores["score"][k], threshold)
            if data.classes:
                row["true"] = class_of(data.samples[index])
                row["predicted"] = _predicted(scores, k, data)
            values = {name: values[k] for name, values in scores.items()}
            rows.append(row | values if threshold is not None else row | {**values, "score": ""})
    return rows


def _judged(sample: Sample, score: float, threshold: float | None) -> dict[str, Any]:
    """Label and verdict; empty where no class is the normal one."""
    if threshold is None:
        return {"label": "", "kind": sample.kind, "verdict": "", "threshold": ""}
    return {
        "label": sample.label,
        "kind": sample.kind,
        "verdict": "anomalous" if score >= threshold else "normal",
        "threshold": threshold,
    }


def _line(fold: Fold, outcome: dict[str, Any]) -> str:
    metrics, classes = (outcome["metrics"].get(name) for name in ("score", "classes"))
    text = f"{fold.name}: {outcome['seconds']:.0f} s"
    if outcome["epochs"] > 1:  # not every method has several
        text += f", best after {outcome['epochs']} epochs"
    if classes:
        text += f", accuracy {classes['accuracy']:.3f} (majority class {classes['majority']:.3f})"
    if metrics:
        text += f", AUROC {metrics['auroc']:.3f}, F1 {metrics['f1']:.3f}"
    if outcome["pixels"]:
        text += f", pixel AUROC {outcome['pixels']['auroc']:.3f}"
    return text
