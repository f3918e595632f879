"""The names that `import leanet` promises, and what asking for them costs."""

from __future__ import annotations

import importlib
import pkgutil
import statistics
import subprocess
import sys
from types import ModuleType

import pytest

import leanet

NAMES = (
    "ANOMALOUS",
    "Detector",
    "NORMAL",
    "Prediction",
    "Sample",
    "__version__",
    "benchmark",
    "compare",
    "delta_e_2000",
    "demo",
    "demo_gif",
    "evaluate",
    "explain",
    "export",
    "fit",
    "load",
    "make_toy",
    "predict",
    "report",
    "report_tables",
    "rgb_to_lab",
    "scan",
    "serve",
    "threshold",
    "unpack",
    "watch",
)
SECONDS_TO_IMPORT, TRIALS = 0.2, 5
HEAVY = ("torch", "numpy", "matplotlib", "lightning", "scipy", "sklearn", "timm", "PIL", "yaml")


def in_fresh_interpreter(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_the_public_names_are_these() -> None:
    assert sorted(leanet.__all__) == sorted(NAMES)
    assert sorted(dir(leanet)) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_can_be_imported(name: str) -> None:
    assert getattr(leanet, name) is not None
    assert not isinstance(getattr(leanet, name), ModuleType)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'predikt'"):
        leanet.predikt  # noqa: B018 - the access is what is tested


def test_files_do_not_hide_the_functions_of_the_same_name() -> None:
    """Python puts the module leanet/fit.py at `leanet.fit` when anything imports it."""
    files = {one.name for one in pkgutil.iter_modules(leanet.__path__)}
    verbs = sorted(files & set(NAMES))
    assert verbs == ["benchmark", "demo", "fit", "report", "serve"]
    for name in verbs:
        importlib.import_module(f"leanet.{name}")
        assert callable(getattr(leanet, name))
        assert getattr(leanet, name) is getattr(leanet, name)
    code = "import leanet.report, leanet; print('report' in vars(leanet))"
    assert in_fresh_interpreter(code) == "False\n"


def test_importing_is_quick_quiet_and_light() -> None:
    code = (
        "import sys, time; start = time.perf_counter(); import leanet;"
        "print(time.perf_counter() - start);"
        f"assert not set({HEAVY}) & set(sys.modules), sorted(sys.modules)"
    )
    seconds = [float(in_fresh_interpreter(code)) for _ in range(TRIALS)]
    assert statistics.median(seconds) < SECONDS_TO_IMPORT


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_help_and_version_load_nothing_heavy(arguments: list[str]) -> None:
    code = (
        f"import sys; from leanet.cli import main; assert main({arguments}) == 0;"
        f"assert not set({HEAVY}) - {{'yaml'}} & set(sys.modules), sorted(sys.modules)"
    )
    assert "leanet" in in_fresh_interpreter(code)
