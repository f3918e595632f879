"""What the verbs share: a line of help for each, and their parsers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
    "threshold": "how a run decides: misses, false alarms, cost, review",
    "explain": "class activation maps, features before and after attention",
    "compare": "paired tests of runs on the same folds",
    "export": "one file for ONNX Runtime, OpenVINO or torch.export",
    "generate": "images of a generator, or synthetic anomalies",
    "serve": "a REST server, and a page to review and label",
    "watch": "judge the images that appear in a folder",
    "benchmark": "methods x data sets x folds x seeds",
    "report": "the HTML page of a run, or tables of many",
}
ENGINES = ("torch", "onnx", "onnx_int8", "openvino")  # what runs a detector


def make_parser(verb: str, text: str, *configs: type[Any]) -> Any:
    """A parser of the options of these configurations, each with its default and help."""
    from leanet import config

    return config.make_parser(*configs, prog=f"leanet {verb}", description=text)


def fit_parser(
    method: str, text: str, presets: Iterable[str], options: type[Any], config: type[Any]
) -> Any:
    """A parser of `fit METHOD`: where data and run are, what becomes of an earlier run, presets."""
    parser = make_parser(f"fit {method}", text, options, config)
    parser.add_argument("folder", nargs="?", metavar="data", help="folder or CSV file")
    parser.add_argument("--out", default=None, help=f"run folder (default: runs/DATA-{method})")
    parser.add_argument("--preset", default=None, help=f"one of: {', '.join(presets)}")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier run")
    parser.add_argument("--config", action="config", help="YAML file with any of these options")
    parser.add_argument("--method", default=method, help="as in a run's config.yaml")
    parser.add_argument("--data", default=None, help="as in a run's config.yaml")
    return parser


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
