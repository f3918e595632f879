"""What the guards of the architecture read: source files, documentation, help texts."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from leanet.cli import VERBS, main
from leanet.methods.catalog import METHODS

ROOT = Path(__file__).parents[2]
COMMANDS = tuple(f"fit {method}" for method in (*METHODS, "gan", "dcgan")) + tuple(
    v for v in VERBS if v != "fit"
)


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def package() -> Path:
    return ROOT / "src" / "leanet"


@pytest.fixture(scope="session")
def flags_of() -> Callable[[str], frozenset[str]]:
    """The flags that the help of a command ("scan", "fit leanet") lists."""
    return _flags_of


@pytest.fixture(scope="session")
def all_flags() -> frozenset[str]:
    """The flags of all commands, and those of `leanet` itself."""
    return frozenset({"--help", "--version"}).union(*map(_flags_of, COMMANDS))


@cache
def _flags_of(command: str) -> frozenset[str]:
    text = io.StringIO()
    with contextlib.redirect_stdout(text), pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])
    assert ended.value.code == 0
    return frozenset(re.findall(r"^  (?:-\w, )?(--[\w.]+)", text.getvalue(), re.MULTILINE))
