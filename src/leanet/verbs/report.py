"""report RUN and benchmark SUITE: the pages."""

from __future__ import annotations

from leanet.verbs.words import HELP, make_parser


def report(argv: list[str]) -> None:
    """Write the page of a run."""
    parser = make_parser("report", HELP["report"])
    parser.add_argument("run", help="run folder")
    parser.add_argument("--baseline", default=None, help="another run on the same folds")
    given = parser.parse_args(argv)
    from leanet import api

    print(api.report(given.run, baseline=given.baseline))


def benchmark(argv: list[str]) -> None:
    """Run a suite."""
    parser = make_parser("benchmark", HELP["benchmark"])
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
