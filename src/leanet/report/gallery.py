"""Which test images a page shows, and the pictures that explain their scores.

`gallery.safetensors` of a fold holds raw arrays for some of its test images. Here the most telling
ones are chosen: errors first, then the ends of the ranking and what lies next to the threshold. All
maps of a page share one color scale, with the outline of the mask where there is one; attention is
drawn on 0..1 or, where it may be higher, on one scale too, as is the evidence of the places; the
features before and after an attention point share the scale of both.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from leanet.ops.colormap import colored
from leanet.ops.covered import GREY, Box, covered_box, greyed, inside
from leanet.report import pictures
from leanet.report.pictures import ATTENTION_COLORS, FEATURE_COLORS, MAP_COLORS, SIGNED_COLORS
from leanet.report.run import Part, Run, Trial

MOST_CARDS = 24
MOST_ERRORS = 18  # of these
MOST_KINDS = 12  # in the map view
MAP_PICTURES = ("image", "repainted", "reconstruction", "map")
EXAMPLES = (2, 1)  # anomalous and normal images in the attention view
EXAMPLE_PICTURES = ("image", "map", "overlay")
ATTENTION = "attention "  # arrays "attention A4", "before A4", "after A4"
EVIDENCE = "evidence"  # of guided attention, in log-odds
MOST_SHOWN = 0.998  # quantile that ends a scale whose values have no natural end
GRIDS = {  # attention that a map is made of, at its own grid
    "attention": "attention",
    "attention_normal": "attention: normal",
    "attention_anomalous": "attention: anomalous",
}
FINE_SCALE = 10.0  # maps whose scale ends below this have three decimals

Arrays = dict[str, NDArray[Any]]


class Scales(NamedTuple):
    """Where the scales of a page end: of M, and of the evidence on both sides of 0."""

    attention: float = 1.0
    evidence: float = 0.0


class Shown(NamedTuple):
    """A test image with its arrays: image uint8 [3, H, W], and what else the detector gave. Its map
    says nothing in the outer `border` px; `drawn` if it was taken by lot, not for its score."""

    image: Trial
    arrays: Arrays
    border: int = 0
    drawn: bool = False


class Picture(NamedTuple):
    """One picture of a card, and a line below it."""

    name: str
    uri: str
    note: str = ""
    exact: bool = False  # one array element per pixel, to be enlarged without smoothing


class Card(NamedTuple):
    """A test image in the gallery."""

    image: Trial
    pictures: list[Picture]


@dataclass(frozen=True, kw_only=True)
class PointView:
    """An attention point of one image: features before, M, features after; w is NaN where it is
    not known or there is none."""

    name: str
    strength: float
    before: str
    attention: str
    after: str
    low: float  # ends of the scale of before and after
    high: float
    attention_low: float
    attention_high: float


class Example(NamedTuple):
    """An image in the attention view."""

    image: Trial
    pictures: list[Picture]
    points: list[PointView]


def load_shown(run: Run) -> list[Shown]:
    """All images that the run kept arrays of."""
    return list(chain.from_iterable(_load(part) for part in run.tested_parts))


def choose(shown: Sequence[Shown]) -> list[Shown]:
    """At most `MOST_CARDS` of the images, by falling score: errors, clearest ones first, then by
    turns the highest, the lowest and the closest to the threshold."""
    errors = sorted((s for s in shown if s.image.wrong), key=lambda s: -abs(s.image.margin))
    right = [s for s in shown if not s.image.wrong]
    rising = sorted(right, key=lambda s: s.image.margin)
    close = sorted(right, key=lambda s: abs(s.image.margin))
    turns = chain.from_iterable(zip_longest(rising[::-1], rising, close))
    ranked = [*errors[:MOST_ERRORS], *(s for s in turns if s), *errors[MOST_ERRORS:]]
    first = list({id(s): s for s in ranked}.values())[:MOST_CARDS]
    return sorted(first, key=lambda s: -s.image.scores["score"])


def map_unit(run: Run) -> str:
    """What the values of the maps are, in words."""
    unit = run.card.get("map_unit") or "dE00"
    if run.card["method"] != "cavga":
        return str(unit).replace("dE00", "ΔE₀₀")
    weak = str(run.config.get("variant", "")).endswith("_w")
    if weak and run.config.get("weak_map") == "ca":
        return "attention to anomalous"
    return "missing attention to normal" if weak else "missing attention"


def map_top(run: Run, shown: Sequence[Shown]) -> float:
    """The map value that gets the last color: the run's own, else one that 99.8 % of the pixels
    of the kept maps do not reach, rounded up to two digits."""
    given = run.card.get("map_top")
    if given:
        return float(given)
    maps = [covered_map(s) for s in shown if "map" in s.arrays]
    return _top(maps) or 1.0


def scales(shown: Sequence[Shown]) -> Scales:
    """M on 0..1 unless it exceeds 1 anywhere; both scales end where `map_top` would end."""
    planes = [(name, plane) for s in shown for name, plane in s.arrays.items()]
    attention = [plane for name, plane in planes if name.startswith(ATTENTION)]
    evidence = [np.abs(plane) for name, plane in planes if name == EVIDENCE]
    return Scales(max(1.0, _top(attention)), _top(evidence))


def map_low(run: Run) -> float:
    """The map value that gets the first color: the median of held-out normal pixels where the run
    knows it, as of distances, which are never near 0; else 0."""
    known = [part.map_low for part in run.tested_parts if not math.isnan(part.map_low)]
    return statistics.median(known) if known else 0.0


def covered_map(shown: Shown) -> NDArray[np.float32]:
    """The map [h, w] of an image without its border."""
    plane: NDArray[np.float32] = shown.arrays["map"][0]
    return plane[covered_box(_size(plane), len(plane), shown.border)]


def map_digits(top: float) -> int:
    """Decimals of the values of a map whose color scale ends at `top`.

    >>> map_digits(30.0), map_digits(1.0), map_digits(0.02)
    (1, 3, 5)
    """
    return 1 if top >= FINE_SCALE else max(3, 3 - math.floor(math.log10(top)))


def has_grids(shown: Sequence[Shown]) -> bool:
    """Whether attention is shown at its own grid."""
    return any(name in GRIDS for s in shown for name in s.arrays)


def has_masks(shown: Sequence[Shown]) -> bool:
    """Whether the outline of a mask is drawn anywhere."""
    return any(s.arrays["mask"].any() for s in shown if "mask" in s.arrays)


def cards(
    shown: Sequence[Shown], top: float, low: float = 0.0, ends: Scales | None = None
) -> list[Card]:
    """The pictures of each image."""
    ends = ends or scales(shown)
    return [Card(s.image, [*_photos(s, top, low), *_attention(s, ends)]) for s in shown]


def typical(shown: Sequence[Shown], top: float, low: float = 0.0) -> list[Card]:
    """The map view: of each kind, the normal ones first, the image with the middle score among
    those kept, what the map model makes of it, and its map."""
    kinds: dict[tuple[int, str], list[Shown]] = {}
    for s in sorted(shown, key=lambda s: s.image.scores["score"]):
        if "map" in s.arrays:
            kinds.setdefault((s.image.label, s.image.kind), []).append(s)
    middle = [kinds[kind][len(kinds[kind]) // 2] for kind in sorted(kinds)[:MOST_KINDS]]
    return [
        Card(s.image, [p for p in _photos(s, top, low) if p.name in MAP_PICTURES]) for s in middle
    ]


def examples(
    run: Run, shown: Sequence[Shown], top: float, low: float = 0.0, ends: Scales | None = None
) -> list[Example]:
    """Some anomalous images and a normal one with every attention point, before and after.

    The anomalous ones have the highest scores, the normal one the middle score of its kind.
    """
    ends = ends or scales(shown)
    strengths = {part.name: part.remarks.get("gate", {}) for part in run.tested_parts}
    explained = [s for s in shown if any(name.startswith(ATTENTION) for name in s.arrays)]
    explained.sort(key=lambda s: -s.image.scores["score"])
    anomalous = [s for s in explained if s.image.label]
    normal = [s for s in explained if not s.image.label]
    middle = normal[len(normal) // 2 :]
    return [
        Example(
            s.image,
            [p for p in _photos(s, top, low) if p.name in EXAMPLE_PICTURES],
            _points(s, strengths[s.image.fold], ends),
        )
        for s in (*anomalous[: EXAMPLES[0]], *middle[: EXAMPLES[1]])
    ]


def _load(part: Part) -> list[Shown]:
    file = part.folder / "gallery.safetensors"
    if not file.exists():
        return []
    with safe_open(file, framework="np") as stored:
        names = json.loads(stored.metadata()["json"])
        arrays = {name: stored.get_tensor(name) for name in sorted(stored.keys())}
    by_path = {image.path: image for image in part.tested}
    return [
        Shown(
            by_path[path],
            {name: array[k] for name, array in arrays.items()},
            part.map_border,
            path in names.get("drawn", ()),
        )
        for k, path in enumerate(names["paths"])
    ]


def _photos(shown: Shown, top: float, low: float) -> list[Picture]:
    """Image, what else is a color picture (repainted), map, overlay."""
    image = pictures.to_rgb(shown.arrays["image"])
    found = [Picture("image", pictures.photo_uri(image))]
    for name, array in shown.arrays.items():
        if name != "image" and len(array) == 3:
            found.append(Picture(name, pictures.photo_uri(pictures.to_rgb(array))))
    if "map" in shown.arrays:
        above = np.maximum(shown.arrays["map"][0] - np.float32(low), 0)
        mixed = pictures.overlay(image, above, top - low)
        if shown.border:
            mixed = greyed(mixed, _covered(shown))
        found += [*_map(shown, top, low), Picture("overlay", _outlined_uri(mixed, shown))]
    return found


def _map(shown: Shown, top: float, low: float) -> list[Picture]:
    if "map" not in shown.arrays:
        return []
    plane = covered_map(shown)
    colored = pictures.colorize(shown.arrays["map"][0], low, top, MAP_COLORS)
    if shown.border:
        colored[~inside(_size(colored), _covered(shown))] = GREY
    note = f"mean {plane.mean():.{map_digits(top)}f}"
    return [Picture("map", _outlined_uri(colored, shown), note)]


def _covered(shown: Shown) -> Box:
    plane = shown.arrays["map"][0]
    return covered_box(_size(plane), len(plane), shown.border)


def _size(array: NDArray[Any]) -> tuple[int, int]:
    return array.shape[0], array.shape[1]


def _outlined_uri(picture: pictures.RGB, shown: Shown) -> str:
    """With the outline of the mask, if there is one."""
    if "mask" in shown.arrays:
        picture = pictures.outlined(picture, shown.arrays["mask"][0])
    return pictures.photo_uri(picture)


def _top(planes: Sequence[NDArray[Any]]) -> float:
    """A value that 99.8 % of all cells do not reach, rounded up to two digits; 0 for nothing."""
    values = np.concatenate([plane.ravel() for plane in planes]) if planes else np.zeros(1)
    top = float(np.quantile(values, MOST_SHOWN))
    if top <= 0:
        return 0.0
    step = 10.0 ** (math.floor(math.log10(top)) - 1)
    return math.ceil(top / step) * step


def _attention(shown: Shown, ends: Scales) -> list[Picture]:
    found = []
    for name, array in shown.arrays.items():
        note = f"{array.min():.3f} to {array.max():.3f}"
        if name.startswith(ATTENTION):
            uri = _exact(array[0], 0, ends.attention, ATTENTION_COLORS)
            found.append(Picture(name, uri, note, exact=True))
        elif name == EVIDENCE:
            share = 0.5 + array[0] / (2 * ends.evidence or 1.0)
            uri = pictures.exact_uri(colored(share, SIGNED_COLORS))
            found.append(Picture(name, uri, f"mean {array.mean():+.2f}", exact=True))
        elif name in GRIDS:
            image = pictures.to_rgb(shown.arrays["image"])
            laid = pictures.tinted(image, array[0], 0, 1, ATTENTION_COLORS)
            found.append(Picture(GRIDS[name], _outlined_uri(laid, shown), "over the image"))
            uri = _exact(array[0], 0, 1, ATTENTION_COLORS)
            cells = f"its {array.shape[1]} × {array.shape[2]} cells"
            found.append(Picture(cells, uri, note, exact=True))
    return found


def _points(shown: Shown, gate: dict[str, Any], ends: Scales) -> list[PointView]:
    views = []
    for key in shown.arrays:
        if not key.startswith(ATTENTION):
            continue
        name = key.removeprefix(ATTENTION)
        attention = shown.arrays[key][0]
        before, after = shown.arrays[f"before {name}"][0], shown.arrays[f"after {name}"][0]
        both = np.stack([before, after])
        low, high = float(both.min()), float(both.max())
        before_uri, after_uri = (_exact(plane, low, high, FEATURE_COLORS) for plane in both)
        views.append(
            PointView(
                name=name,
                strength=gate.get(name, {}).get("strength", math.nan),
                before=before_uri,
                attention=_exact(attention, 0, ends.attention, ATTENTION_COLORS),
                after=after_uri,
                low=low,
                high=high,
                attention_low=float(attention.min()),
                attention_high=float(attention.max()),
            )
        )
    return views


def _exact(plane: pictures.Plane, low: float, high: float, colors: str) -> str:
    return pictures.exact_uri(pictures.colorize(plane, low, high, colors))
