"""watch RUN FOLDER: new images are judged as they come."""

from __future__ import annotations

from leanet.verbs.words import ENGINES, HELP, add_device, make_parser


def watch(argv: list[str]) -> None:
    """Judge new image files until Ctrl-C."""
    parser = make_parser("watch", HELP["watch"])
    parser.add_argument("run", help="run folder")
    parser.add_argument("folder", help="folder in which images appear, at any depth")
    parser.add_argument("--out", default=None, help="where to write (default: FOLDER-judged)")
    parser.add_argument(
        "--move", action="store_true", help="move images to OUT/normal, anomalous and review"
    )
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between two looks")
    parser.add_argument(
        "--settle", type=float, default=2.0, help="seconds that a file must have stood still"
    )
    parser.add_argument("--once", action="store_true", help="judge what is there, and end")
    parser.add_argument("--engine", choices=ENGINES, default="torch", help="or an exported file")
    add_device(parser)
    given = parser.parse_args(argv)
    from leanet import line

    counts = line.watch(
        given.run,
        given.folder,
        given.out,
        move=given.move,
        interval=given.interval,
        settle=given.settle,
        once=given.once,
        engine=given.engine,
        device=given.device,
    )
    listed = ", ".join(f"{count} {name}" for name, count in counts.items())
    print(f"{sum(counts.values())} images judged" + (f": {listed}" if listed else ""))
