"""report RUN and benchmark SUITE: the pages."""

from __future__ import annotations

from pathlib import Path

from leanet.config import UsageError
from leanet.verbs.words import HELP, make_parser


def report(argv: list[str]) -> None:
    """Write the page of a run, or tables of many."""
    parser = make_parser("report", HELP["report"])
    parser.add_argument("run", nargs="+", help="run folder; several with --tables")
    parser.add_argument("--baseline", default=None, help="another run on the same folds")
    parser.add_argument(
        "--tables", default=None, help="instead of a page: tables of runs by data set, into FOLDER"
    )
    parser.add_argument(
        "--gif",
        nargs="?",
        const="",
        default=None,
        help="also an animation of twelve test images (default: RUN/demo/DATA.gif)",
    )
    given = parser.parse_args(argv)
    from leanet import api

    if given.tables is not None:
        if given.baseline is not None or given.gif is not None:
            raise UsageError("--tables writes tables alone; leave out --baseline and --gif")
        if Path(given.tables).is_file():
            raise UsageError(f"--tables {given.tables} is a file; name a folder")
        print(api.report_tables(given.run, given.tables))
        return
    if len(given.run) > 1:
        raise UsageError(f"{len(given.run)} runs, and a page is of one; give --tables FOLDER")
    (run,) = given.run
    if given.gif and Path(given.gif).is_dir():
        raise UsageError(f"--gif {given.gif} is a folder; name a file in it, such as demo.gif")
    print(api.report(run, baseline=given.baseline))
    if given.gif is not None:
        print(api.demo_gif(run, given.gif or None))


def benchmark(argv: list[str]) -> None:
    """Run a suite."""
    parser = make_parser("benchmark", HELP["benchmark"])
    parser.add_argument("suite", help="YAML file; see configs/suites")
    parser.add_argument("--out", default=None, help="where to write (default: runs/NAME)")
    parser.add_argument("--data_root", default=None, help="folder of data sets and weights")
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
