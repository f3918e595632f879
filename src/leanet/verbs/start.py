"""The first verbs that a user calls: demo and scan."""

from __future__ import annotations

from leanet.verbs.words import HELP, make_parser


def demo(argv: list[str]) -> None:
    """Run the main job on generated data."""
    parser = make_parser("demo", HELP["demo"])
    parser.add_argument("--out", default="runs/demo", help="folder for data, runs and report")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier demo")
    given = parser.parse_args(argv)
    from leanet.demo import demo

    print(f"\nopen {demo(given.out, overwrite=given.overwrite)}")


def scan(argv: list[str]) -> None:
    """Say what a data set holds."""
    parser = make_parser("scan", HELP["scan"])
    parser.add_argument("data", help="folder or CSV file")
    parser.add_argument("--normal", default=None, help="name of the normal class")
    given = parser.parse_args(argv)
    from leanet import api

    print(api.scan(given.data, normal=given.normal))
