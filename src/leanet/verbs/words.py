"""What the verbs share: a line of help for each, and their parsers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

HELP = {
    "demo": "the main job on generated data, in minutes",
    "unpack": "a published data set as a folder of images",
    "scan": "layout, counts, corrupt files, duplicates, leaks",
    "fit": "train, cross-validated with --folds K",
    "phase1": "the original program: maps, per fold",
    "phase2": "the original program: classifiers",
    "predict": "scores, verdicts, heat maps",
    "evaluate": "metrics on labelled images",
    "explain": "class activation maps, features before and after attention",
    "compare": "paired tests of runs on the same folds",
    "generate": "images of a generator, or synthetic anomalies",
    "benchmark": "methods x data sets x folds x seeds",
    "report": "the HTML page of a run",
}


def make_parser(verb: str, text: str, *configs: type[Any]) -> Any:
    """A parser of the options of these configurations, each with its default and help."""
    from leanet import config

    return config.make_parser(*configs, prog=f"leanet {verb}", description=text)


def add_device(options: Any) -> None:
    """Add `--device`."""
    options.add_argument("--device", default="auto", help="auto, cpu or cuda")


def config_first(words: Sequence[str]) -> list[str]:
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
