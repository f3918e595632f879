"""From image files to scores, verdicts and heat maps.

Files are decoded ahead of the detector by a few threads (`leanet.data.loader.stream`) and pictures
are written behind it, both with bounded queues: memory does not grow with the number of files. An
image is anomalous when its score is at least the threshold, and `predictions.csv` exists only when
all images have been judged.
"""

from __future__ import annotations

import glob
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from leanet.config import nearest
from leanet.data.cache import UnreadableImagesError
from leanet.data.images import IMAGE_SUFFIXES, UnreadableImageError
from leanet.data.scan import SKIPPED_NAMES, natural_key
from leanet.files import write_csv
from leanet.inference.class_tables import most_probable
from leanet.inference.heatmap import MAP_TOP
from leanet.inference.judge import Outputs, judge
from leanet.inference.pictures import Pictures
from leanet.ops.covered import in_words
from leanet.ops.working_point import WorkingPoint, decide
from leanet.progress import Progress
from leanet.records import Detector

Tell = Callable[[str], None]
Verdict = Literal["normal", "anomalous"]

PREDICTIONS = "predictions.csv"
PARTIAL = "predictions.partial.csv"  # the readable images' rows where unreadable ones stopped it
_LISTED = 5


class Judged(NamedTuple):
    """One image's score, its verdict, and the named single scores that the score was made of; of a
    detector of several classes their probabilities (p_CLASS) and the predicted one. Without a
    normal class score and verdict are nan and "". Whether a person should look, None without a
    review zone, and the probability of a defect, None without a calibration."""

    path: Path
    score: float
    verdict: Verdict | Literal[""]
    parts: dict[str, float]
    predicted: str = ""
    review: bool | None = None
    probability: float | None = None


def find_images(paths: Sequence[str | Path]) -> list[Path]:
    """The image files that files, folders and globs name, each once.

    A file is taken whatever its name. A folder stands for the visible image files at any depth, in
    natural order (image2 before image10). A glob (`**` reaches any depth) stands for the images and
    folders that it matches. `~` is the home folder.

    Raises:
        ValueError: something does not exist, or holds no image.
    """
    found: dict[Path, Path] = {}
    problems: list[str] = [] if paths else ["no path was given"]
    for path in (Path(given).expanduser() for given in paths):
        images = _images_of(path)
        found |= {image.absolute(): image for image in images if image.absolute() not in found}
        if not images:
            problems.append(_why_none(path))
    if problems:
        more = f"; and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
        raise ValueError(
            f"{'; '.join(problems[:_LISTED])}{more}.\nGive image files, folders or globs; of a "
            f"folder the files ending in {', '.join(sorted(IMAGE_SUFFIXES))} are taken."
        )
    return list(found.values())


def predict(  # noqa: PLR0913 - the options of a verb, by name
    detector: Detector,
    paths: Sequence[Path],
    *,
    point: WorkingPoint,
    out: Path,
    device: torch.device,
    map_top: float | None = None,
    map_threshold: float | None = None,
    batch_size: int = 16,
    heatmaps: bool = True,
    maps: bool = False,
    skip_bad: bool = False,
    overwrite: bool = False,
    tell: Tell = print,
) -> list[Judged]:
    """Judge image files (see `find_images`) and write `out/predictions.csv`.

    `out/heatmaps` gets a picture of every image at its own resolution, with `maps` `out/maps` the
    raw map as 16-bit PNG (`maps.json` says its scale), both under the image's place below the
    common folder of all images: `a.png` keeps its name, `a.jpg` becomes `a.jpg.png`. `map_top` is
    the map value of the last color, 30 (dE00) if None; colors begin at the detector's `map_low`, or
    at 0, and a line is drawn at `map_threshold`. Where the map leaves out the border of the image
    (`map_border`), pictures are grey there.

    `point` decides; with a review zone there is a column `review`, with a calibration
    `probability`. A detector of several classes also gives the predicted one and the probability of
    each (p_CLASS); it has no score and no verdict, a `point` without threshold, if none of them is
    the normal one.

    Unreadable images are left out with `skip_bad`: they are told, and have a row with the verdict
    "unreadable". Pictures of an earlier call that have no successor stay when overwriting.

    Raises:
        UnreadableImagesError: without `skip_bad`, after all other images have been judged; their
            rows are then in `out/predictions.partial.csv`.
        ValueError: earlier predictions in `out`, images in the folders to write to, an impossible
            option, or a detector that gives scores that are not finite.
    """
    pictures = Pictures(
        out=out,
        top=MAP_TOP if map_top is None else map_top,
        low=getattr(detector, "map_low", None) or 0.0,
        contour=map_threshold,
        heatmaps=heatmaps,
        maps=maps,
        border=getattr(detector, "map_border", 0),
        unit=getattr(detector, "map_unit", None),
    )
    check_options(point.threshold, batch_size)
    refuse_earlier(out, (PREDICTIONS,), overwrite=overwrite)
    pictures.refuse_as_images(paths)
    if pictures.border:
        tell(in_words(detector.img_size, pictures.border))
    classes: tuple[str, ...] = getattr(detector, "classes", ())
    bad: list[UnreadableImageError] = []
    judged: list[Judged] = []
    batches = judge(detector, paths, device=device, batch_size=batch_size, bad=bad)
    if heatmaps or maps:
        batches = pictures.written(batches, paths, tell)
    with Progress("judging images", total=len(paths)) as bar:
        for batch in batches:
            judged += _judged(batch, point, classes)
            bar.advance(steps=len(judged) + len(bad) - bar.done)
    rows = _rows(paths, judged, point.threshold, classes)
    if bad and not skip_bad:
        write_csv(out / PARTIAL, rows)
        tell(f"the results of the other {len(judged)} image(s) are in {out / PARTIAL}")
        raise UnreadableImagesError(bad)
    tell_left_out(bad, tell)
    write_csv(out / PREDICTIONS, rows)
    (out / PARTIAL).unlink(missing_ok=True)
    return judged


