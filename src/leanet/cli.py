"""The command line: one short function per verb.

Heavy imports stand inside the verbs, so that `leanet --help` answers at once. A user's mistake ends
in a line or two on standard error and exit status 2; Ctrl-C in 130.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from leanet.config import UsageError, nearest
from leanet.version import __version__

HELP = """usage: leanet VERB ...

From good pictures and a few bad ones to an inspector that says good or bad, and where.

{verbs}

`leanet VERB --help` lists the options of a verb, `leanet fit METHOD --help` those of a method.
"""


ADVICE = {  # after Ctrl-C
    "fit": "; the same command with --resume goes on",
    "benchmark": "; the same command goes on",
    "phase1": "; the same command with --resume goes on",
    "phase2": "; the same command with --resume goes on",
}


class Verb(NamedTuple):
    """A verb's function and what it does."""

    run: Callable[[list[str]], None]
    usage: str
    help: str


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(arguments)
    except BrokenPipeError:  # the reader of our output (head, less) has seen enough
        sys.stdout = None  # nothing is flushed at exit
        return 0


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP.format(verbs="\n".join(f"  {v.usage:<38} {v.help}" for v in VERBS.values())))
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"leanet {__version__}")
        return 0
    try:
        name, rest = arguments[0], [_with_underscores(word) for word in arguments[1:]]
        if name not in VERBS:
            raise UsageError(f"unknown verb {name!r}{nearest(name, VERBS)}; allowed: {_verbs()}")
        VERBS[name].run(rest)
    except BrokenPipeError:
        raise
    except (ValueError, OSError) as error:
        print(f"leanet: {_one_message(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        more = ADVICE.get(arguments[0], "")
        print(f"\nleanet: stopped{more}", file=sys.stderr)
        return 130
    return 0


def _demo(argv: list[str]) -> None:
    parser = _parser("demo", VERBS["demo"].help)
    parser.add_argument("--out", default="runs/demo", help="folder for data, runs and report")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier demo")
    given = parser.parse_args(argv)
    from leanet.demo import demo

    print(f"\nopen {demo(given.out, overwrite=given.overwrite)}")


def _scan(argv: list[str]) -> None:
    parser = _parser("scan", VERBS["scan"].help)
    parser.add_argument("data", help="folder or CSV file")
    parser.add_argument("--normal", default=None, help="name of the normal class")
    given = parser.parse_args(argv)
    from leanet import api

    print(api.scan(given.data, normal=given.normal))


def _fit(argv: list[str]) -> None:
    if not argv or argv[0].startswith("-"):
        from leanet.methods.catalog import METHODS

        print(f"usage: leanet fit METHOD DATA [options]\n\nmethods: {', '.join(METHODS)}")
        if argv and argv[0] not in ("-h", "--help"):
            raise UsageError("give the method first: leanet fit METHOD DATA [options]")
        return
    from leanet import api
    from leanet.config import build, flat, to_yaml
    from leanet.fit import fit, on_earlier
    from leanet.methods import catalog
    from leanet.prepare import Options

    method = argv[0]
    recipe = catalog.find(method)
    parser = _parser(f"fit {method}", f"train {method}", Options, recipe.config)
    parser.add_argument("folder", nargs="?", metavar="data", help="folder or CSV file")
    parser.add_argument("--out", default=None, help="run folder (default: runs/DATA-METHOD)")
    parser.add_argument("--preset", default=None, help=f"one of: {', '.join(recipe.presets)}")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier run")
    parser.add_argument("--config", action="config", help="YAML file with any of these options")
    preset = api.preset_values(method, _value_of("--preset", argv))
    parser.set_defaults(flat(preset))
    parser.add_argument("--method", default=method, help="as in a run's config.yaml")
    parser.add_argument("--data", default=None, help="as in a run's config.yaml")
    words = [word for word in argv[1:] if word != "--print_config"]
    given = parser.parse_args(_config_first(words))
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
    from leanet.report.tables import summarize, to_text

    print(f"\n{to_text(summarize(run))}\n\nreport: {page}")


def _phase1(argv: list[str]) -> None:
    from leanet.programs.flags import Phase1, parse

    given = parse("phase1", Phase1, argv)
    if isinstance(given, str):  # --print_config
        print(given, end="")
        return
    from leanet.programs.phase1 import phase1

    print(*given.notices, sep="\n", end="\n" if given.notices else "")
    print(phase1(given.flags, earlier=given.earlier))


def _phase2(argv: list[str]) -> None:
    from leanet.programs.flags import Phase2, parse

    given = parse("phase2", Phase2, argv)
    if isinstance(given, str):
        print(given, end="")
        return
    from leanet.programs.phase2 import phase2

    print(*given.notices, sep="\n", end="\n" if given.notices else "")
    print(phase2(given.flags, earlier=given.earlier))


def _predict(argv: list[str]) -> None:
    parser = _parser("predict", VERBS["predict"].help)
    parser.add_argument("run", help="run folder")
    parser.add_argument("paths", nargs="+", help="images, folders or globs")
    parser.add_argument("--out", default=None, help="where to write (default: RUN/predictions)")
    _add_device(parser)
    parser.add_argument("--batch_size", type=int, default=16, help="images at a time")
    parser.add_argument("--no_heatmaps", action="store_true", help="write no pictures")
    parser.add_argument("--maps", action="store_true", help="write raw maps too (16-bit PNG)")
    parser.add_argument("--maps_from", default=None, help="folder of maps, for --map_source FOLDER")
    parser.add_argument("--skip_bad", action="store_true", help="go on past unreadable images")
    parser.add_argument("--overwrite", action="store_true", help="replace earlier predictions")
    given = parser.parse_args(argv)
    from leanet import api

    judged = api.predict(
        given.run,
        given.paths,
        given.out,
        device=given.device,
        batch_size=given.batch_size,
        heatmaps=not given.no_heatmaps,
        maps=given.maps,
        maps_from=given.maps_from,
        skip_bad=given.skip_bad,
        overwrite=given.overwrite,
    )
    anomalous = sum(one.verdict == "anomalous" for one in judged)
    out = given.out or Path(given.run) / "predictions"
    print(f"{len(judged)} images, {anomalous} anomalous; see {Path(out) / 'predictions.csv'}")


def _evaluate(argv: list[str]) -> None:
    parser = _parser("evaluate", VERBS["evaluate"].help)
    parser.add_argument("run", help="run folder")
    parser.add_argument("data", help="labelled folder or CSV file; its test part if it has one")
    parser.add_argument("--out", default=None, help="where to write (default: RUN/evaluation)")
    parser.add_argument("--normal", default=None, help="name of the normal class")
    _add_device(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier evaluation")
    given = parser.parse_args(argv)
    from leanet import api
    from leanet.inference.evaluate import to_text

    evaluation = api.evaluate(
        given.run,
        given.data,
        given.out,
        normal=given.normal,
        device=given.device,
        overwrite=given.overwrite,
    )
    print(to_text(evaluation))


def _explain(argv: list[str]) -> None:
    parser = _parser("explain", VERBS["explain"].help)
    parser.add_argument("run", help="run folder")
    parser.add_argument("paths", nargs="+", help="images, folders or globs")
    parser.add_argument("--out", default=None, help="where to write (default: RUN/explanations)")
    parser.add_argument("--also", nargs="+", default=[], help="runs whose points are added")
    _add_device(parser)
    parser.add_argument("--skip_bad", action="store_true", help="go on past unreadable images")
    parser.add_argument("--overwrite", action="store_true", help="replace earlier explanations")
    given = parser.parse_args(argv)
    from leanet import api
    from leanet.inference.explain import to_text

    explained = api.explain(
        given.run,
        given.paths,
        given.out,
        also=given.also,
        device=given.device,
        skip_bad=given.skip_bad,
        overwrite=given.overwrite,
    )
    out = given.out or Path(given.run) / "explanations"
    print(f"{to_text(explained)}\n{len(explained)} picture(s) in {Path(out) / 'figures'}")


def _report(argv: list[str]) -> None:
    parser = _parser("report", VERBS["report"].help)
    parser.add_argument("run", help="run folder")
    parser.add_argument("--baseline", default=None, help="another run on the same folds")
    given = parser.parse_args(argv)
    from leanet import api

    print(api.report(given.run, baseline=given.baseline))


def _benchmark(argv: list[str]) -> None:
    parser = _parser("benchmark", VERBS["benchmark"].help)
    parser.add_argument("suite", help="YAML file; see configs/suites")
    parser.add_argument("--out", default=None, help="where to write (default: runs/NAME)")
    parser.add_argument("--data_root", default=None, help="folder of the data sets")
    parser.add_argument("--workers", type=int, default=1, help="cells at a time")
    parser.add_argument(
        "--ray", nargs="?", const="", default=None, help="use Ray: here, or the cluster of ADDRESS"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier benchmark")
    given = parser.parse_args(argv)
    from leanet import api

    page = api.benchmark(
        given.suite,
        given.out,
        data_root=given.data_root,
        workers=given.workers,
        ray=given.ray,
        overwrite=given.overwrite,
    )
    print(f"\nreport: {page}")


VERBS = {
    "demo": Verb(_demo, "demo [--out DIR]", "the main job on generated data, in minutes"),
    "scan": Verb(_scan, "scan DATA", "layout, counts, corrupt files, duplicates, leaks"),
    "fit": Verb(_fit, "fit METHOD DATA [--out RUN]", "train, cross-validated with --folds K"),
    "phase1": Verb(_phase1, "phase1 --dataset DATA ...", "the original program: maps, per fold"),
    "phase2": Verb(_phase2, "phase2 --dataset MAPS ...", "the original program: classifiers"),
    "predict": Verb(_predict, "predict RUN PATHS... [--out DIR]", "scores, verdicts, heat maps"),
    "evaluate": Verb(_evaluate, "evaluate RUN DATA", "metrics on labelled images"),
    "explain": Verb(
        _explain, "explain RUN PATHS... [--also RUN]", "features before, after attention"
    ),
    "benchmark": Verb(
        _benchmark, "benchmark SUITE.yaml [--workers N]", "methods x data sets x folds x seeds"
    ),
    "report": Verb(_report, "report RUN [--baseline RUN]", "the HTML page of a run"),
}


def _parser(verb: str, text: str, *configs: type[Any]) -> Any:
    from leanet.config import make_parser

    return make_parser(*configs, prog=f"leanet {verb}", description=text)


def _add_device(parser: Any) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")


def _with_underscores(word: str) -> str:
    """--img-size is --img_size."""
    if not word.startswith("--"):
        return word
    flag, equals, value = word.partition("=")
    return "--" + flag[2:].replace("-", "_") + equals + value


def _check_file(given: Any, method: str, argv: Sequence[str]) -> None:
    """Refuse a configuration file of another method, or one that names a preset."""
    if given.preset != _value_of("--preset", argv):
        raise UsageError("a preset counts on the command line only; take it out of the file")
    if given.method != method:
        raise UsageError(f"the configuration is for {given.method}, not for {method}")


def _config_first(words: Sequence[str]) -> list[str]:
    """`--config FILE` before all other words, so that the command line wins wherever it stands."""
    files: list[str] = []
    others: list[str] = []
    rest = iter(words)
    for word in rest:
        if word == "--config":
            files += [word, *([following] if (following := next(rest, None)) else [])]
        else:
            (files if word.startswith("--config=") else others).append(word)
    return files + others


def _value_of(flag: str, argv: Sequence[str]) -> str | None:
    for word, following in zip(argv, [*argv[1:], None], strict=True):
        if word == flag:
            return following
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
    return None


def _one_message(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


def _verbs() -> str:
    return ", ".join(VERBS)
