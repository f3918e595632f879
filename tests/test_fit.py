"""The run folder as a contract: what stands in it, where thresholds come from, what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import leanet
from leanet.data.images import read_image, write_image
from leanet.data.toy import make_toy
from leanet.files import read_csv, read_json
from leanet.ops.metrics import choose_threshold
from leanet.records import ANOMALOUS, NORMAL

Fit = Callable[..., Path]
FOLDS = ("fold-0", "fold-1", "fold-2")


def files(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def roles(run: Path) -> dict[str, dict[str, set[str]]]:
    """fold -> train, test -> paths, from folds.csv."""
    found: dict[str, dict[str, set[str]]] = {}
    for row in read_csv(run / "folds.csv"):
        sides = found.setdefault(row["fold"], {"train": set(), "test": set()})
        sides[row["role"]].add(row["path"])
    return found


def predictions(run: Path, fold: str, role: str) -> dict[str, dict[str, str]]:
    rows = read_csv(run / fold / "predictions.csv")
    return {row["path"]: row for row in rows if row["role"] == role}


def mvtec(root: Path, toy: Path, *, with_defects: bool = False) -> Path:
    """The toy set as train/good, test/good and test/spot; optionally defects in train too."""
    normal, anomalous = sorted(toy.glob("Negative/*/*.png")), sorted(toy.glob("Positive/*/*.png"))
    placed = {f"train/good/{k}.png": file for k, file in enumerate(normal[:12])}
    placed |= {f"test/good/{k}.png": file for k, file in enumerate(normal[12:])}
    placed |= {f"test/spot/{k}.png": file for k, file in enumerate(anomalous[:3])}
    side = "train" if with_defects else "test"
    placed |= {f"{side}/spot/1{k}.png": file for k, file in enumerate(anomalous[3:])}
    for name, file in placed.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, root / name)
    return root


def subset(root: Path, toy: Path, *, normal: int, anomalous: int) -> Path:
    """The first images of the toy set in the same layout."""
    for folder, count in (("Negative", normal), ("Positive", anomalous)):
        (root / folder).mkdir(parents=True)
        for k, file in enumerate(sorted(toy.glob(f"{folder}/*/*.png"))[:count]):
            shutil.copy(file, root / folder / f"{k}.png")
    return root


# --- what stands in a run folder ----------------------------------------------------------------


def test_the_run_folder_holds_what_the_contract_says_and_nothing_else(lea_run: Path) -> None:
    tested = roles(lea_run)
    expected = {"config.yaml", "environment.json", "samples.csv", "folds.csv"}
    expected |= {"results.csv", "card.json", "baseline.json"}
    for fold in (*FOLDS, "final"):
        one = {"weights.safetensors", "journal.jsonl", "predictions.csv", "metrics.json"}
        one.add("maps.json")  # what became of the maps on their way to the network
        if tested[fold]["test"]:
            maps = {"maps.json", *tested[fold]["test"]}
            one |= {"gallery.safetensors"} | {f"maps/{name}" for name in maps}
        expected |= {f"{fold}/{name}" for name in one}
    models = [folder.name for folder in (lea_run / "map_models").iterdir()]
    expected |= {f"map_models/{m}/{f}" for m in models
                 for f in ("weights.safetensors", "journal.jsonl")}  # fmt: skip
    assert files(lea_run) == expected
    assert not (lea_run / "cache").exists()


def test_the_configuration_is_kept_completely(lea_run: Path, toy: Path) -> None:
    kept = yaml.safe_load((lea_run / "config.yaml").read_text())
    assert kept["method"] == "leanet"
    assert kept["data"] == str(toy)
    assert kept["folds"] == 3
    assert kept["map_model"]["epochs"] == 2
    assert {"seed", "precision", "inner_splits", "attention_points", "lr"} <= kept.keys()


def test_the_environment_says_what_a_result_depends_on(lea_run: Path) -> None:
    known = read_json(lea_run / "environment.json")
    assert known["device"] == "cpu"
    assert known["precision"] == "32-true"
    assert known["packages"]["torch"]
    assert known["threads"] >= 1


def test_every_image_is_a_sample_and_tests_in_exactly_one_fold(lea_run: Path, toy: Path) -> None:
    samples = {row["path"] for row in read_csv(lea_run / "samples.csv")}
    images = {f"{f}/{n}" for f in ("Positive", "Negative") for n in files(toy / f)}
    assert samples == images
    sides = roles(lea_run)
    tested = [path for fold in FOLDS for path in sides[fold]["test"]]
    assert sorted(tested) == sorted(samples)
    for fold in FOLDS:
        assert sides[fold]["train"] == samples - sides[fold]["test"]
    assert sides["final"] == {"train": samples, "test": set()}


def test_each_part_of_a_fold_is_the_test_part_of_another(lea_run: Path) -> None:
    sides = roles(lea_run)
    parts: dict[tuple[str, str], set[str]] = {}
    for row in read_csv(lea_run / "folds.csv"):
        if row["role"] == "train":
            parts.setdefault((row["fold"], row["part"]), set()).add(row["path"])
    tests = [sides[fold]["test"] for fold in FOLDS]
    assert all(part in tests for part in parts.values())


def test_predictions_have_a_row_for_every_test_image_with_all_outputs(lea_run: Path) -> None:
    for fold in FOLDS:
        rows = predictions(lea_run, fold, "test")
        assert rows.keys() == roles(lea_run)[fold]["test"]
        for path, row in rows.items():
            assert {"score", "fused", "adn", "aan", "map", "kind"} <= row.keys()
            assert int(row["label"]) == (ANOMALOUS if path.startswith("Positive") else NORMAL)
            alarm = float(row["score"]) >= float(row["threshold"])
            assert row["verdict"] == ("anomalous" if alarm else "normal")


def test_metrics_can_be_recomputed_from_predictions(lea_run: Path) -> None:
    from sklearn.metrics import f1_score, roc_auc_score

    for fold in FOLDS:
        rows = list(predictions(lea_run, fold, "test").values())
        labels = [int(row["label"]) for row in rows]
        metrics = read_json(lea_run / fold / "metrics.json")["metrics"]
        for output in ("score", "adn", "map"):
            scores = [float(row[output]) for row in rows]
            assert metrics[output]["auroc"] == pytest.approx(roc_auc_score(labels, scores))
        alarms = [row["verdict"] == "anomalous" for row in rows]
        expected = f1_score(labels, alarms, zero_division=0)
        assert metrics["score"]["f1"] == pytest.approx(expected)


def test_results_and_card_repeat_the_folds(lea_run: Path) -> None:
    results = read_csv(lea_run / "results.csv")
    assert {(row["fold"], row["output"]) for row in results} == {
        (fold, output) for fold in FOLDS for output in ("score", "fused", "adn", "aan", "map")
    }
    for row in results:
        metrics = read_json(lea_run / row["fold"] / "metrics.json")["metrics"][row["output"]]
        assert float(row["auroc"]) == metrics["auroc"]
    card, final = (read_json(lea_run / f) for f in ("card.json", "final/metrics.json"))
    assert card["threshold"].items() >= final["threshold"]["score"].items()
    assert card["threshold"]["source"] == "cross-validation"
    assert (card["num_normal"], card["num_anomalous"], card["folds"]) == (18, 6, 3)
    assert card["map_unit"] == "dE00"


def test_the_folds_have_pixel_figures_where_there_are_masks(lea_run: Path) -> None:
    found = [read_json(lea_run / fold / "metrics.json")["pixels"] for fold in FOLDS]
    assert [(one["num_images"], one["num_anomalous"]) for one in found] == [(8, 2)] * 3
    for one in found:
        assert 0 < one["auroc"] < 1
        assert 0 < one["oracle_iou"] < 1
    for row in read_csv(lea_run / "results.csv"):
        assert float(row["pixel_auroc"]) == found[FOLDS.index(row["fold"])]["auroc"]
    assert read_json(lea_run / "final" / "metrics.json")["pixels"] is None  # nothing to test on


# --- where thresholds come from -----------------------------------------------------------------


@pytest.mark.parametrize("fold", FOLDS)
def test_a_threshold_comes_from_held_out_training_images(lea_run: Path, fold: str) -> None:
    held, sides = predictions(lea_run, fold, "held_out"), roles(lea_run)[fold]
    assert held
    assert held.keys() <= sides["train"]
    assert not held.keys() & sides["test"]
    chosen = choose_threshold(
        [int(row["label"]) for row in held.values()],
        [float(row["score"]) for row in held.values()],
    )
    told = read_json(lea_run / fold / "metrics.json")["threshold"]["score"]
    assert told["value"] == pytest.approx(chosen.value)
    assert told["num_normal"] + told["num_anomalous"] == len(held)


def test_the_final_threshold_comes_from_the_test_scores_of_all_folds(lea_run: Path) -> None:
    final = read_json(lea_run / "final" / "metrics.json")
    for output, told in final["threshold"].items():
        assert (told["num_normal"], told["num_anomalous"]) == (18, 6), output
    rows = [row for fold in FOLDS for row in predictions(lea_run, fold, "test").values()]
    labels = [int(row["label"]) for row in rows]
    for output in ("adn", "aan", "map"):
        expected = choose_threshold(labels, [float(row[output]) for row in rows])
        assert final["threshold"][output]["value"] == pytest.approx(expected.value)
    assert predictions(lea_run, "final", "held_out") == {}
    fused = [float(r["score"]) for r in predictions(lea_run, "final", "cross_validation").values()]
    assert final["threshold"]["score"]["value"] == choose_threshold(labels, fused).value


def test_the_final_detector_trains_for_the_median_of_the_best_epochs(lea_run: Path) -> None:
    best = sorted(read_json(lea_run / fold / "metrics.json")["epochs"] for fold in FOLDS)
    journal = (lea_run / "final" / "journal.jsonl").read_text().splitlines()
    assert len(journal) == best[1]
    assert "val_loss" not in json.loads(journal[0])


def test_without_folds_a_part_of_the_training_images_is_held_out(
    quick_fit: Fit, toy: Path, tmp_path: Path
) -> None:
    run = quick_fit("classifier", toy, tmp_path / "run")
    held = predictions(run, "final", "held_out")
    assert 0 < len(held) < 24
    assert predictions(run, "final", "test") == {}
    assert read_json(run / "card.json")["folds"] == 0
    assert (run / "results.csv").read_text().strip() == ""


# --- earlier runs -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain_run(quick_fit: Fit, toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quick_fit("colorizer", toy, tmp_path_factory.mktemp("plain") / "run", base=2)


def test_an_earlier_run_is_left_alone(quick_fit: Fit, toy: Path, plain_run: Path) -> None:
    before = {name: (plain_run / name).read_bytes() for name in files(plain_run)}
    with pytest.raises(ValueError, match=r"earlier run.*--resume.*--overwrite.*--out"):
        quick_fit("colorizer", toy, plain_run, base=2)
    assert {name: (plain_run / name).read_bytes() for name in files(plain_run)} == before


def test_resuming_with_other_options_lists_them(quick_fit: Fit, toy: Path, plain_run: Path) -> None:
    with pytest.raises(ValueError, match=r"seed 0 -> 1; epochs 2 -> 3\)"):
        quick_fit("colorizer", toy, plain_run, base=2, earlier="resume", seed=1, epochs=3)
    with pytest.raises(ValueError, match="method 'colorizer' -> 'classifier'"):
        quick_fit("classifier", toy, plain_run, earlier="resume")


def test_resuming_a_finished_run_changes_nothing(
    quick_fit: Fit, toy: Path, plain_run: Path
) -> None:
    said: list[str] = []
    weights = (plain_run / "final" / "weights.safetensors").read_bytes()
    before = files(plain_run)
    quick_fit("colorizer", toy, plain_run, base=2, earlier="resume", tell=said.append)
    assert any("finished before" in text for text in said)
    assert (plain_run / "final" / "weights.safetensors").read_bytes() == weights
    assert files(plain_run) == before


def test_overwriting_starts_anew(quick_fit: Fit, toy: Path, tmp_path: Path) -> None:
    run = quick_fit("colorizer", toy, tmp_path / "run", base=2, folds=2)
    quick_fit("colorizer", toy, run, base=2, earlier="overwrite")
    assert not (run / "fold-0").exists()
    assert yaml.safe_load((run / "config.yaml").read_text())["folds"] == 0


@pytest.mark.parametrize("earlier", ["refuse", "resume", "overwrite"])
def test_a_folder_that_is_no_run_is_never_touched(
    earlier: str, quick_fit: Fit, toy: Path, tmp_path: Path
) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="is no run folder of leanet"):
        quick_fit("colorizer", toy, tmp_path, earlier=earlier)
    assert files(tmp_path) == {"thesis.txt"}


# --- data ---------------------------------------------------------------------------------------


def test_so_many_positives_are_drawn_with_the_seed(
    quick_fit: Fit, toy: Path, tmp_path: Path
) -> None:
    def drawn(seed: int) -> set[str]:
        run = quick_fit("colorizer", toy, tmp_path / str(seed), base=2, positives=2, seed=seed)
        names = {row["path"] for row in read_csv(run / "samples.csv")}
        assert len({name for name in names if name.startswith("Negative")}) == 18
        return {name for name in names if name.startswith("Positive")}

    sets = [drawn(seed) for seed in range(3)]
    assert all(len(names) == 2 for names in sets)
    assert len({frozenset(names) for names in sets}) > 1
    with pytest.raises(ValueError, match="--positives 7"):
        quick_fit("colorizer", toy, tmp_path / "more", positives=7)


def test_a_given_split_is_kept(quick_fit: Fit, toy: Path, tmp_path: Path) -> None:
    data = mvtec(tmp_path / "data", toy, with_defects=True)
    run = quick_fit("classifier", data, tmp_path / "run")
    assert all(path.startswith("test/") for path in predictions(run, "final", "test"))
    assert len(predictions(run, "final", "test")) == 9
    held = predictions(run, "final", "held_out")
    assert held
    assert all(path.startswith("train/") for path in held)


def test_with_folds_a_given_test_part_stays_for_the_end(
    quick_fit: Fit, toy: Path, tmp_path: Path
) -> None:
    data = mvtec(tmp_path / "data", toy, with_defects=True)
    run = quick_fit("classifier", data, tmp_path / "run", folds=3, epochs=1)
    sides = roles(run)
    in_folds = {path for fold in FOLDS for side in sides[fold].values() for path in side}
    assert all(path.startswith("train/") for path in in_folds)
    assert sides["final"]["test"] == {p for p in files(data) if p.startswith("test/")}


def test_normal_images_alone_train_the_colorizer(quick_fit: Fit, toy: Path, tmp_path: Path) -> None:
    data = mvtec(tmp_path / "data", toy)
    run = quick_fit("colorizer", data, tmp_path / "run", base=2)
    assert len(predictions(run, "final", "test")) == 12


def test_a_training_part_without_defects_is_pooled_for_cross_validation(
    quick_fit: Fit, toy: Path, tmp_path: Path
) -> None:
    data, said = mvtec(tmp_path / "data", toy), list[str]()
    with pytest.raises(ValueError, match=r"12 normal images and no anomalous(.|\n)*--folds"):
        quick_fit("classifier", data, tmp_path / "none")
    run = quick_fit("classifier", data, tmp_path / "run", folds=3, epochs=1, tell=said.append)
    assert any("pooled" in text for text in said)
    tested = {path for fold in FOLDS for path in roles(run)[fold]["test"]}
    assert tested == files(data)


def test_groups_never_straddle_folds(quick_fit: Fit, toy: Path, tmp_path: Path) -> None:
    table = ["path,label,group"]
    for name in sorted(files(toy)):
        if name.startswith(("Negative", "Positive")):
            label, number = name.split("/")[0] == "Positive", name.rsplit("/", 1)[1][:3]
            group = name.rsplit("/", 1)[0] if label else f"leaf {int(number) // 3}"
            table.append(f"{toy / name},{int(label)},{group}")
    (tmp_path / "table.csv").write_text("\n".join(table) + "\n")
    run = quick_fit("colorizer", tmp_path / "table.csv", tmp_path / "run", base=2, folds=3)
    group_of = {row["path"]: row["group"] for row in read_csv(run / "samples.csv")}
    for fold in FOLDS:
        train, test = ({group_of[p] for p in side} for side in roles(run)[fold].values())
        assert not train & test


def damaged(toy: Path, root: Path) -> tuple[Path, list[Path]]:
    data = shutil.copytree(toy, root / "data")
    bad = [data / "Negative" / "good" / "003.png", sorted(data.glob("Positive/*/*.png"))[0]]
    bad[0].write_bytes(bad[0].read_bytes()[:100])
    bad[1].write_text("no picture")
    return data, bad


def test_unreadable_images_are_all_listed(quick_fit: Fit, toy: Path, tmp_path: Path) -> None:
    data, bad = damaged(toy, tmp_path)
    with pytest.raises(ValueError, match=r"2 unreadable.*--skip_bad") as caught:
        quick_fit("colorizer", data, tmp_path / "run")
    assert all(str(path) in str(caught.value) for path in bad)


def test_unreadable_images_are_left_out_when_asked_for(
    quick_fit: Fit, toy: Path, tmp_path: Path
) -> None:
    data, bad = damaged(toy, tmp_path)
    said: list[str] = []
    run = quick_fit("colorizer", data, tmp_path / "run", base=2, skip_bad=True, tell=said.append)
    assert any("left out 2" in text and str(bad[0]) in text for text in said)
    assert len(read_csv(run / "samples.csv")) == 22


def test_images_of_any_size_and_format_train_together(
    quick_fit: Fit, toy: Path, tmp_path: Path
) -> None:
    data = subset(tmp_path / "data", toy, normal=6, anomalous=2)
    picture = read_image(data / "Negative" / "0.png")
    write_image(data / "Negative" / "wide.png", picture[:20])
    write_image(data / "Negative" / "one.bmp", picture)
    run = quick_fit("colorizer", data, tmp_path / "run", base=2)
    assert len(read_csv(run / "samples.csv")) == 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 7}, r"7 folds need(.|\n)*6 anomalous(.|\n)*fewer"),
        ({"folds": 1}, "--folds 1"),
        ({"folds": -1}, "--folds -1"),
        ({"img_size": 100}, "img_size 100.*multiple of 32"),
        ({"device": "tpu"}, "device 'tpu'.*auto, cpu, cuda"),
    ],
)
def test_impossible_options_are_refused_in_two_lines(
    options: dict[str, Any], message: str, quick_fit: Fit, toy: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        quick_fit("classifier", toy, tmp_path / "run", **options)
    assert len(str(caught.value).splitlines()) <= 2


@pytest.mark.parametrize("method", ["classifier", "leanet"])
def test_one_class_only_is_refused(method: str, quick_fit: Fit, toy: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(toy / "Negative", data / "Negative")
    with pytest.raises(ValueError, match=r"colorizer|Positive"):
        quick_fit(method, data, tmp_path / "run")


def test_no_normal_images_are_refused(quick_fit: Fit, toy: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(toy / "Positive", data / "Positive")
    with pytest.raises(ValueError, match="normal"):
        quick_fit("colorizer", data, tmp_path / "run")


def test_the_toy_set_of_another_seed_gives_another_run(
    quick_fit: Fit, toy: Path, plain_run: Path, tmp_path: Path
) -> None:
    data = make_toy(tmp_path / "toy", num_normal=18, num_anomalous=6, size=48, seed=1)
    run = quick_fit("colorizer", data, tmp_path / "run", base=2)
    one, other = (r / "final" / "weights.safetensors" for r in (plain_run, run))
    assert one.read_bytes() != other.read_bytes()


def test_a_mistake_before_anything_was_learned_leaves_no_run_in_the_way(
    toy: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with pytest.raises(ValueError, match="no weight file"):
        leanet.fit("padim", toy, out, backbone="resnet18", weights="missing.safetensors")
    assert not out.exists()
