"""predict RUN PATHS: scores, verdicts, heat maps."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from leanet.verbs.words import ENGINES, HELP, add_device, make_parser


def predict(argv: list[str]) -> None:
    """Judge images."""
    parser = make_parser("predict", HELP["predict"])
    parser.add_argument("run", help="run folder")
    parser.add_argument("paths", nargs="+", help="images, folders or globs")
    parser.add_argument("--out", default=None, help="where to write (default: RUN/predictions)")
    add_device(parser)
    parser.add_argument("--engine", choices=ENGINES, default="torch", help="or an exported file")
    parser.add_argument("--batch_size", type=int, default=16, help="images at a time")
    parser.add_argument("--no_heatmaps", action="store_true", help="write no pictures")
    parser.add_argument("--maps", action="store_true", help="write raw maps too (16-bit PNG)")
    parser.add_argument("--maps_from", default=None, help="folder of maps, for --map_source FOLDER")
    parser.add_argument("--skip_bad", action="store_true", help="go on past unreadable images")
    parser.add_argument("--overwrite", action="store_true", help="replace earlier predictions")
    given = parser.parse_args(argv)
    from leanet import api

    judged = api.predict(
        given.run,
        given.paths,
        given.out,
        device=given.device,
        engine=given.engine,
        batch_size=given.batch_size,
        heatmaps=not given.no_heatmaps,
        maps=given.maps,
        maps_from=given.maps_from,
        skip_bad=given.skip_bad,
        overwrite=given.overwrite,
    )
    anomalous = sum(one.verdict == "anomalous" for one in judged)
    classes = Counter(one.predicted for one in judged if one.predicted)
    told = [f"{count} {name}" for name, count in classes.items()]
    if any(one.verdict for one in judged):
        told.insert(0, f"{anomalous} anomalous")
    if any(one.review is not None for one in judged):
        told.append(f"{sum(one.review is True for one in judged)} for review")
    out = given.out or Path(given.run) / "predictions"
    print(f"{len(judged)} images: {', '.join(told)}; see {Path(out) / 'predictions.csv'}")
