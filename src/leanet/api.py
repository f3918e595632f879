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
from leanet.data import checks, published
from leanet.data import scan as scanning
from leanet.data.cache import READER_THREADS
from leanet.fit import fit as fit_run
from leanet.fit import on_earlier
from leanet.inference import cam_layers
from leanet.inference import evaluate as evaluating
from leanet.inference import explain as explaining
from leanet.inference import predict as predicting
from leanet.inference.cam_layers import Layer
from leanet.inference.cam_panels import Look
from leanet.inference.cam_run import CamOptions, Explainer
from leanet.inference.explain_run import Asked, explain_run
from leanet.inference.faithfulness import NUM_IMAGES
from leanet.inference.measure_run import Measures, measure_run
from leanet.inference.run_images import unlearned
from leanet.methods import catalog
from leanet.methods.given_maps import give_maps
from leanet.methods.recipe import DetectorModule
from leanet.methods.store import load_detector
from leanet.ops.working_point import point_of
from leanet.prepare import FINAL, Options
from leanet.presets import describe_options, read_start
from leanet.progress import Progress, say_once
from leanet.records import Sample
from leanet.report import page
from leanet.report.benchmark import write_benchmark_report
from leanet.report.category_text import write_category_tables
from leanet.report.compare import Comparison
from leanet.report.compare_page import write_comparison
from leanet.report.demo_gif import write_gif
from leanet.runtime import make_runtime
from leanet.trained import Engine, open_detector, read_card

PathLike = str | Path


def scan(data: PathLike, *, normal: str | None = None) -> str:
    """Look at a data set: its layout, counts and problems, as text."""
    found = scanning.scan(Path(data), normal=normal)
    return checks.describe(found, _checked(found.samples))


def unpack(
    what: str,
    source: PathLike,
    out: PathLike,
    *,
    every: int | None = None,
    overwrite: bool = False,
    tell: Callable[[str], None] = print,
) -> Path:
    """Turn the files of a published data set (`what` of `data.published.SETS`) in the folder
    `source` into the folder `out`, which `scan` recognizes; of shanghaitech one frame in `every`.

    Raises:
        ValueError: an unknown data set, missing or damaged files, or `out` is in use.
    """
    return published.unpack(
        what, Path(source), Path(out), every=every, overwrite=overwrite, tell=tell
    )


