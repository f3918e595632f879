"""Phase 1 on the toy set: the tree, its maps, and how runs go on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from leanet.config import UsageError
from leanet.data.images import read_float_map, read_image, read_map
from leanet.files import read_csv, read_json
from leanet.methods.detector_file import read_detector
from leanet.methods.map_catalog import find_map_method
from leanet.programs import phase1 as program
from leanet.programs.flags import Phase1
from leanet.programs.rules import settle_phase1
from leanet.programs.samples import fingerprint
from leanet.programs.trees import MODEL
from leanet.records import NORMAL

Run = Callable[..., list[str]]
KINDS = ("Input", "Reconst", "Anomap", "GT")


def contents(root: Path, leave_out: str = "run.json") -> dict[str, bytes]:
    files = (one for one in sorted(root.rglob("*")) if one.is_file() and one.name != leave_out)
    return {one.relative_to(root).as_posix(): one.read_bytes() for one in files}


def labels(folder: Path, split: str) -> list[int]:
    with np.load(folder / "Label.npz", allow_pickle=False) as arrays:
        return [int(value) for value in arrays[split]]


def stored_maps(folder: Path, split: str, label: int) -> np.ndarray[Any, Any]:
    chosen = [k for k, one in enumerate(labels(folder, split.lower())) if one == label]
    return np.stack([read_map(folder / "Anomap" / split / f"{k:03d}.png", 150.0) for k in chosen])


# --- the tree -----------------------------------------------------------------------------------


def test_the_tree_has_the_names_of_the_original(tree: Path) -> None:
    assert sorted(one.name for one in tree.iterdir()) == ["01", "02", "manifest.csv", "run.json"]
    for name in ("01", "02"):
        folder = tree / name
        assert sorted(one.name for one in folder.iterdir()) == sorted(
            [*KINDS, "Label.npz", "maps.json", "phase1_history.csv", "phase1_model.safetensors"]
        )
        for split, number in (("Train", 12), ("Test", 12)):
            for kind in KINDS:
                files = sorted(one.name for one in (folder / kind / split).iterdir())
                assert files == [f"{k:03d}.png" for k in range(number)]


def test_every_image_tests_once_and_the_manifest_says_which_is_which(tree: Path, toy: Path) -> None:
    rows = read_csv(tree / "manifest.csv")
    tested = [row["path"] for row in rows if row["split"] == "test"]
    assert len(set(tested)) == len(tested) == 24
    for fold in ("01", "02"):
        for split in ("train", "test"):
            told = [row for row in rows if (row["fold"], row["split"]) == (fold, split)]
            assert [int(row["label"]) for row in told] == labels(tree / fold, split)
            assert all(row["label"] == str(int("Positive" in row["path"])) for row in told)
            assert [row["index"] for row in told] == [f"{k:03d}" for k in range(len(told))]
    assert all(row["sha256"] == fingerprint(toy / row["path"]) for row in rows[:5])


def test_gt_is_the_resized_image_in_its_own_colors(tree: Path, toy: Path) -> None:
    row = next(row for row in read_csv(tree / "manifest.csv") if row["split"] == "test")
    shown = read_image(tree / row["fold"] / "GT" / "Test" / f"{row['index']}.png").astype(float)
    original = read_image(toy / row["path"]).astype(float)
    assert shown.shape == (32, 32, 3)
    np.testing.assert_allclose(shown.mean((0, 1)), original.mean((0, 1)), atol=1)


def test_the_stored_model_draws_the_stored_maps(tree: Path) -> None:
    folder = tree / "01"
    model = read_detector(folder, find_map_method, file=MODEL)
    for split in ("Train", "Test"):
        image = torch.from_numpy(read_image(folder / "GT" / split / "003.png")) / 255
        with torch.inference_mode():
            drawn = model(image.permute(2, 0, 1)[None]).map
        assert drawn is not None
        back = read_map(folder / "Anomap" / split / "003.png", 150.0)
        np.testing.assert_allclose(back, drawn[0, 0].numpy(), atol=0.003)


def test_maps_are_scaled_by_the_training_normals_alone(tree: Path) -> None:
    facts = read_json(tree / "01" / "maps.json")
    maps = stored_maps(tree / "01", "Train", NORMAL)
    assert facts["s"] == pytest.approx(np.quantile(maps, 0.999), rel=2e-3)
    assert (facts["metric"], facts["unit"], facts["D"], facts["bits"]) == (
        "ciede2000", "dE00", 150.0, 16,
    )  # fmt: skip
    assert (facts["q"], facts["h"], facts["map_mode"]) == (0.999, 4.0, "in_sample")
    test = np.quantile(stored_maps(tree / "01", "Test", NORMAL), 0.999)
    assert facts["normal_quantile_ratio"] == pytest.approx(test / facts["s"], rel=4e-3)
    assert facts["quantiles"]["train_normal"]["0.999"] == facts["s"]


def test_input_and_reconstruction_are_previews(tree: Path) -> None:
    seen = read_image(tree / "01" / "Input" / "Test" / "000.png").astype(int)
    assert np.ptp(seen, axis=2).max() <= 2  # grey: the lightness
    assert seen.std() > 0
    assert read_image(tree / "01" / "Reconst" / "Test" / "000.png").shape == (32, 32, 3)


def test_the_history_has_the_columns_of_the_original(tree: Path) -> None:
    lines = (tree / "01" / "phase1_history.csv").read_text().splitlines()
    assert lines[0] == ",loss"
    assert lines[1].startswith("0,")
    assert len(lines) == 2


def test_the_run_tells_its_flags_and_versions(tree: Path) -> None:
    record = read_json(tree / "run.json")
    assert record["program"] == "phase1"
    assert (record["flags"]["task"], record["flags"]["seed"]) == ("colorization", 0)
    assert "torch" in record["environment"]["packages"]


# --- repeating, going on, replacing -------------------------------------------------------------


def test_the_same_seed_gives_the_same_bytes_one_fold_at_a_time(
    tree: Path, toy: Path, tmp_path: Path, run_phase1: Run
) -> None:
    run_phase1(toy, tmp_path / "again", fold=(2,))
    again = contents(tmp_path / "again")
    assert not any(name.startswith("01/") for name in again)
    assert "work/cache/images-32.u8" in again  # fold 01 is still to come
    finished = {name: data for name, data in again.items() if not name.startswith("work/")}
    assert finished == {k: v for k, v in contents(tree).items() if not k.startswith("01/")}


def test_an_interrupted_run_goes_on_to_the_same_tree(
    tree: Path, toy: Path, tmp_path: Path, run_phase1: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*given: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(program.trees, "write_labels", killed)
        with pytest.raises(KeyboardInterrupt):
            run_phase1(toy, tmp_path / "out", fold=(1,))
    assert not (tmp_path / "out" / "01" / "maps.json").exists()
    with pytest.raises(UsageError, match="--resume goes on with them"):
        run_phase1(toy, tmp_path / "out", fold=(1,))
    run_phase1(toy, tmp_path / "out", "resume", fold=(1,))
    assert contents(tmp_path / "out" / "01") == contents(tree / "01")


def test_finished_folds_are_left_as_they_are(toy: Path, copied: Path, run_phase1: Run) -> None:
    before = contents(copied)
    told = run_phase1(toy, copied, "resume")
    assert told[-2:] == ["01: finished before", "02: finished before"]
    assert contents(copied) == before


def test_data_that_has_changed_is_noticed(
    toy: Path, tmp_path: Path, copied: Path, run_phase1: Run
) -> None:
    shutil.rmtree(copied / "02")
    changed = Path(shutil.copytree(toy, tmp_path / "changed"))
    (changed / "Negative" / "good" / "000.png").unlink()
    record = (copied / "run.json").read_text().replace(str(toy), str(changed))
    (copied / "run.json").write_text(record)
    with pytest.raises(ValueError, match="the data set is not the one"):
        run_phase1(changed, copied, "resume")


# --- options ------------------------------------------------------------------------------------


def test_the_recipe_is_the_papers_network_with_the_flags_of_the_original() -> None:
    flags = Phase1(
        save_path="out", dataset="in", task="denoise", model="SegNet", loss="L1", monitor="train"
    )
    config = program.recipe(settle_phase1(flags))
    assert (config.task, config.model, config.base) == ("denoise", "segnet", 64)
    assert (config.loss, config.lr, config.epochs, config.batch_size) == ("l1", 1e-4, 100, 16)
    assert (config.monitor, config.val_fraction, config.map_metric) == ("train", 0.0, "l1")


def test_out_of_fold_maps_come_from_models_that_have_not_seen_the_image(
    toy: Path, tmp_path: Path, run_phase1: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[set[int]] = []
    train = program.map_models.map_model

    def spy(config: Any, indices: Sequence[int], data: Any, runtime: Any) -> Any:
        seen.append(set(indices))
        return train(config, indices, data, runtime)

    monkeypatch.setattr(program.map_models, "map_model", spy)
    told = run_phase1(
        toy, tmp_path / "out", fold=(1,), map_mode="out_of_fold", inner_splits=2, task="inpaint",
        map_dtype="float32",
    )  # fmt: skip
    rows = [row for row in read_csv(tmp_path / "out" / "manifest.csv") if row["fold"] == "01"]
    parts = [row["part"] for row in rows if row["split"] == "train"]
    assert sorted(set(parts)) == ["0", "1"]
    assert len(seen) == 2
    assert not seen[0] & seen[1]  # two parts: each model has seen the other one
    facts = read_json(tmp_path / "out" / "01" / "maps.json")
    assert (facts["map_mode"], facts["inner_parts"]) == ("out_of_fold", 2)
    assert (facts["metric"], facts["D"], facts["bits"]) == ("l1", 1.0, 32)
    assert read_float_map(tmp_path / "out" / "01" / "Anomap" / "Test" / "000.tiff").shape == (
        32,
        32,
    )
    assert "out_of_fold maps" in told[-1]


def test_unreadable_images_are_listed_or_left_out(
    toy: Path, tmp_path: Path, run_phase1: Run
) -> None:
    data = Path(shutil.copytree(toy, tmp_path / "data"))
    (data / "Negative" / "good" / "zz.png").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"1 unreadable image\(s\): .*zz.png"):
        run_phase1(data, tmp_path / "out", fold=(1,))
    told = run_phase1(data, tmp_path / "out", skip_bad=True, fold=(1,), earlier="overwrite")
    assert any(line.startswith("left out 1 unreadable image(s)") for line in told)


def test_too_few_images_of_a_class_are_an_error_with_counts(
    toy: Path, tmp_path: Path, run_phase1: Run
) -> None:
    with pytest.raises(ValueError, match=r"10 folds need .* there are 18 normal and 6 anomalous"):
        run_phase1(toy, tmp_path / "out", n_splits=10)


def test_few_training_normals_are_told(toy: Path, tmp_path: Path, run_phase1: Run) -> None:
    told = run_phase1(toy, tmp_path / "out", fold=(1,), monitor="held_out")
    assert any("9 training normals are fewer than 20" in line for line in told)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["AE", "SegNet", "Unet", "UnetRes"])
@pytest.mark.parametrize(
    "task",
    ["colorization", "reconstruction", "denoise", "self-resolution", "rotation", "inpaint"],
)
def test_every_task_runs_with_every_network(
    task: str, model: str, toy: Path, tmp_path: Path, run_phase1: Run
) -> None:
    run_phase1(toy, tmp_path / "out", fold=(1,), task=task, model=model, loss="BCE")
    facts = read_json(tmp_path / "out" / "01" / "maps.json")
    assert facts["s"] > 0
