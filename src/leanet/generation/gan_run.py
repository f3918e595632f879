"""Train generators: one for every fold and a final one, each on the training part alone.

What a generator has seen it passes on, so a part trains only on what a classifier of the same
split, folds and seed trains on: without the test images, and without those that the classifier
holds out for validation. Writes the run folder: `config.yaml`, `environment.json`, `samples.csv`,
`folds.csv`, `card.json`, and for every part a folder with `weights.safetensors`, `journal.jsonl`,
`metrics.json`, `generator.json` (which images it has learned from) and `sheet.png`.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from leanet.config import nearest, option
from leanet.data.class_list import Classes, class_of
from leanet.data.folds import hold_out, write_folds_csv
from leanet.data.generated import GENERATOR_JSON, refuse_generated, sha256_of
from leanet.data.images import write_image
from leanet.data.scan import natural_key, relative_name, scan, write_samples_csv
from leanet.files import write_json
from leanet.generation.draw import draw_images
from leanet.generation.sheets import contact_sheet
from leanet.methods.gan import Config, Trained, save_generator, train
from leanet.methods.gan_monitor import Pool
from leanet.methods.recipe import Material
from leanet.networks.gan import grids
from leanet.prepare import Found, Options, Tell, decode_samples, find_samples, folds_of
from leanet.records import NORMAL, Fold, Sample
from leanet.run_folder import open_run
from leanet.runtime import Runtime, environment, make_runtime
from leanet.training.checkpoint import WEIGHTS
from leanet.training.loop import forget

METRICS = "metrics.json"  # the last file of a part: it is finished where this one is
SHEET_PER_CLASS = 16


@dataclass(frozen=True, kw_only=True)
class GanOptions:
    """Options of `leanet fit gan` that do not concern the networks."""

    folds: int = option(0, "a generator for each of so many folds, and a final one; 0 = final only")
    img_size: int = option(64, "side of the images in pixels: 32, 64, 128 or 256")
    seed: int = option(0, "as for the classifier: draws the same folds and validation images")
    test_fraction: float | None = option(
        None, "share of the images to keep out as a test where the data set names none"
    )
    normal: str | None = option(None, "name of the normal class in a folder-per-class layout")
    skip_bad: bool = option(False, "leave out unreadable images instead of stopping")
    device: str = option("auto", "auto, cpu or cuda")
    precision: str = option("auto", "auto, 32-true, bf16-mixed or 16-mixed")


class _Bench(NamedTuple):
    """What stays the same over the parts of a run."""

    options: GanOptions
    config: Config
    material: Material
    runtime: Runtime
    tell: Tell


def fit_gan(
    data: Path,
    out: Path,
    options: GanOptions,
    config: Config,
    *,
    earlier: str = "refuse",
    tell: Tell = print,
) -> Path:
    """Train the generators of `data` into the run folder `out` and return it.

    `earlier` says what becomes of an earlier run in `out`: "refuse", "resume" (with the same
    options) or "overwrite".

    Raises:
        ValueError: a data set that names no test images without folds, an unknown class, anything
            wrong with the data, the options or an earlier run; a training that failed.
    """
    grids(options.img_size)  # refuses sides that do not work before any work is done
    runtime = make_runtime(options.device, options.precision, options.seed)
    found, prepared = find_split(data, options)
    open_run(out, "gan", data, (options, config), earlier)
    material = decode_samples(found, prepared, out, runtime, tell)
    folds = folds_of(material.samples, prepared)
    refuse_generated(material.samples)
    write_json(out / "environment.json", environment(runtime))
    write_samples_csv(out / "samples.csv", found.root, material.samples)
    write_folds_csv(out / "folds.csv", found.root, material.samples, folds)
    bench = _Bench(options, config, material, runtime, tell)
    for fold in folds:
        _run_part(bench, fold, out / fold.name)
    card = {"method": "gan", "img_size": options.img_size, "parts": [fold.name for fold in folds]}
    write_json(out / "card.json", card)
    shutil.rmtree(out / "cache", ignore_errors=True)
    return out


def find_split(data: Path, options: GanOptions) -> tuple[Found, Options]:
    """The samples of a data set that has a test part or is to be cross-validated.

    Raises:
        ValueError: neither.
    """
    labels = {s.label for s in scan(data, normal=options.normal, normal_required=False).samples}
    prepared = Options(
        folds=options.folds,
        inner_splits=0,
        img_size=options.img_size,
        seed=options.seed,
        normal=options.normal,
        test_fraction=options.test_fraction or 0,
        skip_bad=options.skip_bad,
    )
    classes: Classes = "two" if NORMAL in labels else "kinds"
    found = find_samples(data, prepared, needs_anomalous=False, classes=classes)
    if options.folds < 2 and not any(sample.split == "test" for sample in found.samples):
        raise ValueError(
            f"{data} names no test images, and a generator that has seen all images leaves none "
            "to test with.\nGive --folds 5 or --test_fraction 0.2, with the same --seed as for the "
            "classifier, or a data set with train/ and test/."
        )
    return found, prepared


def pool_of(config: Config, fold: Fold, samples: Sequence[Sample], seed: int) -> Pool:
    """What a fold's generator learns from and what is held out, class by class.

    Raises:
        ValueError: `config.only` names a class that the training part has not.
    """
    rest: tuple[int, ...] = tuple(fold.train)
    held: tuple[int, ...] = ()
    if config.val_fraction:
        rest, held = hold_out(fold.train, samples, config.val_fraction, seed=seed)
    names = {class_of(samples[index]) for index in fold.train}
    for name in config.only:
        if name not in names:
            raise ValueError(
                f"--only {name}: no training image is of this class{nearest(name, names)}; there "
                f"are {', '.join(sorted(names))}"
            )
    classes = sorted(config.only or names, key=lambda name: natural_key(Path(name)))
    return Pool(
        classes=tuple(classes),
        train=_by_class(classes, rest, samples),
        held=_by_class(classes, held, samples),
    )


def _by_class(
    classes: Sequence[str], indices: Sequence[int], samples: Sequence[Sample]
) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(i for i in indices if class_of(samples[i]) == name) for name in classes)


def _run_part(bench: _Bench, fold: Fold, folder: Path) -> None:
    """Train the generator of one fold, unless an earlier run has finished it."""
    if (folder / METRICS).exists():
        forget(folder)
        bench.tell(f"{fold.name}: finished before")
        return
    config, material, runtime = bench.config, bench.material, bench.runtime
    started, name = time.monotonic(), f"{fold.name} gan"
    pool = pool_of(config, fold, material.samples, bench.options.seed)
    bench.tell(f"{fold.name}: {_counted(pool)}")
    trained = train(config, pool, material.images, folder, runtime, name)
    save_generator(folder / WEIGHTS, config, pool.classes, trained.generator)
    write_json(folder / GENERATOR_JSON, _provenance(bench, fold, pool, folder))
    drawn = draw_images(trained.generator, pool.classes, SHEET_PER_CLASS, bench.options.seed)
    write_image(folder / "sheet.png", contact_sheet(torch.cat(list(drawn.values())), 16))
    outcome = {
        "fold": fold.name,
        "steps": trained.records[-1]["step"],
        "stopped": trained.stopped,
        "last": trained.records[-1],
        "kid_pixels_null": trained.null._asdict() if trained.null else None,
        "seconds": round(time.monotonic() - started, 1),
    }
    write_json(folder / METRICS, outcome)
    forget(folder)
    bench.tell(_line(fold, trained, outcome))


def _provenance(bench: _Bench, fold: Fold, pool: Pool, folder: Path) -> dict[str, Any]:
    """What `generator.json` says."""
    material = bench.material

    def digests(indices: tuple[tuple[int, ...], ...]) -> dict[str, str]:
        paths = [material.samples[i].path for own in indices for i in own]
        return {relative_name(path, material.root): sha256_of(path) for path in paths}

    return {
        "method": "gan",
        "part": fold.name,
        "classes": pool.classes,
        "img_size": bench.options.img_size,
        "flip": bench.config.flip,
        "weights_sha256": sha256_of(folder / WEIGHTS),
        "root": str(material.root),
        "trained_on": digests(pool.train),
        "held_out": digests(pool.held),
    }


def _counted(pool: Pool) -> str:
    parts = zip(pool.classes, pool.train, pool.held, strict=True)
    told = [f"{len(train)} {name} (and {len(held)} held out)" for name, train, held in parts]
    return f"learns from {', '.join(told)}"


def _line(fold: Fold, trained: Trained, outcome: dict[str, Any]) -> str:
    last, null = trained.records[-1], outcome["kid_pixels_null"]
    text = (
        f"{fold.name}: {outcome['seconds']:.0f} s, KID on pixels {last['kid_pixels']:.4f}"
        + (f" (real against held-out real: {null['value']:.4f})" if null else "")
        + f", diversity {last['diversity']:.2f}"
    )
    return text + (f"; stopped early: {trained.stopped}" if trained.stopped else "")
