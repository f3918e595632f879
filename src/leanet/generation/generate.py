"""Draw images from the generators of a run, write them, and say how good they are.

Into `out`, or for a run with folds into `out/fold-0`, ..., `out/final`: PNGs in a folder per class,
`generated.csv` (file, class, seed, nearest training image, its distance, flags), `generator.json`
(what the generator has learned from), `quality.json`, a contact sheet per class (generated above,
training images below), and the closest pairs, generated on the left.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from leanet.config import option
from leanet.data.class_list import class_of
from leanet.data.generated import GENERATED_CSV, GENERATOR_JSON, sha256_of
from leanet.data.images import read_image, resize_image, write_image
from leanet.data.scan import read_samples_csv
from leanet.files import read_json, write_csv, write_json
from leanet.generation.draw import draw_images, image_seed
from leanet.generation.quality import Quality, Sets, measure
from leanet.generation.sheets import contact_sheet, pair_sheet
from leanet.generation.spaces import PIXELS, Space, backbone_space, run_space
from leanet.methods.gan import SNAPSHOT, load_generator
from leanet.methods.recipe import DetectorModule
from leanet.prepare import Tell
from leanet.runtime import Runtime, make_runtime
from leanet.training.checkpoint import WEIGHTS

QUALITY = "quality.json"
SHEET_COLUMNS, SHEET_ROWS, REAL_ROWS = 10, 5, 2
NUM_PAIRS, PAIR_COLUMNS = 24, 6


@dataclass(frozen=True, kw_only=True)
class GenerateOptions:
    """Options of `leanet generate` for a generator."""

    per_class: int = option(100, "images of every class")
    seed: int = option(0, "image i of a class depends on the seed, the class and i alone")
    step: int = option(0, "take the generator as it was after so many steps; 0 = at the end")
    drop_copies: bool = option(False, "leave out images that are copies of training images")
    features: str | None = option(None, "weights file of --backbone, in whose features to compare")
    backbone: str = option("timm/resnet18", "network of --features")
    features_run: str | None = option(
        None, "compare in the features of this run of `fit classifier`, and ask it for the class"
    )
    device: str = option("auto", "auto, cpu or cuda")

    def __post_init__(self) -> None:
        if self.per_class < 2:
            raise ValueError(f"per_class {self.per_class}: give at least 2 images of every class")
        if self.features and self.features_run:
            raise ValueError("give either --features FILE or --features_run RUN, not both")


def generate(
    run: Path,
    out: Path,
    options: GenerateOptions,
    *,
    overwrite: bool = False,
    tell: Tell = print,
) -> Path:
    """Draw from every generator of `run` and return `out`.

    Raises:
        ValueError: `run` is no run of `fit gan`, `out` is in use, anything wrong with the options.
    """
    card = run / "card.json"
    if not card.exists() or read_json(card)["method"] != "gan":
        raise ValueError(f"{run} is no finished run of `leanet fit gan`; give the folder of one")
    _clear(out, overwrite=overwrite)
    runtime = make_runtime(options.device, "32-true", options.seed)
    parts = read_json(card)["parts"]
    for part in parts:
        _generate_part(run, part, out if len(parts) == 1 else out / part, options, runtime, tell)
    return out


def _generate_part(
    run: Path, part: str, out: Path, options: GenerateOptions, runtime: Runtime, tell: Tell
) -> None:
    file = run / part / (SNAPSHOT.format(options.step) if options.step else WEIGHTS)
    if not file.exists():
        raise ValueError(
            f"{file} does not exist; snapshots are kept with `fit gan --snapshot_every`"
        )
    generator, classes = load_generator(file, runtime.device)
    provenance = read_json(run / part / GENERATOR_JSON)
    drawn = draw_images(generator, classes, options.per_class, options.seed)
    training = _read(run, provenance, "trained_on", classes, generator.side)
    held = _read(run, provenance, "held_out", classes, generator.side)
    space, classifier = _space(options, part, generator.side, runtime)
    sets = Sets(training, held, drawn, provenance["flip"])
    quality = measure(sets, space, runtime, classifier)
    rows = _rows(options, drawn, quality, list(provenance["trained_on"]), training)
    _write_images(out, rows, torch.cat(list(drawn.values())))
    _write_sheets(out, sets, quality)
    kept = [row for row in rows if row["file"]]
    write_json(out / GENERATOR_JSON, {**provenance, "weights_sha256": sha256_of(file)})
    dropped = len(rows) - len(kept)
    write_json(out / QUALITY, {**quality.measured, "dropped_copies": dropped})
    write_csv(out / GENERATED_CSV, kept)  # last: without it the folder does not count
    tell(_line(part, quality, len(kept), dropped))


def _read(
    run: Path, provenance: Mapping[str, Any], which: str, classes: Sequence[str], side: int
) -> dict[str, Tensor]:
    """uint8 images [N, 3, S, S] per class, in the order of the generator's list."""
    root = Path(provenance["root"])
    kind_of = {
        sample.path: class_of(sample) for sample in read_samples_csv(run / "samples.csv", root)
    }
    images: dict[str, list[Tensor]] = {name: [] for name in classes}
    for name in provenance[which]:
        pixels = resize_image(read_image(root / name), side).transpose(2, 0, 1)
        images[kind_of[root / name]].append(torch.from_numpy(np.ascontiguousarray(pixels)))
    empty = torch.zeros(0, 3, side, side, dtype=torch.uint8)
    return {name: torch.stack(own) if own else empty for name, own in images.items()}


