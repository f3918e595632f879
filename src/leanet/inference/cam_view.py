"""Class activation maps of image files on disk: raw maps first, then the pictures of them.

    cams/METHOD-LAYER/NAME.npz   raw map and what it is (`cam_run.save_map`)
    panels/NAME.png              image, raw map and overlay of every method
    gates/                       what self-attention modules let through (`gates_view`)
    cams.json                    what was asked, the scales of the pictures, the numbers of every
                                 image

Maps are computed and written batch by batch, and read again for the pictures: memory does not grow
with the number of images.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from leanet.data.cache import UnreadableImagesError
from leanet.data.images import UnreadableImageError
from leanet.files import write_json
from leanet.inference.aug_smooth import Smoothed
from leanet.inference.cam_layers import cell
from leanet.inference.cam_methods import METHODS
from leanet.inference.cam_panels import Look, Scales, Shown, checked, draw
from leanet.inference.cam_run import (
    LITTLE_ENERGY,
    Explained,
    Explainer,
    Tell,
    facts_of,
    finite_or_none,
    save_map,
)
from leanet.inference.gates_view import GatesView
from leanet.inference.map_effect import map_effect, reference_map
from leanet.inference.pictures import picture_names
from leanet.inference.predict import refuse_earlier, tell_left_out, verdict
from leanet.inference.run_images import RunImages
from leanet.progress import Progress

CAMS, PANELS, FACTS = "cams", "panels", "cams.json"
LARGEST_SIDE = 512  # of the image in a panel, in pixels


def draw_cams(  # noqa: PLR0913 - the options of a verb, by name
    explainer: Explainer,
    paths: Sequence[Path],
    out: Path,
    *,
    run: str = "",
    look: Look | None = None,
    images: RunImages | None = None,
    skip_bad: bool = False,
    overwrite: bool = False,
) -> list[Shown]:
    """Write maps, panels and `cams.json` of image files (see `predict.find_images`) into `out`.

    `images` of the run give the pictures their scale and the map its reference; without them the
    scale is taken over the explained images, and the reference is zeros.

    Raises:
        UnreadableImagesError: without `skip_bad`, after all other images have been drawn.
        ValueError: earlier results in `out`, images where the pictures go, an impossible look.
    """
    look = look or Look()
    mode, value = checked(look)
    refuse_earlier(out, (FACTS,), overwrite=overwrite)
    _refuse_as_images(out, paths)
    bad: list[UnreadableImageError] = []
    scales, kind = Scales(mode, value), explainer.options.target
    if mode == "run" and images is not None:
        scales.take(_heats(explainer, images), f"{len(images.image)} images of the run")
    with Progress("explaining images", total=2 * len(paths)) as bar:
        shown = list(_written(explainer, paths, out, images, scales, bad, bar))
        for one in shown:
            draw(one, look, scales, target=kind, threshold=explainer.threshold)
            bar.advance()
    if bad and not skip_bad:
        raise UnreadableImagesError(bad)
    tell_left_out(bad, explainer.tell)
    _notice_energy(shown, explainer.tell)
    write_json(out / FACTS, {**_asked(explainer, run, scales), "images": [
        {"path": one.path.as_posix(), **one.facts} for one in shown]})  # fmt: skip
    return shown


def to_text(shown: Sequence[Shown]) -> str:
    """A line per method: layer, cell size, range of the raw values over the images."""
    lines = []
    for key in shown[0].maps if shown else ():
        facts = [one.facts["maps"][key] for one in shown]
        low, high = min(fact["min"] for fact in facts), max(fact["max"] for fact in facts)
        size = cell(tuple(facts[0]["stride"]))
        lines.append(f"{key}: {size}, raw values {low:.3g} to {high:.3g}")
    return "\n".join(lines)


# --- the raw maps --------------------------------------------------------------------------------


def _written(
    explainer: Explainer,
    paths: Sequence[Path],
    out: Path,
    images: RunImages | None,
    scales: Scales,
    bad: list[UnreadableImageError],
    bar: Progress,
) -> Iterator[Shown]:
    names, effects = picture_names(paths), _Effects(explainer, images)
    gates = GatesView(explainer.detector.network, out)
    for batch in explainer.batches(paths, bad):
        extra = effects.of(batch.image)
        own = [names[path] for path in batch.loaded.paths]
        gates.see(explainer.prepared(batch.image), batch.image, own, _predicted(explainer, batch))
        for row, path in enumerate(batch.loaded.paths):
            maps, facts = {}, {}
            for key, found in batch.maps[row].items():
                name = explainer.target().name(found.explained)
                maps[key] = out / CAMS / key / names[path].with_suffix(".npz")
                save_map(maps[key], found, name, explainer.options.target)
                facts[key] = {"file": _below(maps[key], out), **facts_of(found, name)}
                scales.see(key, found.heat)
            told = _told(explainer, batch, row)
            panel = out / PANELS / names[path]
            one = {**told, **extra[row], "panel": _below(panel, out), "maps": facts}
            score = float(batch.prediction.score[row])
            yield Shown(path, score, told["verdict"], told["predicted"], panel, maps, one)
            bar.advance()
    gates.finish()


def _told(explainer: Explainer, batch: Explained, row: int) -> dict[str, Any]:
    """Score, verdict and predicted class of one image."""
    score, probs = float(batch.prediction.score[row]), batch.prediction.probs
    limit = explainer.threshold
    found = verdict(score, limit) if limit is not None else ""
    if probs is None:
        return {"score": score, "verdict": found, "predicted": found, "probability": None}
    best = int(probs[row].argmax())
    return {
        "score": score,
        "verdict": found,
        "predicted": explainer.names[best],
        "probability": float(probs[row, best]),
    }


def _predicted(explainer: Explainer, batch: Explained) -> list[str]:
    return [_told(explainer, batch, row)["predicted"] for row in range(len(batch.image))]


class _Effects:
    """What the map of a network with two inputs does to its verdicts."""

    def __init__(self, explainer: Explainer, images: RunImages | None) -> None:
        self.explainer, self.words = explainer, ""
        if len(explainer.inputs) == 2:
            normal = None if images is None else images.image[images.normal]
            self.reference = reference_map(explainer.prepared, normal, explainer.inputs[1])
            self.words = self.reference.words

    def of(self, image: Tensor) -> list[dict[str, Any]]:
        """Facts of every image of a batch; {} for networks with one input."""
        if not self.words:
            return [{}] * len(image)
        effect = map_effect(
            self.explainer.detector.network,
            image,
            self.explainer.prepared,
            reference=self.reference.plane,
            logits_of=self.explainer.logits_of,
        )
        return [
            {
                "map_effect": float(effect.map_effect[row]),
                "map_reference": self.words,
                "map_exchanged": finite_or_none(float(effect.exchanged[row])),
            }
            for row in range(len(image))
        ]


def _heats(explainer: Explainer, images: RunImages) -> Iterator[tuple[str, Tensor]]:
    """All maps of the images of a run; of the predicted classes where true ones are explained,
    which its pictures do not tell."""
    size = explainer.options.batch_size
    if explainer.which == "true":
        explainer = copy.copy(explainer)
        explainer.which = "predicted"
    with Progress("taking the scale of the run", total=len(images.image)) as bar:
        for part in torch.split(images.image, size):
            image = part.to(explainer.device)
            with torch.no_grad():
                score = explainer.detector(image).score
            for key, found in explainer.explain(image, score).items():
                yield key, (found.cam if isinstance(found, Smoothed) else found).map
            bar.advance(steps=len(part))


# --- the rest ------------------------------------------------------------------------------------


def _asked(explainer: Explainer, run: str, scales: Scales) -> dict[str, Any]:
    options = explainer.options
    return {
        "run": run,
        "classes": list(explainer.names),
        "class": explainer.which,
        "target": options.target,
        "head": options.head,
        "methods": [one._asdict() for one in explainer.wanted],
        "comparable": sorted({m.method for m in explainer.wanted if METHODS[m.method].comparable}),
        "aug_smooth": options.aug_smooth,
        "map_source": options.map_source if len(explainer.inputs) == 2 else None,
        "eigen_smooth": options.eigen_smooth,
        "scale": scales.mode,
        "threshold": explainer.threshold,
    }


def _notice_energy(shown: Sequence[Shown], tell: Tell) -> None:
    for key in shown[0].maps if shown else ():
        energies = [one.facts["maps"][key].get("energy", 1.0) for one in shown]
        few = sum(energy < LITTLE_ENERGY for energy in energies)
        if few:
            tell(
                f"{key}: in {few} of {len(shown)} image(s) the strongest pattern holds less than "
                "half of the energy, so the smoothed map leaves most of it out"
            )


def _below(path: Path, out: Path) -> str:
    return path.relative_to(out).as_posix()


def _refuse_as_images(out: Path, paths: Sequence[Path]) -> None:
    folder = (out / PANELS).absolute()
    inside = [path for path in paths if path.absolute().is_relative_to(folder)]
    if inside:
        raise ValueError(
            f"{len(inside)} of the images, such as {inside[0]}, lie where the pictures go, in "
            f"{folder}; give other images or another --out"
        )
