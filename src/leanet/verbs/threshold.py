"""threshold RUN: how a finished run decides."""

from __future__ import annotations

from leanet.verbs.words import HELP, make_parser


def threshold(argv: list[str]) -> None:
    """Show or set the working point."""
    from leanet.inference.threshold import PointOptions

    parser = make_parser("threshold", HELP["threshold"], PointOptions)
    parser.add_argument("run", help="run folder; without options its working point is shown")
    given = vars(parser.parse_args(argv))
    from leanet.line import threshold as set_threshold

    set_threshold(given.pop("run"), **given)
