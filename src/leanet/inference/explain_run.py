"""Everything that can be shown of how a trained detector came to its scores.

A classifier gets class activation maps (`cam_view`); a detector with pictures of its own (a map, a
repainted image, attention points) gets its feature view (`explain`); LEA-Net gets both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from leanet.inference.cam_panels import Look, Shown
from leanet.inference.cam_run import AUTO, NONE, CamOptions, Explainer
from leanet.inference.cam_view import draw_cams
from leanet.inference.explain import Explained, explain
from leanet.inference.run_images import run_images, true_classes


class Asked(NamedTuple):
    """Which class the maps explain (predicted, true, a name or an index), which maps, and how they
    look."""

    which: str
    options: CamOptions
    look: Look


def explain_run(  # noqa: PLR0913 - the options of a verb, by name
    detector: Any,
    paths: Sequence[Path],
    asked: Asked,
    *,
    run: Path,
    out: Path,
    threshold: float | None,
    device: torch.device,
    name: str = "",
    also: Mapping[str, Any] | None = None,
    skip_bad: bool = False,
    overwrite: bool = False,
    tell: Callable[[str], None] = print,
) -> list[Explained]:
    """Explain image files (see `predict.find_images`) with the detector of a run, into `out`.

    Raises:
        UnreadableImagesError: without `skip_bad`, after all other images have been drawn.
        ValueError: an unknown method, layer or class; a method for a detector without classifier;
            earlier results in `out`.
    """
    explainer = explainer_of(detector, asked, paths, run, threshold, device, tell)
    ways: dict[str, Any] = {"skip_bad": skip_bad, "overwrite": overwrite}
    views: list[Explained] = []
    if also or explainer is None or _has_pictures(detector, device):
        views = explain(
            detector,
            paths,
            out=out,
            threshold=threshold,
            device=device,
            name=name,
            also=also,
            tell=tell,
            **ways,
        )
    if explainer is None:
        return views
    shown = draw_cams(
        explainer, paths, out, run=name, look=asked.look, images=run_images(run), **ways
    )
    return _joined(views, shown)


def explainer_of(
    detector: Any,
    asked: Asked,
    paths: Sequence[Path],
    run: Path,
    threshold: float | None,
    device: torch.device,
    tell: Callable[[str], None] = print,
) -> Explainer | None:
    """What draws the class activation maps; None if none are asked for, or if a detector without
    classifier is left to choose."""
    if asked.options.methods == NONE:
        return None
    if asked.options.methods == AUTO and not has_classifier(detector, device):
        return None
    explainer = Explainer(
        detector,
        asked.options,
        which=asked.which,
        threshold=threshold,
        device=device,
        tell=tell,
    )
    if asked.which == "true":
        explainer.true = true_classes(paths, explainer.names, run)
    return explainer


def has_classifier(detector: Any, device: torch.device) -> bool:
    """Whether it has a network with logits, and says how to run it."""
    if not hasattr(detector, "prepare"):
        return False
    try:
        detector.prepare(_black(detector, device))
    except ValueError:
        return False
    return True


def _has_pictures(detector: Any, device: torch.device) -> bool:
    """Whether it shows anything of its own: a map or other pictures."""
    image = _black(detector, device)
    with torch.inference_mode():
        return bool(detector.explain(image)) or detector(image).map is not None


def _black(detector: Any, device: torch.device) -> torch.Tensor:
    return torch.zeros(1, 3, detector.img_size, detector.img_size, device=device)


def _joined(views: Sequence[Explained], shown: Sequence[Shown]) -> list[Explained]:
    by_path = {view.path: view for view in views}
    return [
        by_path.get(one.path, Explained(one.path, one.score, one.verdict))._replace(cams=one)
        for one in shown
    ]
