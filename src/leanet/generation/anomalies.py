"""Write synthetic anomalies as a data set: pictures, masks, and what each of them is.

A folder in the layout of MVTec AD: `test/<kind>/` with masks in `ground_truth/<kind>/`, and
`test/good/` with a harmless counterpart of every anomaly: the same picture under changed light of
the same strength for a discoloration, an untouched copy for the others. Discolorations have a
kind for each severity ("color-5"). `anomalies.csv` tells file, mask, source, kind, severity
(target, achieved, 5th and 95th percentile over the core), direction, `gamut_limited`, the area of
the mask and the seed; `sheet.png` shows some. Everything is PNG, because JPEG alone moves colors by
one or two dE00.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from leanet.config import option
from leanet.data.cache import images_in_unit_range
from leanet.data.images import read_image, resize_image, write_image
from leanet.data.scan import relative_name, scan
from leanet.data.synthetic import make, other_textures, parse_kinds, read_textures
from leanet.files import write_csv
from leanet.generation.sheets import contact_sheet
from leanet.ops.color import rgb_principal_components
from leanet.ops.color_shift import DIRECTIONS
from leanet.ops.nuisance import Axes, nuisance
from leanet.ops.synthetic import Synthetic
from leanet.prepare import Tell
from leanet.progress import Progress
from leanet.records import NORMAL, Sample
from leanet.runtime import derived_seed

ANOMALIES_CSV, SHEET = "anomalies.csv", "sheet.png"
GOOD = "good"
SHEET_COLUMNS, SHEET_SIDE = 8, 128
IMAGES_FOR_AXES, AXES_SIDE = 64, 64
CODEC = 3.0  # dE00; below it JPEG sources differ from themselves as much
JPEG = (".jpg", ".jpeg")


@dataclass(frozen=True, kw_only=True)
class AnomalyOptions:
    """Options of `leanet generate --anomalies`."""

    anomalies: str = option("color", "kinds, with commas: color, cutpaste, perlin")
    per_image: int = option(1, "anomalies of each kind for every normal image")
    severity: str = option("2,5,12", "severities of color in dE00, with commas, taken in turn")
    img_size: int | None = option(None, "side in pixels to resize to; default: as the images are")
    textures: str | None = option(None, "folder of images as textures for perlin")
    normal: str | None = option(None, "name of the normal class in a folder-per-class layout")
    seed: int = option(0, "an image depends on the seed, its source, the kind and its number alone")


class _Written(NamedTuple):
    """A row of anomalies.csv and what the sheet shows: source, anomaly, mask uint8 [3, s, s]."""

    row: dict[str, Any]
    shown: Tensor


def generate_anomalies(
    data: Path,
    out: Path,
    options: AnomalyOptions,
    *,
    overwrite: bool = False,
    tell: Tell = print,
) -> Path:
    """Spoil the normal training images of `data` into the folder `out` and return it.

    Raises:
        ValueError: options that do not work, no normal training images, or `out` in use.
    """
    kinds, severities = _checked(options)
    found = scan(data, normal=options.normal)
    sources = [s for s in found.samples if s.label == NORMAL and s.split != "test"]
    if not sources:
        raise ValueError(f"{data} has no normal training images to make anomalies from")
    _clear(out, overwrite=overwrite)
    _warn_of_jpeg(sources, kinds, severities, tell)
    axes = _axes(sources) if "color" in kinds else None
    written: list[_Written] = []
    with Progress("anomalies", total=len(sources)) as bar:
        for number, sample in enumerate(sources):
            others = [sources[(number + k) % len(sources)] for k in (1, 2)]
            for one in _of_image(sample, others, found.root, options, axes):
                written.append(_write(out, len(written), one))
            bar.advance()
    write_image(out / SHEET, _sheet(written))
    write_csv(out / ANOMALIES_CSV, [one.row for one in written])  # last: the folder is complete
    limited = sum(one.row["gamut_limited"] == 1 for one in written)
    tell(
        f"{len(written)} anomalies from {len(sources)} normal images"
        + (f"; {limited} missed their severity (gamut_limited)" if limited else "")
    )
    return out


def parse_severities(text: str) -> tuple[float, ...]:
    """Positive numbers from a list with commas.

    Raises ValueError for anything else.

    >>> parse_severities("2, 5,12")
    (2.0, 5.0, 12.0)
    """
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or min(values) <= 0 or len(set(values)) < len(values):
        raise ValueError(f"severity {text!r}: give different numbers above 0, such as 2,5,12")
    return values


class _Spoiled(NamedTuple):
    """An anomaly before it is written: the image it was made from, its counterpart, its facts."""

    source: Tensor
    made: Synthetic
    counterpart: Tensor
    facts: dict[str, Any]


def _of_image(
    sample: Sample,
    others: Sequence[Sample],
    root: Path,
    options: AnomalyOptions,
    axes: Axes | None,
) -> Iterator[_Spoiled]:
    """All anomalies of one normal image."""
    kinds, severities = _checked(options)
    name = relative_name(sample.path, root)
    image = _read(sample, options.img_size)
    for kind in kinds:
        for number in range(options.per_image):
            seed = derived_seed(options.seed, name, kind, number)
            generator = torch.Generator().manual_seed(seed)
            turn = derived_seed(options.seed, name) + number
            wanted = severities[turn % len(severities)]
            textures = _textures(image, others, options, generator) if kind == "perlin" else None
            made = make(kind, image, generator, severities=[wanted], textures=textures)
            counterpart = image
            if axes is not None and kind == "color":
                strength = [float(made.severity[0])]
                lit = nuisance(image, generator, severities=strength, axes=axes)
                counterpart = lit.image
            label = f"{kind}-{wanted:g}" if kind == "color" else kind
            yield _Spoiled(image, made, counterpart, {"kind": label, "source": name, "seed": seed})


def _write(out: Path, number: int, one: _Spoiled) -> _Written:
    """Write an anomaly, its mask and its counterpart."""
    kind, stem = one.facts["kind"], f"{number:05d}"
    file, mask = f"test/{kind}/{stem}.png", f"ground_truth/{kind}/{stem}_mask.png"
    changed = (one.made.mask[0] > 0).to(torch.uint8) * 255
    write_image(out / file, _pixels(one.made.image[0]))
    write_image(out / mask, changed[0].numpy())
    write_image(out / "test" / GOOD / f"{stem}.png", _pixels(one.counterpart[0]))
    told = {name: float(values[0]) for name, values in one.made.told.items()}
    severity = float(one.made.severity[0])
    row = {
        "file": file,
        "mask": mask,
        "source": one.facts["source"],
        "kind": kind,
        "target": told.get("target", ""),
        "achieved": round(severity, 3),
        "low": round(told["low"], 3) if told else "",
        "high": round(told["high"], 3) if told else "",
        "direction": _direction(told),
        "gamut_limited": int(told["gamut_limited"]) if told else "",
        "area": round(float((changed > 0).float().mean()), 5),
        "seed": one.facts["seed"],
    }
    return _Written(row, _shown(one.source[0], one.made.image[0], changed))


def _direction(told: dict[str, float]) -> str:
    """In words, with + or - where it has a sense."""
    if not told:
        return ""
    name = DIRECTIONS[int(told["direction"])]
    return name if name == "random" else name + ("+" if told["sign"] > 0 else "-")


def _shown(source: Tensor, image: Tensor, mask: Tensor) -> Tensor:
    """Three small pictures uint8 [3, 3, s, s]."""
    gray = np.repeat(mask.numpy().transpose(1, 2, 0), 3, axis=2)
    small = [resize_image(one, SHEET_SIDE) for one in (_pixels(source), _pixels(image), gray)]
    return torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2)


def _sheet(written: Sequence[_Written]) -> np.ndarray[Any, Any]:
    """For every kind a row of sources, of anomalies, and of masks."""
    blank = torch.full((3, 3, SHEET_SIDE, SHEET_SIDE), 255, dtype=torch.uint8)
    rows = []
    for kind in dict.fromkeys(one.row["kind"] for one in written):
        shown = [one.shown for one in written if one.row["kind"] == kind]
        step = max(1, len(shown) // SHEET_COLUMNS)  # from the whole set
        chosen = shown[::step][:SHEET_COLUMNS]
        chosen += [blank] * (SHEET_COLUMNS - len(chosen))
        rows.append(torch.stack(chosen, dim=1).flatten(0, 1))
    return contact_sheet(torch.cat(rows), SHEET_COLUMNS)


def _textures(
    image: Tensor, others: Sequence[Sample], options: AnomalyOptions, generator: torch.Generator
) -> Tensor:
    """From the user's folder, or of other normal images and noise; of the size of the image."""
    height, width = image.shape[-2:]
    side = max(height, width)
    if options.textures is not None:
        textures = read_textures(Path(options.textures), side)
    else:
        small = torch.cat([_read(other, side) for other in others])
        textures = other_textures(small, generator)
    return textures[..., :height, :width]


