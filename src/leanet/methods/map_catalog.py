"""Every method that learns from normal images alone and gives a map, one line each: these can draw
the maps that steer LEA-Net."""

from __future__ import annotations

from typing import Any

from leanet.methods import cavga, colorizer, reconstruction
from leanet.methods.recipe import Method

MAP_METHODS: dict[str, Method] = {
    "colorizer": Method(
        colorizer.Config, colorizer.PRESETS, reconstruction.train, reconstruction.build, False
    ),
    "reconstruction": Method(
        reconstruction.Config,
        reconstruction.PRESETS,
        reconstruction.train,
        reconstruction.build,
        False,
    ),
    "cavga": Method(cavga.Config, cavga.PRESETS, cavga.train, cavga.build, False),
}


def find_map_method(name: str) -> Method:
    """The method of this name.

    Raises:
        ValueError: it is unknown, or gives no map, or needs anomalous images to learn from.
    """
    if name not in MAP_METHODS:
        raise ValueError(
            f"method {name!r} is none that draws maps from normal images alone; "
            f"allowed: {', '.join(MAP_METHODS)}"
        )
    return MAP_METHODS[name]


def name_of(config: Any) -> str:
    """The name of the method that these options belong to."""
    return next(name for name, m in MAP_METHODS.items() if m.config is type(config))
