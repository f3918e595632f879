"""leanet: from good pictures and a few bad ones to an inspector that says good or bad, and where.

Every name is imported when it is first used, so that `import leanet` costs nothing.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from leanet.version import __version__

if TYPE_CHECKING:  # a type checker sees the functions, not the files of the same name
    from leanet.api import benchmark as benchmark
    from leanet.api import compare as compare
    from leanet.api import demo_gif as demo_gif
    from leanet.api import evaluate as evaluate
    from leanet.api import explain as explain
    from leanet.api import fit as fit
    from leanet.api import load as load
    from leanet.api import predict as predict
    from leanet.api import report as report
    from leanet.api import report_tables as report_tables
    from leanet.api import scan as scan
    from leanet.api import unpack as unpack
    from leanet.data.toy import make_toy as make_toy
    from leanet.demo import demo as demo
    from leanet.line import export as export
    from leanet.line import serve as serve
    from leanet.line import threshold as threshold
    from leanet.line import watch as watch
    from leanet.ops.color import delta_e_2000 as delta_e_2000
    from leanet.ops.color import rgb_to_lab as rgb_to_lab
    from leanet.records import ANOMALOUS as ANOMALOUS
    from leanet.records import NORMAL as NORMAL
    from leanet.records import Detector as Detector
    from leanet.records import Prediction as Prediction
    from leanet.records import Sample as Sample

_PUBLIC = {
    "unpack": "leanet.api",
    "scan": "leanet.api",
    "fit": "leanet.api",
    "load": "leanet.api",
    "predict": "leanet.api",
    "evaluate": "leanet.api",
    "explain": "leanet.api",
    "report": "leanet.api",
    "benchmark": "leanet.api",
    "compare": "leanet.api",
    "demo_gif": "leanet.api",
    "report_tables": "leanet.api",
    "export": "leanet.line",
    "threshold": "leanet.line",
    "serve": "leanet.line",
    "watch": "leanet.line",
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
