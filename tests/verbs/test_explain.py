from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import leanet
from leanet import api
from leanet.cli import main
from leanet.files import read_json


def explain(lea_run: Path, *words: str | Path) -> int:
    return main(["explain", str(lea_run), *map(str, words), "--device", "cpu"])


@pytest.fixture
def image(toy: Path) -> Path:
    return sorted((toy / "Positive").rglob("*.png"))[0]


def test_options_reach_the_maps(
    lea_run: Path, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--methods", "hires_cam,input_x_grad", "--layer", "point3", "--class", "normal"]
    looks = ["--target", "margin", "--scale", "fixed:2", "--cmap", "jet", "--alpha", "0.4"]
    assert explain(lea_run, image, "--out", tmp_path / "out", *words, *looks) == 0
    facts = read_json(tmp_path / "out" / "cams.json")
    assert (facts["class"], facts["target"], facts["scale"]) == ("normal", "margin", "fixed")
    assert list(facts["images"][0]["maps"]) == [
        "hires_cam-point3", "input_x_grad-image", "input_x_grad-map"]  # fmt: skip
    told = capsys.readouterr()
    assert told.err == ""
    assert "A4: w 1" in told.out
    assert "hires_cam-point3" in told.out
    assert f"1 picture(s) in {tmp_path / 'out' / 'panels'}" in told.out
    assert f"1 picture(s) in {tmp_path / 'out' / 'figures'}" in told.out


def test_layers_are_listed_without_any_image(
    lea_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explain(lea_run, "--list_layers") == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split()[0] == "point3" and "16 px per cell" in line for line in lines)
    assert any(line.startswith("aan.stage3 ") for line in lines)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "paths"),
        (["--layer", "pointt3", "IMAGE"], "nearest names are"),
        (["--methods", "gradcam", "IMAGE"], "did you mean grad_cam"),
        (["--class", "anomalus", "IMAGE"], "did you mean anomalous"),
        (["--head", "aax", "IMAGE"], "head 'aax'"),
        (["--scale", "sideways", "IMAGE"], "scale 'sideways'"),
        (["--masks", "IMAGE", "IMAGE"], "one data set"),
    ],
)
def test_mistakes_are_told_in_plain_words(
    words: list[str],
    told: str,
    lea_run: Path,
    image: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [str(image) if word == "IMAGE" else word for word in words]
    assert explain(lea_run, *given, "--out", tmp_path / "out") == 2
    assert told in capsys.readouterr().err


def test_measuring_takes_a_data_set(
    lea_run: Path,
    toy: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: dict[str, Any] = {}

    def measure_run(explainer: Any, samples: Any, what: Any, **options: Any) -> str:
        asked.update(samples=len(samples), what=what, wanted=explainer.wanted)
        return "a table"

    monkeypatch.setattr(api, "measure_run", measure_run)
    words = ["--faithfulness", "--masks", "--images", "7", "--layer", "point3"]
    assert explain(lea_run, toy, *words) == 0
    assert capsys.readouterr().out == "a table\n"
    assert asked["samples"] == 24
    assert asked["what"] == (True, True, 7)
    assert [one.key for one in asked["wanted"]] == ["grad_cam-point3"]


def test_the_python_function_takes_the_same_options(
    lea_run: Path, image: Path, tmp_path: Path
) -> None:
    (one,) = leanet.explain(
        lea_run, [image], tmp_path / "out", layer="point3", methods="layer_cam", device="cpu"
    )
    assert one.cams is not None
    assert list(one.cams.maps) == ["layer_cam-point3"]
    assert one.points
    with pytest.raises(ValueError, match="unknown option 'layr'"):
        leanet.explain(lea_run, [image], tmp_path / "other", layr="point3")
