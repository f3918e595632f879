"""Presets of the methods, and what sets the options of a run apart from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from leanet.config import UsageError, flat, merged, to_dict
from leanet.methods import catalog
from leanet.methods.adfa_file import FileOptions, read_sections
from leanet.prepare import Options

UNTOLD: Final = frozenset({  # options that make no other method of a run
    "seed", "device", "precision", "normal", "skip_bad", "inner_splits", "mean", "std", "weights",
    "pretrained", "backbone", "backbone_args", "adn", "adn_args", "block",
})  # fmt: skip


def preset_values(method: str, preset: str | None) -> dict[str, Any]:
    """The options that a preset changes.

    Raises:
        ValueError: the method has no preset of this name.
    """
    presets = catalog.find(method).presets
    if preset is None:
        return {}
    if preset not in presets:
        raise ValueError(f"{method} has no preset {preset!r}; allowed: {', '.join(presets)}")
    return presets[preset]


def whole_preset(method: str, preset: str | None) -> dict[str, Any]:
    """Every option that some preset of the method changes, as this preset has it; {} for None.

    Raises:
        ValueError: the method has no preset of this name.
    """
    if preset is None:
        return {}
    chosen, plain = preset_values(method, preset), _plain(method)
    names = dict.fromkeys(key for one in catalog.find(method).presets.values() for key in one)
    return {name: chosen.get(name, plain[name]) for name in names}


def read_start(
    method: str, file: str | Path | None, preset: str | None, tell: Callable[[str], None]
) -> dict[str, Any]:
    """The options to start from: of a configuration file, flat or in sections, above the preset
    that it or the caller names. The caller's wins over a file in sections.

    Raises:
        UsageError: a file that cannot be understood, or of another method.
    """
    if file is None:
        return preset_values(method, preset)
    read = read_sections(Path(file))
    if read is None:
        values = yaml.safe_load(Path(file).read_text(encoding="utf-8")) or {}
        if not isinstance(values, dict):
            raise UsageError(f"{file} holds no options; write them as NAME: VALUE")
        read = FileOptions(values)
    named = read.options.get("method", method)
    if named != method:
        raise UsageError(f"{file} is for {named}, not for {method}")
    above = whole_preset(method, preset) if read.in_sections else {}
    start = preset_values(method, preset or read.preset)
    for notice in read.notices:
        tell(notice)
    options = merged(merged(start, read.options), above)
    return {key: value for key, value in options.items() if key != "method"}


def describe_options(config: Mapping[str, Any]) -> str:
    """The preset that the options of a run are nearest to, and what differs from it, but for data,
    seed, machine and weights. "" for a method's plain options.
    """
    method, own = str(config["method"]), flat(dict(config))
    presets = {"": {}, **catalog.find(method).presets}
    differing = {
        name: [key for key, value in flat(merged(_plain(method), preset)).items()
               if key not in UNTOLD and own.get(key, value) != value]
        for name, preset in presets.items()
    }  # fmt: skip
    fewest = min(map(len, differing.values()))
    near = [name for name, keys in differing.items() if len(keys) == fewest]
    name = "default" if "default" in near else near[0]
    random = config.get("pretrained") is False and config.get("weights") is None
    words = [f"{key} {own[key]}" for key in differing[name]]
    return ", ".join(filter(None, (name, *words, "random backbone" * random)))


def _plain(method: str) -> dict[str, Any]:
    """All options of a fit at their defaults."""
    recipe = catalog.find(method)
    return {**to_dict(Options()), **recipe.run_defaults, **to_dict(recipe.config())}
