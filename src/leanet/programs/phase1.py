"""Phase 1: learn what is normal, draw a map of what is not, for every image of every fold.

For each fold a reconstructor learns from the normal images of the training part. It is then run on
all images of the fold, and the tree of `leanet.programs.trees` is written for phase 2. With
`--map_mode out_of_fold` a training image gets the map of a model that was trained without its inner
part; the original's way, in_sample, flatters the training normals, and the ratio of the 0.999
quantiles of test and training normals says by how much.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from leanet.config import to_dict
from leanet.data.cache import Cache, UnreadableImagesError, cache_images, images_in_unit_range
from leanet.data.folds import Indices, make_folds
from leanet.files import write_csv, write_json
from leanet.inference.judge import full_float32
from leanet.methods import map_models, reconstruction
from leanet.methods.detector_file import write_detector
from leanet.methods.recipe import INFERENCE_BATCH, DetectorModule, Material, Trained
from leanet.methods.reconstruction import FEWEST_FOR_HOLD_OUT, Reconstructor
from leanet.methods.tasks import MAP_UNITS, in_rgb, in_task_space, views
from leanet.ops.maps import PixelHistogram, scale_from
from leanet.programs import trees
from leanet.programs.flags import Phase1
from leanet.programs.folders import (
    MANIFEST,
    TRAINING,
    WORK,
    Earlier,
    claim,
    clean,
    fold_name,
    write_run,
)
from leanet.programs.machine import runtime_of, told
from leanet.programs.rules import Settled1, settle_phase1
from leanet.programs.samples import conversions, count_labels, find_samples, fingerprint
from leanet.programs.trees import ANOMAP, GT, INPUT, RECONST, TEST, TRAIN, MapFiles
from leanet.programs.words import chosen_folds
from leanet.progress import Progress
from leanet.records import ANOMALOUS, NORMAL, Fold, Sample
from leanet.runtime import Runtime, environment
from leanet.training import journal
from leanet.training.loop import JOURNAL

Tell = Callable[[str], None]

METHOD: Final = "reconstruction"
BASE: Final = 64  # the width of the paper's Table 9
HELD_OUT: Final = 0.1  # of the training normals
QUANTILES: Final = (0.5, 0.9, 0.99, 0.999, 1.0)
NAMES: Final = {NORMAL: "normal", ANOMALOUS: "anomalous"}


def phase1(flags: Phase1, *, earlier: Earlier = "refuse", tell: Tell = print) -> Path:
    """Run phase 1 and return its output root.

    `earlier` says what becomes of earlier work there.

    Raises:
        ValueError: anything wrong with the flags, the data set, or earlier work; before any
            training.
    """
    settled = settle_phase1(flags)
    runtime = runtime_of(flags)
    root, wanted = settled.save_path, chosen_folds(flags.fold, settled.num_folds)
    found = find_samples(settled.dataset, flags.groups)
    for line in (*settled.notices, *_about(found.samples, found.num_skipped)):
        tell(line)
    todo = claim(
        root,
        "phase1",
        to_dict(flags),
        wanted,
        num_folds=settled.num_folds,
        last_file=trees.MAPS,
        earlier=earlier,
    )
    for fold in sorted(set(wanted) - set(todo)):
        tell(f"{fold_name(fold)}: finished before")
    if not todo:
        return root
    tell(f"{settled.task} with {settled.model}, {told(runtime)}")
    write_run(root, "phase1", to_dict(flags), settled.notices, environment(runtime))
    data = _decode(settled, found.samples, runtime, tell)
    folds = _folds(settled, data.samples)
    prints = [fingerprint(sample.path) for sample in data.samples]
    rows = trees.manifest(data.samples, folds, settled.dataset, prints)
    trees.keep_manifest(root / MANIFEST, rows)
    job = _Job(settled, data, runtime, tell)
    for fold in todo:
        job.run(fold_name(fold), folds[fold - 1])
    clean(root, settled.num_folds, trees.MAPS)
    return root


def recipe(settled: Settled1) -> reconstruction.Config:
    """The options of the reconstructor."""
    flags = settled.flags
    return reconstruction.Config(
        task=settled.task,
        model=MODELS[settled.model],
        epochs=flags.epochs,
        batch_size=flags.batch_size,
        lr=settled.lr,
        patience=flags.patience,
        val_fraction=HELD_OUT if flags.monitor == "held_out" else 0.0,
        monitor="val" if flags.monitor == "held_out" else "train",
        base=BASE,
        loss=settled.loss,
        pca_sigma=flags.pca_sigma,
        pca_form=flags.pca_form,
        map_metric=settled.metric,
        map_quantile=flags.map_quantile,
        map_headroom=flags.map_headroom,
    )


MODELS: Final[dict[str, reconstruction.Model]] = {
    "AE": "ae",
    "SegNet": "segnet",
    "Unet": "unet",
    "UnetRes": "unetres",
}


class _Views(NamedTuple):
    """Raw maps [B, S, S], and the pictures [B, S, S, 3] beside them by the name of their kind."""

    maps: NDArray[np.float32]
    pictures: dict[str, NDArray[np.uint8]]


@dataclass(frozen=True)
class _Job:
    """What stays the same over the folds."""

    settled: Settled1
    data: Material
    runtime: Runtime
    tell: Tell

    def run(self, name: str, fold: Fold) -> None:
        """Train and draw one fold."""
        folder = self.settled.save_path / name
        trained = self._train(folder / TRAINING, name, fold)
        files = MapFiles(
            dtype=self.settled.flags.map_dtype, full_scale=trees.FULL_SCALE[self.settled.metric]
        )
        pixels = {(split, label): PixelHistogram() for split in SPLITS for label in NAMES}
        clipped = 0
        with Progress(f"{name} maps", total=len(fold.train) + len(fold.test)) as bar:
            for drawer, split, numbers, indices in self._pieces(fold, trained.detector):
                shown = draw(drawer, self.data.images, indices)
                trees.write_pictures(folder, split, numbers, shown.pictures)
                for number, index, plane in zip(numbers, indices, shown.maps, strict=True):
                    pixels[split, self.data.labels[index]].add(torch.from_numpy(plane))
                    clipped += files.write(folder / ANOMAP / split / trees.stem(number), plane)
                bar.advance(steps=len(indices))
        labels = self.data.labels
        trees.write_labels(
            folder / trees.LABELS, [labels[i] for i in fold.train], [labels[i] for i in fold.test]
        )
        facts = self._facts(fold, files, pixels, clipped, trained)
        write_detector(folder, METHOD, recipe(self.settled), trained.detector, file=trees.MODEL)
        write_csv(folder / trees.HISTORY, _history(folder / TRAINING / JOURNAL))
        shutil.rmtree(folder / TRAINING)
        write_json(folder / trees.MAPS, facts)
        self.tell(_line(name, facts))

    def _train(self, folder: Path, name: str, fold: Fold) -> Trained:
        normals = tuple(i for i in fold.train if self.data.labels[i] == NORMAL)
        if len(normals) < FEWEST_FOR_HOLD_OUT and self.settled.flags.monitor == "held_out":
            self.tell(
                f"notice: {name}: {len(normals)} training normals are fewer than "
                f"{FEWEST_FOR_HOLD_OUT}, so none is held out to stop on"
            )
        part = Fold(name=f"phase 1, {name}", train=normals, test=())
        trained = reconstruction.train(
            recipe(self.settled), part, self.data, folder, self.runtime, None
        )
        trained.detector.eval()
        return trained

    def _pieces(
        self, fold: Fold, model: DetectorModule
    ) -> Iterator[tuple[DetectorModule, str, list[int], Indices]]:
        """(who draws, split, numbers of the files, samples), a few images at a time."""
        config, numbers = recipe(self.settled), trees.positions(fold.train)
        for part in fold.parts or (fold.train,):
            drawer = model
            if fold.parts:
                rest = tuple(sorted(set(fold.train) - set(part)))
                drawer = map_models.map_model(config, rest, self.data, self.runtime)
            for chosen in _chunks(part):
                yield drawer, TRAIN, [numbers[i] for i in chosen], chosen
        numbers = trees.positions(fold.test)
        for chosen in _chunks(fold.test):
            yield model, TEST, [numbers[i] for i in chosen], chosen

    def _facts(
        self,
        fold: Fold,
        files: MapFiles,
        pixels: dict[tuple[str, int], PixelHistogram],
        clipped: int,
        trained: Trained,
    ) -> dict[str, Any]:
        """What `maps.json` tells."""
        flags, metric = self.settled.flags, self.settled.metric
        scale = scale_from(pixels[TRAIN, NORMAL], flags.map_quantile, flags.map_headroom)
        return {
            "metric": metric,
            "unit": MAP_UNITS[metric],
            "D": files.full_scale,
            "bits": files.bits,
            "s": scale.divisor,
            "q": flags.map_quantile,
            "h": scale.headroom,
            "map_mode": flags.map_mode,
            "inner_parts": len(fold.parts),
            "seed": flags.seed,
            "img_size": flags.img_size,
            "task": self.settled.task,
            "model": self.settled.model,
            "clipped_pixels": clipped,
            "epochs": trained.epochs,
            "normal_quantile_ratio": trees.ratio(pixels[TEST, NORMAL], pixels[TRAIN, NORMAL]),
            "quantiles": {
                f"{trees.SPLITS[split]}_{NAMES[label]}": {
                    f"{q:g}": trees.finite_or_none(one.quantile(q)) for q in QUANTILES
                }
                for (split, label), one in pixels.items()
            },
            "remarks": trained.remarks,
        }


SPLITS: Final = (TRAIN, TEST)


@torch.inference_mode()
def draw(model: DetectorModule, images: Cache, indices: Sequence[int]) -> _Views:
    """Maps and previews of some images. Input is the first view that the network gets."""
    assert isinstance(model, Reconstructor)
    raw = images.take(indices)
    image, task = images_in_unit_range(raw), model.question.task
    seen = in_task_space(task, image)
    with full_float32(image.device):
        anomaly_map = model(image).map
        restored = model.restore(seen)
    assert anomaly_map is not None
    shown = next(iter(views(model.question, seen))).seen
    if task == "colorization":
        shown = torch.cat([shown[:, :1], torch.zeros_like(shown[:, 1:])], dim=1)
    pictures = {
        GT: raw.permute(0, 2, 3, 1).cpu().numpy(),
        INPUT: _to_8_bit(in_rgb(task, shown)),
        RECONST: _to_8_bit(in_rgb(task, restored)),
    }
    return _Views(anomaly_map[:, 0].float().cpu().numpy(), pictures)


def _about(samples: Sequence[Sample], num_skipped: int) -> Iterator[str]:
    normal, anomalous = count_labels(samples)
    skipped = f"; {num_skipped} other files skipped" if num_skipped else ""
    yield f"{normal} normal (Negative) and {anomalous} anomalous (Positive) images{skipped}"
    if text := conversions(samples):
        yield text


def _decode(
    settled: Settled1, samples: tuple[Sample, ...], runtime: Runtime, tell: Tell
) -> Material:
    flags, run = settled.flags, settled.save_path / WORK

    def cache() -> Cache:
        paths = [sample.path for sample in samples]
        return cache_images(
            paths, flags.img_size, run / "cache", runtime.device, threads=flags.num_workers
        )

    try:
        images = cache()
    except UnreadableImagesError as error:
        if not flags.skip_bad:
            raise
        bad = {problem.path for problem in error.errors}
        tell(f"left out {len(bad)} unreadable image(s): {', '.join(map(str, sorted(bad)))}")
        samples = tuple(sample for sample in samples if sample.path not in bad)
        images = cache()
    return Material(samples=samples, images=images, img_size=flags.img_size, run=run)


def _folds(settled: Settled1, samples: Sequence[Sample]) -> tuple[Fold, ...]:
    flags = settled.flags
    inner = flags.inner_splits if flags.map_mode == "out_of_fold" else 0
    folds = make_folds(samples, settled.num_folds, seed=flags.seed, inner_splits=inner)
    if inner and not all(fold.parts for fold in folds):
        raise ValueError("too few normal images for out-of-fold maps; use --map_mode in_sample")
    return tuple(replace(fold, name=fold_name(k)) for k, fold in enumerate(folds, start=1))


def _history(path: Path) -> list[dict[str, Any]]:
    """The journal with the columns of the original: index, loss, and val_loss where measured."""
    return [
        {"": record["epoch"], "loss": record["train_loss"]}
        | ({"val_loss": record["val_loss"]} if "val_loss" in record else {})
        for record in journal.read(path)
    ]


def _line(name: str, facts: dict[str, Any]) -> str:
    shift = facts["normal_quantile_ratio"]
    told = "" if shift is None else f", 0.999 quantile of test to training normals {shift:.2f}"
    clipped = facts["clipped_pixels"]
    more = f", {clipped} pixels clipped at {facts['D']:g}" if clipped else ""
    text = f"{name}: best after {facts['epochs']} epochs, s = {facts['s']:.4g} {facts['unit']}"
    return f"{text} ({facts['map_mode']} maps{told}){more}"


def _chunks(indices: Indices) -> Iterator[Indices]:
    for start in range(0, len(indices), INFERENCE_BATCH):
        yield indices[start : start + INFERENCE_BATCH]


def _to_8_bit(rgb: Tensor) -> NDArray[np.uint8]:
    """RGB [B, 3, S, S] in [0, 1] -> uint8 [B, S, S, 3]."""
    codes = (rgb.float().clamp(0, 1) * 255).round().to(torch.uint8)
    return codes.permute(0, 2, 3, 1).cpu().numpy()
