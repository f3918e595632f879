"""serve RUN: a REST server and the review page."""

from __future__ import annotations

import os
from pathlib import Path

from leanet.verbs.words import HELP, config_first, make_parser


def serve(argv: list[str]) -> None:
    """Serve a run until Ctrl-C."""
    from leanet.serve.settings import ServeOptions

    parser = make_parser("serve", HELP["serve"], ServeOptions)
    parser.add_argument("run", help="run folder")
    parser.add_argument(
        "--state", default=None, help="where labels and models go (default: RUN-serve)"
    )
    parser.add_argument("--config", action="config", help="YAML file with any of these options")
    given = parser.parse_args(config_first(argv)).as_dict()
    from leanet import line

    options = {name: given[name] for name in ServeOptions.__dataclass_fields__}
    if options["token"] is None:
        options["token"] = os.environ.get("LEANET_TOKEN") or None
    line.serve(Path(given["run"]), given["state"], **options)
