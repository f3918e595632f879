"""One frame of the animation of a run: a test image, its map, both together, the true defect.

A frame says what the detector said, in words as well as by the color of its edge, and whether that
was wrong. All maps share one color scale, written below them.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from leanet.ops.covered import GREY, covered_box, extended, greyed, inside
from leanet.records import ANOMALOUS
from leanet.report import pictures
from leanet.report.gallery import Shown
from leanet.report.tables import brief, quantity
from leanet.report.template import typeset

PANEL: Final = 256  # side of a picture
PAPER, INK, MUTED = (251, 252, 253), (27, 39, 51), (100, 116, 138)
NORMAL_COLOR, ALARM_COLOR = (13, 111, 128), (204, 90, 22)  # told apart by color-blind eyes too
_EDGE, _PAD, _GAP, _HEAD, _FOOT = 6, 18, 8, 58, 60  # px
_WRONG = {"escape": "MISSED DEFECT", "false alarm": "FALSE ALARM"}
_FONTS = Path(mpl.get_data_path()) / "fonts" / "ttf"
_BAR = (96, 10)  # of the color scale
_SHADES = 20  # of it that a palette has at least

RGB = NDArray[np.uint8]
Color = tuple[int, int, int]


def fixed_colors() -> list[Color]:
    """What a palette of any frames has to have: the colors of letters and edges, and the scale."""
    grey = (GREY, GREY, GREY)
    own = [PAPER, INK, MUTED, NORMAL_COLOR, ALARM_COLOR, (255, 255, 255), (0, 0, 0), grey]
    ramp = pictures.colorize(np.linspace(0, 1, _SHADES), 0, 1, pictures.MAP_COLORS).tolist()
    return [*own, *((red, green, blue) for red, green, blue in ramp)]


@dataclass(frozen=True, kw_only=True)
class Look:
    """What all frames of an animation have in common."""

    title: str
    low: float  # ends of the color scale
    high: float
    truth: bool  # a fourth picture with the true defect


def draw_frame(shown: Shown, look: Look, count: str) -> Image.Image:
    """The frame of one image; `count` says which of how many it is."""
    panels = _panels(shown, look)
    width = 2 * _PAD + len(panels) * (PANEL + _GAP) - _GAP
    frame = Image.new("RGB", (width, _HEAD + PANEL + _FOOT), PAPER)
    draw = ImageDraw.Draw(frame)
    for k, (name, panel) in enumerate(panels.items()):
        left = _PAD + k * (PANEL + _GAP)
        frame.paste(Image.fromarray(panel), (left, _HEAD))
        draw.text((left, _HEAD + PANEL + 6), name, INK, _font(14))
        if name == "map":
            _draw_scale(frame, draw, left + PANEL - 6, look)
    _draw_head(draw, shown, width)
    foot = frame.height - _EDGE - 7
    draw.text((_PAD, foot), look.title, MUTED, _font(13), anchor="ls")
    draw.text((width - _PAD, foot), count, MUTED, _font(13), anchor="rs")
    color = ALARM_COLOR if shown.image.alarm else NORMAL_COLOR
    draw.rectangle((0, 0, width - 1, frame.height - 1), outline=color, width=_EDGE)
    return frame


def _panels(shown: Shown, look: Look) -> dict[str, RGB]:
    """Name -> picture [P, P, 3]."""
    image = _enlarged(pictures.to_rgb(shown.arrays["image"]))
    raw = shown.arrays["map"][0]
    plane = np.asarray(_resized(Image.fromarray(extended(raw, shown.border).astype(np.float32))))
    box = covered_box((PANEL, PANEL), len(raw), shown.border)
    colored = pictures.colorize(plane, look.low, look.high, pictures.MAP_COLORS).copy()
    colored[~inside((PANEL, PANEL), box)] = GREY
    mixed = _overlay(image, np.clip((plane - look.low) / (look.high - look.low), 0, 1))
    mixed = greyed(mixed, box) if shown.border else mixed
    found = {"image": image, "map": colored, "overlay": mixed}
    if look.truth:
        mask = shown.arrays["mask"][0]
        if shown.image.label == ANOMALOUS and not mask.any():
            found["true defect: no mask"] = np.full((PANEL, PANEL, 3), GREY, np.uint8)
        else:
            name = "true defect" if mask.any() else "true defect: none"
            found[name] = np.repeat(_truth(mask)[..., None], 3, axis=2)
    return found


def _overlay(image: RGB, share: NDArray[np.floating[Any]]) -> RGB:
    """Shares of the scale [P, P] over an image: slow at first, so that what is normal stays as it
    was photographed."""
    opacity = pictures.OPACITY * (share**2 * (3 - 2 * share))[..., None]
    color = pictures.colorize(share, 0, 1, pictures.MAP_COLORS)
    return np.rint((1 - opacity) * image + opacity * color).astype(np.uint8)


def _truth(mask: NDArray[Any]) -> RGB:
    """White where the defect is, [P, P]."""
    size = (PANEL, PANEL)
    if len(mask) > PANEL:  # the smallest defect stays
        share = Image.fromarray(np.float32(mask > 0)).resize(size, Image.Resampling.BOX)
    else:
        share = Image.fromarray(np.float32(mask > 0)).resize(size, Image.Resampling.NEAREST)
    return np.where(np.asarray(share) > 0, np.uint8(255), np.uint8(0))


def _enlarged(image: RGB) -> RGB:
    return np.asarray(_resized(Image.fromarray(image)))


def _resized(image: Image.Image) -> Image.Image:
    smaller = image.width > PANEL
    how = Image.Resampling.LANCZOS if smaller else Image.Resampling.BILINEAR
    return image.resize((PANEL, PANEL), how if image.mode == "RGB" else Image.Resampling.BILINEAR)


def _draw_head(draw: ImageDraw.ImageDraw, shown: Shown, width: int) -> None:
    """Verdict, score and threshold at the left; what it is, and whether that was wrong."""
    image, middle = shown.image, (_EDGE + _HEAD) // 2
    color = ALARM_COLOR if image.alarm else NORMAL_COLOR
    word = "ANOMALOUS" if image.alarm else "NORMAL"
    right = _pill(draw, (_PAD, middle), word, color, "l")
    score, threshold = quantity(image.scores["score"]), quantity(image.threshold)
    sign = "\N{GREATER-THAN OR EQUAL TO}" if image.alarm else "<"
    text = typeset(f"score {score} {sign} threshold {threshold}")
    draw.text((right + 12, middle), text, INK, _font(16), anchor="lm")
    left = width - _PAD
    if image.wrong:
        left = _pill(draw, (left, middle), _WRONG[image.outcome], INK, "r") - 12
    kind = image.kind or ("anomalous" if image.label == ANOMALOUS else "normal")
    room = left - right - 30 - draw.textlength(text, _font(16))
    draw.text((left, middle), _fitting(draw, f"truth: {kind}", room), INK, _font(16), anchor="rm")


def _pill(
    draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, color: Color, side: str
) -> int:
    """A word in white on a color, its left or right end at `place`; where its other end is."""
    (x, y), font = place, _font(17, bold=True)
    wide = int(draw.textlength(text, font)) + 24
    left = x if side == "l" else x - wide
    draw.rounded_rectangle((left, y - 15, left + wide, y + 15), 6, color)
    draw.text((left + wide / 2, y), text, (255, 255, 255), font, anchor="mm")
    return left + wide if side == "l" else left


def _fitting(draw: ImageDraw.ImageDraw, text: str, room: float) -> str:
    """The text, shortened at its end where there is no room for it."""
    while text and draw.textlength(text, _font(16)) > room:
        text = text[:-2].rstrip() + "\N{HORIZONTAL ELLIPSIS}" if len(text) > 2 else ""
    return text


def _draw_scale(frame: Image.Image, draw: ImageDraw.ImageDraw, right: int, look: Look) -> None:
    """The color scale with its ends, below the map and up to its right edge."""
    y, font, (wide, high) = _HEAD + PANEL + 6, _font(13), _BAR
    end = brief(look.high)
    draw.text((right, y), end, MUTED, font, anchor="ra")
    left = right - int(draw.textlength(end, font)) - 6 - wide
    ramp = np.tile(np.linspace(0, 1, wide), (high, 1))
    colors = pictures.colorize(ramp, 0, 1, pictures.MAP_COLORS)
    frame.paste(Image.fromarray(np.ascontiguousarray(colors)), (left, y + 3))
    draw.text((left - 6, y), brief(look.low), MUTED, font, anchor="ra")


@functools.cache
def _font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """A font that comes with matplotlib, so that it is the same everywhere."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(_FONTS / name), size)
