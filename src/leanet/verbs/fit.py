"""fit METHOD DATA: train."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leanet.config import UsageError
from leanet.verbs.fit_dcgan import fit_dcgan
from leanet.verbs.fit_gan import fit_gan
from leanet.verbs.words import config_first, fit_parser

GENERATORS = {"gan": fit_gan, "dcgan": fit_dcgan}


def fit(argv: list[str]) -> None:
    """Train a method, or a generator of images."""
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

    method = argv[0]
    recipe = catalog.find(method)
    parser = fit_parser(method, f"train {method}", recipe.presets, Options, recipe.config)
    preset = api.preset_values(method, _value_of("--preset", argv))
    parser.set_defaults(flat({**recipe.run_defaults, **preset}))
    words = [_own_name(word) for word in argv[1:] if word != "--print_config"]
    given = parser.parse_args(config_first(words))
    _check_file(given, method, argv)
    values = given.as_dict()
    options, config = build(Options, values), build(recipe.config, values)
    if "--print_config" in argv:  # ours explains every key
        print(to_yaml(options) + to_yaml(config), end="")
        return
    place = given.folder or given.data
    if place is None:
        raise UsageError(f"which data? usage: leanet fit {method} DATA [options]")
    data = Path(place)
    out = Path(given.out) if given.out else api.default_run(method, data)
    earlier = on_earlier(resume=given.resume, overwrite=given.overwrite)
    run = fit(method, data, out, options, config, earlier=earlier)
    page = api.report(run)
    from leanet.report.page import result_text

    print(f"\n{result_text(run)}\n\nreport: {page}")


def _own_name(word: str) -> str:
    """--backbone, as other libraries say, is --adn."""
    flag, equals, value = word.partition("=")
    return "--adn" + equals + value if flag == "--backbone" else word


def _usage(argv: Sequence[str]) -> None:
    from leanet.methods.catalog import METHODS

    print(
        f"usage: leanet fit METHOD DATA [options]\n\nmethods: {', '.join((*METHODS, *GENERATORS))}"
    )
    if argv and argv[0] not in ("-h", "--help"):
        raise UsageError("give the method first: leanet fit METHOD DATA [options]")


def _check_file(given: Any, method: str, argv: Sequence[str]) -> None:
    """Refuse a configuration file of another method, or one that names a preset."""
    if given.preset != _value_of("--preset", argv):
        raise UsageError("a preset counts on the command line only; take it out of the file")
    if given.method != method:
        raise UsageError(f"the configuration is for {given.method}, not for {method}")


def _value_of(flag: str, argv: Sequence[str]) -> str | None:
    for word, following in zip(argv, [*argv[1:], None], strict=True):
        if word == flag:
            return following
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
    return None
