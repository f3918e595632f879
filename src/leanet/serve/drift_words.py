"""What drift says to people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanet.ops.image_statistics import STATISTICS, Statistic

SCORES = Statistic("score", "", "lower scores", "higher scores", 0.0)
_SAME = 0.25  # medians nearer than that share of the middle half: only the scatter has changed


def about(name: str) -> Statistic:
    """A quantity in words: a statistic of pictures, or the score."""
    return STATISTICS.get(name, SCORES)


def in_words(name: str, values: NDArray[np.float64], normal: Mapping[str, Any]) -> str:
    """How some values of a quantity differ from the summary of normal training pictures.

    >>> from leanet.ops.familiar import summary
    >>> in_words("brightness", np.array([41.0, 41.0]), summary([57.0, 58.0, 59.0]))
    'darker than in training: L* 41 against 58'
    """
    said = about(name)
    now = float(np.median(values))
    first, then, last = (float(normal["quantiles"][share]) for share in ("0.25", "0.5", "0.75"))
    if abs(now - then) > _SAME * (last - first):
        word = said.more if now > then else said.less
        figures = f"{number(now)} against {number(then)}"
        return f"{word} than in training: {said.unit} {figures}".replace(":  ", ": ")
    scatter = float(np.subtract(*np.quantile(values, (0.75, 0.25))))
    word = "varies more" if scatter > last - first else "varies less"
    figures = f"middle half over {number(scatter)} against {number(last - first)}"
    return f"{said.title} {word} than in training: {figures} {said.unit}".rstrip()


def rate_in_words(now: tuple[int, int], usual: tuple[int, int, str]) -> str:
    """Counts of anomalous verdicts and pictures, now and usually.

    >>> rate_in_words((20, 200), (10, 1000, "before them"))
    'more pictures are judged anomalous: 10 % of the last 200 against 1 % before them'
    """
    shares = [100 * counts[0] / counts[1] for counts in (now, usual)]
    word = "more" if shares[0] > shares[1] else "fewer"
    first, second = map(number, shares)
    return (
        f"{word} pictures are judged anomalous: {first} % of the last {now[1]} against {second} % "
        f"{usual[2]}"
    )


def number(value: float) -> str:
    """Two or three digits.

    >>> number(41.234), number(0.01234), number(-120.2), number(0.0)
    ('41.2', '0.012', '-120', '0')
    """
    size = abs(value)
    text = f"{value:.0f}" if size >= 100 else f"{value:.3g}" if size >= 1 else f"{value:.2g}"
    return "0" if float(text) == 0 else text
