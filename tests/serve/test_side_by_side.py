"""Two models on images that neither has seen."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leanet.data.scan import relative_name
from leanet.files import read_csv, read_json, write_csv, write_json
from leanet.ops.metrics import auroc, confusion_at
from leanet.ops.metrics import escapes as share_missed
from leanet.ops.metrics import overkill as share_rejected
from leanet.serve import evidence
from leanet.serve import side_by_side as comparing
from leanet.serve.live import Model
from leanet.serve.side_by_side import FIGURES, difference, side_by_side
from leanet.serve.store import Store
from leanet.serve.versions import Versions

Png = Callable[..., bytes]
NUM_OWN = 9  # pictures of the fake run: 6 good ones of red 100 ... 105, then 3 dents


def predict(run: Path, folder: str, role: str, scores: Mapping[str, float]) -> None:
    """predictions.csv of a fold; the label plays no part."""
    rows = [{"path": path, "role": role, "score": score} for path, score in scores.items()]
    write_csv(run / folder / "predictions.csv", rows)


def own_scores(low: float, high: float) -> dict[str, float]:
    scores = [low] * 6 + [high] * 3
    return {f"{'good' if k < 6 else 'dent'}/{k}.png": scores[k] for k in range(NUM_OWN)}


class Scene:
    """The run, a model made from it and the picture `new` (red 250, a dent), and the database."""

    def __init__(self, run: Path, state: Path, png: Png) -> None:
        self.run, self.made = run, state / "models/001"
        self.store, self.versions = Store(state), Versions(state, run)
        self.new = self.store.add_bytes(png(250), ".png", "request")
        self.store.label(self.new, "ng", "scratch", "ann")
        file = str(self.store.get(self.new).path)
        data = run.parent / "data"
        rows = read_csv(run / "samples.csv")
        for row in rows:
            row["path"] = str(data / row["path"])
        rows.append({**rows[-1], "path": file, "kind": "scratch"})
        write_csv(self.made / "samples.csv", rows)
        (state / "models/001.csv").touch()
        (self.made / "config.yaml").write_text(f"method: fake\ndata: {state / 'models/001.csv'}\n")
        for one, limit in ((run, 0.5), (self.made, 0.6)):
            card = {"method": "fake", "threshold": {"value": limit}, "folds": 2}
            write_json(one / "card.json", card)
        predict(run, "fold-0", "test", own_scores(0.2, 0.4))  # misses all dents
        predict(run, "final", "held_out", own_scores(0.9, 0.9))  # not to be used beside folds
        new = {str(data / path): score for path, score in own_scores(0.1, 0.9).items()}
        predict(self.made, "fold-0", "test", new | {file: 0.8})
        predict(self.made, "final", "held_out", {})

    def compare(self, old: str = "original", new: str = "001") -> dict[str, Any]:
        found = side_by_side(self.store, self.versions, old, new, device="cpu")
        json.dumps(found, allow_nan=False)
        return found


@pytest.fixture
def scene(
    fake_run: Path,
    tmp_path: Path,
    png: Png,
    make_model: Callable[..., Model],
    monkeypatch: pytest.MonkeyPatch,
) -> Scene:
    """Both models themselves give the mean red; of what they have learned they are never asked."""
    asked: list[str] = []

    def open_model(run: Path, name: str, **options: object) -> Model:
        asked.append(name)
        return make_model(name=name)

    monkeypatch.setattr(evidence, "open_model", open_model)
    monkeypatch.setattr(comparing, "DRAWS", 100)
    return Scene(fake_run, tmp_path / "state", png)


def test_every_image_is_scored_by_a_model_that_has_not_seen_it(scene: Scene) -> None:
    found = scene.compare()
    assert (found["num_normal"], found["num_anomalous"]) == (6, 4)
    assert found["comparable"] is True
    assert found["left_out"] == {}
    figures = found["figures"]
    assert (figures["auroc"]["old"], figures["auroc"]["new"]) == (1.0, 1.0)
    assert (figures["escapes"]["old"], figures["escapes"]["new"]) == (0.75, 0.0)
    assert figures["escapes"]["difference"] == -0.75
    assert figures["escapes"]["clear"] is True
    assert (figures["overkill"]["old"], figures["overkill"]["new"]) == (0.0, 0.0)
    assert found["right"] == {"only_old": 0, "only_new": 3, "p": 0.25}
    assert found["kinds"] == [
        {"kind": "good", "label": "ok", "num": 6, "old_right": 6, "new_right": 6},
        {"kind": "dent", "label": "ng", "num": 3, "old_right": 0, "new_right": 3},
        {"kind": "scratch", "label": "ng", "num": 1, "old_right": 1, "new_right": 1},
    ]
    assert found["origins"] == {
        "run": {"num": 9, "old_wrong": 3, "new_wrong": 0},
        "labeled": {"num": 1, "old_wrong": 0, "new_wrong": 0},
    }
    changed = found["changed"]
    assert [Path(one["path"]).name for one in changed] == ["6.png", "7.png", "8.png"]
    assert {(one["old_verdict"], one["new_verdict"]) for one in changed} == {
        ("normal", "anomalous")
    }
    assert all(one["better"] for one in changed)
    # the old model had not seen the new picture, so it was asked, and the answer is kept
    assert scene.store.scores("original") == {scene.new: pytest.approx(250 / 255)}
    assert scene.store.scores("001") == {}


def test_the_other_way_round_the_difference_turns(scene: Scene) -> None:
    there, back = scene.compare(), scene.compare("001", "original")
    for name in ("auroc", "escapes", "overkill"):
        assert back["figures"][name]["difference"] == -there["figures"][name]["difference"]
    assert not any(one["better"] for one in back["changed"])


def test_what_people_say_today_is_true(scene: Scene, tmp_path: Path) -> None:
    image = scene.store.add_file(tmp_path / "data/dent/6.png", "folder")
    scene.store.label(image, "ok", "", "ann")
    later = scene.store.add_file(tmp_path / "data/good/0.png", "folder")
    scene.store.label(later, "unsure", "", "ann")  # says nothing
    found = scene.compare()
    assert (found["num_normal"], found["num_anomalous"]) == (7, 3)
    assert found["figures"]["overkill"]["new"] == pytest.approx(1 / 7)
    assert [one["better"] for one in found["changed"]] == [False, True, True]


def test_images_labeled_after_the_training_count_for_both(scene: Scene, png: Png) -> None:
    image = scene.store.add_bytes(png(140), ".png", "request")  # 0.55: between the thresholds
    scene.store.label(image, "ng", "", "ann")
    found = scene.compare()
    assert found["num_anomalous"] == 5
    changed = {one["id"]: one for one in found["changed"]}[image]
    assert (changed["old_verdict"], changed["new_verdict"]) == ("anomalous", "normal")
    assert scene.store.scores("001") == {image: pytest.approx(140 / 255)}


def test_without_folds_only_what_was_held_out_is_compared(scene: Scene, tmp_path: Path) -> None:
    (scene.made / "fold-0/predictions.csv").unlink()
    card = read_json(scene.made / "card.json")
    write_json(scene.made / "card.json", {**card, "folds": 0})
    data = tmp_path / "data"
    predict(scene.made, "final", "held_out", {str(data / "good/0.png"): 0.1})
    found = scene.compare()
    assert (found["num_normal"], found["num_anomalous"], found["comparable"]) == (1, 0, False)
    assert found["left_out"] == {"learned from by 001": 9}
    assert found["figures"]["auroc"] is None
    told = " ".join(found["remarks"])
    assert "001: trained without folds" in told
    assert "both are needed" in told
    remarks = {"threshold_in_sample": True}  # nothing was held out, whatever the rows are called
    write_json(scene.made / "final/metrics.json", {"remarks": remarks})
    assert scene.compare()["left_out"] == {"learned from by 001": 10}


def test_a_test_part_that_neither_has_learned_from_is_judged_directly(
    scene: Scene, tmp_path: Path
) -> None:
    for run in (scene.run, scene.made):
        rows = read_csv(run / "samples.csv")
        for row in rows[:2]:
            row["split"] = "test"
        write_csv(run / "samples.csv", rows)
        file = run / "fold-0/predictions.csv"
        write_csv(file, [r for r in read_csv(file) if Path(r["path"]).stem not in ("0", "1")])
    root = tmp_path / "data"
    predict(scene.run, "final", "test", {relative_name(root / "good/0.png", root): 0.7})
    found = scene.compare()
    assert found["num_normal"] == 6
    assert found["figures"]["overkill"]["old"] == pytest.approx(1 / 6)
    assert set(scene.store.scores("original")) == {scene.new}  # 1.png is no picture to review


def test_fused_scores_are_those_on_the_scale_of_the_final_detector(scene: Scene) -> None:
    file = scene.run / "fold-0/predictions.csv"
    write_csv(file, [row | {"fused": row["score"]} for row in read_csv(file)])
    found = scene.compare()
    assert found["left_out"] == {"learned from by original": NUM_OWN}
    assert "each on a scale of its own" in found["remarks"][0]
    predict(scene.run, "final", "cross_validation", own_scores(0.2, 0.7))
    assert scene.compare()["figures"]["escapes"]["old"] == 0.0


@pytest.mark.parametrize("seed", range(5))
def test_the_figures_are_those_of_the_metrics(seed: int) -> None:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, 40)
    margin = rng.normal(size=40).round(1)  # with ties, and some on the threshold
    counts = confusion_at(label, margin, 0.0)
    assert FIGURES["auroc"](label, margin) == pytest.approx(auroc(label, margin), abs=1e-12)
    assert FIGURES["escapes"](label, margin) == share_missed(counts)
    assert FIGURES["overkill"](label, margin) == share_rejected(counts)


def test_the_interval_is_that_of_paired_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same noise in both models cancels: their difference is surer than either figure."""
    monkeypatch.setattr(comparing, "DRAWS", 200)
    rng = np.random.default_rng(0)
    label = np.repeat([0, 1], 100)
    shared = rng.normal(size=200) + label
    found = difference(FIGURES["auroc"], label, shared, shared + 0.01 * rng.normal(size=200))
    assert found is not None
    assert found["low"] <= found["difference"] <= found["high"]
    assert found["high"] - found["low"] < 0.02  # each AUROC alone: about 0.13
    same = difference(FIGURES["auroc"], label, shared, shared)
    assert same is not None
    assert (same["low"], same["high"], same["clear"]) == (0.0, 0.0, False)
    assert difference(FIGURES["auroc"], np.zeros(3, dtype=np.int64), shared[:3], shared[:3]) is None
