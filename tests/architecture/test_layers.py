"""Who may import whom: never upwards, never sideways, never in a circle."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

# Lowest row first. A group is a file or a sub-package; those of one row do not know each other.
ROWS = (
    ("config", "files", "progress", "records", "runtime", "version"),
    ("ops",),
    ("data", "networks"),
    ("inference", "report", "training"),
    ("methods",),
    ("prepare", "run_folder"),
    ("trial", "presets", "trained"),
    ("fit", "generation"),
    ("benchmark", "programs", "serve"),
    ("api", "line"),
    ("demo",),
    ("verbs",),
    ("cli",),
    ("__main__",),
)
BLIND = {
    "inference": {"networks", "methods"},
    "report": {"networks", "data"},
    "serve": {"networks", "training"},
}
ROW_OF = {group: row for row, groups in enumerate(ROWS) for group in groups}


class Import(NamedTuple):
    """`source` and `target` are dotted names; the target is a file of the package or `leanet`."""

    source: str
    target: str
    line: int

    def __str__(self) -> str:
        return f"{self.source}, line {self.line}, imports {self.target}"

    def groups(self) -> tuple[str, str]:
        return group(self.source), group(self.target)


def group(module: str) -> str:
    return [*module.split("."), ""][1]  # "" for the facade


def modules(package: Path) -> dict[str, Path]:
    named = {}
    for file in sorted(package.rglob("*.py")):
        parts = file.relative_to(package.parent).with_suffix("").parts
        named[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return named


def imports(package: Path) -> list[Import]:
    """All imports of the package from itself, also those inside functions."""
    known = modules(package)
    found = []
    for source, file in known.items():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            for target in targets(node, known):
                found.append(Import(source, target, getattr(node, "lineno", 0)))
    return found


def targets(node: ast.AST, known: dict[str, Path]) -> list[str]:
    if isinstance(node, ast.Import):
        named = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"relative import of {node.module}: name the file in full"
        inside = [f"{node.module}.{alias.name}" for alias in node.names]
        named = [name if name in known else str(node.module) for name in inside]
    else:
        named = []
    return [name for name in named if name.partition(".")[0] == "leanet"]


@pytest.fixture(scope="module")
def found(package: Path) -> list[Import]:
    return imports(package)


def test_the_imports_are_found(found: list[Import]) -> None:
    pairs = {(one.source, one.target) for one in found}
    assert ("leanet.api", "leanet.config") in pairs  # from leanet.config import from_dict
    assert ("leanet.api", "leanet.report.page") in pairs  # from leanet.report import page
    assert ("leanet.verbs.predict", "leanet.api") in pairs  # inside a function


def test_every_file_belongs_to_a_row(package: Path) -> None:
    assert {group(name) for name in modules(package)} - {""} == set(ROW_OF)


def test_no_import_goes_up_or_sideways(found: list[Import]) -> None:
    wrong = []
    for one in found:
        source, target = one.groups()
        if source and target and source != target and ROW_OF[source] <= ROW_OF[target]:
            wrong.append(str(one))
    assert wrong == []


@pytest.mark.parametrize("reader", BLIND)
def test_what_follows_training_is_blind_to_how_it_was_done(
    reader: str, found: list[Import]
) -> None:
    seen = {one for one in found if one.groups()[0] == reader}
    assert seen
    assert [str(one) for one in seen if one.groups()[1] in BLIND[reader]] == []


def test_nothing_inside_imports_the_facade(found: list[Import]) -> None:
    assert [str(one) for one in found if one.target == "leanet"] == []


def test_no_file_imports_itself_in_a_circle(found: list[Import]) -> None:
    graph: dict[str, set[str]] = {}
    for one in found:
        graph.setdefault(one.source, set()).add(one.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"circle: {' -> '.join(error.args[1])}")


def test_every_sub_package_init_is_a_docstring_only(package: Path) -> None:
    inits = sorted(package.glob("*/**/__init__.py"))
    folders = {file.parent for file in package.glob("*/**/*.py")}
    assert {file.parent for file in inits} == folders
    for file in inits:
        body = ast.parse(file.read_text(encoding="utf-8")).body
        assert len(body) == 1, file
        assert ast.get_docstring(ast.Module(body, [])), file
