"""export RUN: the detector as one file for other programs."""

from __future__ import annotations

from leanet.verbs.words import HELP, make_parser


def export(argv: list[str]) -> None:
    """Write a detector for ONNX Runtime, OpenVINO or torch.export."""
    parser = make_parser("export", HELP["export"])
    parser.add_argument("run", help="run folder")
    parser.add_argument(
        "--format", choices=("onnx", "openvino", "torch"), default="onnx", help="of the file"
    )
    parser.add_argument("--out", default=None, help="folder of the file (default: RUN/export)")
    parser.add_argument(
        "--int8", action="store_true", help="8-bit weights and activations too (onnx, needs --data)"
    )
    parser.add_argument(
        "--data", default=None, help="labelled images that say what 8 bits cost, for --int8"
    )
    parser.add_argument("--normal", default=None, help="name of the normal class in --data")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier file")
    given = parser.parse_args(argv)
    from leanet import line

    line.export(
        given.run,
        given.format,
        given.out,
        int8=given.int8,
        data=given.data,
        normal=given.normal,
        overwrite=given.overwrite,
    )
