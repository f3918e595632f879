"""The Python API, second part: from a run to the line (threshold, export, serve, watch)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from leanet.config import from_dict
from leanet.data.scan import scan
from leanet.inference.export import (
    EXPORTS,
    describe,
    export_detector,
    outdated,
    refuse_earlier_export,
)
from leanet.inference.export_graph import Format
from leanet.inference.held_scores import read_held_scores
from leanet.inference.quantize import ENGINE, describe_int8, export_int8, split_for_int8
from leanet.inference.threshold import PointOptions, completed, settle
from leanet.inference.threshold_text import to_text
from leanet.methods.store import load_detector
from leanet.ops.working_point import WorkingPoint, point_of
from leanet.prepare import FINAL
from leanet.report.page import write_report
from leanet.runtime import make_runtime
from leanet.serve.live import open_model
from leanet.serve.verdict_files import VerdictFiles
from leanet.serve.watch import Pace, Watch
from leanet.trained import Engine, read_card, update_card
from leanet.training.checkpoint import WEIGHTS

PathLike = str | Path


def threshold(
    run: PathLike, *, tell: Callable[[str], None] = print, **options: Any
) -> WorkingPoint:
    """Set how a finished run decides, write its report anew, and tell what the point promises;
    without options only tell it.

    `options` are those of `leanet.inference.threshold.PointOptions`: one rule for the threshold
    (`max_miss`, `max_false_alarm`, `cost={"miss": 50, "false_alarm": 1}`, `value`, `f1`), a
    `review` zone ({"max_miss": ..., "max_false_alarm": ...}, {"low": ..., "high": ...} or "none"),
    a `calibration` (auto, platt, isotonic or none), the `prevalence` of defects on the line; or
    `reset` to what `fit` chose, or `back` to what stood before. What is not named stays.

    Raises:
        ValueError: no finished run, impossible options, or too few held-out scores for them.
    """
    folder, asked = Path(run), from_dict(PointOptions, options)
    card = read_card(folder)
    if asked.given or card["threshold"] is None:
        when = datetime.now(UTC).isoformat(timespec="seconds")
        card = update_card(folder, **settle(folder, card, asked, when))
        if (folder / "report.html").exists():
            write_report(folder)
    held = read_held_scores(folder, card.get("folds", 0))
    tell(to_text({**card, "threshold": completed(card["threshold"], held)}))
    if old := outdated(card):
        tell(
            f"exported files still decide by another point inside ({', '.join(old)}): `leanet "
            "export --overwrite` renews them; predict --engine decides by this one"
        )
    return point_of(card)


def export(  # noqa: PLR0913 - the options of a verb, by name
    run: PathLike,
    format: Format = "onnx",
    out: PathLike | None = None,
    *,
    int8: bool = False,
    data: PathLike | None = None,
    normal: str | None = None,
    overwrite: bool = False,
    tell: Callable[[str], None] = print,
) -> Path:
    """Write the detector of a run as one file, for ONNX Runtime (onnx), OpenVINO or torch.export
    (torch), into `out` (RUN/export if not given); card.json notes it. Returns the file.

    With `int8` it is an ONNX file of 8-bit weights and activations; what that costs is measured on
    the labelled images of `data`, whose normal class `normal` names if need be.

    Raises:
        ValueError: an unknown format, an earlier file without `overwrite`, a missing package, a
            detector that cannot be exported, or a file that answers otherwise than the detector.
    """
    place, card = Path(run), read_card(Path(run))
    folder = Path(out) if out is not None else place / EXPORTS
    refuse_earlier_export(format, folder, int8=int8, data=data is not None, overwrite=overwrite)
    weights, split = place / FINAL / WEIGHTS, None
    if data is not None:
        several = bool(card.get("classes"))
        split = split_for_int8(scan(Path(data), normal=normal, normal_required=not several).samples)
    detector = load_detector(place / FINAL, "cpu")
    if split is None:
        written = export_detector(detector, place, card, format, folder, weights)
    else:
        written = export_int8(detector, place, card, folder, weights, split)
    key = format if split is None else ENGINE
    update_card(place, exports={**(read_card(place).get("exports") or {}), key: written.record})
    tell(describe(written) if split is None else describe_int8(written))
    return written.file


def serve(
    run: PathLike,
    state: PathLike | None = None,
    *,
    tell: Callable[[str], None] = print,
    **options: Any,
) -> None:
    """Serve a run over HTTP, with a review page, until SIGTERM or Ctrl-C.

    `state`, where labels and retrained models go, is RUN-serve if not given. `options` are those of
    `leanet.serve.settings.ServeOptions`.

    Raises:
        ValueError: an unknown option or one out of range, no finished run, another address than
            loopback without a token, or packages of the extra `serve` are missing.
    """
    from leanet.serve.settings import make_settings

    settings = make_settings(Path(run), options, state=None if state is None else Path(state))
    try:
        from leanet.serve.running import run_server
    except ModuleNotFoundError as error:
        raise ValueError(
            f"serving needs {error.name}, which is not installed: pip install 'leanet[serve]'"
        ) from error
    run_server(settings, tell)


def watch(  # noqa: PLR0913 - the options of a verb, by name
    run: PathLike,
    folder: PathLike,
    out: PathLike | None = None,
    *,
    move: bool = False,
    interval: float = 1.0,
    settle: float = 2.0,
    once: bool = False,
    engine: Engine = "torch",
    device: str = "auto",
    tell: Callable[[str], None] = print,
) -> dict[str, int]:
    """Judge the image files that appear in a folder, at any depth, until Ctrl-C, or `once`; returns
    how many got which verdict.

    Verdicts, heat maps and, with `move`, the images go to `out` (FOLDER-judged if not given). A
    file is judged when it has stood still for `settle` seconds.

    Raises:
        ValueError: no folder, no finished run, nothing exported for the engine, or a run without
            verdicts to sort by.
    """
    place, whole = Path(folder), Path(folder).resolve()
    target = Path(out) if out is not None else whole.with_name(f"{whole.name}-judged")
    model = open_model(Path(run), Path(run).name, engine=engine, device=make_runtime(device).device)
    pace = Pace(interval=interval, settle=settle, once=once)
    watcher = Watch(model, VerdictFiles(place, target, move=move), pace, tell)
    tell(f"judging the images in {place}; see {target}" + ("" if once else "; Ctrl-C ends"))
    try:
        watcher.run()
    except KeyboardInterrupt:
        tell("stopped; the same command goes on")
    return dict(watcher.counts)
