"""The Python API: one function per verb of the command line."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from leanet.benchmark.run import benchmark as run_benchmark
from leanet.benchmark.suite import read_suite
from leanet.benchmark.workers import Workers
from leanet.config import from_dict, merged
from leanet.data import checks
from leanet.data import scan as scanning
from leanet.data.cache import READER_THREADS
from leanet.files import read_json
from leanet.fit import fit as fit_run
from leanet.fit import on_earlier
from leanet.inference import evaluate as evaluating
from leanet.inference import explain as explaining
from leanet.inference import predict as predicting
from leanet.methods import catalog
from leanet.methods.given_maps import give_maps
from leanet.methods.recipe import DetectorModule
from leanet.methods.store import load_detector
from leanet.prepare import FINAL, Options
from leanet.progress import Progress
from leanet.records import Sample
from leanet.report import page
from leanet.report.benchmark import write_benchmark_report
from leanet.runtime import make_runtime

PathLike = str | Path


def scan(data: PathLike, *, normal: str | None = None) -> str:
    """Look at a data set: its layout, counts and problems, as text."""
    found = scanning.scan(Path(data), normal=normal)
    return checks.describe(found, _checked(found.samples))


def fit(
    method: str,
    data: PathLike,
    out: PathLike | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    preset: str | None = None,
    tell: Callable[[str], None] = print,
    **options: Any,
) -> Path:
    """Train a method on a data set and return the run folder, with its report.

    `options` are those of `fit.Options` and of the method's `Config`, by name; nested ones as
    dictionaries (`map_model={"epochs": 50}`). `preset` gives the defaults another start.

    Raises:
        ValueError: an unknown option, data that cannot be used, an earlier run in `out`.
    """
    recipe = catalog.find(method)
    own = {key: options.pop(key) for key in list(options) if key in _fields(Options)}
    config = from_dict(recipe.config, merged(preset_values(method, preset), options))
    folder = Path(out) if out is not None else default_run(method, Path(data))
    run = fit_run(
        method,
        Path(data),
        folder,
        from_dict(Options, own),
        config,
        earlier=on_earlier(resume=resume, overwrite=overwrite),
        tell=tell,
    )
    report(run)
    return run


def load(run: PathLike, *, device: str = "auto") -> DetectorModule:
    """The final detector of a run folder, on a device, in evaluation mode."""
    return load_detector(Path(run) / FINAL, make_runtime(device).device)


def predict(
    run: PathLike,
    paths: Iterable[PathLike],
    out: PathLike | None = None,
    *,
    maps_from: PathLike | None = None,
    device: str = "auto",
    **options: Any,
) -> list[predicting.Judged]:
    """Judge files, folders or globs; writes predictions.csv and heat maps to `out`.

    A run whose maps came from a folder (`map_source`) needs those of the new images in `maps_from`,
    which lie there as the images do in the one folder of `paths`, or in their common folder.
    `options` are those of `inference.predict.predict`.
    """
    card, places = read_card(Path(run)), [Path(path) for path in paths]
    detector, images = load(run, device=device), predicting.find_images(places)
    if maps_from is not None:
        shared = Path(os.path.commonpath([image.absolute().parent for image in images]))
        root = places[0] if len(places) == 1 and places[0].is_dir() else shared
        give_maps(detector, images, root, Path(maps_from))
    return predicting.predict(
        detector,
        images,
        threshold=card["threshold"]["value"],
        map_top=card["map_top"],
        out=Path(out) if out is not None else Path(run) / "predictions",
        device=make_runtime(device).device,
        **options,
    )


def evaluate(
    run: PathLike,
    data: PathLike,
    out: PathLike | None = None,
    *,
    normal: str | None = None,
    device: str = "auto",
    **options: Any,
) -> evaluating.Evaluation:
    """Score a labelled data set (its test part, if it has one) with the final detector."""
    card = read_card(Path(run))
    samples = scanning.scan(Path(data), normal=normal).samples
    tested = [sample for sample in samples if sample.split == "test"] or list(samples)
    return evaluating.evaluate(
        load(run, device=device),
        tested,
        threshold=card["threshold"]["value"],
        part_thresholds=card["part_thresholds"],
        out=Path(out) if out is not None else Path(run) / "evaluation",
        device=make_runtime(device).device,
        **options,
    )


def explain(
    run: PathLike,
    paths: Iterable[PathLike],
    out: PathLike | None = None,
    *,
    also: Iterable[PathLike] = (),
    device: str = "auto",
    **options: Any,
) -> list[explaining.Explained]:
    """Draw the feature maps before and after attention of files, folders or globs, into `out`.

    The attention points of the runs in `also` become further columns of the same pictures.
    `options` are those of `inference.explain.explain`.
    """
    card, others = read_card(Path(run)), [Path(other) for other in also]
    name, *names = explaining.run_names([Path(run), *others])
    for other in others:
        read_card(other)
    return explaining.explain(
        load(run, device=device),
        predicting.find_images(list(paths)),
        out=Path(out) if out is not None else Path(run) / "explanations",
        threshold=card["threshold"]["value"],
        device=make_runtime(device).device,
        name=name,
        also={n: load(other, device=device) for n, other in zip(names, others, strict=True)},
        **options,
    )


def report(run: PathLike, *, baseline: PathLike | None = None) -> Path:
    """Write report.html into the run folder, compared with another run if one is given."""
    return page.write_report(Path(run), baseline=None if baseline is None else Path(baseline))


def benchmark(
    suite: PathLike,
    out: PathLike | None = None,
    *,
    data_root: PathLike | None = None,
    workers: int = 1,
    ray: str | None = None,
    overwrite: bool = False,
    tell: Callable[[str], None] = print,
) -> Path:
    """Run a suite of methods, data sets, folds and seeds; returns the page with the tables.

    The same call goes on where an interrupted one stopped. `ray` "" starts Ray on this machine,
    an address joins a cluster. See `leanet.benchmark.suite` for the file.

    Raises:
        ValueError: a suite or data that cannot be used, or, at the end, cells that failed.
    """
    if workers < 1:
        raise ValueError(f"workers {workers}: give 1 or more")
    file = Path(suite)
    root = None if data_root is None else Path(data_root)
    read = read_suite(file, root)
    folder = Path(out) if out is not None else Path("runs") / read.name
    try:
        run_benchmark(
            read,
            file.read_text(encoding="utf-8"),
            folder,
            workers=Workers(workers, ray),
            overwrite=overwrite,
            tell=tell,
        )
    except ValueError:  # some cells failed: the others are worth a page
        if (folder / "results.csv").exists():
            write_benchmark_report(folder)
        raise
    return write_benchmark_report(folder)


def read_card(run: Path) -> dict[str, Any]:
    """The card of a finished run.

    Raises:
        ValueError: no run folder, or one that is not finished.
    """
    if not (run / "config.yaml").exists():
        raise ValueError(f"{run} is no run folder (it has no config.yaml); `leanet fit` makes one")
    if not (run / "card.json").exists():
        raise ValueError(f"{run} is not finished; complete it with `leanet fit ... --resume`")
    return dict(read_json(run / "card.json"))


def default_run(method: str, data: Path) -> Path:
    """Where a run goes if nothing else is said: runs/DATA-METHOD."""
    return Path("runs") / f"{data.resolve().stem}-{method}"


def preset_values(method: str, preset: str | None) -> dict[str, Any]:
    """The options that a preset changes.

    Raises:
        ValueError: the method has no preset of this name.
    """
    presets = catalog.find(method).presets
    if preset is None:
        return {}
    if preset not in presets:
        raise ValueError(f"{method} has no preset {preset!r}; allowed: {', '.join(presets)}")
    return presets[preset]


def _checked(samples: Sequence[Sample]) -> checks.Findings:
    with Progress("reading images", total=len(samples)) as bar:
        return checks.check(
            samples,
            threads=READER_THREADS,
            on_progress=lambda done, total: bar.advance(steps=done - bar.done),
        )


def _fields(config: type[Any]) -> set[str]:
    return set(config.__dataclass_fields__)
