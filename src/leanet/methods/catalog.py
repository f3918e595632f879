"""Every method, one line each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from leanet.config import nearest
from leanet.methods import classifier, colorizer, leanet
from leanet.methods.recipe import DetectorModule, Train


class Method(NamedTuple):
    """A recipe: its options, their presets, and its two functions."""

    config: type[Any]
    presets: dict[str, dict[str, Any]]
    train: Train
    build: Callable[[Any, int, dict[str, Any]], DetectorModule]
    needs_anomalous: bool


METHODS: dict[str, Method] = {
    "colorizer": Method(
        colorizer.Config, colorizer.PRESETS, colorizer.train, colorizer.build, False
    ),
    "classifier": Method(
        classifier.Config, classifier.PRESETS, classifier.train, classifier.build, True
    ),
    "leanet": Method(leanet.Config, leanet.PRESETS, leanet.train, leanet.build, True),
}


def find(name: str) -> Method:
    """The method of this name.

    Raises:
        ValueError: names the known ones.
    """
    if name not in METHODS:
        raise ValueError(
            f"unknown method {name!r}{nearest(name, METHODS)}; allowed: {', '.join(METHODS)}"
        )
    return METHODS[name]
