"""generate RUN: images of a trained generator; generate --anomalies KINDS DATA: synthetic ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from leanet.verbs.words import HELP, make_parser


def generate(argv: list[str]) -> None:
    """Write images of a generator, or with `--anomalies` synthetic anomalies."""
    spoil = any(word.partition("=")[0] == "--anomalies" for word in argv)
    if not spoil and {"-h", "--help"} & set(argv):
        print(_drawing().format_help())
        _spoiling().parse_args(["--help"])
    (_spoil if spoil else _draw)(argv)


def _draw(argv: list[str]) -> None:
    given = _drawing().parse_args(argv)
    from leanet.config import build
    from leanet.generation.generate import GenerateOptions, generate

    run = Path(given.run)
    out = Path(given.out) if given.out else run / "generated"
    generate(run, out, build(GenerateOptions, given.as_dict()), overwrite=given.overwrite)
    print(f"see {out}")


def _spoil(argv: list[str]) -> None:
    given = _spoiling().parse_args(argv)
    from leanet.config import build
    from leanet.generation.anomalies import AnomalyOptions, generate_anomalies

    data = Path(given.data)
    out = Path(given.out) if given.out else Path("runs") / f"{data.stem}-anomalies"
    options = build(AnomalyOptions, given.as_dict())
    print(f"see {generate_anomalies(data, out, options, overwrite=given.overwrite)}")


def _drawing() -> Any:
    from leanet.generation.generate import GenerateOptions

    parser = make_parser("generate", HELP["generate"], GenerateOptions)
    parser.add_argument("run", help="run folder of `leanet fit gan`")
    parser.add_argument("--out", default=None, help="where to write (default: RUN/generated)")
    parser.add_argument("--overwrite", action="store_true", help="replace earlier images")
    return parser


def _spoiling() -> Any:
    from leanet.generation.anomalies import AnomalyOptions

    text = "synthetic anomalies from the normal training images of a data set"
    parser = make_parser("generate --anomalies KINDS", text, AnomalyOptions)
    parser.add_argument("data", help="folder or CSV file")
    parser.add_argument("--out", default=None, help="where to write (default: runs/DATA-anomalies)")
    parser.add_argument("--overwrite", action="store_true", help="replace earlier anomalies")
    return parser
