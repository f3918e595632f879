"""How did the score come about? The feature view of every picture, and the numbers behind it.

For every image one picture (`figures/`, see `leanet.inference.feature_view`) and every array that
is drawn in it (`arrays/`, NumPy's npz, read without pickle): `image` uint8 [S, S, 3], `map` [S, S]
in the unit that `explain.json` names, whatever else the detector shows ("repainted" [3, S, S]), and
for an attention point A4 the float32 planes "before A4", "attention A4", "after A4" and, where the
attention has one, "strength A4" [1, 1]. Of guided attention there is also "evidence" [h, w], in
log-odds. Other runs' arrays have the name of their run in front:
"other/attention A2". `explain.json` says of every point how strong and how flat its attention is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from leanet.data.cache import UnreadableImagesError
from leanet.data.images import UnreadableImageError
from leanet.data.loader import stream
from leanet.files import replacing, write_json
from leanet.inference.cam_panels import Shown
from leanet.inference.cam_view import to_text as cams_to_text
from leanet.inference.feature_view import (
    ATTENTION_COLORS,
    FEATURE_COLORS,
    MAP_COLORS,
    Photo,
    Point,
    Scale,
    View,
    gain,
    is_weighed,
    number,
    save,
    shared_scale,
    signed_scale,
)
from leanet.inference.gallery import Explaining as Showing
from leanet.inference.heatmap import MAP_TOP
from leanet.inference.judge import full_float32
from leanet.inference.pictures import picture_names
from leanet.inference.predict import Tell, refuse_earlier, tell_left_out, verdict
from leanet.ops.covered import covered_box, inside
from leanet.progress import Progress

FIGURES, ARRAYS, FACTS = "figures", "arrays", "explain.json"
BATCH = 4
S_TO_TOP = 1.25  # the map's colors end a little above s, so that its mark stands inside the bar
ATTENTION, BEFORE, AFTER, STRENGTH = "attention ", "before ", "after ", "strength "
EVIDENCE = "evidence"

GUIDED_NOTE = (
    "Guided attention: channel means of the classifier's features f and M f; the means of M f over "
    "the image decide. M has mean 1 (marked), and each point pools for itself. Evidence: what each "
    "place adds to the log-odds beside the map's own score, red for anomalous, blue against it."
)

Arrays = dict[str, NDArray[Any]]


class Explaining(Showing, Protocol):
    """A detector that can also show pictures of how it came to its score."""

    img_size: int


class Explained(NamedTuple):
    """One image: its score and verdict ("" where no class is known as normal), the files of its
    feature view (None without one), per attention point what `explain.json` says about it, and its
    class activation maps (None without any)."""

    path: Path
    score: float
    verdict: str
    figure: Path | None = None
    arrays: Path | None = None
    points: list[dict[str, Any]] = []  # noqa: RUF012 - never mutated, a NamedTuple default
    cams: Shown | None = None


class _Seen(NamedTuple):
    """What one detector makes of one image."""

    path: Path
    score: float
    arrays: Arrays


def explain(  # noqa: PLR0913 - the options of a verb, by name
    detector: Explaining,
    paths: Sequence[Path],
    *,
    out: Path,
    threshold: float | None,
    device: torch.device,
    name: str = "",
    also: Mapping[str, Explaining] | None = None,
    skip_bad: bool = False,
    overwrite: bool = False,
    tell: Tell = print,
) -> list[Explained]:
    """Draw the feature view of image files (see `predict.find_images`) into `out`.

    `name` is that of the run; the attention points of the detectors in `also`, by the names of
    their runs, become further columns, as the paper shows five networks with one point each.

    Unreadable images are left out with `skip_bad`, and told.

    Raises:
        UnreadableImagesError: without `skip_bad`, after all other images have been drawn.
        ValueError: earlier results in `out`, images where the pictures go, or a detector that
            gives values that are not finite.
    """
    refuse_earlier(out, (FACTS,), overwrite=overwrite)
    _refuse_as_images(out, paths)
    names, bad, done = picture_names(paths), list[UnreadableImageError](), list[Explained]()
    detectors = {name: detector, **(also or {})}
    unit = getattr(detector, "map_unit", None) or ""
    with Progress("explaining images", total=len(paths)) as bar:
        for seen in _together(detectors, paths, device, bad):
            first, points = seen[name], _points(seen)
            found = "" if threshold is None else verdict(first.score, threshold)
            limit = "" if threshold is None else f",  threshold {number(threshold)}"
            figure = out / FIGURES / names[first.path]
            arrays = out / ARRAYS / names[first.path].with_suffix(".npz")
            view = View(
                title=f"{first.path.absolute().parent.name}/{first.path.name}",
                run=name,
                verdict=f"{found}:  score {number(first.score)}{limit}" if found else "",
                alarm=found == "anomalous",
                photos=_photos(first.arrays, detector),
                points=points,
                notes=_notes(points, list(detectors)),
            )
            save(view, figure)
            _save_arrays(arrays, seen, name)
            facts = [_facts(point) for point in points]
            done.append(Explained(first.path, first.score, found, figure, arrays, facts))
            bar.advance(steps=len(done) + len(bad) - bar.done)
    if bad and not skip_bad:
        raise UnreadableImagesError(bad)
    tell_left_out(bad, tell)
    rows = [_row(one, out) for one in done]
    top = {"run": name, "also": list(also or {}), "map_unit": unit, "threshold": threshold}
    write_json(out / FACTS, {**top, "images": rows})
    return done


def run_names(runs: Sequence[Path]) -> list[str]:
    """The folders' own names, or their whole paths where two are called the same.

    >>> run_names([Path("runs/a4"), Path("runs/a5")])
    ['a4', 'a5']

    Raises:
        ValueError: the same folder twice.
    """
    if len({run.resolve() for run in runs}) < len(runs):
        raise ValueError(f"one run is given twice: {', '.join(map(str, runs))}; give each once")
    names = [run.resolve().name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.resolve()) for run in runs]


def to_text(explained: Sequence[Explained]) -> str:
    """A line per attention point (w, and what M is like on average over the images) and per class
    activation map."""
    points: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for one in explained:
        for facts in one.points:
            points.setdefault((facts["run"], facts["point"]), []).append(facts)
    several = len({run for run, _ in points}) > 1
    lines = []
    for (run, point), all_facts in points.items():
        mean, sd = (
            float(np.mean([facts[key] for facts in all_facts]))
            for key in ("attention_mean", "attention_sd")
        )
        strength = all_facts[0]["strength"]
        told = "" if strength is None else f"w {strength:.3g}, "
        where = f"{run} {point}" if several else point
        lines.append(f"{where}: {told}M {mean:.3f} on average, spatial SD {sd:.3f}")
    none = "this detector has no attention points"
    shown = [one.cams for one in explained if one.cams is not None]
    return "\n".join(filter(None, ["\n".join(lines), cams_to_text(shown)])) or none


def _together(
    detectors: Mapping[str, Explaining],
    paths: Sequence[Path],
    device: torch.device,
    bad: list[UnreadableImageError],
) -> Iterator[dict[str, _Seen]]:
    """Per image what every detector makes of it; the unreadable ones are in `bad` once."""
    bads = [bad, *(list[UnreadableImageError]() for _ in range(len(detectors) - 1))]
    streams = [
        _explanations(detector, paths, device, own)
        for detector, own in zip(detectors.values(), bads, strict=True)
    ]
    for seen in zip(*streams, strict=True):
        yield dict(zip(detectors, seen, strict=True))


def _explanations(
    detector: Explaining,
    paths: Sequence[Path],
    device: torch.device,
    bad: list[UnreadableImageError],
) -> Iterator[_Seen]:
    if isinstance(detector, nn.Module):
        detector.eval()
    for loaded in stream(paths, detector.img_size, batch_size=BATCH, bad=bad):
        image = loaded.image.to(device)
        with torch.inference_mode(), full_float32(device):
            prediction, pictures = detector(image), detector.explain(image)
        named = pictures if prediction.map is None else {"map": prediction.map, **pictures}
        planes = {key: value.detach().float().cpu().numpy() for key, value in named.items()}
        photos = (loaded.image.permute(0, 2, 3, 1) * 255).round().byte().numpy()
        for k, path in enumerate(loaded.paths):
            arrays = {key: _plane(value[k]) for key, value in planes.items()}
            wrong = [key for key, array in arrays.items() if not np.isfinite(array).all()]
            if wrong:
                raise ValueError(
                    f"the detector's {', '.join(wrong)} of {path} is not finite; its weights are "
                    "damaged, or its training had failed: train it again"
                )
            yield _Seen(path, float(prediction.score[k]), {"image": photos[k], **arrays})


def _plane(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """[1, h, w] -> [h, w]; a color picture [3, h, w] stays as it is."""
    return array[0] if len(array) == 1 else array


def _points(seen: Mapping[str, _Seen]) -> list[Point]:
    """The attention points of all detectors, in network order."""
    return [
        Point(
            run=run,
            name=point,
            before=one.arrays[BEFORE + point],
            attention=one.arrays[ATTENTION + point],
            after=one.arrays[AFTER + point],
            strength=_number(one.arrays.get(STRENGTH + point)),
        )
        for run, one in seen.items()
        for point in _names(one.arrays)
    ]


def _names(arrays: Arrays) -> list[str]:
    """Names of the points that have all three pictures."""
    return [
        key.removeprefix(ATTENTION)
        for key in arrays
        if key.startswith(ATTENTION)
        and {key.replace(ATTENTION, p) for p in (BEFORE, AFTER)} <= {*arrays}
    ]


def _number(array: NDArray[Any] | None) -> float | None:
    return None if array is None else float(array.mean())


def _photos(arrays: Arrays, detector: Explaining) -> list[Photo]:
    """Image, other color pictures (repainted), map, other planes; not what belongs to a point."""
    s = getattr(getattr(detector, "scale", None), "divisor", None)
    top = S_TO_TOP * s if s else getattr(detector, "map_top", None) or MAP_TOP
    unit = (getattr(detector, "map_unit", None) or "").replace("dE00", "ΔE₀₀")
    photos = [Photo("image", arrays["image"])]
    planes = []
    for key, array in arrays.items():
        if key == "image" or any(
            key == part + point
            for point in _names(arrays)
            for part in (ATTENTION, BEFORE, AFTER, STRENGTH)
        ):
            continue
        if array.ndim == 3:
            color = np.rint(255 * np.clip(array, 0, 1)).astype(np.uint8)
            photos.append(Photo(key, color.transpose(1, 2, 0)))
        elif key == "map":
            shown = _covered(array, getattr(detector, "map_border", 0))
            low = getattr(detector, "map_low", None) or 0.0
            planes.append(Photo("map", shown, Scale(low, top, MAP_COLORS, unit, s, "s")))
        elif key == EVIDENCE:
            planes.append(Photo(key, array, signed_scale(array, "log-odds")))
        elif key.startswith(ATTENTION.strip()):
            planes.append(Photo(key, array, Scale(0, 1, ATTENTION_COLORS)))
        else:
            ends = float(array.min()), float(array.max())
            planes.append(Photo(key, array, Scale(*ends, FEATURE_COLORS)))
    return [*photos, *planes]


def _covered(plane: NDArray[np.float32], border: int) -> NDArray[np.float32]:
    """A map [h, w] whose border, where it says nothing, is masked."""
    size = (plane.shape[0], plane.shape[1])
    outside = ~inside(size, covered_box(size, len(plane), border))
    return np.ma.masked_array(plane, outside) if border else plane


def _notes(points: Sequence[Point], names: Sequence[str]) -> list[str]:
    """What one has to know to read the picture; `names` are those of the runs."""
    if not points:
        return ["This detector has no attention points, so there is no before and after to show."]
    steered = [point for point in points if not is_weighed(point)]
    notes = []
    if steered:
        notes.append(
            "Before and after: channel means of the classifier's features f and (1 + w M) f, on "
            "one scale per column. M is drawn on 0 to 1; the frame in its bar is the range that "
            "occurs."
        )
    if len(steered) < len(points):
        notes.append(GUIDED_NOTE)
    runs = [point.run for point in points]
    acting = [point.run for point in steered]
    if len(set(acting)) < len(acting):
        notes.append(
            "The points of a network act together: a later one sees what the earlier ones have "
            "changed. The paper's Fig. 5 shows five networks with one point each."
        )
    if len(names) > 1:
        without = "".join(f" {name} has no attention points." for name in names if name not in runs)
        notes.append(f"Image and map are those of {names[0]}.{without}")
    return notes


def _facts(point: Point) -> dict[str, Any]:
    low, high = shared_scale(point.before, point.after)
    return {
        "run": point.run,
        "point": point.name,
        "strength": point.strength,
        "gain": gain(point),
        "attention_mean": float(point.attention.mean()),
        "attention_sd": float(point.attention.std()),
        "attention_min": float(point.attention.min()),
        "attention_max": float(point.attention.max()),
        "features_min": low,
        "features_max": high,
    }


def _row(one: Explained, out: Path) -> dict[str, Any]:
    named = {"figure": one.figure, "arrays": one.arrays}
    files = {key: path.relative_to(out).as_posix() for key, path in named.items() if path}
    facts = {"path": one.path.as_posix(), "score": one.score, "verdict": one.verdict}
    return {**facts, **files, "points": one.points}


def _save_arrays(path: Path, seen: Mapping[str, _Seen], name: str) -> None:
    arrays: dict[str, Any] = {
        key if run == name else f"{run}/{key}": array
        for run, one in seen.items()
        for key, array in one.arrays.items()
    }
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def _refuse_as_images(out: Path, paths: Sequence[Path]) -> None:
    folder = (out / FIGURES).absolute()
    inside = [path for path in paths if path.absolute().is_relative_to(folder)]
    if inside:
        raise ValueError(
            f"{len(inside)} of the images, such as {inside[0]}, lie where the pictures go, in "
            f"{folder}; give other images or another --out"
        )
