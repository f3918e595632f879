"""Pictures, judgements and labels through the one door."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from leanet.data.images import UnreadableImageError
from leanet.ops.working_point import WorkingPoint
from leanet.serve.entries import Label, UnknownImageError
from leanet.serve.kept import KeptLimits
from leanet.serve.live import Judgement
from leanet.serve.store import Store

Png = Callable[..., bytes]


def said(score: float | None, model: str = "original") -> Judgement:
    verdict = None if score is None else "anomalous" if score >= 0.5 else "normal"
    review = None if score is None else 0.4 <= score < 0.6
    return Judgement(model, score, verdict, review, None, {"a": 1.0}, "", None)


def filled(store: Store, png: Png, *scores: float) -> list[str]:
    """Pictures of other reds, judged."""
    names = [store.add_bytes(png(red), ".png", "request") for red in range(len(scores))]
    store.put_judgements({name: said(s) for name, s in zip(names, scores, strict=True)})
    return names


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "state")


def test_the_same_bytes_are_one_picture_with_several_places(
    store: Store, png: Png, tmp_path: Path
) -> None:
    for name in ("a.png", "b.PNG"):
        (tmp_path / name).write_bytes(png(7))
    first, second = store.add_file(tmp_path / "a.png", "x"), store.add_file(tmp_path / "b.PNG", "x")
    third = store.add_bytes(png(7), ".png", "request")
    assert first == second == third
    assert store.count("original") == 1
    kept = tmp_path / f"state/images/{first[:2]}/{first}.png"
    assert set(store.paths()) == {tmp_path / "a.png", tmp_path / "b.PNG", kept}
    assert kept.read_bytes() == png(7)
    (tmp_path / "a.png").unlink()
    assert store.get(first).path.exists()
    assert store.get(first)[3:5] == (24, 20)


def test_a_file_that_changes_is_another_picture(store: Store, png: Png, tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(png(1))
    old = store.add_file(file, "folder")
    file.write_bytes(png(2))
    new = store.add_file(file, "folder")
    assert [row.id for row in store.gallery("original")] == [new]
    with pytest.raises(UnknownImageError):
        store.get(old)


def test_a_file_whose_name_no_table_can_hold_is_refused(
    store: Store, png: Png, tmp_path: Path
) -> None:
    file = tmp_path / os.fsdecode(b"ni\xe8.png")  # Latin-1 on a disk that says UTF-8
    file.write_bytes(png(1))
    with pytest.raises(ValueError, match="rename it"):
        store.add_file(file, "folder")


@pytest.mark.parametrize(("data", "suffix"), [(b"", ".png"), (b"GIF89a", ".png"), (b"x", ".gif")])
def test_what_is_no_picture_leaves_nothing(store: Store, data: bytes, suffix: str) -> None:
    with pytest.raises((UnreadableImageError, ValueError)):
        store.add_bytes(data, suffix, "request")
    assert [path for path in store.folder.rglob("*") if path.is_file()] == []
    assert store.count("original") == 0


def test_the_gallery_orders_filters_and_counts(store: Store, png: Png) -> None:
    a, b, c = filled(store, png, 0.1, 0.9, 0.5)
    d = store.add_bytes(png(99), ".png", "upload")
    store.label(b, "ng", "scratch", "ann")
    store.label(c, "ok", "", "ann")

    def shown(**wanted: object) -> list[str]:
        rows = [row.id for row in store.gallery("original", **wanted)]  # type: ignore[arg-type]
        count = {k: v for k, v in wanted.items() if k not in ("order", "limit", "offset")}
        if "limit" not in wanted:
            assert store.count("original", **count) == len(rows)  # type: ignore[arg-type]
        return rows

    assert shown() == [b, c, a, d]
    assert shown(order="lowest") == [a, c, b, d]
    assert shown(limit=2, offset=1) == [c, a]
    assert shown(verdict="anomalous") == [b, c]
    assert shown(verdict="review") == [c]
    assert shown(verdict="unjudged") == [d] == [p.id for p in store.unjudged("original")]
    assert shown(label="labeled") == [b, c]
    assert shown(label="none") == [a, d]
    assert shown(kind="scratch") == [b]
    assert shown(source="upload") == [d]
    assert store.totals("original") == {
        "verdict": {"anomalous": 2, "normal": 1, "unjudged": 1},
        "label": {"none": 2, "ng": 1, "ok": 1},
        "kind": {"": 3, "scratch": 1},
        "source": {"request": 3, "upload": 1},
    }
    assert store.gallery("001")[0].judged is False
    with pytest.raises(ValueError, match="did you mean score"):
        store.gallery("original", order="scor")


def test_another_working_point_decides_all_anew(store: Store, png: Png) -> None:
    a, b = filled(store, png, 0.1, 0.9)
    store.judge_anew("original", WorkingPoint(0.05, review=(0.0, 0.2)))
    rows = {row.id: (row.verdict, row.review) for row in store.gallery("original")}
    assert rows == {a: ("anomalous", True), b: ("anomalous", False)}
    assert store.scores("original") == {a: 0.1, b: 0.9}


def test_other_weights_of_the_same_name_forget_what_was_said(store: Store, png: Png) -> None:
    (a,) = filled(store, png, 0.1)
    store.bind("original", "w1")
    store.put_judgement(a, said(0.2))
    store.bind("original", "w1")
    assert store.scores("original") == {a: 0.2}
    store.bind("original", "w2")
    assert store.scores("original") == {}


def test_a_judgement_of_an_unknown_picture_is_refused(store: Store) -> None:
    with pytest.raises(UnknownImageError, match="no picture"):
        store.put_judgement("0" * 64, said(0.1))


def test_undo_restores_what_was_before_one_act_at_a_time(store: Store, png: Png) -> None:
    a, b = filled(store, png, 0.1, 0.9)
    store.label(a, "ok", "", "ann")
    store.label(b, "unsure", "", "ann")
    store.label(a, "ng", " dent ", "ann")
    undone = [store.undo("ann") for _ in range(3)]
    assert [(e.image, e.label, e.undoes) for e in undone if e] == [
        (a, "ok", 3),
        (b, "none", 2),
        (a, "none", 1),
    ]
    assert store.undo("ann") is None
    assert store.labels() == {}
    told = [(e.label, e.kind, e.before_label, e.before_kind, e.who) for e in store.history(a)]
    assert told == [
        ("ok", "", "none", "", "ann"),
        ("ng", "dent", "ok", "", "ann"),
        ("ok", "", "ng", "dent", "ann"),
        ("none", "", "ok", "", "ann"),
    ]
    times = [e.at for e in store.history(a)]
    assert times == sorted(times)
    assert all(at.endswith("+00:00") for at in times)


def test_undo_takes_nothing_back_that_another_has_said_since(store: Store, png: Png) -> None:
    a, b = filled(store, png, 0.1, 0.9)
    store.label(a, "ok", "", "ann")
    store.label(b, "ok", "", "ann")
    store.label(b, "ng", "", "bob")
    event = store.undo("ann")
    assert event is not None
    assert (event.image, event.label) == (a, "none")
    assert store.labels() == {b: Label("ng", "")}
    assert store.undo("ann") is None
    store.undo("bob")
    assert store.labels() == {b: Label("ok", "")}  # so that what Ann said stands again
    again = store.undo("ann")
    assert again is not None
    assert store.labels() == {}


@pytest.mark.parametrize(
    ("label", "kind", "who", "text"),
    [
        ("bad", "", "ann", "allowed: ok, ng, unsure, none"),
        ("ok", "dent", "ann", "leave it out"),
        ("ng", "a\nb", "ann", "without control characters"),
        ("ng", "\udce9", "ann", "without control characters"),
        ("ng", "x" * 201, "ann", "201 characters"),
        ("ng", "", " ", "give a name"),
    ],
)
def test_a_label_that_makes_no_sense_is_refused(
    store: Store, png: Png, label: str, kind: str, who: str, text: str
) -> None:
    (a,) = filled(store, png, 0.1)
    with pytest.raises(ValueError, match=text):
        store.label(a, label, kind, who)
    assert store.history(a) == []


def test_the_oldest_pictures_without_a_label_make_room(tmp_path: Path, png: Png) -> None:
    store = Store(tmp_path, limits=KeptLimits(num=2))
    (tmp_path / "mine.png").write_bytes(png(50))
    mine = store.add_file(tmp_path / "mine.png", "folder")
    names = [store.add_bytes(png(0), ".png", "request")]
    store.label(names[0], "ng", "", "ann")
    names += [store.add_bytes(png(red), ".png", "request") for red in (1, 2, 3)]
    here = {row.id for row in store.gallery("original")}
    assert here == {mine, names[0], names[2], names[3]}
    assert {path.stem for path in store.folder.rglob("*.png")} == here - {mine}
    with pytest.raises(UnknownImageError, match="made room"):
        store.label(names[1], "ng", "", "ann")
    small = Store(tmp_path, limits=KeptLimits(num_bytes=1))
    last = small.add_bytes(png(4), ".png", "request")
    assert {row.id for row in small.gallery("original")} == {mine, names[0], last}


def test_threads_label_at_the_same_time_without_losing_any(store: Store, png: Png) -> None:
    names = filled(store, png, *([0.1] * 4))

    def work(who: str) -> None:
        for number in range(10):
            store.label(names[number % 4], "ng", f"{who}-{number}", who)
            store.gallery("original")

    threads = [threading.Thread(target=work, args=(who,)) for who in ("ann", "bob", "cem")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events = sorted((e for name in names for e in store.history(name)), key=lambda e: e.number)
    assert len(events) == 30
    for name in names:  # each event knows the one before
        own = [e for e in events if e.image == name]
        assert [e.before_kind for e in own[1:]] == [e.kind for e in own[:-1]]


def test_everything_is_there_again_after_a_restart(tmp_path: Path, png: Png) -> None:
    store = Store(tmp_path)
    (a,) = filled(store, png, 0.9)
    store.label(a, "ng", "dent", "ann")
    store.close()
    again = Store(tmp_path)
    assert again.labels() == {a: Label("ng", "dent")}
    assert again.get(a).label == "ng"
    assert again.scores("original") == {a: 0.9}
