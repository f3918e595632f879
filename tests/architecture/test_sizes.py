"""No file of the package longer than 400 lines, no function than 50 (without its docstring)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

FILE_LINES, FUNCTION_LINES = 400, 50
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(file: Path) -> Iterator[tuple[str, int]]:
    """Name and number of lines, from `def` to the last one, without those of the docstring."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, Function):
            first = node.body[0]
            told = ast.get_docstring(node) is not None
            docstring = lines(first) if told else 0
            yield node.name, lines(node) - docstring


def lines(node: ast.stmt) -> int:
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


@pytest.fixture(scope="module")
def files(root: Path) -> list[Path]:
    found = [file for top in ("src", "benchmarks") for file in (root / top).rglob("*.py")]
    assert len(found) > 60
    return found


def test_lines_of_a_function_are_counted_without_its_docstring(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text('@cache\ndef f(\n    x,\n):\n    """One.\n\n    Two.\n    """\n    return x\n')
    assert list(functions(file)) == [("f", 4)]


def test_no_file_is_long(files: list[Path], root: Path) -> None:
    lengths = {file.relative_to(root): len(file.read_text().splitlines()) for file in files}
    assert {name: length for name, length in lengths.items() if length > FILE_LINES} == {}


def test_no_function_is_long(files: list[Path], root: Path) -> None:
    counted = [(file.relative_to(root), *one) for file in files for one in functions(file)]
    assert [one for one in counted if one[2] > FUNCTION_LINES] == []
