"""evaluate RUN DATA: figures on labeled images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from leanet.config import UsageError
from leanet.verbs.words import HELP, add_device, make_parser


def evaluate(argv: list[str]) -> None:
    """Judge labelled images."""
    parser = make_parser("evaluate", HELP["evaluate"])
    parser.add_argument("run", help="run folder")
    parser.add_argument("data", help="labelled folder or CSV file; its test part if it has one")
    parser.add_argument("--out", default=None, help="where to write (default: RUN/evaluation)")
    parser.add_argument("--normal", default=None, help="name of the normal class")
    add_device(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier evaluation")
    parser.add_argument(
        "--transductive",
        action="store_true",
        help="also scale the score by the smallest and largest of this very test set",
    )
    parser.add_argument(
        "--detection_curve",
        action="store_true",
        help="instead: recall against the severity of discolorations of the normal images",
    )
    given = parser.parse_args(argv)
    if given.detection_curve:
        if given.transductive:
            raise UsageError("--detection_curve draws its own images; leave out --transductive")
        _detection_curve(given)
        return
    from leanet import api
    from leanet.inference.evaluate_text import to_text

    evaluation = api.evaluate(
        given.run,
        given.data,
        given.out,
        normal=given.normal,
        device=given.device,
        overwrite=given.overwrite,
        transductive=given.transductive,
    )
    print(to_text(evaluation))


def _detection_curve(given: Any) -> None:
    from leanet.generation.detection import NAME, DetectionOptions, detection_curve

    out = Path(given.out) if given.out else Path(given.run) / NAME
    if (out / f"{NAME}.json").exists() and not given.overwrite:
        raise UsageError(f"{out} holds a detection curve; use --overwrite, or another --out")
    options = DetectionOptions(normal=given.normal, device=given.device)
    detection_curve(Path(given.run), Path(given.data), out, options)
    print(f"see {out / NAME}.png")
