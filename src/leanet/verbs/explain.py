"""explain RUN PATHS: how the score came about."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from leanet.verbs.words import HELP, add_device, make_parser


def explain(argv: list[str]) -> None:
    """Show how scores came about."""
    from leanet import api
    from leanet.inference.cam_panels import Look
    from leanet.inference.cam_run import CamOptions
    from leanet.inference.explain import to_text

    # "*" would take no path where an option stands between the run and its paths
    parser = _parser("*" if "--list_layers" in argv else "+", CamOptions, Look)
    given = parser.parse_args(argv).as_dict()
    if given["list_layers"]:
        print(*api.list_layers(given["run"], device=given["device"]), sep="\n")
        return
    if given["faithfulness"] or given["masks"]:
        print(_measured(given, [field.name for field in dataclasses.fields(CamOptions)]))
        return
    named = [field.name for one in (CamOptions, Look) for field in dataclasses.fields(one)]
    explained = api.explain(
        given["run"],
        given["paths"],
        given["out"],
        which=given["class"],
        also=given["also"],
        device=given["device"],
        skip_bad=given["skip_bad"],
        overwrite=given["overwrite"],
        **{name: given[name] for name in named},
    )
    out = Path(given["out"] or Path(given["run"]) / "explanations")
    print(to_text(explained))
    pictures = {"figures": [one.figure for one in explained if one.figure is not None]}
    pictures["panels"] = [one.cams.panel for one in explained if one.cams is not None]
    for folder, files in pictures.items():
        if files:
            print(f"{len(files)} picture(s) in {out / folder}")


def _measured(given: dict[str, Any], named: list[str]) -> str:
    """The tables of what the maps are worth."""
    from leanet import api
    from leanet.config import UsageError

    if len(given["paths"]) != 1:
        raise UsageError("--faithfulness and --masks take one data set, a folder or CSV file")
    return api.measure_maps(
        given["run"],
        given["paths"][0],
        given["out"],
        faithfulness=given["faithfulness"],
        masks=given["masks"],
        images=given["images"],
        which=given["class"],
        normal=given["normal"],
        device=given["device"],
        skip_bad=given["skip_bad"],
        overwrite=given["overwrite"],
        **{name: given[name] for name in named},
    )


def _parser(paths: str, *configs: type[Any]) -> Any:
    parser = make_parser("explain", HELP["explain"], *configs)
    parser.add_argument("run", help="run folder")
    parser.add_argument("paths", nargs=paths, help="images, folders or globs")
    parser.add_argument("--out", default=None, help="where to write (default: RUN/explanations)")
    parser.add_argument(
        "--class", default="predicted", help="explained class: predicted, true, a name or an index"
    )
    parser.add_argument("--list_layers", action="store_true", help="only print the layers")
    parser.add_argument(
        "--faithfulness", action="store_true", help="judge the maps on a data set instead"
    )
    parser.add_argument("--masks", action="store_true", help="compare the maps with masks instead")
    parser.add_argument("--images", type=int, default=200, help="of --faithfulness, drawn evenly")
    parser.add_argument("--normal", default=None, help="normal class of that data set")
    parser.add_argument("--also", nargs="+", default=[], help="runs whose points are added")
    add_device(parser)
    parser.add_argument("--skip_bad", action="store_true", help="go on past unreadable images")
    parser.add_argument("--overwrite", action="store_true", help="replace earlier explanations")
    return parser
