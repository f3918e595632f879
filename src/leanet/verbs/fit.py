"""fit METHOD DATA: train."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leanet.config import UsageError
from leanet.verbs.fit_dcgan import fit_dcgan
from leanet.verbs.fit_gan import fit_gan
from leanet.verbs.fit_words import USAGE, Words, own_command, read_files
from leanet.verbs.words import config_first, fit_parser

GENERATORS = {"gan": fit_gan, "dcgan": fit_dcgan}


def fit(argv: list[str]) -> None:
    """Train a method, or a generator of images."""
    argv = own_command(argv)
    if not argv or argv[0].startswith("-"):
        _usage(argv)
        return
    if argv[0] in GENERATORS:
        GENERATORS[argv[0]](argv[1:])
        return
    from leanet import api
    from leanet.config import build, flat, to_yaml
    from leanet.fit import fit, on_earlier
    from leanet.methods import catalog
    from leanet.prepare import Options
    from leanet.presets import preset_values, whole_preset

    method, asked = argv[0], _value_of("--preset", argv)
    recipe = catalog.find(method)
    parser = fit_parser(method, f"train {method}", recipe.presets, Options, recipe.config)
    words = [word for word in argv[1:] if word != "--print_config"]
    if "adn" in recipe.config.__dataclass_fields__:
        words = [_own_name(word) for word in words]
    read = read_files(config_first(words), whole_preset(method, asked), method)
    preset = preset_values(method, asked or read.preset)
    parser.set_defaults(flat({**recipe.run_defaults, **preset}))
    given = parser.parse_args(read.words)
    _check_file(given, argv)
    values = given.as_dict()
    options, config = build(Options, values), build(recipe.config, values)
    for notice in read.notices:
        print(notice, file=sys.stderr)
    if "--print_config" in argv:  # ours explains every key
        print(to_yaml(options) + to_yaml(config), end="")
        return
    data = _data(given, method, read)
    out = Path(given.out) if given.out else api.default_run(method, data)
    earlier = on_earlier(resume=given.resume, overwrite=given.overwrite)
    run = fit(method, data, out, options, config, earlier=earlier)
    page = api.report(run)
    from leanet.report.page import result_text

    print(f"\n{result_text(run)}\n\nreport: {page}")


def _data(given: Any, method: str, read: Words) -> Path:
    """Where the data are: as the command line says, else a file."""
    place = given.folder or given.data
    if place is None:
        raise UsageError(f"which data? usage: leanet fit {method} DATA [options]")
    if read.file and given.folder is None and not Path(place).exists():
        raise UsageError(
            f"{place} does not exist, where {read.file} says that the data are.\n"
            f"Give their folder: leanet fit {method} --config {read.file} DATA"
            + _made_by_unpack(Path(place))
        )
    return Path(place)


def _made_by_unpack(data: Path) -> str:
    from leanet.data.published import SETS

    if data.name not in SETS:
        return ""
    return f"; or make it: leanet unpack {data.name} SOURCE --out {data}"


def _own_name(word: str) -> str:
    """--backbone, as other libraries say, is --adn."""
    flag, equals, value = word.partition("=")
    return "--adn" + equals + value if flag == "--backbone" else word


def _usage(argv: Sequence[str]) -> None:
    from leanet.methods.catalog import METHODS

    names = ", ".join((*METHODS, *GENERATORS))
    print(f"usage: leanet fit METHOD DATA [options]\n\nmethods: {names}")
    print(f"\nthe words of another program of ADFA: leanet fit {USAGE}")
    if argv and argv[0] not in ("-h", "--help"):
        raise UsageError("give the method first: leanet fit METHOD DATA [options]")


def _check_file(given: Any, argv: Sequence[str]) -> None:
    """Refuse a configuration file that names a preset, or a method that is not the one to fit."""
    if given.preset != _value_of("--preset", argv):
        raise UsageError("a preset counts on the command line only; take it out of the file")
    if given.method != argv[0]:
        raise UsageError(f"the configuration is for {given.method}, not for {argv[0]}")


def _value_of(flag: str, argv: Sequence[str]) -> str | None:
    for word, following in zip(argv, [*argv[1:], None], strict=True):
        if word == flag:
            return following
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
    return None
