"""leanet fit with configuration files in sections, and with the words of another program."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from leanet.cli import main
from leanet.verbs.fit_words import own_command

FILE = "method: adfa\npreset: tnvision\ndata: {root: sets, category: bottle}\ntopk: {k: 4}\n"
ORIGINAL = ["--task_type", "anomaly", "--model_type=unsupervised", "--model_name", "adfa"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "bottle.yaml").write_text(FILE)
    return tmp_path / "bottle.yaml"


@pytest.fixture
def effective(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """effective("adfa", ...) -> the options that `fit` would train with."""

    def call(*words: Any) -> dict[str, Any]:
        status = main(["fit", *map(str, words), "--print_config"])
        out, err = capsys.readouterr()
        assert (status, err) == (0, "")
        return dict(yaml.safe_load(out))

    return call


def test_the_preset_fills_the_file_overrides_and_the_command_line_wins(
    file: Path, effective: Callable[..., dict[str, Any]]
) -> None:
    got = effective("adfa", "--epochs=9", "--config", file)
    assert (got["topk"], got["loss"], got["batch_size"]) == ("hard", "cfa", 2)
    assert (got["k"], got["epochs"]) == (4, 9)
    assert effective("adfa", f"--config={file}", "--k", "5")["k"] == 5


def test_a_preset_of_the_command_line_wins_over_the_file(
    file: Path, effective: Callable[..., dict[str, Any]]
) -> None:
    file.write_text(FILE + "loss: {kind: cfa}\nscore: {kind: softmin}\ntrain: {seed: 7}\n")
    got = effective("adfa", "--config", file, "--preset", "default")
    assert (got["topk"], got["loss"], got["score"]) == ("soft", "adfa", "sqrt")
    assert (got["k"], got["seed"]) == (4, 7), "no preset says anything of these"


def test_the_base_of_the_method_has_files_too(
    file: Path, effective: Callable[..., dict[str, Any]]
) -> None:
    file.write_text("method: cfa\nmodel: {gamma_d: 2}\ndata: {resize: 128, crop: none}\n")
    got = effective("cfa", "--config", file)
    assert (got["gamma_d"], got["img_size"], got["crop"], got["topk"]) == (2, 128, "none", "hard")


def test_the_words_of_the_other_program_are_understood(
    file: Path, effective: Callable[..., dict[str, Any]]
) -> None:
    assert own_command([*ORIGINAL, "--yaml_config", "f", "D"]) == ["adfa", "--config=f", "D"]
    assert own_command(["cavga", "D", "--lr=1"]) == ["cavga", "D", "--lr=1"]
    ours = effective("adfa", "--config", file)
    assert effective(*ORIGINAL, "--yaml_config", file) == ours
    assert effective("adfa", *ORIGINAL, f"--yaml_config={file}") == ours


def test_mistakes_end_in_a_line_or_two(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unknown = file.with_name("unknown.yaml")
    unknown.write_text("topk: {kk: 4}\n")
    typed = file.with_name("typed.yaml")
    typed.write_text("topk: {k: four}\n")
    preset = file.with_name("preset.yaml")
    preset.write_text("preset: officiale\ntopk: {k: 3}\n")
    for words, message in {
        ("--task_type", "segmentation"): "allowed: anomaly",
        ("--model_type", "supervised"): "allowed: unsupervised",
        ("--model_name", "cfaa"): "did you mean cfa?",
        ("--yaml_config", str(file)): "--model_name is missing",
        ("--model_name=adfa", "--yaml_config"): "allowed: a file",
        ("cfa", "--model_name=adfa"): "give one of them",
        ("cfa", "--config", str(file), "--preset=default"): "for adfa, not for cfa",
        ("padim", "--config", str(unknown)): "unknown key 'kk' in topk",
        ("adfa", "--config", str(typed)): "--k: expected int",
        ("adfa", "--config", str(preset)): "no preset 'officiale'",
        ("adfa", "--config", str(file)): f"--config {file} DATA",
    }.items():
        assert main(["fit", *words]) == 2, words
        said = capsys.readouterr().err
        assert message in said
        assert len(said.strip().splitlines()) <= 2


def test_data_that_an_importer_makes_are_said_to_be_made_by_it(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text("data: {root: sets, category: busi}\n")
    assert main(["fit", "adfa", "--config", str(file)]) == 2
    made = Path("sets/busi")
    assert f"leanet unpack busi SOURCE --out {made}" in capsys.readouterr().err


def test_notices_are_said_beside_the_result(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("API_KEY: abc\nMODEL: {gamma_d: 1}\nTRAIN: {use_gpu: true}\n")
    assert main(["fit", "adfa", "--config", str(file), "--print_config"]) == 0
    out, err = capsys.readouterr()
    assert yaml.safe_load(out)["score"] == "softmin"
    assert "API_KEY not read" in err
    assert "TRAIN.use_gpu" in err
    assert "abc" not in out + err


def test_a_flat_file_of_another_method_is_refused_as_such_not_by_its_options(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text("coreset: 0.1\nmethod: patchcore\n")
    assert main(["fit", "adfa", "--config", str(file)]) == 2
    assert "is for patchcore, not for adfa" in capsys.readouterr().err
