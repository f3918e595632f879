"""Every method, one line each; those that learn from normal images alone and give a map stand in
`leanet.methods.map_catalog`."""

from __future__ import annotations

from leanet.config import nearest
from leanet.methods import attention, classifier, leanet
from leanet.methods.map_catalog import MAP_METHODS, READY_METHODS
from leanet.methods.recipe import Method

METHODS: dict[str, Method] = {
    **MAP_METHODS,
    **READY_METHODS,
    "classifier": Method(
        attention.Config, classifier.PRESETS, classifier.train, classifier.build, True
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
