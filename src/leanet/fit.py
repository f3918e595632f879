"""Fit: cross-validate a method, then train the final detector on everything.

Writes the run folder, stage by stage, each file atomically: a fold is finished when its
`metrics.json` stands. `resume` skips what is finished and goes on where a training was interrupted.
The final detector learns from the folds: it trains for as many epochs as they found best, and
takes its threshold from their test scores, which no model that gave them had seen. Without folds a
part of the training images is held out for both.
"""

from __future__ import annotations

import shutil
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from leanet.data.class_list import class_of
from leanet.data.folds import write_folds_csv
from leanet.data.scan import write_samples_csv
from leanet.files import read_csv, read_json, write_csv, write_json
from leanet.inference.baseline import write_baseline
from leanet.inference.threshold import first_point
from leanet.methods import catalog
from leanet.methods.recipe import Experience, HeldOut, Material, Scores
from leanet.prepare import FINAL, Found, Options, Tell, decode_samples, find_samples, folds_of
from leanet.records import ANOMALOUS, NORMAL, PROBABILITY, Fold
from leanet.run_folder import Earlier, open_run
from leanet.runtime import Runtime, environment, make_runtime
from leanet.training.checkpoint import WEIGHTS
from leanet.training.loop import JOURNAL
from leanet.trial import METRICS, Bench, pixel_columns, run_trial


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
    runtime = make_runtime(options.device, options.precision, options.seed)
    found = find_samples(
        data,
        options,
        needs_anomalous=recipe.needs_anomalous and not getattr(config, "synthetic", ""),
        classes=getattr(config, "classes", "two"),
        weak=getattr(config, "weak_split", None),
    )
    anew = earlier == "overwrite" or not out.exists()
    open_run(out, method, data, (options, config), earlier)
    with _nothing_left(out) if anew else nullcontext():
        return _train_all(method, found, out, options, config, runtime, tell)


def _train_all(
    method: str,
    found: Found,
    out: Path,
    options: Options,
    config: Any,
    runtime: Runtime,
    tell: Tell,
) -> Path:
    """Train all folds and the final detector into an open run folder."""
    material = decode_samples(found, options, out, runtime, tell)
    folds = folds_of(material.samples, options, by_kind=bool(material.classes))
    write_json(out / "environment.json", environment(runtime))
    write_samples_csv(out / "samples.csv", found.root, material.samples)
    write_folds_csv(out / "folds.csv", found.root, material.samples, folds)
    if material.classes:
        write_json(out / "classes.json", {"classes": material.classes, "normal": material.normal})
    tell(_summary(method, material, folds, runtime, found))
    bench = Bench(
        method=method,
        config=config,
        material=material,
        root=found.root,
        runtime=runtime,
        tell=tell,
    )
    for fold in folds[:-1]:
        run_trial(bench, fold, out / fold.name)
    experience = _experience(out, folds[:-1]) if len(folds) > 1 else None
    run_trial(bench, folds[-1], out / folds[-1].name, experience)
    _conclude(method, material, folds)
    return out


@contextmanager
def _nothing_left(out: Path) -> Iterator[None]:
    """Remove a new run folder if a mistake ends the run before anything was learned, so that the
    corrected command finds no earlier run in its way."""
    try:
        yield
    except ValueError:
        if not any(any(out.rglob(name)) for name in (JOURNAL, WEIGHTS, METRICS)):
            shutil.rmtree(out, ignore_errors=True)
        raise


def on_earlier(*, resume: bool, overwrite: bool) -> Earlier:
    """What the two switches say about an earlier run.

    Raises:
        ValueError: both are set.
    """
    if resume and overwrite:
        raise ValueError("--resume keeps an earlier run and --overwrite deletes it; give only one")
    return "resume" if resume else "overwrite" if overwrite else "refuse"


def _experience(out: Path, folds: Sequence[Fold]) -> Experience:
    """The test scores of all folds together, and the median of their best epochs."""
    indices: list[int] = []
    scores: Scores = {}
    epochs = []
    for fold in folds:
        folder = out / fold.name
        rows = [row for row in read_csv(folder / "predictions.csv") if row["role"] == "test"]
        indices += fold.test
        classes = [name for name in rows[0] if name.startswith(PROBABILITY)]
        decided = read_json(folder / METRICS)["threshold"]
        for name in dict.fromkeys(["score", *decided, *classes]):
            scores.setdefault(name, []).extend(float(row[name] or "nan") for row in rows)
        epochs.append(read_json(folder / METRICS)["epochs"])
    return Experience(HeldOut(tuple(indices), scores), round(statistics.median(epochs)))


def _conclude(method: str, material: Material, folds: Sequence[Fold]) -> None:
    """Write results.csv and card.json, and remove the cache."""
    out, rows = material.run, []
    for fold in folds:
        outcome = read_json(out / fold.name / METRICS)
        rows += [
            {"fold": fold.name, "output": output, **values, **pixel_columns(outcome)}
            for output, values in outcome["metrics"].items()
        ]
    write_csv(out / "results.csv", rows)
    final = read_json(out / FINAL / METRICS)
    card = {
        "method": method,
        "img_size": material.img_size,
        "threshold": final["threshold"].get("score"),
        "part_thresholds": {
            name: t["value"] for name, t in final["threshold"].items() if name != "score"
        },
        "num_normal": material.labels.count(NORMAL),
        "num_anomalous": material.labels.count(ANOMALOUS),
        "classes": material.classes,
        "normal": material.normal,
        "folds": len(folds) - 1,
        "map_unit": final["map_unit"],
        "map_top": final["map_top"],
        "map_thresholds": final.get("map_thresholds", {}),
        "map_low": final.get("map_low"),
        "map_border": final.get("map_border", 0),
    }
    write_baseline(out, material.images, material.labels, folds[-1].train)
    write_json(out / "card.json", card | first_point(out, card))
    shutil.rmtree(out / "cache", ignore_errors=True)


def _summary(
    method: str, material: Material, folds: Sequence[Fold], runtime: Runtime, found: Found
) -> str:
    text = (
        f"{method}: {_counted(material)}, "
        f"{len(folds) - 1 or 'no'} folds, on {runtime.device} "
        f"({runtime.fabric._precision.precision})"
    )
    if found.left_test:
        text += f"; {found.left_test} of the test images taken out of the test for weak labels"
    return text + ("; training and test part of the data set are pooled" if found.pooled else "")


def _counted(material: Material) -> str:
    if not material.classes:
        anomalous = sum(label == ANOMALOUS for label in material.labels)
        return f"{len(material.labels) - anomalous} normal and {anomalous} anomalous images"
    numbers = Counter(map(class_of, material.samples))
    listed = ", ".join(f"{numbers[name]} {name}" for name in material.classes)
    return f"{len(material.samples)} images of {len(numbers)} classes ({listed})"
