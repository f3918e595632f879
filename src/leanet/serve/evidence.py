"""What two models say of the same images, neither of them of an image that it has learned from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from leanet.data.images import UnreadableImageError, read_image
from leanet.records import Sample
from leanet.runtime import make_runtime
from leanet.serve.entries import UnknownImageError
from leanet.serve.kept import digest
from leanet.serve.live import Judgement, judge_pictures, open_model, shown
from leanet.serve.run_data import run_data
from leanet.serve.store import Store
from leanet.serve.training_set import Classes, merge
from leanet.serve.unseen import Unseen, unseen_scores
from leanet.serve.versions import Versions
from leanet.trained import read_card

_BATCH = 8


class Side(NamedTuple):
    """One model: its card, its samples, which images (sha256) it has learned from, and the scores
    of those that the model behind the score had not seen."""

    name: str
    run: Path
    card: dict[str, Any]
    samples: dict[str, Sample]
    learned: frozenset[str]
    unseen: dict[str, Unseen]


class Row(NamedTuple):
    """An image with what is true (a person has `labeled` it since), and what both models say."""

    id: str
    sample: Sample
    labeled: bool
    old: Unseen
    new: Unseen


class Evidence(NamedTuple):
    """The images to compare on, and how many were left out for which reason."""

    old: Side
    new: Side
    rows: tuple[Row, ...]
    left_out: dict[str, int]


def gather(store: Store, versions: Versions, old: str, new: str, device: str) -> Evidence:
    """All images with a label of which both models have an honest score; what a model has not
    judged yet it judges now, and the review database keeps it.

    Raises:
        ValueError: an unknown or unfinished model, or images that are gone.
    """
    first, second = (_side(name, versions) for name in (old, new))
    samples = {**first.samples, **second.samples}
    classes = Classes(tuple(second.card.get("classes") or ()), second.card.get("normal"))
    labels = store.labels()
    truth = merge(
        list(samples.values()), list(samples), labels, lambda name: _file_of(store, name), classes
    )
    true = dict(zip(truth.names, truth.samples, strict=True))
    left_out: Counter[str] = Counter()
    sides = (first, second)
    scores = {side.name: _scores(side, true, store, device) for side in sides}
    rows = []
    for name, sample in true.items():
        missing = [side for side in sides if name not in scores[side.name]]
        if missing:
            learned = all(name in side.learned for side in missing)
            who = " and ".join(side.name for side in missing)
            left_out[f"{'learned from' if learned else 'unreadable'} by {who}"] += 1
            continue
        labeled = name in labels and labels[name].label in ("ok", "ng")
        rows.append(Row(name, sample, labeled, scores[old][name], scores[new][name]))
    return Evidence(first, second, tuple(rows), dict(left_out))


def _side(name: str, versions: Versions) -> Side:
    run = versions.run_of(name)
    data = run_data(run)
    samples = {digest(sample.path): sample for sample in data.samples}
    names = {sample.path: image for image, sample in samples.items()}
    learned = frozenset(image for image, one in samples.items() if one.split != "test")
    scores = unseen_scores(run, data)
    unseen = {names[path]: score for path, score in scores.items() if path in names}
    return Side(name, run, read_card(run), samples, learned, unseen)


def _file_of(store: Store, name: str) -> Path | None:
    try:
        path = store.get(name).path
    except UnknownImageError:
        return None
    return path if path.is_file() else None


def _scores(side: Side, true: Mapping[str, Sample], store: Store, device: str) -> dict[str, Unseen]:
    """By image: those that it has not learned from get their score from the model itself."""
    found = {name: side.unseen[name] for name in true if name in side.unseen}
    direct = [name for name in true if name not in found and name not in side.learned]
    for row in store.gallery(side.name, limit=2**31 - 1):
        if row.judged and row.id in true:
            found.setdefault(row.id, Unseen(row.score, row.predicted))
    to_judge = {name: true[name].path for name in direct if name not in found}
    judged = _judge(side, to_judge, device) if to_judge else {}
    known = set(store.paths().values())
    store.put_judgements({name: one for name, one in judged.items() if name in known})
    return found | {name: Unseen(one.score, one.predicted) for name, one in judged.items()}


def _judge(side: Side, paths: Mapping[str, Path], device: str) -> dict[str, Judgement]:
    """What the model itself says of files, those left out that cannot be read."""
    model = open_model(side.run, side.name, device=make_runtime(device).device)
    judged: dict[str, Judgement] = {}
    names = list(paths)
    for start in range(0, len(names), _BATCH):
        pictures = {}
        for name in names[start : start + _BATCH]:
            try:
                pictures[name] = shown(model, read_image(paths[name]))
            except UnreadableImageError:
                continue
        if pictures:
            found = judge_pictures(model, list(pictures.values()))
            judged |= zip(pictures, found, strict=True)
    return judged