def verdict(score: float, threshold: float) -> Verdict:
    """The word for a score: anomalous from the threshold on.

    >>> verdict(0.5, threshold=0.5)
    'anomalous'
    """
    return "anomalous" if score >= threshold else "normal"


def check_options(threshold: float | None, batch_size: int) -> None:
    """Raise `ValueError` unless the threshold, if any, is finite and the batch size at least 1."""
    if not math.isfinite(threshold or 0) or batch_size < 1:
        raise ValueError(
            f"threshold must be finite and batch_size at least 1, not {threshold} and {batch_size}"
        )


def refuse_earlier(out: Path, files: Sequence[str], *, overwrite: bool) -> None:
    """Raise `ValueError` if one of these files is in `out` and may not be replaced."""
    for file in files:
        if (out / file).exists() and not overwrite:
            raise ValueError(
                f"{out / file} holds earlier results; use --overwrite to replace them, or another "
                "--out"
            )


def tell_left_out(bad: Sequence[UnreadableImageError], tell: Tell) -> None:
    """Say which files were left out and why, if any."""
    if bad:
        listed = "; ".join(f"{error.path} ({error.reason})" for error in bad)
        tell(f"left out {len(bad)} unreadable image(s): {listed}")


def _judged(batch: Outputs, point: WorkingPoint, classes: tuple[str, ...]) -> list[Judged]:
    decided = None
    if point.threshold is not None:
        decided = decide(point, torch.tensor(batch.scores["score"], dtype=torch.float64))
    judged = []
    for k, path in enumerate(batch.paths):
        parts = {name: values[k] for name, values in batch.scores.items()}
        score = parts.pop("score")
        predicted = most_probable(parts, classes) if classes else ""
        if decided is None:
            judged.append(Judged(path, math.nan, "", parts, predicted))
            continue
        word: Verdict = "anomalous" if decided.anomalous[k] else "normal"
        review = None if point.review is None else bool(decided.review[k])
        probability = None if decided.probability is None else float(decided.probability[k])
        judged.append(Judged(path, score, word, parts, predicted, review, probability))
    return judged


def _rows(
    paths: Sequence[Path],
    judged: Sequence[Judged],
    threshold: float | None,
    classes: tuple[str, ...],
) -> list[dict[str, Any]]:
    """The rows of predictions.csv, in the order of `paths`."""
    judged_by_path = {one.path: one for one in judged}
    rows: list[dict[str, Any]] = []
    for path in paths:
        one = judged_by_path.get(path)
        if one is None:
            known = {} if threshold is None else {"score": "", "verdict": "unreadable"}
            more = {"predicted": "unreadable"} if classes else {}
            rows.append({"path": path.as_posix(), **known, **more})
            continue
        row: dict[str, Any] = {"path": path.as_posix()}
        if threshold is not None:
            row |= {"score": one.score, "verdict": one.verdict, "threshold": threshold}
        if one.review is not None:
            row["review"] = "yes" if one.review else "no"
        if one.probability is not None:
            row["probability"] = one.probability
        if classes:
            row["predicted"] = one.predicted
        rows.append(row | one.parts)
    return rows


def _images_of(path: Path) -> list[Path]:
    if path.is_dir():
        return _images_below(path)
    if path.exists():
        return [path]
    images: list[Path] = []
    matches = glob.glob(str(path), recursive=True)  # noqa: PTH207 - skips hidden files, takes any root
    for match in sorted(map(Path, matches), key=natural_key):
        if match.is_dir():
            images += _images_below(match)
        elif match.suffix.lower() in IMAGE_SUFFIXES:
            images.append(match)
    return images


def _images_below(folder: Path) -> list[Path]:
    """Visible image files at any depth in natural order; links to folders are followed once."""
    images: list[Path] = []
    visited = set()
    for place, folders, names in os.walk(folder, onerror=_raise, followlinks=True):
        real = Path(place).resolve()
        folders[:] = [] if real in visited else sorted(filter(_visible, folders))
        if real not in visited:
            images += [Path(place, name) for name in names if _visible(name)]
        visited.add(real)
    return sorted((i for i in images if i.suffix.lower() in IMAGE_SUFFIXES), key=natural_key)


def _visible(name: str) -> bool:
    return not name.startswith(".") and name.casefold() not in SKIPPED_NAMES


def _raise(error: OSError) -> None:
    raise error


def _why_none(path: Path) -> str:
    if path.exists():
        return f"{path} holds no images"
    if any(letter in str(path) for letter in "*?["):
        return f"{path} matches no images"
    siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    return f"{path} does not exist{nearest(path.name, siblings)}"
