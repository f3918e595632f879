"""leanet: from good pictures and a few bad ones to an inspector that says good or bad, and where.

Every name is imported when it is first used, so that `import leanet` costs nothing.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from leanet.version import __version__

_PUBLIC = {
    "scan": "leanet.api",
    "fit": "leanet.api",
    "load": "leanet.api",
    "predict": "leanet.api",
    "evaluate": "leanet.api",
    "report": "leanet.api",
    "demo": "leanet.demo",
    "make_toy": "leanet.data.toy",
    "delta_e_2000": "leanet.ops.color",
    "rgb_to_lab": "leanet.ops.color",
    "Sample": "leanet.records",
    "Prediction": "leanet.records",
    "Detector": "leanet.records",
    "NORMAL": "leanet.records",
    "ANOMALOUS": "leanet.records",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import leanet` costs nothing."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'leanet' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return __all__


class _Facade(ModuleType):
    """Keeps `leanet.fit` the function: importing leanet/fit.py would put the module there."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _PUBLIC and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Facade
