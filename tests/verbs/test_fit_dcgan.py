from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from leanet.cli import main
from leanet.data.pretraining import leaked
from leanet.data.scan import scan
from leanet.data.toy import make_toy
from leanet.networks import dcgan

CPU = ("--device", "cpu", "--precision", "32-true")


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main([str(word) for word in words]) == 2
    return capsys.readouterr().err


def test_from_a_folder_to_weights_that_know_what_they_have_seen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dcgan, "CHANNELS", (4, 8, 16, 32))
    data = make_toy(tmp_path / "toy", num_normal=6, num_anomalous=2, size=32)
    run = tmp_path / "run"
    command = ["fit", "dcgan", str(data), "--out", str(run), "--limit", "4", "--epochs", "1", *CPU]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "learns from 4 of 8 images on cpu" in told
    assert f"leanet fit cavga DATA --variant D_u --dcgan_weights {run}" in told
    assert leaked(run, scan(data).samples) == 4
    assert "use --resume" in refused(capsys, *command)
    assert main([*command, "--resume"]) == 0
    assert "finished before" in capsys.readouterr().out


def test_the_usage_names_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--help"]) == 0
    assert "gan, dcgan" in capsys.readouterr().out


def test_the_preset_is_there_and_a_flag_wins(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fit", "dcgan", "--preset", "dcgan64", "--epochs", "3", "--print_config"]
    assert main(words) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert (printed["epochs"], printed["batch_size"], printed["lr"]) == (3, 128, 2e-4)


def test_a_printed_configuration_can_be_given_and_the_command_line_wins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "dcgan", "--limit", "500", "--lr", "0.1", "--print_config"]) == 0
    file = tmp_path / "dcgan.yaml"
    file.write_text(capsys.readouterr().out)
    assert main(["fit", "dcgan", "--lr", "1", "--config", str(file), "--print_config"]) == 0
    again = yaml.safe_load(capsys.readouterr().out)
    assert (again["limit"], again["lr"]) == (500, 1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--preset", "huge"], "no preset 'huge'; allowed: dcgan64"),
        (["--epoch", "3"], "did you mean epochs"),
        ([], "which images?"),
        (["--batch_size", "1"], "2 images per batch"),
        (["--resume", "--overwrite", "data"], "give only one"),
        (["nowhere"], "does not exist"),
    ],
)
def test_mistakes_are_told(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(capsys, "fit", "dcgan", *words)
