"""Phase 2 on the toy tree: outputs, predictions, going on, and every combination of the flags."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from leanet import api
from leanet.config import UsageError
from leanet.files import read_csv, read_json
from leanet.programs import classify
from leanet.programs.flags import Phase2
from leanet.programs.phase2 import recipe
from leanet.programs.rules import settle_phase2
from leanet.training import checkpoint

Run = Callable[..., list[str]]
TwoSteps = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def out(tree: Path, tmp_path_factory: pytest.TempPathFactory, run_phase2: Run) -> Path:
    """Both folds, two heads, one learned strength; not to be changed."""
    root = tmp_path_factory.mktemp("phase2") / "out"
    run_phase2(
        tree, root, model_AAN="timm:mobilenetv3_small_050", attention_points=(1, 3), epochs=2,
        attention_strength="learn:0.5", w_lr_mult=10.0,
    )  # fmt: skip
    return root


def contents(root: Path) -> dict[str, bytes]:
    files = (one for one in sorted(root.rglob("*")) if one.is_file())
    return {one.relative_to(root).as_posix(): one.read_bytes() for one in files}


# --- outputs ------------------------------------------------------------------------------------


def test_a_fold_has_the_files_of_the_original_and_is_a_run_folder(out: Path) -> None:
    assert sorted(one.name for one in out.iterdir()) == [
        "01", "02", "run.json", "summary.csv", "summary.json",
    ]  # fmt: skip
    assert sorted(contents(out / "01")) == [
        "card.json", "config.yaml", "final/weights.safetensors", "phase2_history.csv",
        "phase2_model.safetensors", "result.csv", "scores.json",
    ]  # fmt: skip


def test_results_are_in_the_order_of_the_test_images_and_name_their_files(
    out: Path, tree: Path
) -> None:
    rows = read_csv(out / "01" / "result.csv")
    told = read_csv(tree / "manifest.csv")
    test = [row for row in told if (row["fold"], row["split"]) == ("01", "test")]
    assert [row["file"] for row in rows] == [row["path"] for row in test]
    assert [row["true"] for row in rows] == [row["label"] for row in test]
    assert list(rows[0]) == ["", "pred_ADN", "pred_AAN", "true", "prob_ADN", "prob_AAN", "file"]
    for row in rows:
        assert row["pred_ADN"] == str(int(float(row["prob_ADN"]) >= 0.5))


def test_the_history_has_the_columns_of_the_original_then_ours(out: Path) -> None:
    rows = read_csv(out / "02" / "phase2_history.csv")
    columns = ["loss", "ADN_loss", "AAN_loss", "ADN_accuracy", "AAN_accuracy"]
    assert list(rows[0]) == ["", *columns, *(f"val_{name}" for name in columns), "w_A2", "w_A4"]
    assert [row[""] for row in rows] == ["0", "1"]
    assert float(rows[0]["loss"]) == pytest.approx(
        float(rows[0]["ADN_loss"]) + float(rows[0]["AAN_loss"]), rel=1e-5
    )
    assert 0 <= float(rows[1]["ADN_accuracy"]) <= 1
    assert rows[1]["w_A2"] != rows[0]["w_A2"]  # it is learned


def test_the_summary_tells_what_the_figures_rest_on(out: Path) -> None:
    summary = read_json(out / "summary.json")
    assert list(summary["heads"]) == ["ADN", "AAN"]
    one = summary["per_fold"]["01"]
    assert one["attention_points"] == [1, 3]
    assert set(one["strength"]) == {"A2", "A4"}
    assert one["map_mode"] == "in_sample"
    assert one["normal_quantile_ratio"] > 0
    assert one["trained_on"] == {"normal": 7, "anomalous": 2}
    parameters = summary["num_parameters"]
    assert parameters["total"] == parameters["ADN"] + parameters["AAN"] + 2  # two strengths
    assert any("flattering maps" in text for text in summary["warnings"])


def test_the_model_has_everything_that_it_needs_in_one_file(out: Path, tree: Path) -> None:
    _, metadata = checkpoint.load(out / "01" / "phase2_model.safetensors")
    facts = read_json(tree / "01" / "maps.json")
    assert metadata["config"]["attention_points"] == [1, 3]
    assert metadata["scale"] == {"divisor": facts["s"], "headroom": facts["h"]}
    assert metadata["phase2"]["model_AAN"] == "timm:mobilenetv3_small_050"
    assert metadata["extra"]["map_model"]["method"] == "reconstruction"


# --- prediction ---------------------------------------------------------------------------------


def test_new_images_are_judged_as_the_test_images_were(
    out: Path, tree: Path, tmp_path: Path
) -> None:
    folder = tree / "01" / "GT" / "Test"
    judged = api.predict(out / "01", [folder], tmp_path / "judged", device="cpu", heatmaps=False)
    rows = read_csv(out / "01" / "result.csv")
    for one, row in zip(judged, rows, strict=True):
        chance = torch.sigmoid(torch.tensor(one.score, dtype=torch.float64)).item()
        assert chance == pytest.approx(float(row["prob_ADN"]), abs=2e-4)  # 16-bit maps in training
        assert one.verdict == ("anomalous" if row["pred_ADN"] == "1" else "normal")


def test_a_fold_can_be_evaluated_and_explained_like_any_run(
    out: Path, toy: Path, tmp_path: Path
) -> None:
    found = api.evaluate(out / "01", toy, tmp_path / "evaluation", device="cpu")
    assert set(found.image) == {"score", "adn", "aan"}
    assert found.image["adn"]["threshold"] == 0.0
    image = toy / "Positive" / "spot" / "000.png"
    (shown,) = api.explain(out / "01", [image], tmp_path / "explained", device="cpu")
    assert {point["point"] for point in shown.points} == {"A2", "A4"}


def test_prediction_works_at_the_side_of_phase_2(
    tree: Path, tmp_path: Path, run_phase2: Run
) -> None:
    run_phase2(tree, tmp_path / "out", fold=(1,), img_size=64)
    folder = tree / "01" / "GT" / "Test"
    judged = api.predict(tmp_path / "out" / "01", [folder], tmp_path / "judged", device="cpu")
    rows = read_csv(tmp_path / "out" / "01" / "result.csv")
    chances = torch.sigmoid(torch.tensor([one.score for one in judged]))
    np.testing.assert_allclose(chances, [float(row["prob_ADN"]) for row in rows], atol=0.01)


def test_without_the_model_of_phase_1_the_maps_of_new_images_have_to_be_given(
    copied: Path, tmp_path: Path, run_phase2: Run
) -> None:
    (copied / "01" / "phase1_model.safetensors").unlink()
    run_phase2(copied, tmp_path / "out", fold=(1,))
    with pytest.raises(ValueError, match="give the maps of new images with"):
        api.predict(tmp_path / "out" / "01", [copied / "01" / "GT" / "Test"], tmp_path / "judged")


# --- repeating, going on, replacing -------------------------------------------------------------


def test_the_same_seed_gives_the_same_results(tree: Path, tmp_path: Path, run_phase2: Run) -> None:
    for name in ("a", "b"):
        run_phase2(tree, tmp_path / name, fold=(2,))
    assert contents(tmp_path / "a" / "02") == contents(tmp_path / "b" / "02")


def test_an_interrupted_run_goes_on_to_the_same_results(
    tree: Path, tmp_path: Path, run_phase2: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*given: Any) -> None:
        raise KeyboardInterrupt

    run_phase2(tree, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(classify, "_history", killed)
        with pytest.raises(KeyboardInterrupt):
            run_phase2(tree, tmp_path / "out")
    with pytest.raises(UsageError, match="--resume goes on"):
        run_phase2(tree, tmp_path / "out")
    run_phase2(tree, tmp_path / "out", "resume")
    for name in ("01", "02"):
        assert contents(tmp_path / "out" / name) == contents(tmp_path / "whole" / name)
    told = run_phase2(tree, tmp_path / "out", "resume")
    assert "02: finished before" in told
    assert told[-1].startswith("warning: in-sample maps") or told[-1].startswith("ADN: F1")


def test_nothing_is_deleted_when_the_tree_is_wrong(
    copied: Path, tmp_path: Path, run_phase2: Run
) -> None:
    run_phase2(copied, tmp_path / "out", fold=(1,))
    (copied / "01" / "Label.npz").unlink()
    with pytest.raises(UsageError, match=r"Label.npz is missing. Nothing was trained"):
        run_phase2(copied, tmp_path / "out", "overwrite", fold=(1,))
    assert (tmp_path / "out" / "01" / "result.csv").exists()


# --- options ------------------------------------------------------------------------------------


def test_the_recipe_is_what_the_flags_say() -> None:
    flags = Phase2(
        save_path="o", dataset="i", model_ADN="VGG16", model_AAN="ResNet", additional_module="SE",
        attention_points=(0, 4), attention_strength="program", early_stop="train", num_outputs=2,
        output_method="ADN_only", weights="w.safetensors",
    )  # fmt: skip
    config = recipe(settle_phase2(flags))
    assert (config.adn, config.aan, config.self_attention) == ("vgg16", "resnet", "se")
    assert (config.attention_points, config.lr, config.decide) == ((0, 4), 1e-5, "adn")
    assert (config.attention_strength, config.learn_strength) == (0.0, True)
    assert (config.aan_weight, config.monitor, config.val_fraction) == (0.0, "train_loss", 0.0)
    assert (config.num_outputs, config.mean[0], config.augment) == (2, 0.485, "none")
    assert recipe(settle_phase2(Phase2(save_path="o", dataset="i"))).mean == (0.0, 0.0, 0.0)


def test_everything_trains_where_nothing_is_held_out(
    tree: Path, tmp_path: Path, run_phase2: Run
) -> None:
    run_phase2(tree, tmp_path / "out", fold=(1,), early_stop="none", epochs=2)
    summary = read_json(tmp_path / "out" / "summary.json")
    assert summary["per_fold"]["01"]["trained_on"] == {"normal": 9, "anomalous": 3}
    assert summary["per_fold"]["01"]["epochs"] == 2
    assert summary["heads"]["ADN"]["per_fold"]["01"]["f1_inner"] is None
    assert not any("flattering" in text for text in summary["warnings"])
    assert "val_loss" not in read_csv(tmp_path / "out" / "01" / "phase2_history.csv")[0]


def test_stopping_on_the_training_loss_keeps_its_best_weights(
    tree: Path, tmp_path: Path, run_phase2: Run
) -> None:
    run_phase2(tree, tmp_path / "out", fold=(1,), early_stop="train", epochs=4, lr=0.05)
    rows = read_csv(tmp_path / "out" / "01" / "phase2_history.csv")
    losses = [float(row["loss"]) for row in rows]
    scores = read_json(tmp_path / "out" / "01" / "scores.json")
    assert scores["epochs"] == 1 + int(np.argmin(losses))
    assert scores["num_held_out"] == 0


def test_a_share_of_the_anomalous_images_is_real_and_told(
    tree: Path, tmp_path: Path, run_phase2: Run
) -> None:
    told = run_phase2(tree, tmp_path / "out", fold=(1,), keep_positive=0.34, early_stop="none")
    scores = read_json(tmp_path / "out" / "01" / "scores.json")
    assert scores["trained_on"] == {"normal": 9, "anomalous": 1}
    assert any("9 normal and 1 anomalous" in line for line in told)


def test_the_point_is_chosen_on_held_out_images_and_the_test_only_told(
    tree: Path, tmp_path: Path, run_phase2: Run
) -> None:
    run_phase2(tree, tmp_path / "out", fold=(1,), attention_points=("auto",), val_fraction=0.34)
    scores = read_json(tmp_path / "out" / "01" / "scores.json")
    choice = scores["choice"]
    tried = [f"A{k}" for k in range(1, 6)]
    assert sorted(choice["held_out"]) == sorted(choice["test_f1"]) == tried
    best = max(choice["held_out"].values(), key=lambda one: one["ap"])["ap"]
    assert choice["held_out"][choice["chosen"]]["ap"] == best
    assert scores["attention_points"] == [tried.index(choice["chosen"])]
    assert choice["oracle"]["test_f1"] == max(choice["test_f1"].values())
    assert choice["mean_test_f1"] == pytest.approx(np.mean(list(choice["test_f1"].values())))
    assert scores["trained_on"] == {"normal": 9, "anomalous": 3}  # refitted on everything


def test_a_point_that_a_timm_network_lacks_is_refused_before_any_work(
    tree: Path, tmp_path: Path, run_phase2: Run
) -> None:
    with pytest.raises(ValueError, match="attention point 0"):
        run_phase2(tree, tmp_path / "out", model_ADN="timm:convnext_atto", attention_points=(0,))
    assert not (tmp_path / "out").exists()


def test_legacy_flags_are_refused_for_a_tree_of_ours(
    tree: Path, tmp_path: Path, run_phase2: Run
) -> None:
    with pytest.raises(UsageError, match="is no tree of the original program; leave out"):
        run_phase2(tree, tmp_path / "out", rescale_legacy=True)


def test_trees_of_arrays_are_converted_on_the_way(tmp_path: Path, run_phase2: Run) -> None:
    rng = np.random.default_rng(0)
    for fold in ("0", "1"):
        (tmp_path / "old" / fold).mkdir(parents=True)
        images = rng.uniform(0, 1, (20, 32, 32, 3)).astype(np.float32)
        maps = rng.uniform(0, 9, (20, 32, 32, 1))
        labels = np.array([0, 0, 0, 1] * 5)
        for name, array in (("RGB", images), ("Attention", maps), ("Label", labels)):
            np.savez(tmp_path / "old" / fold / f"{name}.npz", array[:12], array[12:])
    run_phase2(tmp_path / "old", tmp_path / "out")
    summary = read_json(tmp_path / "out" / "summary.json")
    assert summary["folds"] == ["01", "02"]
    assert not (tmp_path / "out" / "work").exists()
    with pytest.raises(UsageError, match="leave out --legacy_gt"):
        run_phase2(tmp_path / "old", tmp_path / "other", legacy_gt="lab")


# --- every combination --------------------------------------------------------------------------

ADNS = ("ResNet18", "ResNet50", "VGG16", "VGG19", "CNN", "timm:mobilenetv3_small_050")
AANS = ("MobileNet", "ResNet", "Direct", "timm:mobilenetv3_small_050")
POINTS: tuple[tuple[int | str, ...], ...] = (
    ("None",), (0,), (1,), (2,), (3,), (4,), (0, 2), (0, 1, 2, 3, 4),
)  # fmt: skip
PAIRS = (
    ("img_and_attMap", "AAN_and_ADN"),
    ("img_and_attMap", "ADN_only"),
    *((m, None) for m in ("img_only", "attMap_only", "4_channel", "attMap_to_img", "multiply")),
)


@pytest.fixture
def two_steps(
    tree: Path, tmp_path: Path, run_phase2: Run, monkeypatch: pytest.MonkeyPatch
) -> TwoSteps:
    """two_steps(flags) -> the scores of a fold after two steps at 64 px; weights are not kept."""
    monkeypatch.setattr(classify.Job, "_save", lambda *given: None)

    def run(**flags: Any) -> dict[str, Any]:
        run_phase2(
            tree, tmp_path / "out", fold=(1,), img_size=64, epochs=2, early_stop="none", **flags
        )
        assert len(read_csv(tmp_path / "out" / "01" / "phase2_history.csv")) == 2
        scores: dict[str, Any] = read_json(tmp_path / "out" / "01" / "scores.json")
        return scores

    return run


@pytest.mark.parametrize(
    ("adn", "aan", "points", "pair"),
    [
        ("ResNet18", "MobileNet", (0, 1, 2, 3, 4), PAIRS[0]),
        ("CNN", "Direct", (2,), PAIRS[1]),
        ("CNN", "ResNet", (4,), PAIRS[1]),
        ("timm:mobilenetv3_small_050", "Direct", ("None",), PAIRS[3]),
        ("timm:mobilenetv3_small_050", "Direct", ("None",), PAIRS[4]),
    ],
)
def test_what_crashed_in_the_original_runs(
    adn: str, aan: str, points: Any, pair: Any, two_steps: TwoSteps
) -> None:
    scores = two_steps(
        model_ADN=adn,
        model_AAN=aan,
        input_method=pair[0],
        output_method=pair[1],
        attention_points=points,
    )
    assert np.isfinite(scores["heads"]["ADN"]["f1"])


def combinations() -> list[tuple[str, str, Any, Any]]:
    """Every ADN with every AAN, set of points and output; other inputs know no AAN. VGG, which has
    165 million weights to write, meets no more than the first and the last set of points."""
    joined = [
        (adn, aan, points, pair)
        for adn, aan, points, pair in itertools.product(ADNS, AANS, POINTS, PAIRS[:2])
        if not (aan == "Direct" and pair[1] == "AAN_and_ADN")
        and not (adn.startswith("VGG") and points not in (POINTS[0], POINTS[-1]))
    ]
    return joined + [(adn, "MobileNet", None, pair) for adn in ADNS for pair in PAIRS[2:]]


@pytest.mark.slow
@pytest.mark.parametrize(("adn", "aan", "points", "pair"), combinations())
def test_every_combination_runs(
    adn: str, aan: str, points: Any, pair: Any, two_steps: TwoSteps
) -> None:
    scores = two_steps(
        model_ADN=adn,
        model_AAN=aan,
        input_method=pair[0],
        output_method=pair[1],
        attention_points=points,
    )
    assert len(scores["heads"]) == (2 if pair[1] == "AAN_and_ADN" else 1)


@pytest.mark.slow
@pytest.mark.parametrize("module", ["SE", "SimAM", "SRM", "CBAM", "ECA"])
@pytest.mark.parametrize("adn", [name for name in ADNS if not name.startswith("timm")])
def test_every_module_runs_in_every_classifier_with_attention(
    adn: str, module: str, two_steps: TwoSteps
) -> None:
    scores = two_steps(model_ADN=adn, additional_module=module, attention_points=(2,))
    assert scores["attention_points"] == [2]
