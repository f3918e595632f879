from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from leanet.cli import main
from leanet.data.images import write_image
from leanet.files import read_csv


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight training images and one test image each of two classes of noise."""
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for name, level in (("ok", 0), ("stain", 127)):
        for index in range(9):
            part = "test" if index == 8 else "train"
            pixels = rng.integers(level, level + 128, (32, 32, 3), dtype=np.uint8)
            write_image(root / part / name / f"{index}.png", pixels)
    return root


SMALL = [
    *("--img_size", "32", "--steps", "4", "--look-every", "2", "--batch_size", "4"),
    *("--device", "cpu", "--precision", "32-true"),
]


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main([str(word) for word in words]) == 2
    return capsys.readouterr().err


def test_from_images_to_a_generator_to_images(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = tmp_path / "run", tmp_path / "drawn"
    assert main(["fit", "gan", str(data), "--out", str(run), *SMALL]) == 0
    told = capsys.readouterr().out
    assert "learns from 6 ok (and 2 held out), 6 stain (and 2 held out)" in told
    assert f"leanet generate {run}" in told
    command = ["generate", str(run), "--per_class", "3", "--out", str(out), "--device", "cpu"]
    assert main(command) == 0
    assert "final: 6 images; in 16x16 pixel means: KID" in capsys.readouterr().out
    assert len(read_csv(out / "generated.csv")) == 6
    assert "use --overwrite" in refused(capsys, *command)
    assert main([*command, "--overwrite"]) == 0


def test_a_finished_run_is_resumed_and_not_overwritten_by_accident(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["fit", "gan", str(data), "--out", str(tmp_path / "run"), *SMALL]
    assert main(command) == 0
    assert "use --resume" in refused(capsys, *command)
    assert main([*command, "--resume"]) == 0
    assert "final: finished before" in capsys.readouterr().out


def test_a_preset_changes_defaults_and_a_flag_wins(capsys: pytest.CaptureFixture[str]) -> None:
    def printed(*words: str) -> dict[str, object]:
        assert main(["fit", "gan", *words, "--print_config"]) == 0
        found: dict[str, object] = yaml.safe_load(capsys.readouterr().out)
        return found

    medium = printed("--preset", "medium")
    assert (medium["img_size"], medium["width"], medium["steps"]) == (128, 32, 20000)
    assert printed("--preset", "medium", "--steps", "7")["steps"] == 7
    assert printed("--preset", "medium", "--steps", "7")["width"] == 32


def test_a_printed_configuration_can_be_given_and_the_command_line_wins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "gan", "--steps", "5", "--only", "a", "b", "--print_config"]) == 0
    file = tmp_path / "gan.yaml"
    file.write_text(capsys.readouterr().out)
    assert main(["fit", "gan", "--lr", "1", "--config", str(file), "--print_config"]) == 0
    again = yaml.safe_load(capsys.readouterr().out)
    assert (again["steps"], again["only"], again["lr"]) == (5, ["a", "b"], 1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--preset", "huge"], "no preset 'huge'; allowed: tiny, small, medium, large"),
        (["--stps", "3"], "did you mean steps"),
        ([], "which data?"),
        (["--batch_size", "6"], "multiple of 4"),
        (["--resume", "--overwrite", "data"], "give only one"),
        (["--img_size", "48"], "which data?"),
    ],
)
def test_mistakes_are_told(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(capsys, "fit", "gan", *words)


def test_a_side_that_the_networks_have_not_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    message = refused(capsys, "fit", "gan", data, "--out", out, *SMALL, "--img_size", "96")
    assert "(32, 64, 128, 256) px a side, not of 96" in message
    assert not out.exists()


def test_generate_needs_a_run_of_the_gan(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no finished run of `leanet fit gan`" in refused(capsys, "generate", data)
    wrong = refused(capsys, "generate", data, "--per_class", "1")
    assert "at least 2 images" in wrong