def _read(sample: Sample, size: int | None) -> Tensor:
    """An image [1, 3, H, W] in [0, 1]."""
    pixels = read_image(sample.path)
    pixels = pixels if size is None else resize_image(pixels, size)
    return images_in_unit_range(torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0))


def _axes(sources: Sequence[Sample]) -> Axes:
    step = -(-len(sources) // IMAGES_FOR_AXES)
    return rgb_principal_components(_read(sample, AXES_SIDE) for sample in sources[::step])


def _pixels(image: Tensor) -> np.ndarray[Any, Any]:
    """[3, H, W] in [0, 1] -> uint8 [H, W, 3]."""
    pixels: np.ndarray[Any, Any] = (image * 255).round().byte().permute(1, 2, 0).numpy()
    return pixels


def _checked(options: AnomalyOptions) -> tuple[tuple[str, ...], tuple[float, ...]]:
    kinds = parse_kinds(options.anomalies)
    if not kinds or options.per_image < 1:
        raise ValueError(
            f"anomalies {options.anomalies!r}, per_image {options.per_image}: name kinds such as "
            "color,perlin, and give at least 1 per image"
        )
    if options.textures is not None and "perlin" not in kinds:
        raise ValueError("--textures are for --anomalies perlin, which is not asked for")
    return kinds, parse_severities(options.severity)


def _warn_of_jpeg(
    sources: Sequence[Sample], kinds: Sequence[str], severities: Sequence[float], tell: Tell
) -> None:
    jpegs = sum(sample.path.suffix.lower() in JPEG for sample in sources)
    if jpegs and "color" in kinds and min(severities) < CODEC:
        tell(
            f"{jpegs} of {len(sources)} normal images are JPEG, which moves colors by 1 to 2 dE00 "
            f"itself: severities below {CODEC:g} cannot be told from the codec"
        )


def _clear(out: Path, *, overwrite: bool) -> None:
    """An empty place; only a folder of anomalies is ever replaced."""
    if not out.exists() or not any(out.iterdir()):
        return
    if not (out / ANOMALIES_CSV).exists():
        raise ValueError(f"{out} holds other files; give another --out")
    if not overwrite:
        raise ValueError(f"{out} holds anomalies; use --overwrite to replace them")
    shutil.rmtree(out)
