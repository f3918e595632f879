from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from leanet.cli import main
from leanet.files import read_csv, read_json
from leanet.trained import update_card

JUDGED = ("score", "fused", "adn", "aan", "map")


@pytest.mark.slow
def test_the_file_judges_as_the_run_and_the_card_decides(
    lea_run: Path, toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, images = tmp_path / "run", str(toy / "Positive")
    shutil.copytree(lea_run, run)
    assert main(["export", str(run)]) == 0
    assert "parity: scores differ by at most" in capsys.readouterr().out
    assert main(["export", str(run)]) == 2
    assert "model.onnx is there; use --overwrite" in capsys.readouterr().err
    assert read_json(run / "card.json")["exports"]["onnx"]["parity"]["verdicts"] == 0

    rows = {}
    for engine in ("torch", "onnx"):
        out = tmp_path / engine
        assert main(["predict", str(run), images, "--engine", engine, "--out", str(out)]) == 0
        rows[engine] = read_csv(out / "predictions.csv")
    for got, want in zip(rows["onnx"], rows["torch"], strict=True):
        assert (got["path"], got["verdict"]) == (want["path"], want["verdict"])
        for name in JUDGED:
            assert float(got[name]) == pytest.approx(float(want[name]), abs=1e-3)

    highest = max(float(row["score"]) for row in rows["onnx"])
    update_card(run, threshold={"value": highest + 1})
    out = str(tmp_path / "later")
    assert main(["predict", str(run), images, "--engine", "onnx", "--out", out]) == 0
    later = read_csv(tmp_path / "later" / "predictions.csv")
    assert {row["verdict"] for row in later} == {"normal"}


def test_without_a_run_there_is_nothing_to_export(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(tmp_path)]) == 2
    assert "is no run folder" in capsys.readouterr().err
