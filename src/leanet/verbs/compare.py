"""compare RUN RUN...: paired tests of runs on the same images."""

from __future__ import annotations

from pathlib import Path

from leanet.verbs.words import HELP, make_parser


def compare(argv: list[str]) -> None:
    """Compare runs."""
    parser = make_parser("compare", HELP["compare"])
    parser.add_argument(
        "runs", nargs="+", help="run folders; the first one's method is the baseline"
    )
    parser.add_argument("--out", default=None, help="where to write (default: RUN/comparison)")
    given = parser.parse_args(argv)
    from leanet import api
    from leanet.report.compare_text import to_text

    out = Path(given.out or Path(given.runs[0]) / "comparison")
    print(f"{to_text(api.compare(given.runs, out))}\n\npage: {out / 'compare.html'}")
