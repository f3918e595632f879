"""The words of `leanet fit`, made into those of its parser: configuration files in sections, and
the flags of the program that ADFA is known from in its MVTec form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from leanet.config import UsageError, nearest

ORIGINAL: Final[dict[str, tuple[str, ...]]] = {  # flag -> allowed values, () = any
    "--task_type": ("anomaly",),
    "--model_type": ("unsupervised",),
    "--model_name": ("adfa", "cfa"),
    "--yaml_config": (),
}
USAGE: Final = " ".join(f"{flag} {'|'.join(v) or 'FILE'}" for flag, v in ORIGINAL.items())


class Words(NamedTuple):
    """The words with every file in sections replaced by its flat options, the preset that the last
    such file names, that file's name ("" without one), and what its reader should be told."""

    words: list[str]
    preset: str | None = None
    file: str = ""
    notices: tuple[str, ...] = ()


def own_command(argv: Sequence[str]) -> list[str]:
    """`--task_type anomaly --model_type unsupervised --model_name adfa --yaml_config FILE` is
    `adfa --config FILE`; other words stay as they are.

    Raises:
        UsageError: another value of these flags, no value, or no method.
    """
    given: dict[str, str] = {}
    others: list[str] = []
    rest = iter(argv)
    for word in rest:
        flag, equals, value = word.partition("=")
        if flag not in ORIGINAL:
            others.append(word)
            continue
        given[flag] = _allowed(flag, value if equals else next(rest, ""))
    if not given:
        return others
    methods = ORIGINAL["--model_name"]
    first = others[0] if others and not others[0].startswith("-") else None
    named = [others.pop(0)] if first in methods or (first and "--model_name" not in given) else []
    method = given.get("--model_name", *named)
    if method is None:
        raise UsageError(f"--model_name is missing; the whole command: leanet fit {USAGE}")
    if named not in ([], [method]):
        raise UsageError(f"fit {named[0]} and --model_name {method}: give one of them")
    config = [f"--config={given['--yaml_config']}"] if "--yaml_config" in given else []
    return [method, *config, *others]


def read_files(words: Sequence[str], over: Mapping[str, Any], method: str) -> Words:
    """Replace the files in sections among `--config FILE`; flat files stay. `over`: options of the
    command line that win over such a file.

    Raises:
        UsageError: a file in sections that cannot be understood, a flat one of another method.
    """
    import yaml

    from leanet.methods.adfa_file import read_sections

    found, read = Words([]), list(words)
    for place, word in enumerate(read):
        joined = word.startswith("--config=")
        if not joined and (place == 0 or read[place - 1] != "--config"):
            continue
        file = word.removeprefix("--config=") if joined else word
        sections = read_sections(Path(file))
        if sections is None:
            _require_method(Path(file), method)
        else:
            text = yaml.safe_dump({**sections.options, **over})
            read[place] = f"--config={text}" if joined else text
            notices = (*found.notices, *sections.notices)
            found = Words([], sections.preset, file, notices)
    return found._replace(words=read)


def _require_method(file: Path, method: str) -> None:
    """Before its options, which another method does not know, are read one by one."""
    import yaml

    values = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else None
    named = values.get("method", method) if isinstance(values, Mapping) else method
    if named != method:
        raise UsageError(f"the configuration {file} is for {named}, not for {method}")


def _allowed(flag: str, value: str) -> str:
    allowed = ORIGINAL[flag]
    if not value or (allowed and value not in allowed):
        hint = nearest(value, allowed)
        raise UsageError(f"{flag} {value!r}{hint}; allowed: {', '.join(allowed) or 'a file'}")
    return value
