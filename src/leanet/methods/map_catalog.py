"""Every method that learns from normal images alone and gives a map, one line each: these can draw
the maps that steer LEA-Net."""

from __future__ import annotations

from typing import Any

from leanet.methods import adfa, anomalib_model, cavga, colorizer, padim, patchcore, reconstruction
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
    "adfa": Method(adfa.Config, adfa.PRESETS, adfa.train, adfa.build, False, {"img_size": 256}),
    "cfa": Method(
        adfa.CfaConfig, adfa.CFA_PRESETS, adfa.train, adfa.build, False, {"img_size": 256}
    ),
    "patchcore": Method(
        patchcore.Config,
        patchcore.PRESETS,
        patchcore.train,
        patchcore.build,
        False,
        run_defaults={"img_size": 256},
    ),
    "padim": Method(
        padim.Config, padim.PRESETS, padim.train, padim.build, False, {"img_size": 256}
    ),
}

# Trained elsewhere: taken over as they are, never trained anew.
READY_METHODS: dict[str, Method] = {
    "anomalib": Method(
        anomalib_model.Config,
        {},
        anomalib_model.train,
        anomalib_model.build,
        False,
        {"img_size": 256},
    ),
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


def find_drawer(name: str) -> Method:
    """The method of this name, also of those that were trained elsewhere.

    Raises:
        ValueError: as `find_map_method`.
    """
    return READY_METHODS[name] if name in READY_METHODS else find_map_method(name)


def name_of(config: Any) -> str:
    """The name of the method that these options belong to."""
    methods = {**MAP_METHODS, **READY_METHODS}
    return next(name for name, method in methods.items() if method.config is type(config))
