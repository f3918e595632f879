"""The command line: every verb end to end, and every mistake in a line or two."""

from __future__ import annotations

import csv
import errno
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from leanet.cli import VERBS, main
from leanet.files import read_csv

Call = Callable[..., tuple[int, str, str]]
QUICK = [
    "--img_size=32",
    "--device=cpu",
    "--precision=32-true",
    "--epochs=1",
    "--adn=timm/mobilenetv3_small_050",
]
LEA = [*QUICK, "--aan=mobilenet", "--map_model.epochs=1", "--map_model.base=4"]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """call("scan", path) -> (exit status, standard output, standard error)."""

    def run(*words: str | Path) -> tuple[int, str, str]:
        try:
            status = main([str(word) for word in words])
        except SystemExit as error:  # --help
            status = int(error.code or 0)
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.fixture
def refused(call: Call) -> Callable[..., str]:
    """refused(words) -> the message, after checking that it is one: status 2, a line or two."""

    def run(*words: str | Path) -> str:
        status, _, err = call(*words)
        assert status == 2, err
        assert err.startswith("leanet: ")
        assert "Traceback" not in err
        assert len(err.strip().splitlines()) <= 2, err
        return err

    return run


def printed(call: Call, *words: Any) -> str:
    status, out, err = call(*words)
    assert status == 0, err
    return out


# --- help ---------------------------------------------------------------------------------------


def test_help_lists_every_verb(call: Call) -> None:
    out = printed(call, "--help")
    for verb in ("demo", "scan", "fit", "predict", "evaluate", "report"):
        assert f"\n  {verb} " in out
    assert out == printed(call, "-h")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str, call: Call) -> None:
    out = printed(call, verb, "--help")
    assert f"usage: leanet {verb}" in out


@pytest.mark.parametrize("method", ["colorizer", "classifier", "leanet"])
def test_the_help_of_a_method_explains_every_option(method: str, call: Call) -> None:
    out = printed(call, "fit", method, "--help")
    for flag in ("--folds", "--img_size", "--resume", "--overwrite", "--config", "--print_config",
                 "--preset", "--epochs", "--lr"):  # fmt: skip
        assert flag in out
    assert ("--map_model.epochs" in out) == (method == "leanet")


def test_the_version_is_printed(call: Call) -> None:
    assert printed(call, "--version").startswith("leanet 0.")


def test_nothing_at_all_prints_the_help_with_status_2(call: Call) -> None:
    status, out, _ = call()
    assert status == 2
    assert "usage: leanet VERB" in out


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "leanet", "fits"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.strip().startswith("leanet: unknown verb 'fits' (did you mean fit?)")
    assert done.stdout == ""


# --- mistakes -----------------------------------------------------------------------------------


def test_an_unknown_verb_names_the_nearest(refused: Callable[..., str]) -> None:
    assert "unknown verb 'predct' (did you mean predict?)" in refused("predct", "x")


def test_an_unknown_method_names_the_nearest(refused: Callable[..., str], toy: Path) -> None:
    assert "'colorize' (did you mean colorizer?)" in refused("fit", "colorize", toy)


@pytest.mark.parametrize(
    ("flag", "hint"),
    [("--epoch=3", "epochs"), ("--img-sise", "img_size"), ("--map_model.epoch=3", "map_model")],
)
def test_an_unknown_option_names_the_nearest(
    flag: str, hint: str, refused: Callable[..., str], toy: Path
) -> None:
    message = refused("fit", "leanet", toy, flag)
    assert "unknown option" in message
    assert f"did you mean {hint}" in message


def test_an_unknown_option_of_another_verb_is_refused(
    refused: Callable[..., str], toy: Path
) -> None:
    assert "normal" in refused("scan", toy, "--norml=good")


@pytest.mark.parametrize(
    ("flag", "allowed"),
    [("--epochs=many", "int"), ("--lr=fast", "float"), ("--balance=some", "batches"),
     ("--map_model.loss=hinge", "mse"), ("--learn_strength=perhaps", "bool")],
)  # fmt: skip
def test_a_value_of_the_wrong_type_is_refused(
    flag: str, allowed: str, refused: Callable[..., str], toy: Path
) -> None:
    message = refused("fit", "leanet", toy, flag)
    assert flag.partition("=")[0] in message
    assert flag.partition("=")[2] in message
    assert allowed in message