def fit(  # noqa: PLR0913 - the options of a verb, by name
    method: str,
    data: PathLike | None = None,
    out: PathLike | None = None,
    *,
    config: PathLike | None = None,
    resume: bool = False,
    overwrite: bool = False,
    preset: str | None = None,
    tell: Callable[[str], None] = print,
    **options: Any,
) -> Path:
    """Train a method on a data set and return the run folder, with its report.

    `options` are those of `fit.Options` and of the method's `Config`, by name; nested ones as
    dictionaries (`map_model={"epochs": 50}`). `preset` gives the defaults another start, and
    `config`, a YAML file, options below these, and the data where none are given.

    Raises:
        ValueError: an unknown option, data that cannot be used, an earlier run in `out`.
    """
    recipe = catalog.find(method)
    options = merged({**recipe.run_defaults, **read_start(method, config, preset, tell)}, options)
    place = options.pop("data", None) if data is None else data
    if place is None:
        raise ValueError("which data? give their folder")
    own = {key: options.pop(key) for key in list(options) if key in _fields(Options)}
    options.pop("data", None)
    run = fit_run(
        method,
        Path(place),
        Path(out) if out is not None else default_run(method, Path(place)),
        from_dict(Options, own),
        from_dict(recipe.config, options),
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
    engine: Engine = "torch",
    device: str = "auto",
    **options: Any,
) -> list[predicting.Judged]:
    """Judge files, folders or globs; writes predictions.csv and heat maps to `out`.

    Another `engine` than torch runs the file that `export` wrote for it, on the CPU; it gives the
    scores, and the working point of the card decides, whatever it was when the file was written.

    A run whose maps came from a folder (`map_source`) needs those of the new images in `maps_from`,
    which lie there as the images do in the one folder of `paths`, or in their common folder.
    `options` are those of `inference.predict.predict`.
    """
    card, places = read_card(Path(run)), [Path(path) for path in paths]
    place = make_runtime(device if engine == "torch" else "cpu").device
    detector, images = open_detector(Path(run), engine, place), predicting.find_images(places)
    if maps_from is not None:
        if not isinstance(detector, DetectorModule):
            raise ValueError(f"--maps_from is for the engine torch, not for {engine}")
        shared = Path(os.path.commonpath([image.absolute().parent for image in images]))
        root = places[0] if len(places) == 1 and places[0].is_dir() else shared
        give_maps(detector, images, root, Path(maps_from))
    return predicting.predict(
        detector,
        images,
        point=point_of(card),
        map_top=card["map_top"],
        out=Path(out) if out is not None else Path(run) / "predictions",
        device=place,
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
    """Score a labelled data set (its test part, if it has one) with the final detector.

    Test images that the run has learned from, as weak labels, are left out.
    """
    card = read_card(Path(run))
    return evaluating.evaluate(
        load(run, device=device),
        _tested(Path(run), Path(data), normal),
        threshold=point_of(card).threshold,
        part_thresholds=card["part_thresholds"],
        review=point_of(card).review,
        out=Path(out) if out is not None else Path(run) / "evaluation",
        device=make_runtime(device).device,
        **options,
    )


def explain(  # noqa: PLR0913 - the options of a verb, by name
    run: PathLike,
    paths: Iterable[PathLike],
    out: PathLike | None = None,
    *,
    which: str = "predicted",
    also: Iterable[PathLike] = (),
    device: str = "auto",
    skip_bad: bool = False,
    overwrite: bool = False,
    **options: Any,
) -> list[explaining.Explained]:
    """Draw class activation maps of files, folders or globs into `out`, and, of detectors with
    pictures of their own, the feature maps before and after attention.

    `which` class the maps explain: predicted, true (by the folder or the run), a name or an index.
    The attention points of the runs in `also` become further columns of the feature view.
    `options` are those of `inference.cam_run.CamOptions` and `inference.cam_view.Look`.

    Raises:
        ValueError: an unknown option, layer, method or class; a method for a detector that has no
            classifier; earlier results in `out`.
    """
    asked = Asked(
        which,
        from_dict(CamOptions, {k: v for k, v in options.items() if k not in _fields(Look)}),
        from_dict(Look, {k: v for k, v in options.items() if k in _fields(Look)}),
    )
    card, others = read_card(Path(run)), [Path(other) for other in also]
    name, *names = explaining.run_names([Path(run), *others])
    for other in others:
        read_card(other)
    return explain_run(
        load(run, device=device),
        predicting.find_images(list(paths)),
        asked,
        run=Path(run),
        out=Path(out) if out is not None else Path(run) / "explanations",
        threshold=point_of(card).threshold,
        device=make_runtime(device).device,
        name=name,
        also={n: load(other, device=device) for n, other in zip(names, others, strict=True)},
        skip_bad=skip_bad,
        overwrite=overwrite,
    )


def measure_maps(  # noqa: PLR0913 - the options of a verb, by name
    run: PathLike,
    data: PathLike,
    out: PathLike | None = None,
    *,
    faithfulness: bool = True,
    masks: bool = False,
    images: int = NUM_IMAGES,
    which: str = "predicted",
    normal: str | None = None,
    device: str = "auto",
    skip_bad: bool = False,
    overwrite: bool = False,
    **options: Any,
) -> str:
    """Judge the class activation maps of a run on a data set (its test part, if it has one), and
    return the tables as text.

    `faithfulness` of up to so many `images`, and, with `masks`, whether maps point at the defects.
    `options` are those of `inference.cam_run.CamOptions`.

    Raises:
        ValueError: as `explain`, or no masks where they are asked for.
    """
    card = read_card(Path(run))
    explainer = Explainer(
        load(run, device=device),
        from_dict(CamOptions, options),
        which=which,
        threshold=point_of(card).threshold,
        device=make_runtime(device).device,
    )
    return measure_run(
        explainer,
        _tested(Path(run), Path(data), normal),
        Measures(faithfulness, masks, images),
        run=Path(run),
        out=Path(out) if out is not None else Path(run) / "explanations",
        skip_bad=skip_bad,
        overwrite=overwrite,
    )


def list_layers(run: PathLike, *, device: str = "auto") -> list[Layer]:
    """The layers of a run that `explain` takes, with their shapes and strides."""
    read_card(Path(run))
    detector = load(run, device=device)
    return cam_layers.list_layers(detector.network, Explainer(detector, CamOptions()).inputs)


def report(run: PathLike, *, baseline: PathLike | None = None) -> Path:
    """Write report.html into the run folder, compared with another run if one is given."""
    return page.write_report(Path(run), baseline=None if baseline is None else Path(baseline))


def demo_gif(run: PathLike, file: PathLike | None = None) -> Path:
    """Draw twelve test images of a run as an animation, `RUN/demo/DATA.gif` if no file is given.

    Raises ValueError for a run that was tested on nothing, draws no maps or knows no normal class.
    """
    return write_gif(Path(run), None if file is None else Path(file))


def report_tables(runs: Iterable[PathLike], out: PathLike) -> Path:
    """Write tables of runs on many data sets into `out`, rows by method, preset and backbone,
    columns by data set, published figures below; returns the Markdown file. See
    `leanet.report.category_tables`.

    Raises:
        ValueError: no finished runs, or two of the same options, data and seed.
    """
    return write_category_tables([Path(run) for run in runs], Path(out), describe_options)


def compare(runs: Iterable[PathLike], out: PathLike | None = None) -> Comparison:
    """Compare runs on the same images, the first one's method with every other; writes
    compare.html, comparison.csv and comparison.json to `out` (default: into the first run).

    Runs that differ in nothing but `draw` or `seed` are repeats of one method.

    Raises:
        ValueError: fewer than two methods, runs on other images or classes, or without a repeat
            in common with the first method.
    """
    folders = [Path(run) for run in runs]
    if not folders:
        raise ValueError("which runs? give the folders of two or more")
    return write_comparison(folders, Path(out) if out is not None else folders[0] / "comparison")


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
            write_benchmark_report(folder, tell)
        raise
    return write_benchmark_report(folder, tell)


def _tested(run: Path, data: Path, normal: str | None) -> list[Sample]:
    """What of a data set tests a run: the test part, if there is one, less what it learned from."""
    several = bool(read_card(run).get("classes"))
    samples = scanning.scan(data, normal=normal, normal_required=not several).samples
    kept = unlearned(run, data, samples)
    if len(kept) < len(samples):
        left = len(samples) - len(kept)
        say_once(f"left out {left} test images: the run has learned from them or their groups")
    return [sample for sample in kept if sample.split == "test"] or kept


def default_run(method: str, data: Path) -> Path:
    """Where a run goes if nothing else is said: runs/DATA-METHOD."""
    return Path("runs") / f"{data.resolve().stem}-{method}"


def _checked(samples: Sequence[Sample]) -> checks.Findings:
    with Progress("reading images", total=len(samples)) as bar:
        return checks.check(
            samples,
            threads=READER_THREADS,
            on_progress=lambda done, total: bar.advance(steps=done - bar.done),
        )


def _fields(config: type[Any]) -> set[str]:
    return set(config.__dataclass_fields__)
