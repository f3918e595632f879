"""An animation of a run: twelve test images with their maps and verdicts, for a first impression.

The images are those that were drawn by lot when the run was tested (`leanet.ops.half_and_half`),
half of them normal, the others spread over the kinds of defects; none is picked for its score. One
color scale serves all of them: its low end is the median of held-out normal pixels, its high end
the larger of twice the limit of the map and the 0.999 quantile of the maps shown.
"""

from __future__ import annotations

import io
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from leanet.files import replacing
from leanet.ops.half_and_half import half_and_half
from leanet.progress import say_once
from leanet.records import NORMAL
from leanet.report.demo_frames import Look, draw_frame, fixed_colors
from leanet.report.gallery import Shown, covered_map, has_masks, load_shown, map_unit
from leanet.report.run import Run, read_run

SECONDS: Final = 1.0  # a frame
MOST_BYTES: Final = 3_000_000
HIGH_QUANTILE: Final = 0.999
_SHADES: Final = ((256, True), (256, False), (128, False), (64, False))


def write_gif(run: Path, file: Path | None = None) -> Path:
    """Write the animation of a run folder to `file`, `RUN/demo/DATA.gif` if None, and return it.

    Raises:
        ValueError: no finished run, or one that was not tested, has no normal class or no maps.
    """
    read = read_run(run)
    frames = draw_frames(read)
    place = run / "demo" / f"{read.data_name}.gif" if file is None else file
    with replacing(place) as temporary:
        temporary.write_bytes(encode(frames))
    return place


def draw_frames(run: Run) -> list[Image.Image]:
    """The frames, in an order by lot that is always the same."""
    shown = _chosen(run)
    low, high = color_scale(run, shown)
    told = [run.data_name, str(run.card["method"]), f"all maps on one scale ({map_unit(run)})"]
    if any(one.border for one in shown):
        told.append("grey edge: not covered by the map")
    look = Look(
        title=" \N{MIDDLE DOT} ".join(told),
        low=low,
        high=high,
        truth=has_masks(shown),
    )
    return [draw_frame(one, look, f"{k} / {len(shown)}") for k, one in enumerate(shown, start=1)]


def color_scale(run: Run, shown: Sequence[Shown]) -> tuple[float, float]:
    """The map values of the first and the last color.

    Where a run does not know the median of held-out normal pixels, that of the normal images of its
    gallery takes the place. Without a limit of its map, `map_top` of its card is the limit.
    Attention ends at 1.
    """
    lows = [part.map_low for part in run.tested_parts if not math.isnan(part.map_low)]
    limits = [p.map_thresholds["honest"] for p in run.tested_parts if "honest" in p.map_thresholds]
    pixels = np.concatenate([covered_map(one).ravel() for one in shown])
    low = statistics.median(lows) if lows else _normal_median(run, pixels)
    limit = statistics.median(limits) if limits else run.card.get("map_top") or 0.0
    high = max(2 * limit, float(np.quantile(pixels, HIGH_QUANTILE)))
    if run.card.get("map_unit") == "attention":
        high = min(high, 1.0)
    return low, high if high > low else low + 1.0


def encode(frames: Sequence[Image.Image]) -> bytes:
    """An endless GIF of these frames with one palette for all, with as many colors as keep it at
    `MOST_BYTES` or below, dithered if possible."""
    for colors, dither in _SHADES:
        palette = _palette(frames, colors)
        how = Image.Dither.FLOYDSTEINBERG if dither else Image.Dither.NONE
        drawn = [frame.quantize(palette=palette, dither=how) for frame in frames]
        file = io.BytesIO()
        drawn[0].save(
            file,
            "GIF",
            save_all=True,
            append_images=drawn[1:],
            duration=round(1000 * SECONDS),
            loop=0,
            palette=bytes(palette.getpalette() or ()),  # else every frame would have its own copy
            optimize=False,
        )
        if file.tell() <= MOST_BYTES:
            break
    return file.getvalue()


def _chosen(run: Run) -> list[Shown]:
    """The images to show, in their order.

    Raises:
        ValueError: there are none, for a reason that it says.
    """
    if run.classes and not run.tested:
        raise ValueError(
            f"{run.folder} tells {len(run.classes)} classes apart and none of them is the normal "
            "one, so it gives no verdict that an animation could show"
        )
    kept = load_shown(run)
    if not kept:
        raise ValueError(
            f"{run.folder} has kept no test images to show; give data with a test part, or train "
            "with --folds"
        )
    maps = [one for one in kept if "map" in one.arrays]
    if not maps:
        raise ValueError(
            f"the detector of {run.folder} ({run.card['method']}) draws no maps, and an animation "
            "shows maps; use a method that draws some, such as colorizer, patchcore or leanet"
        )
    drawn = [one for one in maps if one.drawn]
    if not drawn:
        say_once(
            f"notice: {run.folder} was made before images were drawn by lot; those of its gallery "
            "are shown, in which errors are more frequent than they are"
        )
    known = drawn or maps
    places = half_and_half([s.image.label for s in known], [s.image.kind for s in known])
    return [known[place] for place in places]


def _normal_median(run: Run, pixels: np.ndarray) -> float:
    normal = [covered_map(s).ravel() for s in load_shown(run) if s.image.label == NORMAL]
    return float(np.median(np.concatenate(normal) if normal else pixels))


def _palette(frames: Sequence[Image.Image], colors: int) -> Image.Image:
    """A palette image: the fixed colors as they are, the others from the frames."""
    width, height = frames[0].size
    sheet = Image.new("RGB", (width, height * len(frames)))
    for k, frame in enumerate(frames):
        sheet.paste(frame, (0, k * height))
    own = [value for color in fixed_colors() for value in color]
    found = sheet.quantize(colors - len(own) // 3, Image.Quantize.MEDIANCUT).getpalette() or []
    palette = Image.new("P", (1, 1))
    palette.putpalette((own + found)[: 3 * colors])
    return palette