def test_a_missing_folder_names_the_nearest_sibling(refused: Callable[..., str], toy: Path) -> None:
    wrong = toy.with_name("tou")
    for words in (("fit", "leanet", wrong), ("scan", wrong)):
        message = refused(*words)
        assert str(wrong) in message
        assert "did you mean toy?" in message


def test_without_data_fit_says_how_to_give_it(refused: Callable[..., str]) -> None:
    assert "leanet fit colorizer DATA" in refused("fit", "colorizer")


def test_an_unknown_layout_is_refused_with_the_known_ones(
    refused: Callable[..., str], toy: Path, tmp_path: Path
) -> None:
    for file in toy.glob("Negative/*/*.png"):
        shutil.copy(file, tmp_path)
    message = refused("fit", "leanet", tmp_path)
    assert "none of the known layouts" in message
    assert "Positive/" in message


def test_one_class_only_is_refused(refused: Callable[..., str], toy: Path, tmp_path: Path) -> None:
    shutil.copytree(toy / "Negative", tmp_path / "data" / "Negative")
    message = refused("fit", "leanet", tmp_path / "data", "--out", tmp_path / "run")
    assert "18 normal and 0 anomalous" in message


def test_no_normal_images_are_refused(
    refused: Callable[..., str], toy: Path, tmp_path: Path
) -> None:
    shutil.copytree(toy / "Positive", tmp_path / "data" / "Positive")
    for method in ("colorizer", "leanet"):
        message = refused("fit", method, tmp_path / "data", f"--out={tmp_path / method}")
        assert "normal" in message


