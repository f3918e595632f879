"""Fit: cross-validate a method, then train the final detector on everything.

Writes the run folder, stage by stage, each file atomically: a fold is finished when its
`metrics.json` stands. `resume` skips what is finished and goes on where a training was interrupted.
The final detector learns from the folds: it trains for as many epochs as they found best, and
takes its threshold from their test scores, which no model that gave them had seen. Without folds a
part of the training images is held out for both.
"""

from __future__ import annotations

import dataclasses
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

from leanet.config import option, to_dict, to_yaml
from leanet.data.cache import Cache, UnreadableImagesError, cache_images
from leanet.data.folds import make_folds, single_fold, write_folds_csv
from leanet.data.scan import relative_name, scan, write_samples_csv
from leanet.files import read_csv, read_json, sweep, write_csv, write_json, write_text
from leanet.inference.gallery import save_gallery, save_maps
from leanet.methods import catalog
from leanet.methods.map_models import MAPS
from leanet.methods.recipe import (
    Experience,
    HeldOut,
    Material,
    Scores,
    Trained,
    score_images,
)
from leanet.methods.store import save_detector
from leanet.networks.unet import unet_depth
from leanet.ops.metrics import Threshold, choose_threshold, confusion_at, f1, image_metrics
from leanet.records import ANOMALOUS, NORMAL, Fold, Sample
from leanet.runtime import Runtime, environment, make_runtime
from leanet.training.loop import forget

