"""unpack WHAT SOURCE: a published data set as a folder of images."""

from __future__ import annotations

from pathlib import Path

from leanet.config import UsageError
from leanet.verbs.words import HELP, make_parser


def unpack(argv: list[str]) -> None:
    """Turn the files of a published data set into a folder that `scan` recognizes."""
    from leanet.data.published import SETS
    from leanet.data.surveillance import EVERY

    known = "; ".join(f"{name} ({files})" for name, files in SETS.items())
    parser = make_parser("unpack", HELP["unpack"])
    parser.add_argument("what", help=f"which data set: {known}")
    parser.add_argument("source", help="folder with its extracted files")
    parser.add_argument("--out", default=None, help="new folder for the images")
    parser.add_argument(
        "--every",
        type=int | None,
        default=None,
        help=f"shanghaitech: take one frame in so many (default: {EVERY})",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier folder")
    given = parser.parse_args(argv)
    if given.out is None:
        raise UsageError("where to? usage: leanet unpack WHAT SOURCE --out FOLDER")
    from leanet import api

    out = api.unpack(
        given.what, given.source, given.out, every=given.every, overwrite=given.overwrite
    )
    print(f"\nnext: leanet scan {_example(out)}")


def _example(out: Path) -> str:
    """One of the data sets, with its first class as the normal one where none is called so."""
    data = out if (out / "train").is_dir() else min(one for one in out.iterdir() if one.is_dir())
    classes = sorted(one.name for one in (data / "train").iterdir())
    return f"{data}" + ("" if "good" in classes else f" --normal_class {classes[0]}")