def _space(
    options: GenerateOptions, part: str, side: int, runtime: Runtime
) -> tuple[Space, DetectorModule | None]:
    """The feature space that was asked for, and a classifier if it can judge the classes."""
    if options.features:
        weights = Path(options.features)
        return backbone_space(options.backbone, weights, side, runtime.device), None
    if options.features_run is None:
        return PIXELS, None
    space, classifier = run_space(Path(options.features_run), part, runtime.device)
    return space, classifier if getattr(classifier, "classes", ()) else None


def _rows(
    options: GenerateOptions,
    drawn: Mapping[str, Tensor],
    quality: Quality,
    names: Sequence[str],
    training: Mapping[str, Tensor],
) -> list[dict[str, Any]]:
    """One row per generated image; `file` is "" for a copy that is not to be written."""
    rows: list[dict[str, Any]] = []
    for kind, images in drawn.items():
        for index in range(len(images)):
            k = len(rows)
            copied = bool(quality.copies[k])
            dropped = copied and options.drop_copies
            rows.append(
                {
                    "file": "" if dropped else f"{kind}/{index:05d}.png",
                    "class": kind,
                    "seed": image_seed(options.seed, kind, index),
                    "nearest": names[int(quality.closest.row[k])],
                    "distance": f"{float(quality.closest.distance[k]):.6g}",
                    "flags": "copy" if copied else "",
                }
            )
    return rows


def _write_images(out: Path, rows: Sequence[Mapping[str, Any]], image: Tensor) -> None:
    for row, one in zip(rows, image, strict=True):
        if row["file"]:
            write_image(out / row["file"], one.permute(1, 2, 0).numpy())


def _write_sheets(out: Path, sets: Sets, quality: Quality) -> None:
    """A sheet per class, real images below a white line, and the closest pairs."""
    blank = torch.full((SHEET_COLUMNS, *next(iter(sets.generated.values())).shape[1:]), 255)
    for name, image in sets.generated.items():
        shown = image[: SHEET_COLUMNS * SHEET_ROWS]
        filler = blank[: -len(shown) % SHEET_COLUMNS].byte()
        real = sets.training[name][: SHEET_COLUMNS * REAL_ROWS]
        page = contact_sheet(torch.cat([shown, filler, blank.byte(), real]), SHEET_COLUMNS)
        write_image(out / f"sheet-{name}.png", page)
    everything = torch.cat(list(sets.generated.values()))
    bank = torch.cat(list(sets.training.values()))
    chosen = quality.closest.distance.argsort()[:NUM_PAIRS]
    pairs = pair_sheet(everything[chosen], bank[quality.closest.row[chosen]], PAIR_COLUMNS)
    write_image(out / "closest.png", pairs)


def _line(part: str, quality: Quality, kept: int, dropped: int) -> str:
    measured = quality.measured
    pooled, space = measured["kid"]["pooled"], measured["space"]["name"]
    memory = measured["memorization"][space]
    null = "" if pooled["null"] is None else f" (real against held-out real: {pooled['null']:.4f})"
    text = (
        f"{part}: {kept} images"
        + (f", {dropped} copies left out" if dropped else "")
        + f"; in {space}: KID {pooled['value']:.4f}{null}, diversity "
        f"{min(measured['diversity'].values()):.2f}, P(d_g < d_v) {memory['closer']:.2f}, "
        f"{memory['copies']:.1%} copies"
    )
    return "\n".join([text, *(f"warning: {warning}" for warning in measured["warnings"])])


def _clear(out: Path, *, overwrite: bool) -> None:
    """An empty place for the images; only a folder of generated images is ever replaced."""
    if not out.exists() or not any(out.iterdir()):
        return
    ours = (out / GENERATED_CSV).exists() or any(out.glob(f"*/{GENERATED_CSV}"))
    if not ours or not overwrite:
        hint = "use --overwrite to replace them, or another --out" if ours else "give another --out"
        what = "generated images" if ours else "other files"
        raise ValueError(f"{out} holds {what}; {hint}")
    shutil.rmtree(out)
