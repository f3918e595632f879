"""Several classes: one list of names, a score only where one is normal, and nothing swapped."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from leanet import api
from leanet.data.images import write_image
from leanet.files import read_csv, read_json, read_json_lines
from leanet.methods.attention import Config
from leanet.methods.classes import ClassDetector, build
from leanet.methods.store import load_detector

Fit = Callable[..., Path]
Write = Callable[..., Path]
EXTRA: dict[str, Any] = {"classes": ("a", "b", "c"), "normal": 1}


def detector(normal: int | None = 1, **options: Any) -> ClassDetector:
    torch.manual_seed(0)
    config = Config(adn="cnn", **options)
    return build(config, 32, {"classes": ("a", "b", "c"), "normal": normal}).eval()


def test_the_score_is_one_minus_the_probability_of_the_normal_class() -> None:
    with torch.inference_mode():
        prediction = detector(normal=1)(torch.rand(4, 3, 32, 32))
    assert prediction.probs is not None
    torch.testing.assert_close(prediction.probs.sum(dim=1), torch.ones(4))
    torch.testing.assert_close(prediction.score, 1 - prediction.probs[:, 1])


def test_without_a_normal_class_there_is_no_score() -> None:
    with torch.inference_mode():
        assert detector(normal=None)(torch.rand(2, 3, 32, 32)).score.tolist() == [0, 0]


def test_the_logits_are_those_of_the_prediction() -> None:
    image, one = torch.rand(2, 3, 32, 32), detector()
    with torch.inference_mode():
        logits = one.logits_of(one.network(*one.prepare(image)))
        torch.testing.assert_close(logits.softmax(dim=1), one(image).probs)
        with pytest.raises(ValueError, match="head 'aan'"):
            one.logits_of(logits, "aan")


def test_abn_shows_its_attention_as_the_map() -> None:
    torch.manual_seed(0)
    one = build(Config(adn="resnet18", attention="abn"), 64, EXTRA).eval()
    with torch.inference_mode():
        anomaly_map = one(torch.rand(2, 3, 64, 64)).map
    assert anomaly_map is not None
    assert anomaly_map.shape == (2, 1, 64, 64)
    assert ((anomaly_map > 0) & (anomaly_map < 1)).all()


def test_a_run_names_every_image_by_its_folder(class_run: Path) -> None:
    names = ["healthy", "rust2", "rust10"]
    assert read_json(class_run / "classes.json") == {"classes": names, "normal": "healthy"}
    for fold in ("fold-0", "fold-1"):
        rows = read_csv(class_run / fold / "predictions.csv")
        for row in rows:
            assert row["true"] == row["path"].split("/")[0]
            best = max(names, key=lambda name: float(row[f"p_{name}"]))
            assert row["predicted"] == best
        tested = [row for row in rows if row["role"] == "test"]
        confusion = read_csv(class_run / fold / "confusion.csv")
        assert sum(int(row[name]) for row in confusion for name in names) == len(tested) == 18


def test_the_journal_has_both_curves_of_both_parts(class_run: Path) -> None:
    last = read_json_lines(class_run / "fold-0" / "journal.jsonl")[-1]
    for part in ("train", "val", "fit"):
        assert last[f"{part}_loss"] > 0
        assert 0 <= last[f"{part}_accuracy"] <= 1


def test_neither_classes_nor_channels_are_swapped_on_the_way(
    quick_fit: Fit, tmp_path: Path
) -> None:
    """Classes that differ in the order of the channels only, made in random order. A swapped name
    would put counts beside the diagonal; swapped channels would do so for a tensor in RGB."""
    data, noise = tmp_path / "data", np.random.default_rng(0)
    colors = {"ok": (120, 110, 100), "red": (200, 80, 30), "blue": (30, 80, 200)}
    names = random.Random(3).sample(sorted(colors), 3)
    for name in names:
        for number in range(12):
            pixels = np.clip(noise.normal(colors[name], 8, (36, 36, 3)), 0, 255)
            write_image(data / name / f"{number}.png", pixels.astype(np.uint8))
    options: dict[str, Any] = {"lr": 3e-3, "epochs": 25, "batch_size": 8, "augment": "none"}
    run = quick_fit("classifier", data, tmp_path / "run", val_fraction=0.0, **options)
    for row in read_csv(run / "final" / "confusion.csv"):
        assert max(names, key=lambda name: int(row[name])) == row["true"]
    judged = api.predict(run, [data], heatmaps=False)
    assert np.mean([one.predicted == one.path.parent.name for one in judged]) > 0.9
    pixels = np.clip(noise.normal(colors["red"], 8, (32, 32, 3)), 0, 255) / 255
    detector = load_detector(run / "final")
    with torch.inference_mode():
        probs = detector(torch.from_numpy(pixels).float().permute(2, 0, 1)[None]).probs
    assert probs is not None
    assert detector.classes[int(probs.argmax())] == "red"


def test_no_class_need_be_normal(quick_fit: Fit, write_classes: Write, tmp_path: Path) -> None:
    data = write_classes(tmp_path / "data", ("cat", "dog", "owl"), 8)
    run = quick_fit("classifier", data, tmp_path / "run", folds=2, epochs=1)
    assert read_json(run / "card.json")["threshold"] is None
    rows = read_csv(run / "fold-0" / "predictions.csv")
    assert {(row["label"], row["verdict"], row["score"]) for row in rows} == {("", "", "")}
    judged = api.predict(run, [data / "dog"], heatmaps=False)
    assert {one.verdict for one in judged} == {""}
    assert "score" not in read_csv(run / "predictions" / "predictions.csv")[0]
    evaluation = api.evaluate(run, data)
    assert evaluation.image == {}
    assert evaluation.classes is not None
    assert evaluation.classes["majority"] == pytest.approx(1 / 3)


def test_a_test_part_is_kept_where_nobody_gave_one(
    quick_fit: Fit, write_classes: Write, tmp_path: Path
) -> None:
    data = write_classes(tmp_path / "data", ("good", "bad1", "bad2"), 32)
    run = quick_fit("classifier", data, tmp_path / "run", epochs=1)
    roles = [row["role"] for row in read_csv(run / "final" / "predictions.csv")]
    assert (roles.count("test"), roles.count("held_out")) == (19, 15)


def test_too_few_images_to_validate_on_call_for_folds(quick_fit: Fit, class_toy: Path) -> None:
    with pytest.raises(ValueError, match=r"2 image\(s\) of \w+ .* fewer than 5.*--folds 5"):
        quick_fit("classifier", class_toy, class_toy.parent / "few", epochs=1)


def test_two_classes_on_request(quick_fit: Fit, class_toy: Path, tmp_path: Path) -> None:
    run = quick_fit("classifier", class_toy, tmp_path / "run", folds=2, epochs=1, classes="two")
    assert read_json(run / "card.json")["classes"] == []
    assert not (run / "classes.json").exists()


@pytest.mark.parametrize("option", [{"tries": 2}, {"keep_positive": 0.5}, {"num_outputs": 2}])
def test_options_of_two_classes_are_refused(
    option: dict[str, Any], quick_fit: Fit, class_toy: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(option))} is about normal and anomalous"):
        quick_fit("classifier", class_toy, tmp_path / "run", folds=2, **option)


def test_shuffled_classes_give_chance(quick_fit: Fit, tmp_path: Path) -> None:
    """Pictures of one color in folders of three names: nothing can be learned from them."""
    data, noise = tmp_path / "data", np.random.default_rng(0)
    for number in range(36):
        pixels = np.clip(noise.normal(120, 30, (36, 36, 3)), 0, 255).astype(np.uint8)
        write_image(data / f"class{number % 3}" / f"{number}.png", pixels)
    run = quick_fit("classifier", data, tmp_path / "run", folds=2, epochs=2, lr=3e-3)
    rows = read_csv(run / "results.csv")
    accuracy = np.mean([float(row["accuracy"]) for row in rows if row["output"] == "classes"])
    assert accuracy < 0.6