def test_corrupt_images_are_all_listed(
    refused: Callable[..., str], toy: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(toy, tmp_path / "data")
    bad = sorted(data.glob("Negative/good/*.png"))[3:7]
    for file in bad:
        file.write_bytes(b"GIF89a")
    message = refused("fit", "colorizer", data, "--out", tmp_path / "run", *QUICK[:3])
    assert all(str(file) in message for file in bad)
    assert "--skip_bad" in message


def test_more_folds_than_images_are_refused(
    refused: Callable[..., str], toy: Path, tmp_path: Path
) -> None:
    message = refused("fit", "colorizer", toy, "--folds=9", "--out", tmp_path / "r", *QUICK[:3])
    assert "9 folds" in message
    assert "6 anomalous" in message


@pytest.mark.parametrize("verb", ["predict", "evaluate", "report"])
def test_a_run_that_is_not_there_or_not_finished_is_refused(
    verb: str, refused: Callable[..., str], toy: Path, tmp_path: Path
) -> None:
    words = [] if verb == "report" else [toy]
    assert "is no run folder" in refused(verb, tmp_path, *words)
    (tmp_path / "config.yaml").write_text("method: leanet\n")
    message = refused(verb, tmp_path, *words)
    assert "not finished" in message
    assert "--resume" in message


def test_images_that_are_not_there_are_refused(
    refused: Callable[..., str], lea_run: Path, toy: Path, tmp_path: Path
) -> None:
    message = refused("predict", lea_run, toy / "Negativ", "--out", tmp_path, "--device=cpu")
    assert "did you mean Negative?" in message


def test_a_missing_configuration_file_is_refused(
    refused: Callable[..., str], toy: Path, tmp_path: Path
) -> None:
    assert "none.yaml" in refused("fit", "leanet", toy, "--config", tmp_path / "none.yaml")


def test_an_unknown_key_in_a_configuration_file_names_the_nearest(
    refused: Callable[..., str], toy: Path, tmp_path: Path
) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("epoch: 3\n")
    assert "did you mean epochs?" in refused("fit", "leanet", toy, "--config", file)


def test_an_unknown_preset_is_refused_with_the_known_ones(
    refused: Callable[..., str], toy: Path
) -> None:
    assert "allowed: paper" in refused("fit", "leanet", toy, "--preset=original")


def test_resuming_and_overwriting_at_once_is_refused(
    refused: Callable[..., str], toy: Path, tmp_path: Path
) -> None:
    message = refused("fit", "colorizer", toy, "--out", tmp_path, "--resume", "--overwrite")
    assert "only one" in message


# --- configuration ------------------------------------------------------------------------------


def effective(call: Call, *words: Any) -> dict[str, object]:
    loaded = yaml.safe_load(printed(call, "fit", *words, "--print_config"))
    assert isinstance(loaded, dict)
    return loaded


def test_a_method_has_defaults_of_its_own_for_a_run_and_its_own_backbone(call: Call) -> None:
    words = ("fit", "adfa", "--print_config", "--backbone=resnet18")
    loaded = yaml.safe_load(printed(call, *words))
    assert (loaded["img_size"], loaded["backbone"]) == (256, "resnet18")
    again = yaml.safe_load(printed(call, *words, "--img_size", "64", "--preset", "tnvision"))
    assert (again["img_size"], again["backbone"], again["topk"]) == (64, "resnet18", "hard")


def test_dashes_are_underscores(call: Call) -> None:
    first = effective(call, "leanet", "--img-size=64", "--map-model.batch-size", "5")
    assert first == effective(call, "leanet", "--img_size=64", "--map_model.batch_size", "5")
    assert first["img_size"] == 64
    assert first["map_model"]["batch_size"] == 5  # type: ignore[index]


def test_normal_class_is_normal(call: Call) -> None:
    for word in ("--normal_class=3", "--normal-class=3", "--normal=3"):
        assert effective(call, "colorizer", word)["normal"] == "3"


@pytest.mark.parametrize("method", ["colorizer", "classifier", "leanet"])
def test_the_printed_configuration_fed_back_gives_the_same(
    method: str, call: Call, tmp_path: Path
) -> None:
    words = ["--folds=4", "--lr=0.5", "--positives=3", "--preset=paper"]
    text = printed(call, "fit", method, *words, "--print_config")
    file = tmp_path / "c.yaml"
    file.write_text(text)
    assert printed(call, "fit", method, "--config", file, "--print_config") == text
    assert yaml.safe_load(text)["folds"] == 4


def test_the_command_line_wins_over_the_file(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("epochs: 7\nlr: 0.5\nmap_model:\n  epochs: 8\nattention_points: [1, 2]\n")
    for words in (["--config", file, "--epochs=9"], ["--epochs=9", "--config", file]):
        got = effective(call, "leanet", *words)
        assert (got["epochs"], got["lr"], got["attention_points"]) == (9, 0.5, [1, 2])
        assert got["map_model"]["epochs"] == 8  # type: ignore[index]


def test_the_paper_preset_changes_defaults_and_an_explicit_flag_wins(call: Call) -> None:
    plain, paper = effective(call, "leanet"), effective(call, "leanet", "--preset=paper")
    assert (plain["decide"], paper["decide"]) == ("auto", "adn")
    assert (plain["map_mode"], paper["map_mode"]) == ("out_of_fold", "in_sample")
    assert paper["map_model"]["base"] == 64  # type: ignore[index]
    words = ["--preset", "paper", "--lr=0.25", "--map_model.base=16"]
    mixed = effective(call, "leanet", *words)
    assert mixed["lr"] == 0.25
    assert mixed["map_model"] == {**paper["map_model"], "base": 16}  # type: ignore[dict-item]
    assert mixed["decide"] == "adn"


def test_a_file_wins_over_the_preset(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("decide: aan\n")
    got = effective(call, "leanet", "--preset=paper", "--config", file)
    assert (got["decide"], got["map_mode"]) == ("aan", "in_sample")


def test_a_preset_in_a_file_is_refused_rather_than_ignored(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("preset: paper\n")
    assert "preset" in refused("fit", "leanet", "--config", file, "--print_config")


def test_lists_and_switches_are_read(call: Call) -> None:
    words = ["--attention_points", "0", "2", "--learn_strength", "--skip_bad=false"]
    got = effective(call, "leanet", *words, "--mean", "0.5", "0.4", "0.3", "--normal=fine")
    assert got["attention_points"] == [0, 2]
    assert (got["learn_strength"], got["skip_bad"]) == (True, False)
    assert got["mean"] == [0.5, 0.4, 0.3]
    assert got["normal"] == "fine"


def test_no_attention_points_can_be_asked_for(call: Call, tmp_path: Path) -> None:
    assert effective(call, "leanet", "--attention_points")["attention_points"] == []


def test_the_configuration_of_a_run_can_be_given_again(
    call: Call, lea_run: Path, tmp_path: Path
) -> None:
    kept = yaml.safe_load((lea_run / "config.yaml").read_text())
    got = effective(call, "leanet", "--config", lea_run / "config.yaml")
    assert got == {key: value for key, value in kept.items() if key not in ("method", "data")}


def test_the_configuration_of_another_method_is_refused(
    refused: Callable[..., str], lea_run: Path, toy: Path
) -> None:
    assert refused("fit", "colorizer", toy, "--config", lea_run / "config.yaml")


# --- end to end ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run made by the command line, with its report."""
    out = tmp_path_factory.mktemp("cli") / "run"
    assert main(["fit", "leanet", str(toy), f"--out={out}", "--folds=3", *LEA]) == 0
    return out


def test_fit_writes_the_report_and_repeats_itself_with_the_kept_configuration(
    run: Path, call: Call, tmp_path: Path
) -> None:
    assert "<html" in (run / "report.html").read_text()[:500]
    again = tmp_path / "again"
    out = printed(call, "fit", "leanet", f"--config={run / 'config.yaml'}", f"--out={again}")
    assert f"report: {again / 'report.html'}" in out
    assert "fold-2" in out
    for name in ("results.csv", "config.yaml", "final/weights.safetensors"):
        assert (again / name).read_bytes() == (run / name).read_bytes()


def test_fit_refuses_to_run_over_an_earlier_run(
    run: Path, refused: Callable[..., str], toy: Path
) -> None:
    message = refused("fit", "leanet", toy, f"--out={run}", "--folds=3", *LEA)
    assert "--resume" in message
    assert "--overwrite" in message


def test_resuming_a_finished_run_says_so(run: Path, call: Call, toy: Path) -> None:
    out = printed(call, "fit", "leanet", toy, f"--out={run}", "--folds=3", *LEA, "--resume")
    assert out.count("finished before") == 4


def scores(folder: Path) -> dict[str, float]:
    return {Path(row["path"]).name: float(row["score"])
            for row in read_csv(folder / "predictions.csv")}  # fmt: skip


def test_predict_gives_every_image_a_score_a_verdict_and_a_picture(
    run: Path, call: Call, toy: Path, tmp_path: Path
) -> None:
    folder = toy / "Negative" / "good"
    words = ["--device=cpu", "--batch-size=5", "--maps"]
    out = printed(call, "predict", run, folder, "--out", tmp_path / "p", *words)
    assert "18 images" in out
    rows = read_csv(tmp_path / "p" / "predictions.csv")
    threshold = json.loads((run / "card.json").read_text())["threshold"]["value"]
    for row in rows:
        assert float(row["threshold"]) == threshold
        alarm = float(row["score"]) >= threshold
        assert row["verdict"] == ("anomalous" if alarm else "normal")
    for kind in ("heatmaps", "maps"):
        names = {file.name for file in (tmp_path / "p" / kind).glob("*.png")}
        assert names == {file.name for file in folder.iterdir()}


def test_predict_gives_the_same_score_alone_and_in_a_batch(
    run: Path, call: Call, toy: Path, tmp_path: Path
) -> None:
    files = sorted(toy.glob("Negative/good/*.png"))[:5]
    words = ["--device=cpu", "--no-heatmaps"]
    printed(call, "predict", run, *files, "--out", tmp_path / "all", *words)
    together = scores(tmp_path / "all")
    for file in files[:3]:
        out = tmp_path / file.stem
        printed(call, "predict", run, file, "--out", out, *words)
        assert scores(out)[file.name] == pytest.approx(together[file.name], abs=1e-5)
    printed(call, "predict", run, *files, "--out", tmp_path / "ones", *words, "--batch_size=1")
    assert scores(tmp_path / "ones") == pytest.approx(together, abs=1e-5)


def test_predict_does_not_need_the_rest_of_the_run(
    run: Path, call: Call, toy: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    (moved / "final").mkdir(parents=True)
    for name in ("config.yaml", "card.json", "final/weights.safetensors"):
        shutil.copy(run / name, moved / name)
    words = [toy / "Negative", "--device=cpu", "--no_heatmaps"]
    printed(call, "predict", run, *words, "--out", tmp_path / "a")
    printed(call, "predict", moved, *words, "--out", tmp_path / "b")
    assert scores(tmp_path / "a") == scores(tmp_path / "b")


def test_predict_refuses_earlier_results_and_lists_bad_images(
    run: Path, call: Call, refused: Callable[..., str], toy: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(toy / "Negative", tmp_path / "images")
    (folder / "good" / "002.png").write_text("no picture")
    words = ["predict", run, folder, "--out", tmp_path / "p", "--device=cpu", "--no_heatmaps"]
    message = refused(*words)
    assert "002.png" in message
    printed(call, *words, "--skip_bad")
    rows = read_csv(tmp_path / "p" / "predictions.csv")
    assert [row["verdict"] for row in rows if row["path"].endswith("002.png")] == ["unreadable"]
    assert "--overwrite" in refused(*words, "--skip_bad")
    printed(call, *words, "--skip_bad", "--overwrite")


def test_evaluate_writes_figures_of_images_and_pixels(
    run: Path, call: Call, toy: Path, tmp_path: Path
) -> None:
    out = printed(call, "evaluate", run, toy, "--out", tmp_path / "e", "--device=cpu")
    assert "AUROC" in out
    figures = json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert {"score", "adn", "aan", "map"} <= figures["image"].keys()
    assert figures["pixel"]["num_images"] == 24
    with (tmp_path / "e" / "predictions.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 24


def test_evaluate_is_transductive_on_request_and_says_so(
    run: Path, call: Call, refused: Callable[..., str], toy: Path, tmp_path: Path
) -> None:
    words = ["evaluate", run, toy, "--out", tmp_path / "e", "--device=cpu", "--transductive"]
    assert "ends of this very test set" in printed(call, *words)
    assert json.loads((tmp_path / "e" / "metrics.json").read_text())["transductive"]
    with (tmp_path / "e" / "predictions.csv").open() as file:
        scaled = [float(row["transductive"]) for row in csv.DictReader(file)]
    assert (min(scaled), max(scaled)) == (0.0, 1.0)
    assert "leave out --transductive" in refused(*words, "--detection_curve")


def test_report_compares_two_runs(run: Path, call: Call, lea_run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / "report.html").unlink()
    out = printed(call, "report", copy, "--baseline", lea_run)
    assert out.strip() == str(copy / "report.html")
    assert (copy / "report.html").stat().st_size > 10_000


def test_scan_says_what_it_sees(call: Call, toy: Path) -> None:
    out = printed(call, "scan", toy)
    assert "positive-negative" in out
    assert "48x48 (24)" in out


def test_the_default_run_folder_is_named_after_data_and_method(
    call: Call, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--img_size=32", "--epochs=1", "--base=2", "--device=cpu", "--precision=32-true"]
    printed(call, "fit", "colorizer", toy, *words)
    assert (tmp_path / "runs" / "toy-colorizer" / "card.json").exists()


def test_the_data_of_the_command_line_wins_over_those_of_the_file(
    call: Call, refused: Callable[..., str], lea_run: Path, tmp_path: Path
) -> None:
    for words in (["--config", lea_run / "config.yaml", tmp_path / "none"],
                  [tmp_path / "none", "--config", lea_run / "config.yaml"]):  # fmt: skip
        assert str(tmp_path / "none") in refused("fit", "leanet", *words)


def test_control_c_prints_one_line(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(argv: list[str]) -> None:
        raise KeyboardInterrupt

    for verb, message in (("scan", "stopped"), ("fit", "stopped; the same command with --resume")):
        monkeypatch.setitem(VERBS, verb, VERBS[verb]._replace(run=interrupted))
        status, _, err = call(verb, "x")
        assert status == 130
        assert err.strip().startswith(f"leanet: {message}")
        assert len(err.strip().splitlines()) == 1


def test_a_full_disk_ends_in_one_line(
    refused: Callable[..., str], toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*place: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    words = ("--img_size=32", "--device=cpu", "--out", tmp_path / "run")
    assert "No space left on device" in refused("fit", "colorizer", toy, *words)
