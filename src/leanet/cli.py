"""The command line: the table of verbs, and what a mistake gets.

Heavy imports stand inside the functions of `leanet.verbs`, so that `leanet --help` answers at once.
A user's mistake ends in a line or two on standard error and exit status 2; Ctrl-C in 130.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from leanet.config import UsageError, nearest
from leanet.verbs import (
    compare,
    evaluate,
    explain,
    export,
    fit,
    generate,
    predict,
    programs,
    report,
    serve,
    start,
    threshold,
    unpack,
    watch,
)
from leanet.verbs.words import HELP as WHAT
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


ALIASES = {"--normal_class": "--normal"}  # as other programs say


class Verb(NamedTuple):
    """A verb's function and how it is called; `words.HELP` says what it does."""

    run: Callable[[list[str]], None]
    usage: str


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
        lines = [f"  {verb.usage:<38} {WHAT[name]}" for name, verb in VERBS.items()]
        print(HELP.format(verbs="\n".join(lines)))
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"leanet {__version__}")
        return 0
    try:
        name, rest = arguments[0], [_own_spelling(word) for word in arguments[1:]]
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


VERBS = {
    "demo": Verb(start.demo, "demo [--out DIR]"),
    "unpack": Verb(unpack.unpack, "unpack WHAT SOURCE --out FOLDER"),
    "scan": Verb(start.scan, "scan DATA"),
    "fit": Verb(fit.fit, "fit METHOD DATA [--out RUN]"),
    "phase1": Verb(programs.phase1, "phase1 --dataset DATA ..."),
    "phase2": Verb(programs.phase2, "phase2 --dataset MAPS ..."),
    "predict": Verb(predict.predict, "predict RUN PATHS... [--out DIR]"),
    "evaluate": Verb(evaluate.evaluate, "evaluate RUN DATA"),
    "threshold": Verb(threshold.threshold, "threshold RUN [--max_miss 0.01 ...]"),
    "explain": Verb(explain.explain, "explain RUN PATHS... [--also RUN]"),
    "compare": Verb(compare.compare, "compare RUN RUN... [--out DIR]"),
    "export": Verb(export.export, "export RUN [--format FORMAT]"),
    "generate": Verb(generate.generate, "generate RUN [--out DIR]"),
    "benchmark": Verb(report.benchmark, "benchmark SUITE.yaml [--workers N]"),
    "serve": Verb(serve.serve, "serve RUN [--port N]"),
    "watch": Verb(watch.watch, "watch RUN FOLDER [--move]"),
    "report": Verb(report.report, "report RUN [RUN... --tables DIR]"),
}


def _own_spelling(word: str) -> str:
    """--img-size is --img_size, and an alias what it stands for."""
    if not word.startswith("--"):
        return word
    flag, equals, value = word.partition("=")
    flag = "--" + flag[2:].replace("-", "_")
    return ALIASES.get(flag, flag) + equals + value


def _one_message(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


def _verbs() -> str:
    return ", ".join(VERBS)
