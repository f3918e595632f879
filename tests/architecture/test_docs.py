"""README and docs say what is so: code, commands, flags, links and the tree of files.

A ```python block compiles, and what it takes from `leanet` exists; one that is opened with
```python illustrative is text.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import leanet
from leanet.cli import ALIASES, VERBS, main
from leanet.methods.catalog import METHODS
from leanet.prepare import Options

ROOT = Path(__file__).parents[2]
DOCS = [
    ROOT / "README.md",
    *(file for file in (ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md") if file.exists()),
    *sorted((ROOT / "docs").rglob("*.md")),
]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
COMMAND = re.compile(r"(?:^|[\s/])leanet (?=[a-z-]|VERB)(.*)")
SUFFIXES = (".py", ".html", ".css", ".md", ".yaml")
FITS = [*METHODS, "gan", "dcgan"]
UNLISTED = {"__init__.py", "__main__.py", "version.py"}
everywhere = pytest.mark.parametrize("file", DOCS, ids=[str(f.relative_to(ROOT)) for f in DOCS])


class Block(NamedTuple):
    kind: str  # what stands behind the opening fence
    text: str


def blocks(text: str) -> list[Block]:
    fenced = re.findall(r"^ *```([^\n`]*)\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    assert len(re.findall(r"^ *```", text, re.MULTILINE)) == 2 * len(fenced), "an open fence"
    return [Block(kind.strip(), body) for kind, body in fenced]


def spans(text: str) -> list[str]:
    """Code inside the running text."""
    prose = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`\n]+)`", prose)


def commands(text: str) -> Iterator[list[str]]:
    """The words behind `leanet` of every command line, in blocks and in the running text."""
    shell = [block.text for block in blocks(text) if not block.kind.startswith("python")]
    for line in [*"\n".join(shell).splitlines(), *spans(text)]:
        found = COMMAND.match(line.removeprefix("$ "))
        if found:
            yield words(found[1])


def words(command: str) -> list[str]:
    return shlex.split(re.split(r" [>|&]|;", command)[0], comments=True)


def flags(of: list[str]) -> list[str]:
    """The flags among some words, in their own spelling and without their values."""
    named = [word[2:].partition("=")[0] for word in of if word.startswith("--")]
    spelled = ["--" + name.replace("-", "_") for name in named]
    return [ALIASES.get(flag, flag) for flag in spelled]


def refused(command: list[str], flags_of: Callable[[str], frozenset[str]]) -> list[str]:
    """What of a command the program does not know."""
    verb, *rest = command
    if verb.startswith("-"):
        return [] if command in (["--help"], ["--version"]) else command
    if verb not in {*VERBS, "VERB"}:
        return [verb]
    named = [verb] if verb in VERBS else list(VERBS)
    known = frozenset[str]()
    for one in named:
        methods = rest[:1] if one == "fit" and rest[:1] and rest[0] in FITS else FITS
        for spelled in [f"fit {method}" for method in methods] if one == "fit" else [one]:
            known |= flags_of(spelled)
    wrong_method = verb == "fit" and rest[:1] and rest[0] not in {*FITS, "METHOD", "...", "--help"}
    return [*rest[: bool(wrong_method)], *(flag for flag in flags(rest) if flag not in known)]


@pytest.mark.parametrize(
    ("command", "wrong"),
    [
        ("fit leanet DATA --folds 5 --map_model.epochs=3", []),
        ("fit classifier DATA --img-size 64 --map_mode in_sample", ["--map_mode"]),
        ("fit METHOD DATA --base 3", []),
        ("fit lea-net DATA", ["lea-net"]),
        ("fit ... --resume", []),
        ("predikt RUN", ["predikt"]),
        ("scan DATA --folds 5  # --ignored", ["--folds"]),
        ("--version", []),
        ("--verbose", ["--verbose"]),
    ],
)
def test_a_command_that_does_not_exist_is_noticed(
    command: str, wrong: list[str], flags_of: Callable[[str], frozenset[str]]
) -> None:
    assert refused(words(command), flags_of) == wrong


def test_the_readme_has_what_these_tests_read() -> None:
    text = DOCS[0].read_text(encoding="utf-8")
    assert any(block.kind == "python" for block in blocks(text))
    assert {command[0] for command in commands(text)} >= set(VERBS) - {"demo"}
    assert tree(text)


@everywhere
def test_every_command_exists(file: Path, flags_of: Callable[[str], frozenset[str]]) -> None:
    for command in commands(file.read_text(encoding="utf-8")):
        assert refused(command, flags_of) == [], f"leanet {shlex.join(command)}"


@everywhere
def test_every_flag_exists(file: Path, all_flags: frozenset[str]) -> None:
    starting = [span for span in spans(file.read_text(encoding="utf-8")) if span[:2] == "--"]
    named = [flag for span in starting for flag in flags(span.split())]
    assert [flag for flag in named if flag not in all_flags] == []


@everywhere
def test_every_python_block_compiles_and_what_it_uses_exists(file: Path) -> None:
    for kind, text in blocks(file.read_text(encoding="utf-8")):
        assert kind in {"", "python", "python illustrative", "yaml", "json", "bash", "text"}, kind
        if kind == "python":
            compile(text, str(file), "exec")
            for node in ast.walk(ast.parse(text)):
                check_use(node)


def check_use(node: ast.AST) -> None:
    """Imports from the package, names of the facade and arguments of its functions are real."""
    if isinstance(node, ast.ImportFrom) and str(node.module).startswith("leanet"):
        module = importlib.import_module(str(node.module))
        for alias in node.names:
            assert hasattr(module, alias.name), f"from {node.module} import {alias.name}"
    elif is_public(node):
        assert isinstance(node, ast.Attribute)
        assert hasattr(leanet, node.attr), f"leanet.{node.attr}"
    elif isinstance(node, ast.Call) and is_public(node.func):
        assert isinstance(node.func, ast.Attribute)
        name = node.func.attr
        keywords = {word.arg: None for word in node.keywords if word.arg is not None}
        inspect.signature(getattr(leanet, name)).bind_partial(*node.args, **keywords)
        if name == "fit":
            check_options(keywords)


def is_public(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "leanet"
    )


def check_options(keywords: dict[str, None]) -> None:
    own = {"config", "resume", "overwrite", "preset", "tell", *Options.__dataclass_fields__}
    for method in METHODS.values():
        own |= set(method.config.__dataclass_fields__)
    assert set(keywords) <= own, f"leanet.fit has no {set(keywords) - own}"


@everywhere
def test_every_link_leads_to_a_file(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)\s#]+)", text)
    local = [target for target in targets if not re.match(r"https?:|mailto:", target)]
    assert [target for target in local if not (file.parent / target).exists()] == []


def tree(readme: str) -> list[tuple[Path, str]]:
    """Folder and name of everything that the tree in the README names."""
    text = next(block.text for block in blocks(readme) if "src/leanet/" in block.text)
    named, folders = [], {-1: ROOT}
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        folders = {depth: folder for depth, folder in folders.items() if depth < indent}
        parent = folders[max(folders)]
        for word in (word.strip("(),;:") for word in line.split()):
            if word.endswith("/") and word == line.split()[0]:
                folders[indent] = parent = parent / word
                named.append((parent, ""))
            elif word.endswith("/") or (word.endswith(SUFFIXES) and len(word) > 5):
                named.append((ROOT if "/" in word[:-1] else parent, word))
    return named


def test_everything_in_the_tree_exists() -> None:
    named = tree(DOCS[0].read_text(encoding="utf-8"))
    assert [str(folder / name) for folder, name in named if not (folder / name).exists()] == []


def test_every_file_of_the_package_stands_in_the_tree() -> None:
    named = {folder / name for folder, name in tree(DOCS[0].read_text(encoding="utf-8"))}
    package = ROOT / "src" / "leanet"
    files = {file for suffix in ("py", "html", "css") for file in package.rglob(f"*.{suffix}")}
    missing = {file for file in files if file.name not in UNLISTED} - named
    assert sorted(str(file.relative_to(package)) for file in missing) == []


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_its_page(method: str) -> None:
    assert ROOT / "docs" / "methods" / f"{method}.md" in DOCS


@pytest.mark.parametrize("file", CONFIGS, ids=[file.stem for file in CONFIGS])
def test_every_configuration_file_is_accepted(
    file: Path, flags_of: Callable[[str], frozenset[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    method = file.stem.partition("-")[0]
    assert main(["fit", method, "--config", str(file), "--print_config"]) == 0
    assert capsys.readouterr().err == ""
    comments = re.findall(r"^# (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    told = [words(found[1]) for found in map(COMMAND.search, comments) if found]
    assert told
    for command in told:
        assert refused(command, flags_of) == []