Tell = Callable[[str], None]
Earlier = Literal["refuse", "resume", "overwrite"]
FINAL = "final"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `leanet fit` that do not depend on the method."""

    folds: int = option(0, "cross-validation folds before the final training; 0 = none")
    inner_splits: int = option(5, "parts of the training images for out-of-fold maps")
    img_size: int = option(128, "side in pixels that images are resized to; a multiple of 32")
    seed: int = option(0, "makes everything repeatable: draws, folds, weights, order")
    positives: int | None = option(None, "draw so many of the anomalous images, with the seed")
    normal: str | None = option(None, "name of the normal class in a folder-per-class layout")
    skip_bad: bool = option(False, "leave out unreadable images instead of stopping")
    device: str = option("auto", "auto, cpu or cuda")
    precision: str = option("auto", "auto, 32-true, bf16-mixed or 16-mixed")


def fit(
    method: str,
    data: Path,
    out: Path,
    options: Options,
    config: Any,
    *,
    earlier: Earlier = "refuse",
    tell: Tell = print,
) -> Path:
    """Train `method` on `data` into the run folder `out` and return it.

    `earlier` says what becomes of an earlier run in `out`; to "resume" it takes the same options.

    Raises:
        ValueError: anything wrong with the data, the options, or an earlier run in `out`.
    """
    recipe = catalog.find(method)
    unet_depth(options.img_size)  # refuses sizes that do not work before any work is done
    runtime = make_runtime(options.device, options.precision, options.seed)
    found = scan(data, normal=options.normal, positives=options.positives, seed=options.seed)
    samples, pooled = _order(found.samples, options.folds, recipe.needs_anomalous)
    _open_run(out, method, data, options, config, earlier)
    samples, images = _decode(samples, options, out, runtime, tell)
    material = Material(samples=samples, images=images, img_size=options.img_size, run=out)
    folds = _folds(samples, options)
    write_json(out / "environment.json", environment(runtime))
    write_samples_csv(out / "samples.csv", found.root, samples)
    write_folds_csv(out / "folds.csv", found.root, samples, folds)
    tell(_summary(method, samples, folds, runtime, pooled))
    run = _Run(method, recipe, config, material, found.root, runtime, tell)
    for fold in folds[:-1]:
        run.train(fold, None)
    experience = run.experience(folds[:-1]) if len(folds) > 1 else None
    run.train(folds[-1], experience)
    run.conclude(folds)
    return out


def on_earlier(*, resume: bool, overwrite: bool) -> Earlier:
    """What the two switches say about an earlier run.

    Raises:
        ValueError: both are set.
    """
    if resume and overwrite:
        raise ValueError("--resume keeps an earlier run and --overwrite deletes it; give only one")
    return "resume" if resume else "overwrite" if overwrite else "refuse"


@dataclasses.dataclass(frozen=True)
class _Run:
    """What stays the same over the folds of a run."""

    method: str
    recipe: catalog.Method
    config: Any
    material: Material
    root: Path
    runtime: Runtime
    tell: Tell

    def train(self, fold: Fold, experience: Experience | None) -> None:
        """Train and test one fold, unless an earlier run has finished it."""
        folder = self.material.run / fold.name
        if (folder / "metrics.json").exists():
            forget(folder)  # a kill may have come just before that
            self.tell(f"{fold.name}: finished before")
            return
        started = time.monotonic()
        trained = self.recipe.train(
            self.config, fold, self.material, folder, self.runtime, experience
        )
        trained.detector.eval()
        test = score_images(trained.detector, self.material.images, fold.test)
        thresholds = self._thresholds(trained.held_out)
        self._write_predictions(folder, fold, test, trained.held_out, thresholds, experience)
        limit = thresholds["score"].value
        wrong = (
            [
                index
                for index, score in zip(fold.test, test["score"], strict=True)
                if (score >= limit) != (self.material.labels[index] == ANOMALOUS)
            ]
            if fold.test
            else []
        )
        save_maps(trained.detector, self.material, fold.test, folder / "maps")
        save_gallery(trained.detector, self.material, fold.test, test, wrong, folder, self.root)
        save_detector(folder, self.method, self.config, trained.detector)
        outcome = self._outcome(fold, test, thresholds, trained)
        outcome["seconds"] = round(time.monotonic() - started, 1)
        write_json(folder / "metrics.json", outcome)
        forget(folder)
        (folder / MAPS).unlink(missing_ok=True)
        self.tell(_line(fold, outcome))

    def experience(self, folds: Sequence[Fold]) -> Experience:
        """The test scores of all folds together, and the median of their best epochs."""
        indices: list[int] = []
        scores: Scores = {}
        epochs = []
        for fold in folds:
            folder = self.material.run / fold.name
            rows = [row for row in read_csv(folder / "predictions.csv") if row["role"] == "test"]
            indices += fold.test
            for name in read_json(folder / "metrics.json")["threshold"]:
                scores.setdefault(name, []).extend(float(row[name]) for row in rows)
            epochs.append(read_json(folder / "metrics.json")["epochs"])
        return Experience(HeldOut(tuple(indices), scores), round(statistics.median(epochs)))

    def conclude(self, folds: Sequence[Fold]) -> None:
        """Write results.csv and card.json, and remove the cache."""
        out, rows = self.material.run, []
        for fold in folds:
            outcome = read_json(out / fold.name / "metrics.json")
            rows += [
                {"fold": fold.name, "output": output, **values}
                for output, values in outcome["metrics"].items()
            ]
        write_csv(out / "results.csv", rows)
        final = read_json(out / FINAL / "metrics.json")
        labels = self.material.labels
        card = {
            "method": self.method,
            "img_size": self.material.img_size,
            "threshold": final["threshold"]["score"],
            "part_thresholds": {
                name: t["value"] for name, t in final["threshold"].items() if name != "score"
            },
            "num_normal": labels.count(NORMAL),
            "num_anomalous": labels.count(ANOMALOUS),
            "folds": len(folds) - 1,
            "map_unit": final["map_unit"],
            "map_top": final["map_top"],
        }
        write_json(out / "card.json", card)
        shutil.rmtree(out / "cache", ignore_errors=True)

    def _thresholds(self, held_out: HeldOut) -> dict[str, Threshold]:
        labels = [self.material.labels[i] for i in held_out.indices]
        return {name: choose_threshold(labels, s) for name, s in held_out.scores.items()}

    def _outcome(
        self, fold: Fold, test: Scores, thresholds: dict[str, Threshold], trained: Trained
    ) -> dict[str, Any]:
        labels = [self.material.labels[i] for i in fold.test]
        metrics = {}
        for name in thresholds if fold.test else ():
            metrics[name] = image_metrics(labels, test[name], thresholds[name].value)
            if name in trained.detector.logits:
                metrics[name]["f1_at_half"] = f1(confusion_at(labels, test[name], 0.0))
        return {
            "fold": fold.name,
            "epochs": trained.epochs,
            "threshold": {name: t._asdict() for name, t in thresholds.items()},
            "metrics": metrics,
            "remarks": trained.remarks,
            "map_unit": trained.detector.map_unit,
            "map_top": trained.detector.map_top,
        }

    def _write_predictions(
        self,
        folder: Path,
        fold: Fold,
        test: Scores,
        held_out: HeldOut,
        thresholds: dict[str, Threshold],
        experience: Experience | None,
    ) -> None:
        parts = [("test", fold.test, test)]
        if experience is None:
            parts.append(("held_out", held_out.indices, held_out.scores))
        threshold = thresholds["score"].value
        rows = []
        for role, indices, scores in parts:
            for k, index in enumerate(indices):
                sample = self.material.samples[index]
                score = scores["score"][k]
                row = {
                    "path": relative_name(sample.path, self.root),
                    "role": role,
                    "label": sample.label,
                    "kind": sample.kind,
                    "verdict": "anomalous" if score >= threshold else "normal",
                    "threshold": threshold,
                }
                rows.append(row | {name: values[k] for name, values in scores.items()})
        write_csv(folder / "predictions.csv", rows)


def _order(
    samples: Sequence[Sample], num_folds: int, needs_anomalous: bool
) -> tuple[tuple[Sample, ...], bool]:
    """Training samples first, then test samples; whether a given split was given up.

    A data set whose training part has normal images only (as MVTec AD's) is pooled for
    cross-validation.
    """
    train = [sample for sample in samples if sample.split != "test"]
    test = [sample for sample in samples if sample.split == "test"]
    only_normal = all(sample.label == NORMAL for sample in train)
    if not test or not only_normal:
        return tuple(train + test), False
    if num_folds >= 2:
        return tuple(dataclasses.replace(sample, split=None) for sample in train + test), True
    if needs_anomalous:
        raise ValueError(
            f"the training part has {len(train)} normal images and no anomalous ones, and this "
            "method learns from both.\nUse --folds 5 to pool training and test part, or "
            "`leanet fit colorizer`, which learns from normal images alone."
        )
    return tuple(train + test), False


def _folds(samples: Sequence[Sample], options: Options) -> tuple[Fold, ...]:
    """Cross-validation folds within the training samples, and the final one at the end."""
    train = [sample for sample in samples if sample.split != "test"]
    if options.folds < 2:
        if options.folds != 0:
            raise ValueError(f"--folds {options.folds}: give 0 (none) or 2 and more")
        return (single_fold(samples, seed=options.seed, inner_splits=options.inner_splits),)
    outer = make_folds(train, options.folds, seed=options.seed, inner_splits=options.inner_splits)
    final = Fold(
        name=FINAL,
        train=tuple(range(len(train))),
        test=tuple(range(len(train), len(samples))),
        parts=tuple(fold.test for fold in outer) if options.inner_splits else (),
    )
    return (*outer, final)


def _decode(
    samples: tuple[Sample, ...], options: Options, out: Path, runtime: Runtime, tell: Tell
) -> tuple[tuple[Sample, ...], Cache]:
    folder = out / "cache"
    try:
        paths = [sample.path for sample in samples]
        return samples, cache_images(paths, options.img_size, folder, runtime.device)
    except UnreadableImagesError as error:
        if not options.skip_bad:
            raise
        bad = {problem.path for problem in error.errors}
        tell(f"left out {len(bad)} unreadable image(s): {', '.join(map(str, sorted(bad)))}")
    samples = tuple(sample for sample in samples if sample.path not in bad)
    paths = [sample.path for sample in samples]
    return samples, cache_images(paths, options.img_size, folder, runtime.device)


def _open_run(
    out: Path,
    method: str,
    data: Path,
    options: Options,
    config: Any,
    earlier: Earlier,
) -> None:
    """Create the run folder, or check that the one that is there may be used."""
    effective = {
        "method": method,
        "data": str(data),
        **to_dict(options),
        **to_dict(config),
    }
    file = out / "config.yaml"
    if file.exists() and earlier != "overwrite":
        if earlier == "refuse":
            raise ValueError(
                f"{out} holds an earlier run; use --resume to go on with it, --overwrite to start "
                "anew, or another --out"
            )
        _require_equal(yaml.safe_load(file.read_text(encoding="utf-8")), effective, out)
        sweep(out)
        return
    if out.exists() and any(out.iterdir()):
        if not file.exists():
            raise ValueError(f"{out} exists and is no run folder of leanet; give another --out")
        shutil.rmtree(out)
    text = f"# leanet fit {method}\nmethod: {method}\ndata: {data}\n"
    write_text(file, text + to_yaml(options) + to_yaml(config))


def _require_equal(before: dict[str, Any], now: dict[str, Any], out: Path) -> None:
    differing = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if differing:
        listed = "; ".join(f"{key} {before.get(key)!r} -> {now.get(key)!r}" for key in differing)
        raise ValueError(
            f"{out} was begun with other options ({listed}); --resume needs the same ones"
        )


def _summary(
    method: str, samples: Sequence[Sample], folds: Sequence[Fold], runtime: Runtime, pooled: bool
) -> str:
    anomalous = sum(sample.label == ANOMALOUS for sample in samples)
    text = (
        f"{method}: {len(samples) - anomalous} normal and {anomalous} anomalous images, "
        f"{len(folds) - 1 or 'no'} folds, on {runtime.device} "
        f"({runtime.fabric._precision.precision})"
    )
    return text + ("; training and test part of the data set are pooled" if pooled else "")


def _line(fold: Fold, outcome: dict[str, Any]) -> str:
    metrics = outcome["metrics"].get("score")
    text = f"{fold.name}: {outcome['seconds']:.0f} s, best after {outcome['epochs']} epochs"
    if metrics:
        text += f", AUROC {metrics['auroc']:.3f}, F1 {metrics['f1']:.3f}"
    return text
