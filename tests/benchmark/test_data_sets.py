from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path

import pytest

from leanet.benchmark import data_sets
from leanet.benchmark.data_sets import DataSet, Generated, folder_of
from leanet.config import to_dict
from leanet.data.scan import scan
from leanet.data.toy import make_toy
from leanet.files import read_json

SMALL = Generated(surface="textile", num_normal=2, num_anomalous=2, size=32, kinds=("spot",))
DRAWN = DataSet(name="Small", path=Path("generated/small"), generated=SMALL)


def test_generated_options_are_those_of_the_toy_set() -> None:
    parameters = inspect.signature(make_toy).parameters
    assert to_dict(Generated()) == {
        name: list(p.default) if isinstance(p.default, tuple) else p.default
        for name, p in parameters.items()
        if name != "out"
    }


def test_a_data_set_on_disk_is_where_it_is(tmp_path: Path) -> None:
    assert folder_of(DataSet(name="A", path=Path("a")), tmp_path) == Path("a")
    assert not list(tmp_path.iterdir())


def test_a_generated_set_is_drawn_once(tmp_path: Path) -> None:
    folder = folder_of(DRAWN, tmp_path)
    assert folder == tmp_path / "generated" / "small"
    samples = scan(folder, normal=None, positives=None, seed=0).samples
    assert sorted(sample.kind for sample in samples) == ["good", "good", "spot", "spot"]
    assert all(sample.mask for sample in samples if sample.kind == "spot")
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.*")}
    assert folder_of(DRAWN, tmp_path) == folder
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.*")} == before


def test_a_set_whose_drawing_was_interrupted_is_drawn_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(out: Path, **options: object) -> Path:
        make_toy(out, num_normal=1, num_anomalous=0, size=32)
        raise KeyboardInterrupt

    monkeypatch.setattr(data_sets, "make_toy", interrupted)
    with pytest.raises(KeyboardInterrupt):
        folder_of(DRAWN, tmp_path)
    monkeypatch.undo()
    folder = folder_of(DRAWN, tmp_path)
    assert len(list((folder / "Negative").rglob("*.png"))) == 2
    assert sorted(path.name for path in folder.parent.iterdir()) == ["small", "small.json"]


def test_other_options_under_the_same_name_are_refused(tmp_path: Path) -> None:
    folder = folder_of(DRAWN, tmp_path)
    other = replace(DRAWN, generated=replace(SMALL, severity=(3.0, 6.0)))
    with pytest.raises(ValueError, match=r"severity \[8.0, 16.0\] -> \[3.0, 6.0\]"):
        folder_of(other, tmp_path)
    assert read_json(folder.with_name("small.json"))["severity"] == [8.0, 16.0]


def test_the_same_images_may_stand_under_two_names() -> None:
    seen = DataSet(name="Tiles", path=Path("tiles"), source="a")
    assert seen.same_images(replace(seen, name="New kinds", unseen=True, source="b"))
    for other in (replace(seen, path=Path("t")), replace(seen, positives=3), DRAWN):
        assert not seen.same_images(other)
