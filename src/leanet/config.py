"""Frozen dataclasses as configuration: options with help texts, to and from YAML.

Every method has a `Config` beside it. A field is written as

    epochs: int = option(100, "upper limit; early stopping may end sooner")

and appears, with the same name, as a flag of the command line, as a key of the YAML file that
`--config` reads and `--print_config` prints, and in the run folder's `config.yaml`.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import yaml

Config = TypeVar("Config")


def option(default: Any, help: str) -> Any:
    """A dataclass field with a default and a help text (unit and source belong into the text)."""
    if isinstance(default, type):  # a nested configuration
        return dataclasses.field(default_factory=default, metadata={"help": help})
    return dataclasses.field(default=default, metadata={"help": help})


def nearest(name: str, allowed: Iterable[str]) -> str:
    """A hint that names the closest allowed word, for error messages; "" if nothing is close.

    >>> nearest("epoch", ["epochs", "lr"])
    ' (did you mean epochs?)'
    """
    found = difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.5)
    return f" (did you mean {found[0]}?)" if found else ""


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain values, nested dataclasses as nested dictionaries."""
    return {
        field.name: to_dict(value) if dataclasses.is_dataclass(value) else _plain(value)
        for field in dataclasses.fields(config)
        for value in [getattr(config, field.name)]
    }


def to_yaml(config: Any, indent: int = 0) -> str:
    """A configuration as YAML in which a comment explains every key."""
    pad, lines = "  " * indent, []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        lines.append(f"{pad}# {field.metadata.get('help', '')}")
        if dataclasses.is_dataclass(value):
            lines += [f"{pad}{field.name}:", to_yaml(value, indent + 1).rstrip("\n")]
        else:
            text = yaml.safe_dump(_plain(value), default_flow_style=True, width=10**6)
            lines.append(f"{pad}{field.name}: {text.removesuffix('...' + chr(10)).strip()}")
    return "\n".join(lines) + "\n"


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values under dotted names, as the command line spells them.

    >>> flat({"lr": 0.1, "map_model": {"epochs": 5}})
    {'lr': 0.1, 'map_model.epochs': 5}
    """
    leaves: dict[str, Any] = {}
    for key, value in values.items():
        name = prefix + key
        leaves |= flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return leaves


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Nested options, with those of `over` in place of those of `base`.

    >>> merged({"lr": 0.1, "map_model": {"epochs": 5, "base": 32}}, {"map_model": {"epochs": 9}})
    {'lr': 0.1, 'map_model': {'epochs': 9, 'base': 32}}
    """
    result = dict(base)
    for key, value in over.items():
        nested = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if nested else value
    return result


def from_dict(config: type[Config], values: Mapping[str, Any]) -> Config:
    """A configuration from plain values; what is not named keeps its default.

    Raises:
        UsageError: an unknown key (with the nearest known one) or a value of the wrong type.
    """
    parsed = make_parser(config).parse_object(dict(values)).as_dict()
    return build(config, parsed)


def build(config: type[Config], values: Mapping[str, Any]) -> Config:
    """A configuration from the complete plain values that a parser gave; other keys are ignored."""
    hints = typing.get_type_hints(config)
    arguments: dict[str, Any] = {}
    for field in dataclasses.fields(typing.cast(type[Any], config)):
        value, hint = values[field.name], hints[field.name]
        if dataclasses.is_dataclass(hint):
            value = build(typing.cast(type[Any], hint), value)
        elif inner := _inside_tuple(hint):
            value = None if value is None else _as_tuple(field.name, value, inner)
        arguments[field.name] = value
    return config(**arguments)


def _inside_tuple(hint: Any) -> tuple[Any, ...]:
    """The types inside `tuple[...]` or `tuple[...] | None`; () for any other hint."""
    for one in (hint, *typing.get_args(hint)):
        if typing.get_origin(one) is tuple:
            return typing.get_args(one)
    return ()


def _as_tuple(name: str, value: Iterable[Any], inner: tuple[Any, ...]) -> tuple[Any, ...]:
    values = tuple(value)
    if inner[-1] is not Ellipsis and len(values) != len(inner):
        listed = ", ".join(map(str, values))
        raise UsageError(f"--{name} takes {len(inner)} values, got {len(values)}: {listed}")
    return values


class UsageError(ValueError):
    """A user's mistake on the command line or in a configuration file."""


def make_parser(*configs: type[Any], **kwargs: Any) -> Any:
    """A jsonargparse parser with a flag for every field of some configurations.

    Flags are spelled with underscores, those of nested configurations with dots
    (`--map_model.epochs`). Errors are raised as `UsageError`, in one line, with the nearest known
    name where one is unknown.
    """
    import jsonargparse

    names = [name for config in configs for name, _, _ in _leaves(config)]

    class Parser(jsonargparse.ArgumentParser):
        def error(self, message: str, ex: Exception | None = None) -> typing.NoReturn:
            known = [action.dest for action in self._actions] + names
            raise UsageError(_readable(str(message), known))

    parser = Parser(default_env=False, allow_abbrev=False, **kwargs)
    for config in configs:
        for name, field, hint in _leaves(config):
            _add_option(parser, name, field, hint)
    return parser


def _leaves(config: type[Any], prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    hints = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from _leaves(typing.cast(type[Any], hint), f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, field, hint


def _add_option(parser: Any, name: str, field: Any, hint: Any) -> None:
    made = field.default_factory is not dataclasses.MISSING
    default = field.default_factory() if made else field.default
    extra: dict[str, Any] = {"type": hint}
    if inner := _inside_tuple(hint):
        extra = {"type": inner[0], "nargs": "*" if inner[-1] is Ellipsis else len(inner)}
    elif hint is bool:
        extra = {"type": bool, "nargs": "?", "const": True}
    parser.add_argument(f"--{name}", default=_plain(default), help=field.metadata["help"], **extra)


def _readable(message: str, known: Iterable[str]) -> str:
    """jsonargparse's message in the words of a user, with the nearest name for an unknown one."""
    message = " ".join(message.split())
    message = re.sub(
        r"Does not validate .*Subtypes: \[(.*?)(?:, <class 'NoneType'>)?\] Errors:.*Given value: ",
        r"Expected a \1. Got value: ",
        message,
    )
    message = re.sub(r"Parser key \"([\w.]+)\"", r"--\1", message)
    message = re.sub(r"<class '(\w+)'>", r"\1", message)
    message = re.sub(r"typing\.Literal\[(.*?)\]", r"one of \1", message)
    message = re.sub(r"Expected an? ", "expected ", message)
    message = message.replace(". Got value:", ", got")
    unknown = re.search(r"Option '([\w.]+)' is not accepted", message)
    unknown = unknown or re.search(r"[Uu]nrecognized arguments: --([\w.]+)", message)
    if unknown:
        return f"unknown option {unknown[1]!r}{nearest(unknown[1], known)}; --help lists them all"
    return message


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
